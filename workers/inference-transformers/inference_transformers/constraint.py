"""Grammars and JSON schemas, compiled by llguidance into masks over the vocabulary."""

import json
from typing import Any, List, Mapping, Optional

from .problems import TaskInputError

#: Between tokens of JSON; without a bound a small model may write blanks for ever.
_JSON_BLANK = r"[ \n\t]{0,20}"


class Compiler:
    """Compiles constraints for one tokenizer and model; safe to use from any thread."""

    def __init__(self, tokenizer: Any, vocabulary: int, ends: List[int]) -> None:
        """Raises ``parameter_unsupported`` for a tokenizer that llguidance cannot use."""
        size = max(vocabulary, len(tokenizer))
        try:
            from llguidance.hf import from_tokenizer

            self._tokenizer = from_tokenizer(tokenizer, n_vocab=size, eos_token=ends, slices=None)
        except (ImportError, ValueError) as error:
            message = f"json_schema and grammar are not possible here: {error}"
            fields = ["json_schema", "grammar"]
            raise TaskInputError("parameter_unsupported", message, fields) from error

    def compile(
        self, json_schema: Optional[Mapping[str, Any]], grammar: Optional[str]
    ) -> "Constraint":
        """Raises ``grammar_invalid`` naming the field and what is wrong with it."""
        from llguidance import LLMatcher, grammar_from

        field = "json_schema" if grammar is None else "grammar"
        try:
            if grammar is None:
                options = {"whitespace_flexible": True, "whitespace_pattern": _JSON_BLANK}
                schema = json.dumps({**(json_schema or {}), "x-guidance": options})
                compiled = LLMatcher.grammar_from_json_schema(schema)
            else:
                compiled = grammar_from("gbnf", grammar)
            matcher = LLMatcher(self._tokenizer, compiled, log_level=0)
            wrong = LLMatcher.validate_grammar(compiled, self._tokenizer) or matcher.get_error()
        except Exception as error:  # it has no class of its own for a bad grammar
            raise TaskInputError("grammar_invalid", f"{field}: {error}", [field]) from error
        if wrong:
            raise TaskInputError("grammar_invalid", f"{field}: {wrong}", [field])
        return Constraint(matcher)


class Constraint:
    """Where one text stands in its grammar."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def allowed(self, vocabulary: int, device: Any) -> Any:
        """Tokens that may come next: booleans of shape (vocabulary,)."""
        import torch

        packed = bytearray(self._matcher.compute_bitmask())
        bits = torch.frombuffer(packed, dtype=torch.uint8).to(device)
        spread = torch.arange(8, dtype=torch.uint8, device=device)
        flags = ((bits.unsqueeze(1) >> spread) & 1).flatten().bool()
        if flags.numel() < vocabulary:
            flags = torch.nn.functional.pad(flags, (0, vocabulary - flags.numel()))
        return flags[:vocabulary]

    def accept(self, token: int) -> bool:
        """Takes a token; True when nothing may follow it."""
        if not self._matcher.consume_token(token):
            raise RuntimeError(f"the grammar refused token {token}: {self._matcher.get_error()}")
        return bool(self._matcher.is_stopped())

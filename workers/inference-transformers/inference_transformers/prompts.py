"""From texts and conversations to token ids."""

import re
import threading
from typing import Any, Dict, List, Optional, Sequence

from .fields import Message
from .problems import TaskInputError

#: Put inside whatever in a message looks like a special token; no text holds a noncharacter.
_BREAK = "\ufdd0"


class Prompts:
    """The tokenizer of one model; safe to use from any thread."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # Encoding sets options on the tokenizer that all threads share.
        self._lock = threading.Lock()
        self._special: Dict[str, int] = {
            str(token): number for number, token in tokenizer.added_tokens_decoder.items()
        }
        names = sorted(self._special, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, names))) if names else None

    def encode(self, text: str) -> List[int]:
        """A prompt as it is: what looks like a special token is text."""
        return self._encode(text, add_special_tokens=True, split_special_tokens=True)

    def _encode(self, text: str, **options: Any) -> List[int]:
        with self._lock:
            ids: List[int] = self._tokenizer(text, **options).input_ids
        return ids

    def chat(self, messages: Sequence[Message]) -> List[int]:
        """A conversation by the model's template, up to where the assistant begins.

        Special tokens come from the template only, never from what a message says. Raises
        ``chat_template_missing``, or ``CAPABILITY_INPUT`` for what the template refuses.
        """
        if not self._tokenizer.chat_template:
            message = "the model has no chat template; use generate"
            raise TaskInputError("chat_template_missing", message, ["messages"])
        broken = [{"role": m.role, "content": self._broken(m.content)} for m in messages]
        try:
            text = self._tokenizer.apply_chat_template(
                broken, add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # templates raise what they like
            message = f"the chat template refuses these messages: {error}"
            raise TaskInputError("parameter_unsupported", message, ["messages"]) from error
        if _BREAK not in text:
            return self._encode(text, add_special_tokens=False)
        return self._encode_parts(text)

    def _broken(self, content: str) -> str:
        content = content.replace(_BREAK, "")
        if self._pattern is None:
            return content
        return self._pattern.sub(lambda found: found[0][0] + _BREAK + found[0][1:], content)

    def _encode_parts(self, text: str) -> List[int]:
        """Special tokens one by one, and what stands between them as text."""
        ids: List[int] = []
        place = 0
        for found in self._pattern.finditer(text) if self._pattern else ():
            ids += self._encode_text(text[place : found.start()])
            ids.append(self._special[found[0]])
            place = found.end()
        return ids + self._encode_text(text[place:])

    def _encode_text(self, text: str) -> List[int]:
        plain = text.replace(_BREAK, "")
        if not plain:
            return []
        return self._encode(plain, add_special_tokens=False, split_special_tokens=True)

    def fit(
        self, ids: List[int], room: int, overflow: str, wanted: Optional[int]
    ) -> "tuple[List[int], int]":
        """The prompt that fits into ``room`` tokens, and how many of its oldest were dropped.

        A beginning-of-text token stays. Raises ``context_overflow`` where that is the policy, or
        where no prompt would be left.
        """
        if len(ids) <= room:
            return ids, 0
        kept_head = 1 if ids[0] == self._tokenizer.bos_token_id else 0
        if overflow == "refuse" or room <= kept_head:
            message = (
                f"the prompt has {len(ids)} tokens, {max(room, 0)} fit beside max_tokens {wanted}"
            )
            raise TaskInputError("context_overflow", message, ["prompt", "max_tokens"])
        dropped = len(ids) - room
        return ids[:kept_head] + ids[kept_head + dropped :], dropped

"""Which tokens of a row are learned, exact to the byte.

For a template without ``{% generation %}`` blocks the place of every assistant turn is found by
rendering: once as it is, once with a mark before and once with a mark after every turn. A marked
text must equal the plain one when the marks are taken out, so a template that changes what it is
given can not move a span unnoticed.
"""

import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from cjm_worker import CapabilityInputError

from .dataset import BadRow, Chat, Completion, Message, Row

#: Private-use characters, which no template looks for.
_MARK = "\ue0c7\uf2a1\ue0c7"
_THINKING_END = "</think>"

Span = Tuple[int, int]


@dataclass(frozen=True)
class Sample:
    """A tokenised row: ``taught[i]`` says whether token ``i`` is learned."""

    line: int
    ids: List[int]
    taught: List[bool]

    @property
    def supervised(self) -> int:
        """Learned tokens; the first one has nothing to be predicted from."""
        return sum(self.taught[1:])


class Encoder:
    """Turns rows into samples with one tokenizer and one chat template."""

    def __init__(self, tokenizer: Any, template: Optional[str], loss_on: str) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise CapabilityInputError(
                "the model's tokenizer tells no character offsets; save it as a tokenizer.json",
                fields_invalid=["model"],
            )
        self._tokenizer = tokenizer
        self._loss_on = loss_on
        self._template = template or getattr(tokenizer, "chat_template", None)
        self._adds_bos = tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
        special = sorted(set(tokenizer.all_special_tokens), key=len, reverse=True)
        names = "|".join(map(re.escape, special)) or "(?!)"
        self._turn_end = re.compile(rf"\s*(?:{names})")

    def encode(self, row: Row) -> Sample:
        """Raises BadRow when the row can not be rendered or an answer not be found in it."""
        if isinstance(row.content, Completion):
            return self._encode_completion(row.line, row.content)
        text, spans = self.render_chat(row.content)
        ids, offsets = self._tokens(text)
        if self._loss_on == "all":
            spans = [(0, len(text))]
        return Sample(row.line, ids, _overlaps(offsets, spans))

    def prompt_of(self, row: Row) -> Tuple[List[int], str]:
        """What a model is asked to answer, as tokens, and the answer the row gives."""
        if isinstance(row.content, Completion):
            ids, _ = self._tokens(row.content.prompt)
            return self._bos() + ids, row.content.completion
        messages = row.content.messages
        last = max(i for i, item in enumerate(messages) if item["role"] == "assistant")
        text = self._render(messages[:last], add_generation_prompt=True)
        return self._tokens(text)[0], messages[last]["content"]

    def _encode_completion(self, line: int, content: Completion) -> Sample:
        text = content.prompt + content.completion
        ids, offsets = self._tokens(text)
        first = 0 if self._loss_on == "all" else len(content.prompt)
        taught = _overlaps(offsets, [(first, len(text))])
        start = self._bos()
        end = [] if self._tokenizer.eos_token_id is None else [self._tokenizer.eos_token_id]
        return Sample(
            line, [*start, *ids, *end], [*([False] * len(start)), *taught, *([True] * len(end))]
        )

    def _bos(self) -> List[int]:
        return [self._tokenizer.bos_token_id] if self._adds_bos else []

    def _tokens(self, text: str) -> Tuple[List[int], List[Span]]:
        encoded = self._tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return encoded["input_ids"], encoded["offset_mapping"]

    def render_chat(self, chat: Chat) -> Tuple[str, List[Span]]:
        """The text of a conversation and the spans of the turns that are taught."""
        if self._template is None:
            raise CapabilityInputError(
                "the tokenizer has no chat template; give one as settings.chat_template",
                fields_invalid=["settings.chat_template"],
            )
        if re.search(r"\{%-?\s*generation\s*-?%\}", self._template):
            text, spans = self._generation_blocks(chat.messages)
        else:
            text = self._render(chat.messages)
            spans = self._find_turns(chat.messages, text)
        turns = [i for i, item in enumerate(chat.messages) if item["role"] == "assistant"]
        if len(spans) != len(turns):
            raise BadRow(f"its template shows {len(spans)} of {len(turns)} assistant messages")
        taught = [span for turn, span in zip(turns, spans) if turn >= chat.first_taught]
        return text, taught[-1:] if self._loss_on == "completion" else taught

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    chat_template=self._template,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                )
            )
        except Exception as error:  # a template raises whatever it likes
            raise BadRow(f"its chat template says: {error}") from error

    def _generation_blocks(self, messages: List[Message]) -> Tuple[str, List[Span]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            texts, spans = render_jinja_template(
                conversations=[messages],
                chat_template=self._template,
                return_assistant_tokens_mask=True,
                **self._tokenizer.special_tokens_map,
            )
        except Exception as error:
            raise BadRow(f"its chat template says: {error}") from error
        return texts[0], [(start, end) for start, end in spans[0]]

    def _find_turns(self, messages: List[Message], text: str) -> List[Span]:
        ends = self._marked(messages, text, _END_MARKS)
        if ends is None:
            raise BadRow(
                "its chat template changes the answers, so their place can not be found; mark it "
                "with {% generation %} in settings.chat_template"
            )
        starts = self._marked(messages, text, _START_MARKS)
        turns = [i for i, item in enumerate(messages) if item["role"] == "assistant"]
        spans: List[Span] = []
        for number, (turn, end) in enumerate(zip(turns, ends)):
            marked = None if starts is None else starts[number]
            start = self._turn_start(messages[:turn], text, marked)
            tail = self._turn_end.match(text, end)
            # The token that ends a turn is learned with it, or the model would never stop.
            spans.append((start, tail.end() if tail else end))
        return spans

    def _turn_start(self, before: List[Message], text: str, marked: Optional[int]) -> int:
        """Where the model takes over: the end of the prompt it will be given, where that fits."""
        prompt = self._prompt(before)
        if prompt is not None and text.startswith(prompt):
            between = text[len(prompt) : marked]
            opens_turn = prompt != self._prompt(before, add_generation_prompt=False)
            if opens_turn or (marked is not None and not between.strip()):
                return len(prompt)
        if marked is None:
            raise BadRow(
                "the start of an answer can not be found in its chat template; mark it with "
                "{% generation %} in settings.chat_template"
            )
        return marked

    def _prompt(self, messages: List[Message], add_generation_prompt: bool = True) -> Optional[str]:
        try:
            return self._render(messages, add_generation_prompt) if messages else None
        except BadRow:  # some templates refuse a conversation that begins like this
            return None

    def _marked(
        self, messages: List[Message], text: str, variants: "Sequence[Callable[[str], str]]"
    ) -> Optional[List[int]]:
        """Where the marks of all assistant turns are; None when no variant leaves the text."""
        for mark in variants:
            marked = [
                {**item, "content": mark(item["content"])} if item["role"] == "assistant" else item
                for item in messages
            ]
            try:
                pieces = self._render(marked).split(_MARK)
            except BadRow:
                continue
            expected = sum(item["role"] == "assistant" for item in messages) + 1
            if len(pieces) == expected and "".join(pieces) == text:
                places, position = [], 0
                for piece in pieces[:-1]:
                    position += len(piece)
                    places.append(position)
                return places
        return None


def _after_thinking(content: str) -> str:
    """The mark where the answer proper begins, for templates that cut the reasoning off."""
    thinking, end, answer = content.rpartition(_THINKING_END)
    return f"{thinking}{end}{_MARK}{answer.lstrip()}"


# Templates that trim do not see past a mark, so what they would trim is taken off before it.
_END_MARKS: "Sequence[Callable[[str], str]]" = (
    lambda content: content + _MARK,
    lambda content: content.rstrip() + _MARK,
)
_START_MARKS: "Sequence[Callable[[str], str]]" = (
    lambda content: _MARK + content,
    lambda content: _MARK + content.lstrip(),
    _after_thinking,
)


def _overlaps(offsets: Sequence[Span], spans: Sequence[Span]) -> List[bool]:
    """A token that holds any byte of a span is part of it: the model has to produce it whole."""
    taught = [False] * len(offsets)
    remaining = list(spans)
    for index, (start, end) in enumerate(offsets):
        while remaining and remaining[0][1] <= start:
            remaining.pop(0)
        if not remaining:
            break
        taught[index] = end > remaining[0][0] and end > start
    return taught


def length_histogram(lengths: Sequence[int]) -> Dict[str, int]:
    """Rows by length, in buckets that double: ``{"≤64": 3, "≤128": 1}``."""
    buckets: Dict[int, int] = {}
    for length in lengths:
        limit = 16
        while limit < length:
            limit *= 2
        buckets[limit] = buckets.get(limit, 0) + 1
    return {f"≤{limit}": buckets[limit] for limit in sorted(buckets)}

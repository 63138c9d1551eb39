"""From tokens to text as they come, and the texts that end it."""

from typing import Any, List, Optional, Sequence, Tuple

#: What an incomplete UTF-8 sequence decodes to.
_PARTIAL = "\ufffd"


class TextDecoder:
    """Decodes one token at a time; never gives half a character away.

    Tokens are decoded together with some before them, since a tokenizer may write a token
    differently at the start of a text; as in vLLM's incremental detokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: List[int] = []
        self._before = 0
        self._read = 0

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def add(self, token: int) -> str:
        """The text that this token completes; often all of it, sometimes none."""
        self._ids.append(token)
        known = self._decode(self._ids[self._before : self._read])
        text = self._decode(self._ids[self._before :])
        if len(text) <= len(known) or text.endswith(_PARTIAL):
            return ""
        self._before, self._read = self._read, len(self._ids)
        return text[len(known) :]

    def end(self) -> str:
        """What was held back for a character that never came."""
        known = self._decode(self._ids[self._before : self._read])
        return self._decode(self._ids[self._before :])[len(known) :]


class StopScanner:
    """Holds back text that may be the beginning of a stop text, across token borders."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""

    def add(self, text: str) -> Tuple[str, Optional[str]]:
        """Text that is certain, and the stop text that was reached."""
        if not self._stops:
            return text, None
        self._held += text
        found = [(self._held.find(stop), stop) for stop in self._stops if stop in self._held]
        if found:
            # Where two begin at one place, the longer one is what the caller meant.
            place, stop = min(found, key=lambda item: (item[0], -len(item[1])))
            certain, self._held = self._held[:place], ""
            return certain, stop
        keep = max(self._overlap(stop) for stop in self._stops)
        certain = self._held[: len(self._held) - keep]
        self._held = self._held[len(certain) :]
        return certain, None

    def end(self) -> str:
        """What was held back for a stop text that never came."""
        held, self._held = self._held, ""
        return held

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the text that ``stop`` begins with."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if stop.startswith(self._held[-n:])), 0)

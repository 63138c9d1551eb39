"""Text from tokens: whole characters, and stops wherever the borders of tokens are."""

from typing import Any, List, Optional, Tuple

import pytest


def pieces(parts: List[str], stops: List[str]) -> Tuple[str, Optional[str]]:
    from inference_transformers.text import StopScanner

    scanner = StopScanner(stops)
    text = ""
    for part in parts:
        certain, stop = scanner.add(part)
        text += certain
        if stop is not None:
            return text, stop
    return text + scanner.end(), None


@pytest.mark.parametrize(
    ("parts", "stops", "text", "stop"),
    [
        (["a", "b", "c"], ["x"], "abc", None),
        (["on", "e t", "wo"], ["e two"], "on", "e two"),
        (["aab", "aac", "x"], ["aabaac"], "", "aabaac"),
        (["aabaabaac"], ["aabaac"], "aab", "aabaac"),
        (["ab", "ab", "a"], ["abx"], "ababa", None),
        (["hello wor", "ld"], ["world", "lo w"], "hel", "lo w"),
        (["stopper"], ["stop", "stopper"], "", "stopper"),
        (["\n", "\n", "\nx"], ["\n\n\n"], "", "\n\n\n"),
    ],
)
def test_a_stop_is_found_across_borders_and_never_given_away(
    parts: List[str], stops: List[str], text: str, stop: Optional[str]
) -> None:
    assert pieces(parts, stops) == (text, stop)


def test_decoding_token_by_token_gives_the_whole_text(tiny: Any) -> None:
    from inference_transformers.text import TextDecoder
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny["base"])
    text = "Ça va \U0001f642\U0001f468‍\U0001f469‍\U0001f467 日本語 naïve — fin"
    decoder = TextDecoder(tokenizer)
    parts = [decoder.add(token) for token in tokenizer(text, add_special_tokens=False).input_ids]
    assert "".join(parts) + decoder.end() == text
    assert not any("\ufffd" in part for part in parts)


def test_a_character_that_never_ends_is_not_lost(tiny: Any) -> None:
    from inference_transformers.text import TextDecoder
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny["base"])
    decoder = TextDecoder(tokenizer)
    ids = tokenizer("a\U0001f642", add_special_tokens=False).input_ids[:-1]
    assert "".join(decoder.add(token) for token in ids) == "a"
    assert decoder.end() == "\ufffd"

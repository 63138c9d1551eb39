"""The learned tokens are the answers and their ends, and nothing else."""

from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
from templates import TEMPLATES, Template, conversations
from tiny import CHATML, make_tokenizer


def bytes_of(tokenizer: Any, ids: List[int]) -> List[bytes]:
    """Every token's bytes, from the alphabet of byte-level tokenizers and not from offsets."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters: Dict[str, int] = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if byte not in printable]
    letters.update({chr(256 + index): byte for index, byte in enumerate(hidden)})
    special = set(tokenizer.all_special_ids)
    found: List[bytes] = []
    for token, number in zip(tokenizer.convert_ids_to_tokens(ids), ids):
        raw = token.encode() if number in special else bytes(letters[letter] for letter in token)
        found.append(raw)
    return found


def scan(text: bytes, template: Template) -> List[Tuple[int, int]]:
    """Byte ranges from behind each header to the end of the turn."""
    spans, position = [], 0
    header, end = template.header.encode(), template.end.encode()
    while (start := text.find(header, position)) >= 0:
        start += len(header)
        stop = text.index(end, start) + len(end)
        spans.append((start, stop))
        position = stop
    return spans


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_masks_equal_a_scan_for_markers(name: str, tmp_path: Path) -> None:
    from qlora_trainer.dataset import Chat, Row
    from qlora_trainer.masks import Encoder

    template = TEMPLATES[name]
    tokenizer = make_tokenizer(tmp_path, template.source, template.special)
    encoder = Encoder(tokenizer, None, "assistant")
    compared = 0
    for messages in conversations(template.system):
        sample = encoder.encode(Row(1, Chat(messages)))
        assert sample.ids == tokenizer.apply_chat_template(messages, return_dict=False)
        pieces = bytes_of(tokenizer, sample.ids)
        spans = scan(b"".join(pieces), template)
        assert len(spans) == sum(message["role"] == "assistant" for message in messages)
        position, expected = 0, []
        for piece in pieces:
            stop = position + len(piece)
            expected.append(any(position < high and stop > low for low, high in spans))
            position = stop
        assert sample.taught == expected, (name, messages)
        compared += len(expected)
    assert compared > 300


def test_only_the_last_turn_or_everything_can_be_learned(tmp_path: Path) -> None:
    from qlora_trainer.dataset import Chat, Row
    from qlora_trainer.masks import Encoder

    tokenizer = make_tokenizer(tmp_path)
    row = Row(1, Chat(conversations(True)[1]))
    last = Encoder(tokenizer, None, "completion").encode(row)
    everything = Encoder(tokenizer, None, "all").encode(row)
    learned = [token for token, on in zip(last.ids, last.taught) if on]
    assert tokenizer.decode(learned) == "three\nlines\nof it<|im_end|>"
    assert all(everything.taught)


def test_a_prompt_is_not_learned_and_the_end_is(tmp_path: Path) -> None:
    from qlora_trainer.dataset import Completion, Row
    from qlora_trainer.masks import Encoder

    tokenizer = make_tokenizer(tmp_path, "")
    sample = Encoder(tokenizer, None, "assistant").encode(Row(1, Completion("2 + 2 = ", "4 é")))
    learned = [token for token, on in zip(sample.ids, sample.taught) if on]
    assert tokenizer.decode(learned) == "4 é</s>"


def test_a_template_that_rewrites_answers_is_refused(tmp_path: Path) -> None:
    from qlora_trainer.dataset import BadRow, Chat, Row
    from qlora_trainer.masks import Encoder

    cutting = CHATML.replace("message['content'] }}", "message['content'][:5] }}")
    tokenizer = make_tokenizer(tmp_path, cutting)
    with pytest.raises(BadRow, match="mark it with"):
        Encoder(tokenizer, None, "assistant").encode(Row(1, Chat(conversations(True)[1])))

"""Messages that the tests of the TypeScript SDK read too."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import golden

from cjm_worker import CapabilityError, DirRef, FileRef
from cjm_worker.bounds import check_bounds, parse_json
from cjm_worker.cache_paths import cache_dir_for_config
from cjm_worker.calls import Envelope
from cjm_worker.canonical import canonical_json, hash_canonical
from cjm_worker.control import encode_frame
from cjm_worker.schema import schema_of, to_plain
from cjm_worker.validate import find_problems


@pytest.mark.parametrize("frame", golden("frames")["valid"], ids=lambda frame: frame["type"])
def test_frames_are_written_as_one_line_each(frame: Any) -> None:
    line = encode_frame(frame)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert json.loads(line) == {key: value for key, value in frame.items() if value is not None}


@pytest.mark.parametrize("each", golden("envelopes"), ids=lambda each: each["title"])
def test_envelopes_mean_the_same(each: Any) -> None:
    envelope = to_plain(Envelope.from_wire(each["wire"]))
    assert {key: value for key, value in envelope.items() if value is not None} == each["means"]


@pytest.mark.parametrize("each", golden("canonical"), ids=lambda each: each["json"][:40])
def test_values_have_one_canonical_text(each: Any) -> None:
    value = parse_json(each["json"].encode("utf-8"))
    assert canonical_json(value) == each["canonical"]
    assert hash_canonical(value) == each["sha256"]


@pytest.mark.parametrize("each", golden("bodies"), ids=lambda each: each["title"])
def test_bodies_are_bounded(each: Any) -> None:
    text = each["start"][0] * each["start"][1] + each["more"][0] * each["more"][1]
    body = (text + each.get("end", "")).encode()
    if each["fits"]:
        check_bounds(body)
        return
    with pytest.raises(CapabilityError) as caught:
        check_bounds(body)
    assert caught.value.code == "REQUEST_TOO_LARGE"


def test_references_are_read() -> None:
    refs = golden("refs")
    for ref in refs["valid"]:
        cls = FileRef if ref["__wire__"] == "file.ref" else DirRef
        assert find_problems(ref, schema_of(cls)) == []
        assert to_plain(cls.from_dict(ref["data"])) == ref


def test_references_that_are_none_are_refused() -> None:
    for ref in golden("refs")["invalid"]:
        cls = FileRef if ref["__wire__"] == "file.ref" else DirRef
        assert find_problems(ref, schema_of(cls)) != []


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8"))
    return path


def test_content_has_one_hash(tmp_path: Path) -> None:
    refs = golden("refs")
    for index, each in enumerate(refs["files"]):
        ref = FileRef.of(write(tmp_path / str(index), each["content"]))
        assert (ref.size, ref.sha256) == (each["size"], each["sha256"])
    for index, each in enumerate(refs["folders"]):
        folder = tmp_path / f"d{index}"
        for name, content in each["contents"].items():
            write(folder / name, content)
        data = to_plain(DirRef.of(folder))["data"]
        assert data == {"path": str(folder), "files": each["files"], "sha256": each["sha256"]}


def test_inputs_have_one_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPABILITY_DATA_DIR", str(tmp_path))
    vectors = golden("cache-paths")
    for each in vectors["identifiers"]:
        found = cache_dir_for_config(
            "/data",
            each["input"],
            each["action"],
            each["config"],
            create=False,
            hash_input_content=False,
        )
        assert os.fspath(found) == each["folder"]
    for each in vectors["files"]:
        path = write(tmp_path / each["name"], each["content"])
        found = cache_dir_for_config("/data", path, each["action"], each["config"], create=False)
        assert os.fspath(found) == each["folder"]

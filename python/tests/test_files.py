"""References to files and folders, and the folders for cached outputs."""

import os
import sqlite3
from pathlib import Path

import pytest

from cjm_worker import CapabilityError, DirRef, FileRef
from cjm_worker.cache_paths import (
    cache_dir_for_config,
    default_stat_cache,
    hash_input,
    list_cache_entries,
    prune_cache_for_input,
)


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setenv("CAPABILITY_DATA_DIR", str(folder))
    return folder


def old_file(path: Path, content: str, seconds: int = 1_000_000) -> Path:
    path.write_text(content)
    os.utime(path, (seconds, seconds))
    return path


def invalid(run: object) -> None:
    with pytest.raises(CapabilityError) as caught:
        run()  # type: ignore[operator]
    assert caught.value.code == "FILE_INVALID"


def test_only_regular_files_are_referenced(tmp_path: Path) -> None:
    target = old_file(tmp_path / "a.txt", "a")
    link = tmp_path / "link"
    link.symlink_to(target)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (link, pipe, tmp_path):
        invalid(lambda: FileRef.of(path))
    invalid(lambda: DirRef.of(tmp_path))
    invalid(lambda: DirRef.of(target))
    with pytest.raises(FileNotFoundError):
        FileRef.of(tmp_path / "missing")


def test_a_name_with_a_line_break_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a\nb").write_text("x")
    invalid(lambda: DirRef.of(tmp_path))


def test_a_reference_notices_that_its_file_changed(tmp_path: Path) -> None:
    path = old_file(tmp_path / "a.txt", "one")
    ref = FileRef.of(path)
    ref.verify()
    assert ref.read_bytes() == b"one"
    path.write_text("two")
    invalid(ref.verify)
    path.write_text("three")
    invalid(ref.verify)


def test_another_content_or_config_is_another_folder(tmp_path: Path) -> None:
    path = old_file(tmp_path / "in.txt", "one")
    first = cache_dir_for_config(tmp_path, path, "run", {"a": 1})
    assert first.is_dir()
    assert cache_dir_for_config(tmp_path, path, "run", {"a": 1.0}) == first
    second = cache_dir_for_config(tmp_path, path, "run", {"a": 2})
    old_file(path, "two", 2_000_000)
    third = cache_dir_for_config(tmp_path, path, "run", {"a": 1})
    assert len({first, second, third}) == 3
    assert list_cache_entries(tmp_path, path, "run") == sorted([first, second, third])


def test_pruning_keeps_what_it_is_told_to(tmp_path: Path) -> None:
    path = old_file(tmp_path / "in.txt", "one")
    folders = sorted(cache_dir_for_config(tmp_path, path, "run", {"a": i}) for i in range(3))
    (folders[0] / "out").write_text("x")
    doomed = prune_cache_for_input(tmp_path, path, "run", keep={folders[1]}, dry_run=True)
    assert doomed == [folders[0], folders[2]] and folders[0].exists()
    assert prune_cache_for_input(tmp_path, path, "run", keep={folders[1]}) == doomed
    assert list_cache_entries(tmp_path, path, "run") == [folders[1]]
    assert list_cache_entries(tmp_path, path, "other") == []


def test_a_missing_input_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cache_dir_for_config(tmp_path, tmp_path / "missing", "run", {})


@pytest.mark.parametrize("action", ["", "..", "a/b", ".", "a b"])
def test_an_action_that_is_no_name_of_a_folder_is_refused(tmp_path: Path, action: str) -> None:
    with pytest.raises(ValueError, match="no name of a folder"):
        cache_dir_for_config(tmp_path, "x", action, {}, hash_input_content=False)


def test_the_hash_of_a_settled_file_is_remembered(tmp_path: Path) -> None:
    path = old_file(tmp_path / "in.txt", "one")
    first = hash_input(path)
    old_file(path, "two")  # the same size and time: only the memory answers
    assert hash_input(path) == first
    assert hash_input(path, skip_cache=True) != first


def test_the_hash_of_a_fresh_file_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("one")
    hash_input(path)
    with sqlite3.connect(default_stat_cache()) as database:
        assert database.execute("SELECT count(*) FROM input_hash_cache").fetchone() == (0,)


def test_a_broken_memory_is_no_error(tmp_path: Path, data_folder: Path) -> None:
    data_folder.mkdir()
    (data_folder / "input_hash_cache.db").write_text("not a database at all" * 100)
    path = old_file(tmp_path / "in.txt", "one")
    assert hash_input(path) == hash_input(path, skip_cache=True)

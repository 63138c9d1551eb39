"""Folders for outputs, one per (input content, configuration).

``<data folder>/<action>/<stem of the input>/<input hash>_<config hash>/``: the same input, action
and configuration always give the same folder, here and in the TypeScript SDK; any change to the
content or the configuration gives another one.
"""

import logging
import os
import re
import shutil
import time
from pathlib import Path
from typing import AbstractSet, Any, Callable, List, Mapping, Optional, TypeVar, Union

from .canonical import hash_canonical, sha256
from .files import hash_file

PathLike = Union[str, "os.PathLike[str]"]

_MAX_STEM = 100
#: Characters that at least one common file system refuses.
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
_NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")
#: A file changed this recently may change again without a new time stamp.
_SETTLE_NS = 2_000_000_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS input_hash_cache (
    path TEXT NOT NULL, mtime_ns INTEGER NOT NULL, size INTEGER NOT NULL,
    content_hash TEXT NOT NULL,
    PRIMARY KEY (path, mtime_ns, size))
"""
_FIND = "SELECT content_hash FROM input_hash_cache WHERE path = ? AND mtime_ns = ? AND size = ?"
_KEEP = "INSERT OR REPLACE INTO input_hash_cache VALUES (?, ?, ?, ?)"

T = TypeVar("T")
_log = logging.getLogger("cjm_worker.cache_paths")


def sanitize_stem(input_path: PathLike) -> str:
    """The input's name without its last suffix, fit for a folder; ``_`` when nothing is left."""
    parts = [part for part in os.fspath(input_path).split("/") if part not in ("", ".")]
    name = parts[-1] if parts else ""
    dot = name.rfind(".")
    stem = name[:dot] if 0 < dot < len(name) - 1 else name
    return _UNSAFE.sub("_", stem).strip(". \t")[:_MAX_STEM] or "_"


def default_stat_cache() -> Path:
    """The database that remembers hashes of inputs: in the capability's folder, else in ``~``."""
    folder = os.environ.get("CAPABILITY_DATA_DIR")
    return (Path(folder) if folder else Path.home() / ".cjm") / "input_hash_cache.db"


def _with_cache(path: Path, use: Callable[[Any], T]) -> Optional[T]:
    """What ``use`` makes of the database; `None`, with a warning in the log, when it fails."""
    try:
        import sqlite3  # not every interpreter is built with it

        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(str(path), timeout=5.0)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(_SCHEMA)
            result = use(connection)
            connection.commit()
            return result
        finally:
            connection.close()
    except Exception as error:
        _log.warning("the cache of input hashes %s failed: %s", path, error)
        return None


def hash_input(
    input_path: PathLike, cache_path: Optional[PathLike] = None, *, skip_cache: bool = False
) -> str:
    """``sha256:<hex>`` of a file, remembered by path, modification time and size.

    The memory is an optimisation: where its database fails, the file is read. Raises OSError when
    the file cannot be read.
    """
    path = os.path.realpath(input_path)
    status = os.stat(path)
    if skip_cache:
        return hash_file(path)
    key = (path, status.st_mtime_ns, status.st_size)
    database = Path(cache_path) if cache_path is not None else default_stat_cache()
    known = _with_cache(database, lambda cache: cache.execute(_FIND, key).fetchone())
    if known is not None:
        return str(known[0])
    content_hash = hash_file(path)
    if time.time_ns() - status.st_mtime_ns > _SETTLE_NS:
        _with_cache(database, lambda cache: cache.execute(_KEEP, (*key, content_hash)))
    return content_hash


def _parent(data_dir: PathLike, input_path: PathLike, action: str) -> Path:
    if not _NAME.match(action) or action in (".", ".."):
        raise ValueError(f"action {action!r} is no name of a folder")
    return Path(data_dir) / action / sanitize_stem(input_path)


def cache_dir_for_config(
    capability_data_dir: PathLike,
    input_path: PathLike,
    action: str,
    config: Mapping[str, Any],
    *,
    input_hash_length: int = 6,
    config_hash_length: int = 12,
    create: bool = True,
    hash_input_content: bool = True,
    skip_input_cache: bool = False,
) -> Path:
    """The folder for what ``action`` makes of this input under this configuration.

    ``hash_input_content=False`` is for inputs that are no files, such as a URL: their text is
    hashed. Raises FileNotFoundError for a missing input, OSError when the folder cannot be made.
    """
    if hash_input_content:
        input_hash = hash_input(input_path, skip_cache=skip_input_cache)
    else:
        input_hash = sha256(os.fspath(input_path))
    input_hex = input_hash.partition(":")[2][:input_hash_length]
    config_hex = hash_canonical(dict(config)).partition(":")[2][:config_hash_length]
    folder = _parent(capability_data_dir, input_path, action) / f"{input_hex}_{config_hex}"
    if create:
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def list_cache_entries(
    capability_data_dir: PathLike, input_path: PathLike, action: str
) -> List[Path]:
    """Every folder kept for this input and action, sorted; empty when there is none."""
    parent = _parent(capability_data_dir, input_path, action)
    if not parent.is_dir():
        return []
    return sorted(entry for entry in parent.iterdir() if entry.is_dir())


def prune_cache_for_input(
    capability_data_dir: PathLike,
    input_path: PathLike,
    action: str,
    *,
    keep: AbstractSet[Path] = frozenset(),
    dry_run: bool = False,
) -> List[Path]:
    """Deletes the folders kept for this input and action but those in ``keep``.

    Returns what was deleted, or with ``dry_run`` what would be.
    """
    entries = list_cache_entries(capability_data_dir, input_path, action)
    doomed = [entry for entry in entries if entry not in keep]
    if not dry_run:
        for entry in doomed:
            shutil.rmtree(entry)
    return doomed

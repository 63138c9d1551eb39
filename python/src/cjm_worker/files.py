"""Files and folders by content: a hash first; the path is where this machine has them."""

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from .canonical import sha256
from .errors import CapabilityError
from .wire import wire_type

PathLike = Union[str, "os.PathLike[str]"]
_CHUNK_BYTES = 1024 * 1024


def hash_file(path: PathLike) -> str:
    """``sha256:<hex>`` of a file's content, read in pieces. Raises OSError."""
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _sync(path: PathLike) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: PathLike) -> None:
    # Some file systems refuse to sync a folder; the file itself is safe all the same.
    with contextlib.suppress(OSError):
        _sync(path)


def _regular_size(path: PathLike) -> int:
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise CapabilityError(f"{os.fspath(path)} is not a regular file", code="FILE_INVALID")
    return status.st_size


@wire_type("file.ref")
@dataclass(frozen=True)
class FileRef:
    """A file that crosses the boundary by reference."""

    path: str
    size: int
    sha256: str
    media_type: Optional[str] = None

    @classmethod
    def of(cls, path: PathLike, media_type: Optional[str] = None) -> "FileRef":
        """A reference to a file that is on disk for good when this returns.

        Raises ``FILE_INVALID`` for anything but a regular file, OSError when it cannot be read.
        """
        where = os.path.abspath(path)
        size = _regular_size(where)
        _sync(where)
        _sync_folder(os.path.dirname(where))
        return cls(where, size, hash_file(where), media_type)

    def verify(self) -> None:
        """Raises ``FILE_INVALID`` when the content is not what the reference says."""
        if _regular_size(self.path) != self.size or hash_file(self.path) != self.sha256:
            raise CapabilityError(f"{self.path} is not {self.sha256}", code="FILE_INVALID")

    def read_bytes(self) -> bytes:
        """The whole content."""
        with open(self.path, "rb") as file:
            return file.read()

    def to_dict(self) -> Dict[str, Any]:
        data = {"path": self.path, "size": self.size, "sha256": self.sha256}
        return data if self.media_type is None else {**data, "media_type": self.media_type}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "FileRef":
        return cls(data["path"], data["size"], data["sha256"], data.get("media_type"))


@dataclass(frozen=True)
class DirEntry:
    """One file of a folder; the name is relative, with ``/`` between its parts."""

    name: str
    size: int
    sha256: str


@wire_type("dir.ref")
@dataclass(frozen=True)
class DirRef:
    """A folder of regular files that crosses the boundary by reference."""

    path: str
    sha256: str
    files: List[DirEntry]

    @classmethod
    def of(cls, path: PathLike) -> "DirRef":
        """A reference to everything in a folder, on disk for good when this returns.

        Empty folders do not count. Raises ``FILE_INVALID`` for links and other special files.
        """
        root = os.path.abspath(path)
        entries: List[DirEntry] = []
        for folder, name in _walk(root):
            where = os.path.join(root, folder, name)
            size = _regular_size(where)
            _sync(where)
            relative = f"{folder}/{name}" if folder else name
            entries.append(DirEntry(relative, size, hash_file(where)))
        entries.sort(key=lambda entry: _utf16(entry.name))
        _sync_folder(root)
        return cls(root, hash_entries(entries), entries)

    def to_dict(self) -> Dict[str, Any]:
        return {"path": self.path, "sha256": self.sha256, "files": self.files}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "DirRef":
        entries = [DirEntry(item["name"], item["size"], item["sha256"]) for item in data["files"]]
        return cls(data["path"], data["sha256"], entries)


def _walk(root: str) -> List[Tuple[str, str]]:
    found: List[Tuple[str, str]] = []
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(root, folder)) as items:
            for item in items:
                if item.is_dir(follow_symlinks=False):
                    pending.append(f"{folder}/{item.name}" if folder else item.name)
                else:
                    found.append((folder, item.name))
        if folder:
            _sync_folder(os.path.join(root, folder))
    return found


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")


def hash_entries(entries: List[DirEntry]) -> str:
    """Hash of the sorted lines ``<sha256> <size> <name>``, each ended by a newline."""
    lines = sorted((f"{e.sha256} {e.size} {e.name}\n" for e in entries), key=_utf16)
    return sha256("".join(lines))

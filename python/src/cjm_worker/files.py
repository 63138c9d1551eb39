"""Files and folders by content: a hash first; the path is where this machine has them."""

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from typing import IO, Annotated, Any, Dict, Iterator, List, Mapping, Optional, Tuple, Union

from .canonical import sha256
from .errors import CapabilityError
from .wire import wire_type

PathLike = Union[str, "os.PathLike[str]"]
_CHUNK_BYTES = 1024 * 1024
_Size = Annotated[int, {"minimum": 0}]
_Sha256 = Annotated[str, {"pattern": "^sha256:[0-9a-f]{64}$"}]


def hash_file(path: PathLike) -> str:
    """``sha256:<hex>`` of a file's content, read in pieces. Raises OSError."""
    with open(path, "rb") as file:
        return _hash_open(file)


def _hash_open(file: IO[bytes]) -> str:
    import hashlib  # loads OpenSSL, which an idle worker does not need

    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _invalid(path: PathLike, what: str) -> CapabilityError:
    return CapabilityError(f"{os.fspath(path)} {what}", code="FILE_INVALID")


def _open_regular(path: PathLike) -> IO[bytes]:
    try:
        # Neither follow a link nor wait for the writer of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _invalid(path, "is a link or a socket") from error
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    raise _invalid(path, "is not a regular file")


def _content(path: PathLike) -> Tuple[int, str]:
    """Size and hash of a file whose bytes are on disk when this returns."""
    with _open_regular(path) as file:
        before = os.fstat(file.fileno())
        digest = _hash_open(file)
        os.fsync(file.fileno())
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _invalid(path, "changed while it was read")
    return after.st_size, digest


def _sync_folder(path: PathLike) -> None:
    # Some file systems refuse to sync a folder; the content is safe all the same.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@wire_type("file.ref")
@dataclass(frozen=True)
class FileRef:
    """A file that crosses the boundary by reference."""

    path: str
    size: _Size
    sha256: _Sha256
    media_type: Optional[str] = None

    @classmethod
    def of(cls, path: PathLike, media_type: Optional[str] = None) -> "FileRef":
        """A reference to a file that is on disk for good when this returns.

        The file must not change any more; what a call returns belongs into ``call.output_folder``.
        Raises ``FILE_INVALID`` for a link, for anything but a regular file and for a file that
        changes while it is read, OSError when it cannot be read.
        """
        where = os.path.abspath(path)
        size, digest = _content(where)
        _sync_folder(os.path.dirname(where))
        return cls(where, size, digest, media_type)

    def verify(self) -> None:
        """Raises ``FILE_INVALID`` when the content is not what the reference says."""
        with _open_regular(self.path) as file:
            same_size = os.fstat(file.fileno()).st_size == self.size
            if not same_size or _hash_open(file) != self.sha256:
                raise _invalid(self.path, f"is not {self.sha256}")

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
    size: _Size
    sha256: _Sha256


@wire_type("dir.ref")
@dataclass(frozen=True)
class DirRef:
    """A folder of regular files that crosses the boundary by reference."""

    path: str
    sha256: _Sha256
    files: List[DirEntry]

    @classmethod
    def of(cls, path: PathLike) -> "DirRef":
        """A reference to everything in a folder, on disk for good when this returns.

        Empty folders do not count; ``files`` is sorted by name. Raises ``FILE_INVALID`` as
        :meth:`FileRef.of`, and for a name with a line break.
        """
        root = os.path.abspath(path)
        if not stat.S_ISDIR(os.lstat(root).st_mode):
            raise _invalid(root, "is not a folder")
        names = sorted(_files_below(root), key=_utf16)
        entries = [DirEntry(name, *_content(os.path.join(root, name))) for name in names]
        for folder in {os.path.dirname(name) for name in names} | {""}:
            _sync_folder(os.path.join(root, folder))
        return cls(root, hash_entries(entries), entries)

    def to_dict(self) -> Dict[str, Any]:
        return {"path": self.path, "sha256": self.sha256, "files": self.files}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "DirRef":
        entries = [DirEntry(item["name"], item["size"], item["sha256"]) for item in data["files"]]
        return cls(data["path"], data["sha256"], entries)


def _files_below(root: str, prefix: str = "") -> Iterator[str]:
    with os.scandir(os.path.join(root, prefix)) as items:
        for item in items:
            name = prefix + item.name
            if "\n" in name or "\r" in name:
                raise _invalid(os.path.join(root, name), "has a line break in its name")
            if item.is_dir(follow_symlinks=False):
                yield from _files_below(root, f"{name}/")
            else:
                yield name


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")


def hash_entries(entries: List[DirEntry]) -> str:
    """Hash of the sorted lines ``<sha256> <size> <name>``, each ended by a newline."""
    lines = sorted((f"{e.sha256} {e.size} {e.name}\n" for e in entries), key=_utf16)
    return sha256("".join(lines))

"""Adapters by their id in the registry that worker ``adapter-registry`` keeps; only read."""

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Optional

from .problems import TaskInputError

#: What marks the registry's database, and the schema that is read here.
_APPLICATION_ID = 0x434A4D52
_SCHEMA_VERSION = 1
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


class Registered(NamedTuple):
    """An adapter as a registry has it; whether its files are still that is not looked at here."""

    path: str
    sha256: str


def registry_folder(configured: Optional[str]) -> Optional[str]:
    """Where ``adapter-registry`` keeps its adapters, unless a config says otherwise."""
    shared = os.environ.get("CJM_CAPABILITY_DATA_DIR")
    if configured is not None or shared is None:
        return configured
    return str(Path(shared) / "adapter-registry")


def find_registered(folder: Optional[str], name: str, field: str) -> Registered:
    """Archived or not. Raises ``adapter_unknown``, ``registry_missing`` or ``registry_invalid``."""
    if folder is None:
        message = f"{name} needs a registry: set adapter_registry"
        raise TaskInputError("registry_missing", message, [field])
    path = Path(folder) / "registry.db"
    if not path.is_file():
        raise TaskInputError("registry_missing", f"there is no registry in {folder}", [field])
    try:
        sha256 = _hash_of(path, name)
    except (sqlite3.Error, ValueError) as error:
        message = f"{path} is not a registry that can be read: {error}"
        raise TaskInputError("registry_invalid", message, [field]) from error
    if sha256 is None:
        message = f"the registry in {folder} has no adapter {name}"
        raise TaskInputError("adapter_unknown", message, [field])
    digits = sha256.partition(":")[2]
    return Registered(str(Path(folder) / "adapters" / digits[:2] / digits), sha256)


def _hash_of(path: Path, name: str) -> Optional[str]:
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=5)) as database:
        (mark,) = database.execute("pragma application_id").fetchone()
        (schema,) = database.execute("pragma user_version").fetchone()
        if (mark, schema) != (_APPLICATION_ID, _SCHEMA_VERSION):
            raise ValueError(f"application {mark:#x}, schema {schema}")
        row = database.execute("select file_hash from adapter where id = ?", (name,)).fetchone()
    if row is None:
        return None
    if not isinstance(row[0], str) or not _HASH.fullmatch(row[0]):
        raise ValueError(f"the hash of {name} is {row[0]!r}")
    return row[0]

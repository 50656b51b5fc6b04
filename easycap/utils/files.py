"""Files written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from easycap.errors import UserError, json_fault


def write_atomically(path: Path, text: str) -> None:
    """Write text so that readers see the old file or the new one; if that raises, the old one stays.

    A link stays one. Anything but a regular file, such as /dev/stdout or a named pipe, is written to as it is. What
    UTF-8 cannot hold, such as a byte of a file name that is not UTF-8, is written as an escape, which JSON reads back.
    """
    content = text.encode("utf-8", "backslashreplace")
    with naming(path):
        if is_device(path):
            path.write_bytes(content)
            return
        path = path.resolve()
        partial = _partial(path)
        try:
            partial.write_bytes(content)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an `OSError` of writing, as on a full disk, name the file: that of a write says what, not where."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def overwrite(path: Path, text: str) -> None:
    """Replace the content of an existing file in its own blocks: where the disk is full, and a new file has no room.

    Readers may see half of it.
    """
    with naming(path), path.open("r+", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.truncate()


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping that a JSON file holds; `UserError` names a file that is damaged. Raises `OSError` too."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({json_fault(error)})") from None
    return mapping_of(content, path)


def mapping_of(value: Any, path: Path) -> dict[str, Any]:
    """Return `value`, which the file `path` holds; `UserError` if it is not a mapping."""
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")
        raise UserError(f"{path} is damaged (it holds {kind} where a mapping belongs)")
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_atomically` writes text."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False))


def check_writable(path: Path) -> None:
    """Raise `OSError` if `write_atomically` could not write to `path`."""
    if path.is_dir():
        raise IsADirectoryError(None, "it is a folder", str(path))
    if not is_device(path):
        probe = _partial(path.resolve())
        probe.touch()
        probe.unlink()


def is_device(path: Path) -> bool:
    """Return whether `path` is a device or a pipe; /dev/stdout is one even if the shell redirects it to a file."""
    return path.parent == Path("/dev") or (path.exists() and not path.is_file() and not path.is_dir())


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")

"""Whether two vocabularies have the same words under the same ids."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def same_vocabulary(one: Any, other: Any) -> bool:
    """Return whether two vocabularies, of captions or of tags, are of one kind and save the same files.

    What they were built from does not matter: those of two runs on the same captions are the same. Models whose
    vocabularies are the same mean the same word by an id.
    """
    return type(one) is type(other) and _saved_files(one) == _saved_files(other)


def _saved_files(vocabulary: Any) -> Mapping[str, bytes]:
    """A vocabulary has no other state: `load` rebuilds it from these files alone."""
    with tempfile.TemporaryDirectory() as folder:
        vocabulary.save(Path(folder))
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {path.name: path.read_bytes() for path in files}

"""Cells of tables: a field of a nested entry by its path, and the captions that one cell holds."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from easycap.errors import UserError

_STEP = re.compile(r"\[(-?\d*)\]|\.?([^.\[\]]+)")
_PART = re.compile(r"\{([^{}]+)\}")
_LIST_OF_TEXTS = re.compile(r"\[\s*['\"]")
# Tokens that may stand between the texts of a list: a comma, or only a space as numpy prints lists.
_BETWEEN = {tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER, tokenize.COMMENT, tokenize.INDENT}


def values_at(entry: Any, path: str) -> list[Any]:
    """Return the values of an entry at a path: `caption`, `meta.title`, `sentences[].raw`, `image_path[0]`.

    `[]` stands for all elements of a list, `[0]` for the first, `[-1]` for the last; `caption_*` for
    all columns that start with it, `caption_#` for those of them that end in a number. A column whose
    name is the whole path comes first, as CSV files may have dots in their names. A value that is
    null counts as absent; nothing there gives an empty list. `{folder}/{file}` joins columns: those that
    are absent are left out, and without the last one nothing is there.
    """
    if (type(entry) is dict or isinstance(entry, Mapping)) and path in entry:
        return [] if entry[path] is None else [entry[path]]
    if "{" in path:
        return _joined(entry, path)
    if is_pattern(path):
        columns = (value for name, value in entry.items() if is_column_of(name, path))
        return [value for value in columns if value is not None]
    found = [entry]
    for index, key in _STEP.findall(path):
        found = [below for value in found for below in _below(value, index, key)]
    return [value for value in found if value is not None]


def _joined(entry: Any, path: str) -> list[Any]:
    parts = {part: values_at(entry, part)[:1] for part in parts_of(path)}
    if not all(list(parts.values())[-1:]):
        return []
    text = _PART.sub(lambda part: str(parts[part[1]][0]) if parts[part[1]] else "", path)
    return [text.strip("/")]


def parts_of(path: str) -> list[str]:
    """Return the columns that `{folder}/{file}` joins; of another path itself."""
    return _PART.findall(path) or [path]


def column_of(path: str, columns: Container[str]) -> str:
    """Return the column that a path begins in: of `sentences[].raw` and `columns` of rows it is `sentences`.

    Names may have dots and brackets, as those of samples have (`meta.title`): the longest beginning of the path that
    is among `columns` counts, and its first step if none is.
    """
    steps = [match.end() for match in _STEP.finditer(path)]
    return next(
        (path[:end] for end in reversed(steps) if path[:end] in columns), path[: steps[0]] if steps else path
    )


def is_pattern(path: str) -> bool:
    """Return whether a path stands for several columns: `caption_*`, `caption_#`."""
    return path.endswith(("*", "#"))


def is_column_of(name: str, pattern: str) -> bool:
    """Return whether a column is one of those that a pattern stands for."""
    rest = name.removeprefix(pattern[:-1])
    return name.startswith(pattern[:-1]) and (pattern.endswith("*") or (rest.isascii() and rest.isdigit()))


def _below(value: Any, index: str, key: str) -> list[Any]:
    if key:
        return [value[key]] if isinstance(value, Mapping) and key in value else []
    if not isinstance(value, list | tuple):
        return []
    if not index:
        return list(value)
    return [value[int(index)]] if -len(value) <= int(index) < len(value) else []


def paths_of(entry: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of all plain values and lists of plain values below an entry.

    Lists of objects give one path with `[]`, whose value is the list of what stands there.
    """
    for key, value in entry.items():
        if isinstance(value, str):  # checked first: the most common case
            yield key, value
        elif isinstance(value, Mapping):
            yield from ((f"{key}.{path}", below) for path, below in paths_of(value))
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            paths = dict.fromkeys(path for one in value for path, _ in paths_of(one))
            yield from ((f"{key}[].{path}", values_at(entry, f"{key}[].{path}")) for path in paths)
        else:
            yield key, value


def is_plain_text(cell: Any) -> bool:
    """Return whether a cell is a text that cannot be a list of texts; others may be."""
    return type(cell) is str and "[" not in cell


def texts_of(cell: Any) -> list[Any]:
    """Return the captions of a cell: a text, a list of them, or a list written as JSON or as Python.

    Raises `UserError` for a text that begins like a list of texts but is not one, e.g. a truncated list.
    """
    if is_plain_text(cell):
        return [cell]
    if isinstance(cell, Sequence) and not isinstance(cell, str | bytes):
        return [text for one in cell for text in texts_of(one)]
    if not isinstance(cell, str) or not _LIST_OF_TEXTS.match(cell.strip()):
        return [cell]
    text = cell.strip()
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError):
        stored = _python_list(text)
    if stored is None and (text.endswith("]") or text.count("[") != text.count("]")):
        raise UserError(f"begins like a list of captions but is neither JSON nor Python: {text[:40]!r}")
    return [cell] if stored is None else stored


def _python_list(text: str) -> list[str] | None:
    """The texts of a list as Python or numpy prints it; None if it is anything else.

    `ast.literal_eval` of the whole would join neighbours without a comma, which numpy writes.
    """
    texts = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.STRING:
                texts.append(ast.literal_eval(token.string))
            elif token.string not in ("[", "]", ",") and token.type not in _BETWEEN:
                return None
    except (tokenize.TokenError, SyntaxError, ValueError):
        return None
    return texts if all(isinstance(one, str) for one in texts) else None

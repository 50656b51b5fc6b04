"""Tables whose cells a character separates (CSV, TSV, pipe), and Flickr's token files."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, tee
from pathlib import Path
from typing import Any

from easycap.data.cells import is_pattern
from easycap.data.issues import DataIssues
from easycap.data.json_tables import KEY, VALUE, Entry
from easycap.data.text_files import lines_of
from easycap.errors import UserError
from easycap.registry import describe_choices
from easycap.utils.ids import without_suffix

# The endings of these tables, and the separator tried first.
SEPARATED = {".csv": ",", ".txt": ",", ".tsv": "\t", ".psv": "|"}
_SEPARATORS = (",", ";", "\t", "|")
_KEPT_LINES = 1000  # of a CSV file, from which reading may have to continue


def separated_entries(
    path: Path, ending: str, wanted: Mapping[str, str], issues: DataIssues, most: int | None
) -> Iterator[Entry]:
    """Yield the rows of a table of the given ending, with any usual separator, or of a token file.

    `wanted` {setting: column} are columns that must be there; of lines only those in the first `most` characters are
    read.
    """
    first = next(lines_of(path), "").removesuffix("\n")
    if _of_tokens(first):
        yield from _tokens(path, lines_of(path, most), issues)
        return
    separator = _separator_of(SEPARATED[ending], first, wanted)
    records = _records(lines_of(path, most), separator)
    names = [name.strip() for name in next(records, (1, []))[1]]
    if any(without_suffix(name) != name for name in names):  # no header, but an image already
        names = [str(number) for number in range(1, len(names) + 1)]
        records = _records(lines_of(path, most), separator)
    for setting, column in wanted.items():
        if column not in names and not is_pattern(column):
            there = describe_choices(column, names)
            raise UserError(f"{path}, line 1 has no {column!r} (data.{setting}); {there}")
    line = f"{path}, line "
    for number, values in records:
        where = f"{line}{number}"
        if type(values) is not list:
            issues.malformed(where, f"is not valid CSV ({values})")
        elif len(values) > len(names):
            quoted = "commas" if separator == "," else repr(separator)
            issues.malformed(
                where, f"has more values than columns: put captions that contain {quoted} in quotes"
            )
        elif any(stripped := [value.strip() for value in values]):
            yield Entry(where, dict(zip(names, stripped, strict=False)))


def _separator_of(usual: str, header: str, wanted: Mapping[str, str]) -> str:
    """The separator that yields the wanted columns in the header, else the usual one if it stands there."""
    columns = set(wanted.values())
    for separator in (usual, *_SEPARATORS):
        names = {name.strip() for name in next(csv.reader([header], delimiter=separator), [])}
        if columns and names.issuperset(columns):
            return separator
    return usual if usual in header or columns else max(_SEPARATORS, key=header.count)


def _records(lines: Iterator[str], separator: str) -> Iterator[tuple[int, Any]]:
    """Yield (line number, values or the error) of each record; after an error, continue with the next line."""
    before = 0  # lines that other readers have read
    while True:
        read, kept = tee(lines)
        reader = csv.reader(read, delimiter=separator, skipinitialspace=separator == "|", strict=True)
        begun = passed = 0  # lines before the record being read; those of them that `kept` is past
        try:
            for values in reader:
                yield before + begun + 1, values
                begun = reader.line_num
                if begun - passed > _KEPT_LINES:
                    passed = _pass(kept, passed, begun)
            return
        except csv.Error as error:
            yield before + begun + 1, error
            _pass(kept, passed, begun + 1)
            before, lines = before + begun + 1, kept


def _pass(lines: Iterator[str], done: int, until: int) -> int:
    deque(islice(lines, until - done), maxlen=0)
    return until


def is_token_file(path: Path) -> bool:
    """Return whether a file is of the lines of Flickr's token files."""
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    return ending in SEPARATED and _of_tokens(next(lines_of(path), "").removesuffix("\n"))


def _of_tokens(line: str) -> bool:
    """Whether a line is from a Flickr token file: NAME.jpg#NUMBER, a tab, a caption."""
    name, tab, _ = line.partition("\t")
    return bool(tab) and name.rpartition("#")[2].isdecimal() and "#" in name


def _tokens(path: Path, lines: Iterable[str], issues: DataIssues) -> Iterator[Entry]:
    for number, line in enumerate((line.removesuffix("\n") for line in lines), 1):
        if _of_tokens(line):
            name, _, caption = line.partition("\t")
            yield Entry(f"{path}, line {number}", {KEY: name.rpartition("#")[0], VALUE: caption})
        elif line.strip():
            issues.malformed(f"{path}, line {number}", "is not NAME.jpg#NUMBER, a tab and a caption")

"""Tables whose cells are separated by a character (CSV, TSV, pipe), and Flickr's token files."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import accumulate, groupby, islice, tee
from pathlib import Path

from easycap.data.cells import is_pattern
from easycap.data.issues import DataIssues
from easycap.data.json_tables import KEY, VALUE, Entry
from easycap.data.table_batches import MOST_ROWS, Batch, batches_of
from easycap.data.text_files import lines_of
from easycap.errors import UserError
from easycap.registry import describe_choices
from easycap.utils.ids import without_suffix

# The endings of these tables, and the separator tried first.
SEPARATED = {".csv": ",", ".txt": ",", ".tsv": "\t", ".psv": "|"}
_SEPARATORS = (",", ";", "\t", "|")


def separated_batches(
    path: Path, ending: str, wanted: Mapping[str, str], issues: DataIssues, most: int | None
) -> Iterator[Batch]:
    """Yield the rows of a table of the given ending, with any usual separator, or of a token file.

    `wanted` {setting: column} are columns that must be there; of lines only those in the first `most` characters are
    read.
    """
    first = next(lines_of(path), "").removesuffix("\n")
    if _of_tokens(first):
        yield from batches_of(_tokens(path, lines_of(path, most), issues))
        return
    separator = _separator_of(SEPARATED[ending], first, wanted)
    names = [name.strip() for name in next(csv.reader(lines_of(path), delimiter=separator), [])]
    has_header = all(without_suffix(name) == name for name in names)
    if not has_header:  # but an image already
        names = [str(number) for number in range(1, len(names) + 1)]
    for setting, column in wanted.items():
        if column not in names and not is_pattern(column):
            there = describe_choices(column, names)
            raise UserError(f"{path}, line 1 has no {column!r} (data.{setting}); {there}")
    quoted = "commas" if separator == "," else repr(separator)
    too_many = f"has more values than columns: put captions that contain {quoted} in quotes"
    number_of_header = 0 if has_header else None
    for rows, error in _chunks(path, lines_of(path, most), separator):
        for numbers in _of_one_length(rows, len(names)):
            if len(rows.values[numbers[0]]) > len(names):
                for number in numbers:
                    issues.malformed(rows.where(number), too_many)
                continue
            filled = list(numbers)
            cells = _columns(rows.values, filled)
            if number_of_header in filled or not (cells and all(cells[0])):  # there may be rows of blanks
                filled = [n for n in filled if n != number_of_header and any(map(str.strip, rows.values[n]))]
                cells = _columns(rows.values, filled)
            if filled:
                yield Batch(dict(zip(names, cells, strict=False)), partial(_where_of, rows, filled))
        number_of_header = None
        if error is not None:
            issues.malformed(rows.where(len(rows.values)), f"is not valid CSV ({error})")


def _columns(rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> list[list[str]]:
    """The columns of some rows, which have as many values each."""
    chosen = rows if len(numbers) == len(rows) else [rows[number] for number in numbers]
    return [list(map(str.strip, column)) for column in zip(*chosen, strict=True)]


class _Rows:
    """The `values` of successive rows, of which the first begins in `line`, and the last ends before `end`."""

    def __init__(self, path: Path, values: list[list[str]], line: int, end: int) -> None:
        self.path, self.values, self.line, self.end = path, values, line, end

    @cached_property
    def lines(self) -> Sequence[int]:
        if self.end - self.line == len(self.values):  # as nearly always
            return range(self.line, self.end + 1)
        lengths = (1 + sum(cell.count("\n") for cell in row) for row in self.values)
        return list(accumulate(lengths, initial=self.line))

    def where(self, number: int) -> str:
        """The place of a row, also of the one after the last."""
        return f"{self.path}, line {self.lines[number]}"


def _where_of(rows: _Rows, numbers: Sequence[int], number: int) -> str:
    return rows.where(numbers[number])


def _of_one_length(rows: _Rows, usual: int) -> list[Sequence[int]]:
    """The numbers of successive rows with as many values."""
    lengths = list(map(len, rows.values))
    every = range(len(lengths))
    if set(lengths) <= {usual}:
        return [every] if lengths else []
    return [list(group) for _, group in groupby(every, lengths.__getitem__)]


def _separator_of(usual: str, header: str, wanted: Mapping[str, str]) -> str:
    """The separator that yields the wanted columns in the header, else the usual one if it stands there."""
    columns = set(wanted.values())
    for separator in (usual, *_SEPARATORS):
        names = {name.strip() for name in next(csv.reader([header], delimiter=separator), [])}
        if columns and names.issuperset(columns):
            return separator
    return usual if usual in header or columns else max(_SEPARATORS, key=header.count)


def _chunks(path: Path, lines: Iterator[str], separator: str) -> Iterator[tuple[_Rows, csv.Error | None]]:
    """Yield rows, and the error that the next one has; after an error, continue with the line after."""
    line = 1  # that the next row begins in
    while True:
        read, kept = tee(lines)
        reader = csv.reader(read, delimiter=separator, skipinitialspace=separator == "|", strict=True)
        begun, passed = line, 0
        while True:
            values: list[list[str]] = []
            error = None
            try:
                values.extend(islice(reader, MOST_ROWS))
            except csv.Error as found:
                error = found
            rows = _Rows(path, values, line, begun + reader.line_num if error is None else -1)
            if error is None and not values:
                return
            yield rows, error
            if error is not None:
                break
            line = rows.end
            passed = _pass(kept, passed, line - begun)
        line = rows.lines[len(values)] + 1
        _pass(kept, passed, line - begun)
        lines = kept


def _pass(lines: Iterator[str], done: int, until: int) -> int:
    deque(islice(lines, until - done), maxlen=0)
    return until


def is_token_file(path: Path) -> bool:
    """Return whether a file has the format of Flickr's token files."""
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

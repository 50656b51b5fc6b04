"""Captions in tables (CSV with any usual separator, JSON, JSONL, Parquet, token files) and in texts next to images."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import logging
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import chain, islice, tee
from pathlib import Path
from typing import Any, NamedTuple

from easycap.data.cells import is_pattern, texts_of, values_at
from easycap.data.issues import DataIssues
from easycap.data.json_tables import KEY, VALUE, Entry, json_entries
from easycap.data.parquet_tables import parquet_entries
from easycap.data.table_columns import MOST_SAMPLES, TableColumns, guess_columns, samples_of
from easycap.errors import UserError, json_fault
from easycap.registry import describe_choices
from easycap.utils.ids import without_suffix

# The endings of tables with columns, and the separator tried first.
SEPARATED = {".csv": ",", ".txt": ",", ".tsv": "\t", ".psv": "|"}
LINES_OF_JSON = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
TABLES = (*SEPARATED, *LINES_OF_JSON, *PARQUET, ".json")
_SEPARATORS = (",", ";", "\t", "|")
_KEPT_LINES = 1000  # of a CSV file, from which reading may have to continue

logger = logging.getLogger(__name__)


class CaptionRow(NamedTuple):
    """One caption of an image, where it stands, and the split it is assigned to."""

    image: str
    caption: Any
    split: str | None
    where: str


def table_entries(
    path: Path,
    issues: DataIssues,
    *,
    wanted: Mapping[str, str] | None = None,
    key: str | None = None,
    unused: Container[str] = (),
    most: int | None = None,
) -> Iterator[Entry]:
    """Yield the entries of a table in any format; what is wrong with one goes to `issues`.

    `wanted` {setting: column} are columns that must be there, `key` the list of a JSON file, `unused` columns that
    entries may lack; it is looked at again while a Parquet file is read. Of lines only those in the first `most`
    characters are read. Raises `UserError` for a file that cannot be read at all or lacks a column.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    if ending in SEPARATED:
        yield from _separated(path, ending, wanted or {}, issues, most)
    elif ending in LINES_OF_JSON:
        yield from _lines_of_json(path, _lines(path, most), issues)
    elif ending == ".json":
        yield from _json(path, key, issues)
    elif ending in PARQUET:
        yield from parquet_entries(path, unused)
    else:
        raise UserError(f"{path} is not a table: it must be one of {', '.join(sorted(TABLES))}")


def guess_from(
    entries: Iterator[Entry],
    source: Path,
    *,
    image: str | None,
    caption: str | None,
    split: str | None,
    is_image: Callable[[str], bool] | None,
    uses_split: bool = True,
) -> tuple[TableColumns, Iterator[Entry]]:
    """Return the columns that are given or guessed from the first entries, and all entries; the log says so.

    Without `uses_split` the log does not say what the column of splits is, as it is not read.
    """
    head = list(islice(entries, MOST_SAMPLES))
    guess = guess_columns(
        samples_of(entry.values for entry in head),
        where=str(source),
        image=image,
        caption=caption,
        split=split,
        is_image=is_image,
    )
    logger.info("%s: %s", source, (guess if uses_split else guess._replace(split=None)).describe())
    return guess, chain(head, entries)


def column_rows(entries: Iterable[Entry], columns: TableColumns, issues: DataIssues) -> Iterator[CaptionRow]:
    """Yield the captions of entries, one by one; an entry that lacks a column goes to `issues`."""
    for where, values, own_split in entries:
        found = {column: values_at(values, column) for column in columns.wanted().values()}
        if missing := [(name, column) for name, column in columns.wanted().items() if not found[column]]:
            name, column = missing[0]
            issues.malformed(where, f"has no {column!r} (data.{name}); {describe_choices(column, values)}")
            continue
        try:
            texts = [text for cell in found[columns.caption] for text in texts_of(cell)]
        except ValueError as error:
            issues.malformed(where, f"has a caption that {error}")
            continue
        split = str(found[columns.split][0]) if columns.split else own_split
        for text in texts:
            yield CaptionRow(str(found[columns.image][0]), text, split, where)


def text_rows(
    folder: Path, images: Iterable[str], issues: DataIssues, suffix: str = ".txt"
) -> Iterator[CaptionRow]:
    """Yield the lines of NAME.txt in `folder` for each of `images` NAME.jpg."""
    for image_id in images:
        path = (folder / image_id).with_suffix(suffix)
        if not path.is_file():
            continue
        try:
            text = read_text(path)
        except UserError as error:
            issues.malformed(str(path), str(error).removeprefix(f"{path} "))
            continue
        for line in text.split("\n"):
            if line.strip():
                yield CaptionRow(image_id, line, None, str(path))


def _opened(path: Path) -> io.TextIOWrapper:
    """A text file, compressed or not, in UTF-8, or in UTF-16 if it begins with the mark of that."""
    file = gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")  # noqa: SIM115
    marked = file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return io.TextIOWrapper(file, encoding="utf-16" if marked else "utf-8-sig")


def read_text(path: Path, *, most: int | None = None) -> str:
    r"""Return the text of a file, compressed or not, with \n as line ends; `UserError` unless UTF-8 or marked UTF-16.

    `most`: only the whole lines in its first so many characters.
    """
    try:
        with _opened(path) as file:
            text = file.read(most)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}): save it as UTF-8") from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is not a whole gzip file ({error})") from None
    cut = most is not None and len(text) == most and "\n" in text
    return text[: text.rindex("\n") + 1] if cut else text


def _lines(path: Path, most: int | None = None) -> Iterator[str]:
    r"""Yield the lines of a text file with their ends, as \n; what cannot be read is said as `read_text` says it.

    `most`: only the whole lines in its first so many characters.
    """
    left = most
    try:
        with _opened(path) as file:
            for line in file:
                if left is not None and (left := left - len(line)) < 0:
                    return
                yield line
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile):
        read_text(path)
        raise


def _separated(
    path: Path, ending: str, wanted: Mapping[str, str], issues: DataIssues, most: int | None
) -> Iterator[Entry]:
    first = next(_lines(path), "").removesuffix("\n")
    if _of_tokens(first):
        yield from _tokens(path, _lines(path, most), issues)
        return
    separator = _separator_of(SEPARATED[ending], first, wanted)
    records = _records(_lines(path, most), separator)
    names = [name.strip() for name in next(records, (1, []))[1]]
    if any(without_suffix(name) != name for name in names):  # no header, but an image already
        names = [str(number) for number in range(1, len(names) + 1)]
        records = _records(_lines(path, most), separator)
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


def _json(path: Path, key: str | None, issues: DataIssues) -> Iterator[Entry]:
    text = read_text(path)
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not _is_lines_of_json(text):
            raise UserError(f"{path} is not valid JSON ({json_fault(error)})") from None
        yield from _lines_of_json(path, text.split("\n"), issues)
        return
    yield from json_entries(stored, path, issues, key=key)


def _is_lines_of_json(text: str) -> bool:
    """Whether a file that is not JSON has one object on each of its first two lines."""
    try:
        return all(isinstance(json.loads(line), dict) for line in text.split("\n", 2)[:2])
    except ValueError:
        return False


def _lines_of_json(path: Path, lines: Iterable[str], issues: DataIssues) -> Iterator[Entry]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            issues.malformed(where, f"is not valid JSON ({json_fault(error)})")
            continue
        if isinstance(row, dict):
            yield Entry(where, row)
        else:
            issues.malformed(where, 'is not a JSON object, e.g. {"image": ..., "caption": ...}')

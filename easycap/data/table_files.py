"""Captions in tables (CSV with any usual separator, JSON, JSONL, Parquet, token files) and in texts next to images."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from easycap.data.cells import texts_of, values_at
from easycap.data.issues import DataIssues
from easycap.data.json_tables import Entry, json_entries
from easycap.data.parquet_tables import parquet_batches
from easycap.data.separated_tables import SEPARATED, separated_batches
from easycap.data.table_batches import Batch, batches_of, entries_of
from easycap.data.table_columns import MOST_SAMPLES, TableColumns, guess_columns, samples_of
from easycap.data.text_files import lines_of, read_text
from easycap.errors import UserError, json_fault
from easycap.registry import describe_choices

LINES_OF_JSON = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
TABLES = (*SEPARATED, *LINES_OF_JSON, *PARQUET, ".json")

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
    most: int | None = None,
) -> Iterator[Entry]:
    """Yield the entries of a table as `table_batches` does, one by one."""
    return entries_of(table_batches(path, issues, wanted=wanted, key=key, most=most))


def table_batches(
    path: Path,
    issues: DataIssues,
    *,
    wanted: Mapping[str, str] | None = None,
    key: str | None = None,
    unused: Container[str] = (),
    most: int | None = None,
) -> Iterator[Batch]:
    """Yield the entries of a table in any format; what is wrong with one goes to `issues`.

    `wanted` {setting: column} are columns that must be there, `key` the list of a JSON file, `unused` columns that
    entries may lack; it is looked at again while a Parquet file is read. Of lines only those in the first `most`
    characters are read. Raises `UserError` for a file that cannot be read at all or lacks a column.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    if ending in SEPARATED:
        yield from separated_batches(path, ending, wanted or {}, issues, most)
    elif ending in LINES_OF_JSON:
        yield from batches_of(_lines_of_json(path, lines_of(path, most), issues))
    elif ending == ".json":
        yield from batches_of(_json(path, key, issues))
    elif ending in PARQUET:
        yield from parquet_batches(path, unused)
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
    for where, values, own_split, _ in entries:
        found = {column: values_at(values, column) for column in columns.wanted().values()}
        if missing := [(name, column) for name, column in columns.wanted().items() if not found[column]]:
            name, column = missing[0]
            issues.malformed(where, lacks(column, name, values))
            continue
        try:
            texts = [text for cell in found[columns.caption] for text in texts_of(cell)]
        except ValueError as error:
            issues.malformed(where, f"has a caption that {error}")
            continue
        split = str(found[columns.split][0]) if columns.split else own_split
        for text in texts:
            yield CaptionRow(str(found[columns.image][0]), text, split, where)


def lacks(column: str, setting: str, values: Mapping[str, Any]) -> str:
    """Return in words that an entry has nothing in the column that a setting names."""
    if column in values:
        return f"has nothing in {column!r} (data.{setting})"
    return f"has no {column!r} (data.{setting}); {describe_choices(column, values)}"


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

"""Files for the captions of many images: a text file next to each image, or one table; each can be continued."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from easycap.errors import UserError
from easycap.runs.find import shown
from easycap.utils.files import write_atomically
from easycap.utils.text import csv_cell, from_csv_cell

_CSV_HEADER, _JSON_START = "file,caption\n", '{"file": '


class TextFiles:
    """NAME.txt next to each image NAME.jpg, as tools that train image generators read it."""

    def __init__(self, *, overwrite: bool) -> None:
        self.overwrite = overwrite

    def has(self, image: Path) -> bool:
        """Return whether the image has a caption from an earlier start."""
        return not self.overwrite and image.with_suffix(".txt").is_file()

    def write(self, image: Path, caption: str) -> None:
        """Store the caption of an image."""
        write_atomically(image.with_suffix(".txt"), caption + "\n")

    def flush(self) -> None:
        """Do nothing: each file is complete."""


class Table:
    """One file with a row {file, caption} for each image: CSV with a header, or JSON Lines.

    Rows are appended, after a last row that a kill has cut off is removed; nothing is
    changed before the first `write`. Raises `UserError` if the file has other contents.
    """

    def __init__(self, path: Path, form: Literal["csv", "jsonl"], *, overwrite: bool) -> None:
        if path.is_dir():
            raise UserError(
                f"--{form} {shown(path)} is a folder: name a file, e.g. {shown(path / f'captions.{form}')}"
            )
        self.path, self.form = path, form
        self._file: IO[str] | None = None
        self._size = 0  # in bytes, of the rows that stay
        self._images = self._read() if path.is_file() and not overwrite else set()

    def _read(self) -> set[str]:
        text = self.path.read_bytes().decode("utf-8", "surrogateescape")
        whole = text[: text.rfind("\n") + 1]
        self._size = len(whole.encode("utf-8", "surrogateescape"))
        try:
            read = _images_of_csv if self.form == "csv" else _images_of_json_lines
            return set(read(whole, text[len(whole) :]))
        except (UserError, json.JSONDecodeError, csv.Error) as error:
            raise UserError(
                f"{shown(self.path)} is not a file that easycap caption --{self.form} has written ({error}): give "
                "another name, or replace it with --overwrite"
            ) from None

    def has(self, image: Path) -> bool:
        """Return whether the image has a caption from an earlier start."""
        return str(image) in self._images

    def write(self, image: Path, caption: str) -> None:
        """Store the caption of an image."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8", newline="", errors="surrogateescape")
            self._file.truncate(self._size)
            if self.form == "csv" and self._size == 0:
                self._file.write(_CSV_HEADER)
        self._file.write(_row(self.form, str(image), caption))

    def flush(self) -> None:
        """Write all rows to the file; called after each batch."""
        if self._file is not None:
            self._file.flush()


def _row(form: str, image: str, caption: str) -> str:
    if form == "jsonl":
        return json.dumps({"file": image, "caption": caption}, ensure_ascii=False) + "\n"
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow([csv_cell(image), csv_cell(caption)])
    return line.getvalue()


def _images_of_csv(whole: str, cut: str) -> Iterator[str]:
    """The images of the whole rows; `cut` is what a kill may have left of the next. Raises `UserError`."""
    if not (whole.startswith(_CSV_HEADER) or (not whole and _CSV_HEADER.startswith(cut))):
        raise UserError("its first line is not file,caption")
    for row in csv.DictReader(io.StringIO(whole, newline=""), strict=True):
        if None in row or None in row.values():
            raise UserError(f"a row does not have two columns: {list(row.values())}")
        yield from_csv_cell(row["file"])


def _images_of_json_lines(whole: str, cut: str) -> Iterator[str]:
    """As `_images_of_csv`."""
    if not (cut.startswith(_JSON_START) or _JSON_START.startswith(cut)):
        raise UserError("its last line is not an object with file and caption")
    for line in filter(None, whole.split("\n")):
        row = json.loads(line)
        if not isinstance(row, dict) or row.keys() != {"file", "caption"}:
            raise UserError("a line is not an object with file and caption")
        yield row["file"]

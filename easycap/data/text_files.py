"""Text files, compressed or not, in UTF-8 or marked UTF-16."""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Iterator
from pathlib import Path

from easycap.errors import UserError


def _opened(path: Path) -> io.TextIOWrapper:
    """A text file, compressed or not, in UTF-8, or in UTF-16 if it starts with a byte order mark."""
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


def lines_of(path: Path, most: int | None = None) -> Iterator[str]:
    r"""Yield the lines of a text file with their ends, as \n; raises the same errors as `read_text`.

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

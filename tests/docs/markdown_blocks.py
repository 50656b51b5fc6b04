"""Reads the fenced blocks of a Markdown file, and compares shown output with real output.

A ```text block right after a ```python block is what that prints. In a ```console block, lines that start with
"$ " are commands; the lines below one are its output. A comment right above a block, `<!-- test: A; B -->`, tells
the test what to do with it:

    skip: REASON             not run
    slow                     run by the slow tests only
    with ARGUMENTS           added to its `easycap train` commands, beside the usual scaling (see named_in_pages.py)
    NAME is OTHER            the run NAME in its commands is the run OTHER of the tests
    makes NAME               the run of its last command is called NAME from here on
    within N% [or X]         decimals may differ by N%, or by X (default: 1%, or near zero a fifth of N% and 0.01)
    numbers differ           any number may stand for any other
    output differs           only success or failure is compared
    fails                    its commands end with exit code 1, as do those that show an error (`easycap: ...`)
    file PATH                the block is the content of that new file
    line of PATH after: LINE the block is a line to insert there
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOTE = re.compile(r"<!-- test: (.*?) -->\n\Z")
_DECIMAL = r"(?<![\w.])-?\d+\.\d+(?![\w.]*\d)"
_NUMBER = r"-?\d[\d,.]*"


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, text, first line in the file, test note, and the output shown below it."""

    language: str
    text: str
    line: int
    note: str
    output: str | None = None

    def option(self, directive: str) -> str | None:
        """Return what follows `directive` in the note, "" if nothing does; None if the note does not have it."""
        for part in self.note.split("; "):
            if part == directive or part.startswith((f"{directive} ", f"{directive}: ")):
                return part.removeprefix(directive).lstrip(": ")
        return None

    def commands(self) -> list[tuple[str, str]]:
        """Return the (command, shown output) pairs of a console block; a backslash continues a line."""
        parts = re.split(r"^\$ (.*)\n", self.text.replace("\\\n", ""), flags=re.MULTILINE)
        assert not parts[0].strip(), f"line {self.line}: a console block starts with a command"
        return list(zip(parts[1::2], parts[2::2], strict=True))

    def agrees(self, shown: str, real: str) -> bool:
        """Whether `real` is the output that the block shows, as exactly as its note says."""
        if self.option("output differs") is not None:
            return True
        share, _, difference = (self.option("within") or "1%").partition(" or ")
        tolerance = int(share.removesuffix("%")) / 100
        if self.option("numbers differ") is not None:
            tolerance = math.inf
        return agrees(shown, real, tolerance=tolerance, difference=float(difference) if difference else None)


def read_blocks(path: Path) -> list[Block]:
    """Return all fenced blocks of a Markdown file in order; outputs are attached to their code."""
    text = path.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for match in _FENCE.finditer(text):
        between, language, body = text[end : match.start()], match[1], match[2]
        note = _NOTE.search(between)
        if language == "text" and not between.strip() and found and found[-1].language == "python":
            found[-1] = replace(found[-1], output=body)
        else:
            line = text.count("\n", 0, match.start()) + 2
            found.append(Block(language, body, line, note[1] if note else ""))
        end = match.end()
    return found


def agrees(shown: str, real: str, *, tolerance: float = 0.01, difference: float | None = None) -> bool:
    """Whether `real` is what was `shown`: "..." stands for anything or nothing, blanks are alike, decimals
    may differ.

    A number with a decimal point may be off by `tolerance` of itself, or by `difference` (None: a fifth of `tolerance`
    and 0.01); everything else must be equal. With an infinite tolerance all numbers, also whole ones, stand for any
    number.
    """
    number = _NUMBER if math.isinf(tolerance) else _DECIMAL
    allowed = tolerance / 5 + 0.01 if difference is None else difference
    pieces = re.compile(rf"(\s*\.\.\.\s*|─+|{number}|\s+)")
    pattern, numbers = "", []
    for piece in pieces.split(shown.strip()):
        if piece.strip() == "...":
            pattern += ".*?"
        elif piece.isspace():
            pattern += r"\s+"
        elif piece.startswith("─"):
            pattern += "─+"
        elif pieces.fullmatch(piece):
            pattern += rf"({_NUMBER})" if math.isinf(tolerance) else r"(-?\d+\.\d+)"
            numbers.append(piece)
        else:
            pattern += re.escape(piece)
    match = re.fullmatch(pattern, real.strip(), re.DOTALL)
    return match is not None and (
        math.isinf(tolerance)
        or all(
            math.isclose(float(number), float(text), rel_tol=tolerance, abs_tol=allowed)
            for number, text in zip(numbers, match.groups(), strict=True)
        )
    )

"""Reads the fenced blocks of a Markdown file, and compares shown output with real output.

A ```text block right after a ```python block is what that prints. In a ```console block lines that start with
"$ " are commands; what follows one is what it prints. `<!-- test: ... -->` right above a block tells the test
what to do with it: `skip`, `within N%` (how much decimals may differ), `file PATH` (the block is that file),
`line of PATH after: LINE` (the block is a line to insert there).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOTE = re.compile(r"<!-- test: (.*?) -->\n\Z")
_PIECES = re.compile(r"(\s*\.\.\.\s*|(?<![\w.])-?\d+\.\d+(?![\w.]*\d)|\s+)")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, text, first line in the file, test note, and the output shown below it."""

    language: str
    text: str
    line: int
    note: str
    output: str | None = None

    def commands(self) -> list[tuple[str, str]]:
        """Return the (command, shown output) pairs of a console block; a backslash continues a line."""
        parts = re.split(r"^\$ (.*)\n", self.text.replace("\\\n", ""), flags=re.MULTILINE)
        assert not parts[0].strip(), f"line {self.line}: a console block starts with a command"
        return list(zip(parts[1::2], parts[2::2], strict=True))

    @property
    def tolerance(self) -> float:
        """The share by which decimals may differ: 1% unless the note says `within N%`."""
        within = re.fullmatch(r"within (\d+)%", self.note)
        return int(within[1]) / 100 if within else 0.01


def read_blocks(path: Path) -> list[Block]:
    """Return all fenced blocks of a Markdown file in order; outputs are attached to their code."""
    text = path.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for match in _FENCE.finditer(text):
        between, language, body = text[end : match.start()], match[1], match[2]
        note = _NOTE.search(between)
        is_output = language == "text" and not between.strip() and found and found[-1].language == "python"
        if is_output:
            found[-1] = Block(**{**vars(found[-1]), "output": body})
        else:
            line = text.count("\n", 0, match.start()) + 2
            found.append(Block(language, body, line, note[1] if note else ""))
        end = match.end()
    return found


def agrees(shown: str, real: str, *, tolerance: float = 0.01) -> bool:
    """Whether `real` is what was `shown`: "..." stands for anything or nothing, blanks are alike, decimals
    may differ.

    A number with a decimal point may be off by `tolerance` of itself, or, near zero, by a fifth of that and 0.01;
    everything else must be equal.
    """
    pattern, numbers = "", []
    for piece in _PIECES.split(shown.strip()):
        if piece.strip() == "...":
            pattern += ".*?"
        elif piece.isspace():
            pattern += r"\s+"
        elif _PIECES.fullmatch(piece):
            pattern += r"(-?\d+\.\d+)"
            numbers.append(float(piece))
        else:
            pattern += re.escape(piece)
    match = re.fullmatch(pattern, real.strip(), re.DOTALL)
    return match is not None and all(
        math.isclose(number, float(text), rel_tol=tolerance, abs_tol=tolerance / 5 + 0.01)
        for number, text in zip(numbers, match.groups(), strict=True)
    )

"""How the page that compares runs names them, and where it finds their reports."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

_TIME, _DIGEST = re.compile(r"^\d{8}-\d{6}-"), re.compile(r"-(?=\w*\d)(?=\w*[a-f])[0-9a-f]{6,}$")
_LENGTH, _END = 24, 7  # characters of a short name, and how many of them are its end


def short_names(names: Sequence[str]) -> list[str]:
    """Return `names` without the time, the digest and the first words that all share, cut in the middle where still
    long; what tells two of them apart stays.
    """
    found = _where_distinct([_TIME.sub("", name) for name in names], names)
    found = _where_distinct([_DIGEST.sub("", name) for name in found], found)
    words = [name.split("-") for name in found]
    shared = 0
    while len(words) > 1 and len({tuple(of[: shared + 1]) for of in words}) == 1 and shared < len(words[0]):
        shared += 1
    found = _where_distinct(["-".join(of[shared:]) or "-".join(of) for of in words], found)
    return _where_distinct([_cut(name) for name in found], found)


def _where_distinct(shorter: list[str], names: Sequence[str]) -> list[str]:
    """The shorter names, except where several would be the same."""
    counts = Counter(shorter)
    found = [short if counts[short] == 1 else name for short, name in zip(shorter, names, strict=True)]
    return found if len(set(found)) == len(set(names)) else list(names)


def _cut(name: str) -> str:
    """A name of at most _LENGTH characters, cut behind a word where there is one: count1… is not count10."""
    if len(name) <= _LENGTH:
        return name
    head = name[: _LENGTH - _END - 1]
    return f"{head[: head.rfind('-') + 1] or head}…{name[-_END:]}"


def report_address(run: Path, folder: Path) -> str:
    """Return the address of a run's report.html for a page in `folder`; empty if it has none."""
    report = run.resolve() / "report.html"
    if not report.is_file():
        return ""
    try:
        path = os.path.relpath(report, folder)
    except ValueError:  # on another drive of Windows
        return report.as_uri()
    return quote(path.replace(os.sep, "/"))

"""How numbers are written: the same in the page, in the terminal and in a comparison of runs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

NOTHING = "–"
SCALE_NOTE = "Scores and shares are ×100: a CIDEr-D of 100.0 is 1.0 in result.json."
# What counts things is not a share of anything: claims_per_caption, caption_length.
_COUNTS = ("per_caption", "length", "num_", "perplexity", "vocabulary")
_FIRST = ("CIDEr-D", "truth", "claims", "recall", "BLEU-4", "METEOR", "ROUGE-L", "SPICE", "BLEU-1")
# What a terminal obeys instead of printing, and bytes of file names that are not UTF-8.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# Of a cell: what a spreadsheet would compute; numbers are not.
_FORMULA = re.compile(r"'*(?![-+]?\.?\d[\d.]*(?:[eE][-+]?\d+)?\Z)[=+@\t\r-]")


def printable(text: str) -> str:
    r"""Return text with control characters written out, as \x1b; lines and tabs stay."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", text)


def csv_cell(value: Any) -> Any:
    """Return the value of a cell such that no spreadsheet takes text for a formula: "'" stands before "=", "+", "-" and
    "@"; numbers stay.
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def from_csv_cell(text: str) -> str:
    """Return the text that `csv_cell` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def is_count(name: str) -> bool:
    """Return whether the metric `name` is a number of things and so is not shown ×100."""
    return any(word in name for word in _COUNTS)


def score_text(value: Any, name: str = "") -> str:
    """Return a score ×100 with one decimal, a count with two; NOTHING for what is not a finite number."""
    if not is_number(value):
        return NOTHING
    return f"{value:.2f}" if is_count(name) else f"{100 * value:.1f}"


def signed_text(value: Any, name: str = "") -> str:
    """Return a difference of scores as `score_text` writes it, with its sign unless it is zero."""
    text = score_text(value, name)
    if not text.strip("-0."):
        return text.removeprefix("-")
    return text if not is_number(value) or value < 0 else f"+{text}"


def interval_text(score: Mapping[str, Any], name: str = "") -> str:
    """Return "low – high" of a score as `score_text` writes them, empty where it has no interval."""
    low, high = score.get("low"), score.get("high")
    if not (is_number(low) and is_number(high)):
        return ""
    return f"{score_text(low, name)} – {score_text(high, name)}"


def number_text(value: Any) -> str:
    """Return any number with four significant digits, thousands separated."""
    if isinstance(value, bool) or not is_number(value):
        return NOTHING if value is None else str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        decimals = 0 if float(value).is_integer() else max(0, 3 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e12 else f"{value:.3g}"


def count_text(count: int, thing: str) -> str:
    """Return "1 image" or "1,200 images"; `thing` is a noun whose plural has an s."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def amount_text(value: Any, unit: str = "") -> str:
    """Return a large count with a suffix (12.3 M); the unit follows it (1.2 GFLOPs)."""
    if not is_number(value):
        return NOTHING
    for limit, suffix in ((1e15, "P"), (1e12, "T"), (1e9, "G" if unit else "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {suffix}{unit}"
    return f"{value:.3g} {unit}".strip()


def bytes_text(value: Any) -> str:
    """Return bytes in binary units."""
    if not is_number(value):
        return NOTHING
    for limit, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f} B"


def duration_text(seconds: Any) -> str:
    """Return seconds as 12 s, 3 min 20 s, 4 h 05 min or 2 d 3 h."""
    if not is_number(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


_SECONDS_PER = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float | None:
    """Return the seconds of "90", "90s", "30m", "1.5 h" or of what `duration_text` writes; None for other text."""
    parts = re.findall(r"([\d.]+)\s*([a-z]*)\s*", text.strip().lower())
    if not parts or "".join(map("".join, parts)) != re.sub(r"\s", "", text.lower()):
        return None
    try:
        return sum(float(number) * _SECONDS_PER[unit or "s"] for number, unit in parts)
    except (KeyError, ValueError):
        return None


def time_text(iso: str | None) -> str:
    """Return an ISO time to the minute."""
    return (iso or NOTHING)[:16].replace("T", " ")


def metric_order(names: Any) -> list[str]:
    """Return metric names with the ones read first at the front, the others in their own order."""
    names = list(dict.fromkeys(names))
    return [name for name in _FIRST if name in names] + [name for name in names if name not in _FIRST]


def is_number(value: Any) -> bool:
    """Return whether `value` is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# Keys of result.json's cost, in the order they are read: their names in tables, and how they are written.
COSTS = {
    "wall_seconds": ("wall time", duration_text),
    "train_seconds": ("training alone", duration_text),
    "images_per_second": ("images per second", number_text),
    "peak_memory_bytes": ("peak memory", bytes_text),
    "total_parameters": ("parameters", amount_text),
    "trainable_parameters": ("trainable parameters", amount_text),
    "flops_per_caption": ("work per caption", lambda value: amount_text(value, "FLOPs")),
}

"""The scores of a result arranged for reading: which numbers are compared, and under which protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from easycap.utils.text import (
    NOTHING,
    interval_text,
    is_count,
    is_number,
    metric_order,
    number_text,
    score_text,
)

HEADLINE, TAG_HEADLINE = "CIDEr-D", "mAP"
# Keys of result.json's baselines, in the order they are read, and their names in tables.
BASELINES = {
    "reference_caption": "reference caption",
    "model_same_references": "this model, same protocol",
    "most_frequent": "most frequent caption",
}


@dataclass(frozen=True)
class Cell:
    """One score as text; `absent` is the reason why there is none; `note` numbers its signature from 1."""

    text: str
    interval: str = ""
    absent: str = ""
    signature: str = ""
    note: int | None = None


@dataclass(frozen=True)
class ScoreTable:
    """Rows (name, cells) under columns; `signatures` {signature: the scores computed so} are numbered by the cells'
    notes, from 1.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    signatures: Mapping[str, str]

    @property
    def absent(self) -> list[str]:
        """Why metrics are missing, once where the reason is the same in several columns."""
        reasons = [f"{name}: {cell.absent}" for name, cells in self.rows for cell in cells if cell.absent]
        return list(dict.fromkeys(reasons))


class _Notes:
    """Numbers each different signature once, across the tables of a page."""

    def __init__(self) -> None:
        self._uses: dict[str, dict[str, list[str]]] = {}

    @property
    def signatures(self) -> dict[str, str]:
        """The signatures, each with the scores that were computed so: "truth, claims on test"."""
        return {
            signature: "; ".join(f"{', '.join(names)} {where}" for where, names in uses.items())
            for signature, uses in self._uses.items()
        }

    def cell(self, score: Any, name: str, where: str) -> Cell:
        if not isinstance(score, Mapping):
            return Cell(NOTHING)
        if "absent" in score:
            return Cell(NOTHING, absent=str(score["absent"]))
        signature = str(score.get("signature") or "")
        return Cell(
            score_text(score.get("value"), name) + oracle_mark(score),
            interval_text(score, name),
            "",
            signature,
            self._number(signature, name, where),
        )

    def _number(self, signature: str, name: str, where: str) -> int | None:
        if not signature:
            return None
        self._uses.setdefault(signature, {}).setdefault(where, []).append(name)
        return list(self._uses).index(signature) + 1


def oracle_mark(score: Mapping[str, Any]) -> str:
    """Return what follows a score that an oracle helped: the captioner read something of the image's own references or
    annotations, so that it is an upper bound and no captioner's score. Empty for any other.
    """
    return " (oracle)" if oracles_of(score) else ""


def oracles_of(score: Mapping[str, Any]) -> list[str]:
    """Return the parts of a score's signature that name an oracle (draft:oracle)."""
    return [part for part in str(score.get("signature") or "").split("|") if part.endswith(":oracle")]


def main_split(result: Mapping[str, Any]) -> str | None:
    """Return the split a result is judged by: test if it was scored, else the first that was."""
    splits = list(mapping(result, "scores"))
    return "test" if "test" in splits else next(iter(splits), None)


def headline(result: Mapping[str, Any]) -> str:
    """Return the metric a result is judged by: mAP for a tag model, else CIDEr-D."""
    found = {name for scores in mapping(result, "scores").values() for name in mapping(scores)}
    return TAG_HEADLINE if TAG_HEADLINE in found and HEADLINE not in found else HEADLINE


def score_of(result: Mapping[str, Any] | None, split: str | None, metric: str) -> Mapping[str, Any] | None:
    """Return a score with a finite value, or None."""
    score = mapping(result, "scores", split).get(metric)
    return score if isinstance(score, Mapping) and is_number(score.get("value")) else None


def score_tables(result: Mapping[str, Any]) -> tuple[ScoreTable, dict[str, ScoreTable]]:
    """Return the table of metrics by splits, and per split the one of baselines by metrics; the first
    holds the signatures of all of them.
    """
    notes = _Notes()
    splits = mapping(result, "scores")
    rows = []
    for metric in metric_order(name for split in splits.values() for name in split):
        cells = (notes.cell(splits[split].get(metric), metric, f"on {split}") for split in splits)
        rows.append((metric, tuple(cells)))
    baselines = {split: _baseline_table(result, split, notes) for split in mapping(result, "baselines")}
    table = ScoreTable(tuple(splits), tuple(rows), notes.signatures)
    return table, {split: found for split, found in baselines.items() if found.rows}


def diagnostics_table(result: Mapping[str, Any]) -> ScoreTable:
    """Return what was counted in the captions, rows by splits: shares ×100, whole numbers as they are."""
    splits = mapping(result, "diagnostics")
    rows = []
    for name in dict.fromkeys(name for split in splits.values() for name in split):
        values = [splits[split].get(name) for split in splits]
        share = not is_count(name) and any(isinstance(value, float) for value in values)
        cells = (Cell(score_text(value, name) if share else number_text(value)) for value in values)
        rows.append((name.replace("_", " ") + (", %" if share else ""), tuple(cells)))
    return ScoreTable(tuple(splits), tuple(rows), {})


def tag_tables(result: Mapping[str, Any]) -> dict[str, ScoreTable]:
    """Return per split the scores of each tag of a tag model, those of most images first; empty for a captioner."""
    columns = ("images", "average precision", "precision@3", "recall@3", "F1@3")
    tables = {}
    for split, found in mapping(result, "tags").items():
        rows = []
        for row in sorted(found, key=lambda row: -row["images"]):
            scores = (row[key] for key in ("average_precision", "precision", "recall", "F1"))
            cells = (Cell(f"{row['images']:,}"), *(Cell(score_text(value)) for value in scores))
            rows.append((row["tag"], cells))
        tables[split] = ScoreTable(columns, tuple(rows), {})
    return tables


def mapping(values: Any, *keys: str | None) -> Mapping[str, Any]:
    """Return the nested mapping at `keys`, empty where there is none."""
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}


def baselines_of(result: Mapping[str, Any], split: str) -> list[tuple[str, str, Mapping[str, Any]]]:
    """The key, the name and the scores of each baseline of a split."""
    found = mapping(result, "baselines", split)
    named = [(key, label, mapping(found, key)) for key, label in BASELINES.items() if key in found]
    others = [(key, key.replace("_", " "), mapping(found, key)) for key in found if key not in BASELINES]
    return named + others


def _baseline_table(result: Mapping[str, Any], split: str, notes: _Notes) -> ScoreTable:
    baselines = baselines_of(result, split)
    metrics = metric_order(name for _, _, scores in baselines for name in scores)
    rows = [
        (label, tuple(notes.cell(scores.get(name), name, f"on {split} ({label})") for name in metrics))
        for _, label, scores in baselines
    ]
    return ScoreTable(tuple(metrics), tuple(rows), {})

"""What separates two runs, or the captions of any two systems, and whether it is chance.

Both are scored anew on the same references; what only the source of the data can judge (truth of scenes) is read as
evaluation left it, image by image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from easycap.metrics import Comparison, compare, score
from easycap.metrics.corpus import captions_by_id, references_by_id
from easycap.registry import describe_choices
from easycap.report import numbers
from easycap.report.comparison import differing_images
from easycap.report.scores import oracle_mark, oracles_of
from easycap.runs import shown
from easycap.scoring import read_captions, read_file, read_references, write_file
from easycap.types import Score

_UNLIKELY = 0.05


@dataclass(frozen=True)
class System:
    """The captions {id: caption} of one side; `judged` are scores that cannot be computed from text alone; `oracles`
    is what the captioner was shown of the references, as evaluation marked its scores (draft:oracle)."""

    path: Path
    captions: Mapping[str, str]
    references: Mapping[str, list[str]] | None = None
    judged: Mapping[str, Score] = field(default_factory=dict)
    oracles: tuple[str, ...] = ()


def show_paired(
    a: Path,
    b: Path,
    *,
    split: str,
    other_split: str | None,
    given: Path | None,
    partial: bool,
    by: str,
    top: int,
    json: Path | None,
) -> None:
    """Print the paired comparison of two systems and, with `json`, write it; raises `ValueError` in one sentence
    for what cannot be compared."""
    left, right = read_system(a, split), read_system(b, other_split or split)
    references = _references(left, right, given)
    found = compare_systems(left, right, references, partial=partial, show=top)
    if by not in found:
        raise ValueError(f"--by {by} is no metric of both; {describe_choices(by, found)}")
    images = furthest(found[by], left, right, references)
    _print(found, left, right, images, by)
    if json:
        write_file(json, _plain(found, left, right, images, by))


# ----------------------------------------------------------------------------------------------- reading


def read_system(path: Path, split: str) -> System:
    """Return a run's captions of a split, or those of a results file; raises `ValueError` for anything else."""
    if not path.is_dir():
        return System(path, captions_by_id(read_captions(path)))
    file = path / f"captions.{split}.json"
    if not file.is_file():
        splits = [p.name[len("captions.") : -len(".json")] for p in sorted(path.glob("captions.*.json"))]
        there = f"it has {', '.join(splits)}" if splits else "is it a run's folder? `easycap runs` lists them"
        raise ValueError(f"{shown(path)} holds no captions of split {split!r}; {there}")
    told = path / f"references.{split}.json"
    references = references_by_id(read_references(told)) if told.is_file() else None
    return System(
        path, captions_by_id(read_captions(file)), references, _judged(path, split), _oracles(path, split)
    )


def _oracles(run: Path, split: str) -> tuple[str, ...]:
    if not (run / "result.json").is_file():
        return ()
    scores = read_file(run / "result.json").get("scores", {}).get(split, {})
    return tuple(dict.fromkeys(part for score in scores.values() for part in oracles_of(score)))


def _judged(run: Path, split: str) -> dict[str, Score]:
    """What evaluation measured per image, as far as the mean over images is the score."""
    if not (run / f"per_image.{split}.json").is_file():
        return {}
    per_image = read_file(run / f"per_image.{split}.json")
    scores = read_file(run / "result.json").get("scores", {}).get(split, {})
    found = {}
    for name, values in per_image.items():
        mean = math.fsum(values.values()) / max(1, len(values))
        if name in scores and math.isclose(mean, scores[name].get("value", math.nan), abs_tol=1e-9):
            found[name] = Score(mean, values, scores[name]["signature"])
    return found


def _references(a: System, b: System, given: Path | None) -> Mapping[str, list[str]]:
    """The references both are scored against: the given ones, else the runs' own, which must be the same."""
    if given is not None:
        return references_by_id(read_references(given))
    known = [system for system in (a, b) if system.references is not None]
    if not known:
        raise ValueError(
            f"there are no references for {shown(a.path)} and {shown(b.path)}: give --references FILE, "
            "or run `easycap evaluate RUN` again if these are runs"
        )
    first, last = known[0].references, known[-1].references
    odd = differing_images(first, last)
    if odd:
        raise ValueError(
            f"{shown(a.path)} and {shown(b.path)} were scored on different images or references ({len(odd)} images "
            f"differ, e.g. {odd[0]!r}), so they cannot be compared; evaluate both on the same data"
        )
    return first


# --------------------------------------------------------------------------------------------- comparing


def compare_systems(
    a: System,
    b: System,
    references: Mapping[str, list[str]],
    *,
    partial: bool = False,
    show: int = 10,
) -> dict[str, Comparison]:
    """Compare by all metrics of text, and by what both were judged by; `ValueError` names the side at fault."""
    sides = []
    for system in (a, b):
        try:
            scores = score(
                system.captions, references, partial=partial, oracles=system.oracles, intervals=False
            )
        except ValueError as error:
            raise ValueError(f"{shown(system.path)}: {error}") from None
        sides.append({**system.judged, **scores})
    found = compare(*sides, show=show)
    return {name: found[name] for name in numbers.metric_order(found)}


def furthest(
    comparison: Comparison, a: System, b: System, references: Mapping[str, list[str]]
) -> list[dict[str, Any]]:
    """Return the images that differ most, largest difference first; images scored equally are left out."""
    return [
        {
            "id": image_id,
            "scores": {"a": left, "b": right},
            "captions": {"a": a.captions[image_id], "b": b.captions[image_id]},
            "references": references[image_id],
        }
        for image_id, left, right in comparison.images
        if left != right
    ]


# ----------------------------------------------------------------------------------------------- showing


def _print(
    found: Mapping[str, Comparison], a: System, b: System, images: list[dict[str, Any]], metric: str
) -> None:
    console = Console(highlight=False)
    console.print(f"A  {shown(a.path)}\nB  {shown(b.path)}", markup=False, soft_wrap=True)
    console.print(_table(found))
    for line in (*_NOTES, *_marks(found, a, b), found[metric].signatures[0]):
        console.print(line, markup=False, soft_wrap=True)
    if images:
        console.print(_examples(images, metric))


def _table(found: Mapping[str, Comparison]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("metric", no_wrap=True)
    for column in ("A", "B", "A − B", "95 % interval", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, one in found.items():
        mark = "" if one.comparable else " [yellow]≠[/]"
        style = "bold" if one.p_value < _UNLIKELY and one.comparable else ""
        a, b = (
            numbers.score_text(value, name) + oracle_mark({"signature": signature})
            for value, signature in zip((one.a, one.b), one.signatures, strict=True)
        )
        interval = f"{numbers.signed_text(one.low, name)} to {numbers.signed_text(one.high, name)}"
        p_value = "< 0.001" if one.p_value < 0.001 else f"{one.p_value:.3f}"
        table.add_row(
            escape(name) + mark,
            a,
            b,
            numbers.signed_text(one.difference, name),
            interval,
            p_value,
            style=style,
        )
    return table


_NOTES = (
    "Scores and shares are ×100; differences are paired, image by image, and bold where p < 0.05.",
    "p: signs flipped at random; for BLEU, captions exchanged at random.",
)


def _marks(found: Mapping[str, Comparison], a: System, b: System) -> list[str]:
    """One line for each thing that a reader of the table must know."""
    lines = [
        f"≠ {name} was measured in two ways ({'; '.join(one.mismatch)}): the difference says nothing"
        for name, one in found.items()
        if not one.comparable
    ]
    alone = [name for system in (a, b) for name in system.judged if name not in found]
    if alone:
        lines.append(f"measured on one side only, so not compared: {', '.join(dict.fromkeys(alone))}")
    return lines


def _examples(images: Sequence[Mapping[str, Any]], metric: str) -> Table:
    title = f"\nImages that differ most in {escape(metric)}"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("image", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("caption, and what references say", overflow="fold")
    for image in images:
        for side in ("a", "b"):
            value = numbers.score_text(image["scores"][side], metric)
            name = escape(image["id"]) if side == "a" else ""
            table.add_row(name, side.upper(), value, escape(image["captions"][side]))
        texts = "\n".join(escape(text) for text in image["references"])
        table.add_row("", "", "", f"[dim]{texts}[/]", end_section=True)
    return table


def _plain(
    found: Mapping[str, Comparison], a: System, b: System, images: list[dict[str, Any]], metric: str
) -> dict[str, Any]:
    metrics = {name: one.to_dict() for name, one in found.items()}
    for values in metrics.values():
        del values["images"]
    return {
        "a": str(a.path),
        "b": str(b.path),
        "num_images": len(a.captions),
        "metrics": metrics,
        "by": metric,
        "images": images,
    }

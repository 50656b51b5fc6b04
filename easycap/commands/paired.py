"""What separates two runs, or the captions of any two systems, and whether it is chance.

Both are scored again on the same references; what only the source of the data can judge (truth of scenes) is read as
evaluation left it, image by image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from json import dumps
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from easycap.errors import UserError
from easycap.metrics import Comparison, compare, score
from easycap.metrics.caption_files import read_captions, read_references
from easycap.metrics.corpus import captions_by_id, match_ids, references_by_id
from easycap.registry import describe_choices
from easycap.report.comparison import EVALUATE_ON_THE_SAME, differing_images
from easycap.report.scores import oracle_mark, oracles_of
from easycap.runs.find import shown
from easycap.runs.reading import is_run
from easycap.types import Score
from easycap.utils import text as numbers
from easycap.utils.console import console
from easycap.utils.files import mapping_of, read_mapping
from easycap.utils.segmenters import SPACES, Segmenter, segmenter, segmenter_in

_UNLIKELY = 0.05


@dataclass(frozen=True)
class System:
    """The captions {id: caption} of one side; `judged` are scores that cannot be computed from text alone; `oracles`
    is what the captioner was shown of the references, as evaluation marked its scores (draft:oracle); `segmenter` cuts
    a run's captions into words, None for a file.
    """

    path: Path
    captions: Mapping[str, str]
    references: Mapping[str, list[str]] | None = None
    judged: Mapping[str, Score] = field(default_factory=dict)
    oracles: tuple[str, ...] = ()
    segmenter: Segmenter | None = None


@dataclass(frozen=True)
class Paired:
    """Two systems compared by each metric of both, and the `images` on which they differ most by the metric `by`."""

    a: System
    b: System
    metrics: Mapping[str, Comparison]
    by: str
    images: list[dict[str, Any]]

    def show(self) -> None:
        """Print the table, its notes and the images."""
        out = console()
        out.print(f"A  {shown(self.a.path)}\nB  {shown(self.b.path)}", soft_wrap=True)
        out.print(_table(self.metrics))
        for line in (*_NOTES, *_marks(self.metrics, self.a, self.b), self.metrics[self.by].signatures[0]):
            out.print(line, soft_wrap=True)
        if self.images:
            out.print(_examples(self.images, self.by))

    def to_json(self) -> str:
        """Return all of it as JSON."""
        metrics = {name: one.to_dict() for name, one in self.metrics.items()}
        for values in metrics.values():
            del values["images"]
        plain = {
            "a": str(self.a.path),
            "b": str(self.b.path),
            "num_images": len(self.a.captions),
            "metrics": metrics,
            "by": self.by,
            "images": self.images,
        }
        return dumps(plain, indent=1)


def read_paired(
    a: Path,
    b: Path,
    *,
    split: str,
    other_split: str | None,
    given: Path | None,
    partial: bool,
    by: str,
    top: int,
    segmenter_name: str | None = None,
) -> Paired:
    """Read two systems and compare them, `top` images by the metric `by`; raises `UserError` in one sentence for what
    cannot be compared.
    """
    left, right = read_system(a, split), read_system(b, other_split or split)
    references = _references(left, right, given)
    left, right = (replace(one, captions=match_ids(one.captions, references)) for one in (left, right))
    found = compare_systems(
        left, right, references, partial=partial, show=top, words=_segmenter(left, right, segmenter_name)
    )
    if by not in found:
        raise UserError(f"--by {by} is not a metric of both; {describe_choices(by, found)}")
    return Paired(left, right, found, by, furthest(found[by], left, right, references))


# ----------------------------------------------------------------------------------------------- reading


def read_system(path: Path, split: str) -> System:
    """Return a run's captions of a split, or those of a results file; raises `UserError` for anything else."""
    if not path.is_dir():
        return System(path, captions_by_id(read_captions(path)))
    file = path / f"captions.{split}.json"
    if not file.is_file():
        splits = [p.name[len("captions.") : -len(".json")] for p in sorted(path.glob("captions.*.json"))]
        what = "the run has not been scored yet" if is_run(path) else "is it a run's folder?"
        there = f"it has {', '.join(splits)}" if splits else f"{what} `easycap runs` lists all runs"
        raise UserError(f"{shown(path)} holds no captions of split {split!r}; {there}")
    known = path / f"references.{split}.json"
    references = references_by_id(read_references(known)) if known.is_file() else None
    scores = _scores(path, split)
    return System(
        path,
        captions_by_id(read_captions(file)),
        references,
        _judged(path / f"per_image.{split}.json", scores),
        tuple(dict.fromkeys(part for score in scores.values() for part in oracles_of(score))),
        segmenter_in(str(scores.get("BLEU-4", {}).get("signature", ""))),
    )


def _scores(run: Path, split: str) -> Mapping[str, Any]:
    """A run's scores of a split as evaluation left them, if it did."""
    path = run / "result.json"
    scores = read_mapping(path).get("scores", {}) if path.is_file() else {}
    return mapping_of(mapping_of(scores, path).get(split, {}), path)


def _segmenter(a: System, b: System, name: str | None) -> Segmenter:
    """What cuts the captions of both into words: that of the runs, of two files the one called `name`."""
    found = {one.name: one for one in (a.segmenter, b.segmenter, name and segmenter(name)) if one}
    if len(found) > 1:
        raise UserError(
            f"{shown(a.path)} and {shown(b.path)} are cut into words by {' and by '.join(found)}, so they cannot be "
            "compared"
        )
    return next(iter(found.values()), SPACES)


def _judged(path: Path, scores: Mapping[str, Any]) -> dict[str, Score]:
    """What evaluation measured per image, as far as the mean over images is the score."""
    found = {}
    for name, values in (read_mapping(path) if path.is_file() else {}).items():
        mean = math.fsum(mapping_of(values, path).values()) / max(1, len(values))
        if name in scores and math.isclose(mean, scores[name].get("value", math.nan), abs_tol=1e-9):
            found[name] = Score(mean, values, scores[name]["signature"])
    return found


def _references(a: System, b: System, given: Path | None) -> Mapping[str, list[str]]:
    """The references both are scored against: the given ones, else the runs' own, which must be the same."""
    if given is not None:
        return references_by_id(read_references(given))
    known = [system.references for system in (a, b) if system.references is not None]
    if not known:
        raise UserError(
            f"there are no references for {shown(a.path)} and {shown(b.path)}: give --references FILE, "
            "or run `easycap evaluate RUN` again if these are runs"
        )
    first, last = known[0], known[-1]
    odd = differing_images(first, last)
    if odd:
        raise UserError(
            f"{shown(a.path)} and {shown(b.path)} were scored on different images or references ({len(odd)} images "
            f"differ, e.g. {odd[0]!r}), so they cannot be compared; {EVALUATE_ON_THE_SAME}"
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
    words: Segmenter = SPACES,
) -> dict[str, Comparison]:
    """Compare by all metrics of text, and by what both were judged by; `UserError` names the side at fault."""
    sides = []
    for system in (a, b):
        try:
            scores = score(
                system.captions,
                references,
                partial=partial,
                oracles=system.oracles,
                intervals=False,
                segmenter=words,
            )
        except UserError as error:
            raise UserError(f"{shown(system.path)}: {error}") from None
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


def _table(found: Mapping[str, Comparison]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("metric", no_wrap=True)
    for column in ("A", "B", "A − B", "95 % interval", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, one in found.items():
        mark = Text("" if one.comparable else " ≠", "yellow")
        style = "bold" if one.p_value < _UNLIKELY and one.comparable else ""
        a, b = (
            numbers.score_text(value, name) + oracle_mark({"signature": signature})
            for value, signature in zip((one.a, one.b), one.signatures, strict=True)
        )
        interval = f"{numbers.signed_text(one.low, name)} to {numbers.signed_text(one.high, name)}"
        p_value = "< 0.001" if one.p_value < 0.001 else f"{one.p_value:.3f}"
        table.add_row(
            Text(name) + mark,
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
        f"≠ {name} was measured in two ways ({'; '.join(one.mismatch)}): the difference means nothing"
        for name, one in found.items()
        if not one.comparable
    ]
    alone = [name for system in (a, b) for name in system.judged if name not in found]
    if alone:
        lines.append(f"measured on one side only, so not compared: {', '.join(dict.fromkeys(alone))}")
    return lines


def _examples(images: Sequence[Mapping[str, Any]], metric: str) -> Table:
    title = f"\nImages that differ most in {metric}"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("image", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("caption, and what references say", overflow="fold")
    for image in images:
        for side in ("a", "b"):
            value = numbers.score_text(image["scores"][side], metric)
            name = image["id"] if side == "a" else ""
            table.add_row(name, side.upper(), value, image["captions"][side])
        table.add_row("", "", "", Text("\n".join(image["references"]), "dim"), end_section=True)
    return table

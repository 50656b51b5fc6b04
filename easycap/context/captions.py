"""The captions of another run as drafts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from easycap.context.draft import Draft, DraftData
from easycap.metrics.corpus import captions_by_id, references_by_id
from easycap.registry import register
from easycap.types import Example, ImageSource

KEPT = "drafts"  # the folder in a run's where it keeps what another run said
_RESULT = "result.json"


@register("draft", "captions")
def captions(*, run: str, max_words: int, training: dict[str, float], draft_data: DraftData) -> Draft:
    """In testing: what another `run` said of the image, from its captions.<split>.json.

    Where that run saw what no captioner has (draft=oracle, tags=oracle, or the captions of such a run), this one is
    marked as an oracle too. Raises `ValueError` if the run has no scores that say so.
    """
    said = RunCaptions(Path(run), draft_data)
    return Draft(
        said,
        signature="captions of an oracle" if said.of_oracle() else "captions",
        max_words=max_words,
        training=training,
        draft_data=draft_data,
        prepare=said.prepare,
        of_photos=False,
    )


class RunCaptions:
    """What a run said of examples that were prepared: from the copy in `data.kept` of the splits that it has."""

    def __init__(self, run: Path, data: DraftData) -> None:
        self.run, self.data, self.said = run, data, dict[ImageSource, str]()

    def prepare(self, examples: Sequence[Example]) -> None:
        """Read what the run said of examples; `ValueError` if it says nothing of one, or was run on other data."""
        new = [example for example in examples if example.image not in self.said]
        for split, its in self._by_split(new).items():
            folder = self._folder(f"captions.{split}.json")
            found = captions_of(folder, split)
            _check_references(folder, split, its)
            missing = next((example.id for example in its if example.id not in found), None)
            if missing is not None:
                file = self.run / f"captions.{split}.json"
                raise ValueError(f"{file} has no caption of {missing!r}: {_makes(self.run, split)}")
            self.said |= {example.image: found[example.id] for example in its}

    def of_oracle(self) -> bool:
        """Whether the run's scores are marked as those of an oracle."""
        if self._folder(_RESULT) == self.run:
            _check_folder(self.run)
        scores = _read(self._folder(_RESULT) / _RESULT, self.run, "val").get("scores", {})
        marks = {mark for of in scores.values() for one in of.values() for mark in _marks(one)}
        return any(mark.endswith(":oracle") for mark in marks)

    def _folder(self, file: str) -> Path:
        kept = self.data.kept
        return kept if kept is not None and (kept / file).is_file() else self.run

    def _by_split(self, examples: Sequence[Example]) -> dict[str, list[Example]]:
        """Return examples by the split they are of, the first of several."""
        split_of = (
            {e.image: name for name, its in reversed(self.data.splits.items()) for e in its}
            if examples
            else {}
        )
        found: dict[str, list[Example]] = {}
        for example in examples:
            if example.image not in split_of:
                raise ValueError(
                    f"draft=captions reads what {self.run} said of the data's images, and {example.id} is none of "
                    "them: give a draft by --draft"
                )
            found.setdefault(split_of[example.image], []).append(example)
        return found

    def __call__(self, example: Example) -> str:
        return self.said[example.image]


def captions_of(run: Path, split: str) -> dict[str, str]:
    """Return {id: caption} of what a run said of a split; `ValueError` names the command that makes it."""
    _check_folder(run)
    path = run / f"captions.{split}.json"
    rows = _read(path, run, split)
    try:
        return captions_by_id(rows)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): {_makes(run, split)}") from None


def copy_captions(run: Path, folder: Path, splits: Iterable[str]) -> None:
    """Copy what a run said, beside which references and with which marks, of `splits` into a folder that is there."""
    of_splits = (f"{what}.{split}.json" for split in splits for what in ("captions", "references"))
    for name in (_RESULT, *of_splits):
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)


def _check_references(run: Path, split: str, examples: Sequence[Example]) -> None:
    """Raise `ValueError` if what a run was scored against is not what is known of the examples: ids alone agree
    between any two sets of generated images."""
    known = references_by_id(_read(run / f"references.{split}.json", run, split))
    other = next((e.id for e in examples if known.get(e.id) != list(e.references)), None)
    if other is not None:
        raise ValueError(
            f"draft.run={run} was run on other data: its references of {other!r} in {split} are not those of this run, "
            "so name a run with the same settings of data"
        )


def _marks(score: dict[str, Any]) -> list[str]:
    return score.get("signature", "").split("|")


def _check_folder(run: Path) -> None:
    if not run.is_dir():
        raise ValueError(f"draft.run={run} is no folder; `easycap runs` lists the runs there are")


def _read(path: Path, run: Path, split: str) -> Any:
    if not path.is_file():
        raise ValueError(f"draft.run={run} has no {path.name}: {_makes(run, split)}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): {_makes(run, split)}") from None


def _makes(run: Path, split: str) -> str:
    return f"`easycap evaluate {run} --split {split}` makes them"

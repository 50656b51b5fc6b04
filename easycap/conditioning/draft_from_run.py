"""The captions that another run generated as drafts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from easycap.conditioning.conditions import ConditionData
from easycap.conditioning.draft import Draft
from easycap.errors import UserError
from easycap.metrics.corpus import captions_by_id, references_by_id
from easycap.registry import register_condition
from easycap.types import ConditionInfo, Example, ImageSource
from easycap.utils.checksums import saved_dir
from easycap.utils.files import write_json

_SAVED = "drafts"  # the folder in a run's folder with the other run's captions
_RESULT = "result.json"


@register_condition("draft", "captions")
class GeneratedDraft(Draft):
    """At test time: what another `run` generated for the image, from its captions.<split>.json.

    If that run's scores are those of an oracle (draft=oracle, tags=oracle, or captions of such a run), so are those of
    a captioner that reads its captions. Raises `UserError` if the run has no captions, or no scores that say so.
    """

    def __init__(self, data: ConditionData, *, run: str, max_length: int, training: dict[str, float]) -> None:
        super().__init__(data, max_length=max_length, training=training)
        self.run = Path(run)
        self.saved: Path | None = None
        self.generated: dict[ImageSource, str] = {}

    def validate(self, config: Mapping[str, Any]) -> None:
        super().validate(config)
        self.describe()
        if not config["resume"]:
            for split in ("train", "val") if self.as_tested else ("val",):
                captions_of(self.run, split)

    def prepare_test(self, examples: Sequence[Example]) -> None:
        """Read the run's captions; `UserError` if one is missing, or the run has other data."""
        new = [example for example in examples if example.image not in self.generated]
        for split, its in self._by_split(new).items():
            folder = self._folder_of(f"captions.{split}.json")
            found = captions_of(folder, split)
            _check_references(folder, split, its)
            missing = next((example.id for example in its if example.id not in found), None)
            if missing is not None:
                file = self.run / f"captions.{split}.json"
                raise UserError(f"{file} has no caption of {missing!r}: {_remedy(self.run, split)}")
            self.generated |= {example.image: found[example.id] for example in its}

    def test_text(self, example: Example) -> str:
        return self.generated[example.image]

    def describe(self) -> ConditionInfo:
        return ConditionInfo("captions of a run", oracle=self._of_oracle, any_image=False)

    def save(self, run: Path) -> None:
        saved_dir(run / _SAVED, lambda new: copy_captions(self.run, new, self.data.splits))

    def save_for_photos(self, folder: Path) -> None:
        """Save the run's score flags; its captions cover only its own images."""
        scores = _read(self._folder_of(_RESULT) / _RESULT, self.run, "val").get("scores", {})
        saved_dir(folder / _SAVED, lambda new: write_json(new / _RESULT, {"scores": scores}))

    def load(self, run: Path) -> None:
        self.saved = run / _SAVED

    @cached_property
    def _of_oracle(self) -> bool:
        """Whether the run's scores are marked as those of an oracle."""
        if self._folder_of(_RESULT) == self.run:
            _check_folder(self.run)
        scores = _read(self._folder_of(_RESULT) / _RESULT, self.run, "val").get("scores", {})
        marks = {mark for of in scores.values() for one in of.values() for mark in _marks(one)}
        return any(mark.endswith(":oracle") for mark in marks)

    def _folder_of(self, file: str) -> Path:
        """The folder with the copy of a file that was saved, else the other run's."""
        return self.saved if self.saved is not None and (self.saved / file).is_file() else self.run

    def _by_split(self, examples: Sequence[Example]) -> dict[str, list[Example]]:
        """Return examples by their split, the first one if they are in several."""
        if not examples:
            return {}
        split_of = {e.image: name for name, its in reversed(list(self.data.splits.items())) for e in its}
        found: dict[str, list[Example]] = {}
        for example in examples:
            if example.image not in split_of:
                raise UserError(
                    f"draft=captions uses what {self.run} generated for the images of its data, and {example.id} "
                    "is not one of them"
                )
            found.setdefault(split_of[example.image], []).append(example)
        return found


def captions_of(run: Path, split: str) -> dict[str, str]:
    """Return {id: caption} of what a run generated for a split; `UserError` names the command that does so."""
    _check_folder(run)
    path = run / f"captions.{split}.json"
    rows = _read(path, run, split)
    try:
        return captions_by_id(rows)
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error}): {_remedy(run, split)}") from None


def copy_captions(run: Path, folder: Path, splits: Iterable[str]) -> None:
    """Copy a run's captions of `splits`, with the references and marks of their scores, into an existing folder."""
    of_splits = (f"{what}.{split}.json" for split in splits for what in ("captions", "references"))
    for name in (_RESULT, *of_splits):
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)


def _check_references(run: Path, split: str, examples: Sequence[Example]) -> None:
    """Raise `UserError` if a run was scored against other references than the examples have: ids alone agree between
    any two sets of generated images.
    """
    known = references_by_id(_read(run / f"references.{split}.json", run, split))
    other = next((e.id for e in examples if known.get(e.id) != list(e.references)), None)
    if other is not None:
        raise UserError(
            f"draft.run={run} was run on other data: its references of {other!r} in {split} are not those of this run, "
            "so name a run with the same settings of data"
        )


def _marks(score: dict[str, Any]) -> list[str]:
    return score.get("signature", "").split("|")


def _check_folder(run: Path) -> None:
    if not run.is_dir():
        raise UserError(f"draft.run={run} is not a folder; `easycap runs` lists all runs")


def _read(path: Path, run: Path, split: str) -> Any:
    if not path.is_file():
        raise UserError(f"draft.run={run} has no {path.name}: {_remedy(run, split)}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error}): {_remedy(run, split)}") from None


def _remedy(run: Path, split: str) -> str:
    return f"`easycap evaluate {run} --split {split}` makes them"

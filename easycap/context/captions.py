"""The captions of another run as drafts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from easycap.context.draft import Draft, DraftData
from easycap.metrics.corpus import captions_by_id
from easycap.registry import register
from easycap.types import Example, ImageSource


@register("draft", "captions")
def captions(*, run: str, max_words: int, training: dict[str, float], draft_data: DraftData) -> Draft:
    """In testing: what another `run` said of the image, from its captions.<split>.json."""
    said = RunCaptions(Path(run), draft_data)
    return Draft(
        said,
        signature="captions",
        max_words=max_words,
        training=training,
        draft_data=draft_data,
        prepare=said.prepare,
    )


class RunCaptions:
    """What a run said of examples that were prepared."""

    def __init__(self, run: Path, data: DraftData) -> None:
        self.run, self.data, self.said = run, data, dict[ImageSource, str]()

    def prepare(self, examples: Sequence[Example]) -> None:
        """Read what the run said of examples; `ValueError` if it says nothing of one."""
        new = [example for example in examples if example.image not in self.said]
        for split, its in self._by_split(new).items():
            found = captions_of(self.run, split)
            missing = next((example.id for example in its if example.id not in found), None)
            if missing is not None:
                file = self.run / f"captions.{split}.json"
                raise ValueError(f"{file} has no caption of {missing!r}: {_makes(self.run, split)}")
            self.said |= {example.image: found[example.id] for example in its}

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
    path = run / f"captions.{split}.json"
    if not run.is_dir():
        raise ValueError(f"draft.run={run} is no folder; `easycap runs` lists the runs there are")
    if not path.is_file():
        raise ValueError(f"draft.run={run} has no captions of {split}: {_makes(run, split)}")
    try:
        return captions_by_id(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): {_makes(run, split)}") from None


def _makes(run: Path, split: str) -> str:
    return f"`easycap evaluate {run} --split {split}` makes them"

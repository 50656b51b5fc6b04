"""The text conditions of a run: what its captioner reads besides the image.

build_conditions(config, read_splits=..., run=..., device=...) -> ConditionSet
conditions.validate(config)            before any work
conditions.prepare(examples, stage)    slow work, before batches are loaded
conditions[name].text(example, ...)    in the data loader
conditions.save(run)                   what a later evaluation needs; build_conditions(run=...) loads it
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from easycap.config.data_locations import without_locations
from easycap.config.instantiate import build, condition_names, segmenter_of
from easycap.config.schema import to_plain
from easycap.data.packed import shareable
from easycap.errors import UserError
from easycap.registry import register_condition
from easycap.runs.find import CONFIG, checkpoint_of
from easycap.runs.migrate import update_settings
from easycap.types import Example, Stage, TextCondition
from easycap.utils.checksums import CHECKSUMS, damage
from easycap.utils.segmenters import SPACES, segmenter

logger = logging.getLogger(__name__)

# Keys of data that change nothing about which images are trained on.
_SAME_IMAGES = ("workers", "on_bad_image")


@register_condition("tags", "none")
@register_condition("draft", "none")
def no_condition() -> None:
    """The image alone."""


class ConditionData:
    """What a run gives to its text conditions; the argument `data` of their constructors.

    `read_splits` returns {split: examples}; it is called when `splits` or `train` is first
    used. Training uses `captions_per_image` references per image (None: all), sampled with
    `seed`. `tag_vocab` holds the settings of that group. `workers` processes load images;
    models run on `device`. `segmenter` is the name of what cuts captions into words.
    """

    def __init__(
        self,
        read_splits: Callable[[], Mapping[str, Sequence[Example]]],
        *,
        captions_per_image: int | None,
        seed: int,
        tag_vocab: Mapping[str, Any],
        workers: int | str,
        device: torch.device,
        segmenter: str = SPACES.name,
    ) -> None:
        self.segmenter = segmenter
        self.read_splits, self.captions_per_image, self.seed = read_splits, captions_per_image, seed
        self.tag_vocab, self.workers, self.device = tag_vocab, workers, device

    def words_of(self, text: str) -> list[str]:
        """Return the words of a caption."""
        return segmenter(self.segmenter)(text).split()

    def text_of(self, words: list[str]) -> str:
        """Return words as a caption."""
        return segmenter(self.segmenter).join(words)

    @cached_property
    def splits(self) -> Mapping[str, Sequence[Example]]:
        return self.read_splits()

    @cached_property
    def train(self) -> Sequence[Example]:
        """The training examples, packed for the data loader's processes to share; see `pack`."""
        return shareable(self.splits["train"])

    def pack(self) -> None:
        """Pack the training examples now, in `prepare`: processes forked before that would each pack their own."""
        _ = self.train

    def __getstate__(self) -> dict[str, Any]:
        # Spawned processes get the packed training examples, not `read_splits`, which would read all data.
        return {key: value for key, value in vars(self).items() if key not in ("read_splits", "splits")}


class ConditionSet(Mapping[str, TextCondition]):
    """Text conditions by name, in the order of the config; empty for a captioner of images alone.

    `loaded` says that they were loaded from a run's folder, which then has all that they need.
    """

    def __init__(self, by_name: Mapping[str, TextCondition], *, loaded: bool) -> None:
        self.by_name, self.loaded = dict(by_name), loaded

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    def __getitem__(self, name: str) -> TextCondition:
        return self.by_name[name]

    @property
    def oracles(self) -> list[str]:
        """Labels, as `tags:oracle`, of conditions that see references or annotations at test time: upper bounds."""
        return [f"{name}:oracle" for name, condition in self.items() if condition.describe().oracle]

    @property
    def needs_data_tags(self) -> bool:
        """Whether `Example.tags` of the training images must be read from the data."""
        return any(condition.needs_data_tags for condition in self.values())

    def validate(self, config: Mapping[str, Any]) -> None:
        """Raise `UserError` for settings that cannot work and for missing files, before any work."""
        for name, condition in self.items():
            condition.validate(config)
            if not config["resume"]:
                _warn_about_run(name, config)

    def prepare(self, examples: Sequence[Example], stage: Stage) -> None:
        """Do the slow work for examples; raises `UserError` for what is missing."""
        for condition in self.values():
            condition.prepare(examples, stage)

    def texts(self, name: str, examples: Sequence[Example]) -> list[str]:
        """Return the text of the condition `name` for examples at test time."""
        condition = self[name]
        condition.prepare(examples, "test")
        return [condition.text(example, epoch=None, targets=()) for example in examples]

    def save(self, run: Path) -> None:
        """Save what the conditions need in the folder `run`, replacing what an earlier start left there."""
        if self.loaded:
            return
        for condition in self.values():
            condition.save(run)


def build_conditions(
    config: Mapping[str, Any],
    *,
    read_splits: Callable[[], Mapping[str, Sequence[Example]]],
    run: Path | None,
    device: torch.device,
) -> ConditionSet:
    """Return the text conditions of a checked config; nothing is read yet.

    `read_splits` returns {split: examples}. `run` is the folder of the run whose checkpoint is evaluated or resumed;
    None for a new run.
    """
    data = ConditionData(
        read_splits,
        captions_per_image=config["trainer"]["captions_per_image"],
        seed=config["seed"],
        tag_vocab=config["tag_vocab"],
        workers=config["trainer"]["workers"],
        device=device,
        segmenter=segmenter_of(config).name,
    )
    by_name = {name: build(name, config[name], data=data) for name in condition_names(config)}
    if run is not None:
        if by_name:
            _check_saved(run)
        for condition in by_name.values():
            condition.load(run)
    return ConditionSet(by_name, loaded=run is not None)


def _check_saved(run: Path) -> None:
    """Raise `UserError` naming a damaged file among those that text conditions saved in a run's folder."""
    for listed in sorted(run.glob(f"*/{CHECKSUMS}")):
        if reason := damage(listed.parent):
            raise UserError(f"{listed.parent} is damaged: {reason}; restore it from a copy")


def _warn_about_run(name: str, config: Mapping[str, Any]) -> None:
    """Warn if the run that a condition's setting `run` names is unfinished or was trained on other data."""
    if config[name].get("run") is None:
        return
    run = Path(config[name]["run"])
    try:
        if (run / "status.json").is_file():
            status = json.loads((run / "status.json").read_text(encoding="utf-8"))["status"]
            if status != "completed":
                logger.warning(
                    "%s.run=%s is not finished (%s): its best checkpoint so far is used", name, run, status
                )
        config_then = json.loads((checkpoint_of(run) / CONFIG).read_text(encoding="utf-8"))
        stored = update_settings({"data": config_then["data"]})["data"]
    except (OSError, ValueError, KeyError):  # a folder of captions alone does not record its training
        return
    own, other = without_locations("data", to_plain(config["data"])), without_locations("data", stored)
    different = [key for key in own if key not in _SAME_IMAGES and own[key] != other.get(key)]
    if different:
        logger.warning(
            "%s.run=%s was trained on other data (%s): its training images may be among the test images here, whose "
            "scores would then be too high",
            name,
            run,
            ", ".join(f"data.{key}={other.get(key)}, here {own[key]}" for key in different),
        )

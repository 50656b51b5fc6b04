"""The words beside an experiment's images: where they come from, and what a run keeps so that it needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

import easycap.vocab
from easycap import paths
from easycap.build import CONTEXT, build
from easycap.config import to_plain
from easycap.context.captions import KEPT as KEPT_CAPTIONS
from easycap.context.captions import copy_captions
from easycap.context.draft import DraftData
from easycap.context.neighbours import Neighbours
from easycap.predictions import KEPT as KEPT_TAGS
from easycap.predictions import OwnTags, TagPredictions, copy_tag_model, tag_checkpoint
from easycap.retrieval import FrozenEncoder, copy_neighbours, make_neighbours
from easycap.shared import digest_of, made_anew, made_once
from easycap.types import Example, TextSource
from easycap.vocab.tags import FILE as TAGS_FILE
from easycap.vocab.tags import TagSource, TagVocabulary

KEPT_NEIGHBOURS = "neighbours"


class WordsBeside:
    """Where the words beside images come from, by segment; nothing without tags and drafts.

    `config` is checked, `splits` returns {split: examples} of the data. `run` is the folder of the run whose
    checkpoint is used or gone on with, None before there is one: what that run kept is taken from there.
    """

    def __init__(
        self,
        config: dict[str, Any],
        *,
        splits: Callable[[], Mapping[str, Sequence[Example]]],
        run: Path | None,
        device: torch.device,
    ) -> None:
        self.config, self.splits, self.run, self.device = config, splits, run, device
        self.workers = config["trainer"]["workers"]

    @property
    def segments(self) -> list[str]:
        """The segments of words beside an image."""
        return [segment for segment in CONTEXT if self.config[segment]["name"] != "none"]

    @cached_property
    def sources(self) -> dict[str, TextSource]:
        """Where the words come from, by segment."""
        return {
            segment: build(
                segment,
                self.config[segment],
                draft_data=self._draft_data,
                open_neighbours=self._open_neighbours,
                tag_data=self.tag_data if segment == "tags" else None,
            )
            for segment in self.segments
        }

    @property
    def oracles(self) -> list[str]:
        """The segments whose words come from an image's own references in testing: no captioner has them."""
        return [f"{name}:oracle" for name, source in self.sources.items() if "oracle" in source.signature]

    def prepare(self, examples: Sequence[Example], *, training: bool) -> None:
        """Let the sources do what takes long, and find what is missing."""
        for source in self.sources.values():
            source.prepare(examples, training=training)

    def texts(self, segment: str, examples: Sequence[Example]) -> list[str]:
        """Return the words of a segment beside examples in testing."""
        source = self.sources[segment]
        source.prepare(examples, training=False)
        return [source(example, epoch=None, said=()) for example in examples]

    def keep(self, run: Path) -> None:
        """Leave in the folder `run` what the words come from, in the place of what was left there before a first
        checkpoint; nothing if they come from that folder already."""
        if self.run is not None:
            return
        if "tags" in self.segments:
            tags = self.tag_data
            predicts = isinstance(tags, TagPredictions)
            save = partial(copy_tag_model, tags.checkpoint) if predicts else tags.vocabulary.save
            made_anew(run / KEPT_TAGS, save)
        draft = self.config["draft"]
        if draft["name"] == "retrieval":
            made_anew(run / KEPT_NEIGHBOURS, partial(copy_neighbours, self._neighbours))
        if draft["name"] == "captions":
            made_anew(run / KEPT_CAPTIONS, lambda new: copy_captions(Path(draft["run"]), new, self.splits()))

    # ------------------------------------------------------------------------------------------- tags

    @property
    def reads_tags_of_data(self) -> bool:
        """Whether the tags are those that the data itself has for training images."""
        if self.config["tags"]["name"] == "mixed":  # by the rule of the tag model, not of this config
            return self.tag_data.vocabulary.source is TagSource.data
        return self.config["tags"]["name"] == "oracle" and self.config["tag_vocab"]["name"] == "data"

    @cached_property
    def tag_data(self) -> TagPredictions | OwnTags:
        """Where tags come from: a tag model, else what is known of the image."""
        if "run" not in self.config["tags"]:
            return OwnTags(self._tag_vocabulary)
        folder = tag_checkpoint(self.config["tags"], self.run)
        return TagPredictions(folder, device=self.device, workers=self.workers)

    def _tag_vocabulary(self) -> TagVocabulary:
        if self.run is not None and (self.run / KEPT_TAGS / TAGS_FILE).is_file():
            return TagVocabulary.load(self.run / KEPT_TAGS)
        return make_tag_vocabulary(self.config["tag_vocab"], self.splits()["train"])

    # ----------------------------------------------------------------------------------------- drafts

    @cached_property
    def _draft_data(self) -> DraftData:
        return DraftData(
            self.splits,
            captions_per_image=self.config["trainer"]["captions_per_image"],
            seed=self.config["seed"],
            kept=None if self.run is None else self.run / KEPT_CAPTIONS,
        )

    def _open_neighbours(self) -> Neighbours:
        """Those kept in the run's folder; before there is a checkpoint, those made for it."""
        folder = self._neighbours if self.run is None else self.run / KEPT_NEIGHBOURS
        if not folder.is_dir():
            raise ValueError(
                f"{self.run} has no folder {KEPT_NEIGHBOURS}, from which draft=retrieval takes its drafts: copy it "
                "from where the run was trained, or give a draft by --draft"
            )
        encoder = FrozenEncoder.of_folder(folder, self.device)
        return Neighbours(folder, encoder, encoder.transform, self.workers)

    @cached_property
    def _neighbours(self) -> Path:
        """The folder in the cache with what drafts are retrieved from."""
        encoder = FrozenEncoder.of_draft(self.config["draft"], self.device)
        return make_neighbours(encoder, self.splits()["train"], workers=self.workers)


def make_tag_vocabulary(tag_vocab: dict[str, Any], examples: Sequence[Example]) -> TagVocabulary:
    """Return the frequent tags of training images, by the rule of a checked group `tag_vocab`."""
    settings = json.dumps(to_plain(tag_vocab), sort_keys=True)
    texts = (text for example in examples for text in (*example.references, ",".join(example.tags)))
    code = Path(easycap.vocab.__file__).parent
    folder = paths.cache_dir() / "tags" / digest_of(chain([settings], texts), code=code)
    made_once(folder, lambda new: build("tag_vocab", tag_vocab, examples=examples).save(new))
    return TagVocabulary.load(folder)

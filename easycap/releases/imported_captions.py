"""Captions of any origin as a run: scores, a report with the captions, comparisons."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from easycap.config.compose import compose
from easycap.config.instantiate import build, segmenter_of
from easycap.config.schema import check, to_plain
from easycap.data.example_table import Captions
from easycap.errors import UserError
from easycap.evaluation.evaluate import write_scores
from easycap.evaluation.evaluation_set import OtherSet, split_of_other
from easycap.evaluation.gallery import gallery
from easycap.metrics import (
    DocumentFrequencies,
    caption_health,
    most_frequent_caption,
    score,
    score_baselines,
)
from easycap.metrics.corpus import match_ids
from easycap.metrics.health import normalized
from easycap.metrics.scoring import DEFAULT_SCORERS
from easycap.releases.captions_files import read_any_captions
from easycap.releases.imported_run import free_folder, origins
from easycap.runs.run_folder import RunFolder
from easycap.types import Dataset, Example
from easycap.utils.cache import atomic_dir
from easycap.utils.segmenters import Segmenter

logger = logging.getLogger(__name__)

_USUAL = ("test", "val")


def import_captions(
    paths: Sequence[Path],
    overrides: Sequence[str],
    *,
    split: str | None = None,
    name: str | None = None,
    folder: Path | None = None,
    command: str,
) -> Path:
    """Write a run that has captions and their scores, and no model; return its folder.

    `overrides` name the data (data=coco data.root=DIR), `split` which of its images the captions are of, `name` what
    they are called in tables. Nothing is left behind if it fails. Raises `UserError` for captions or data that cannot
    be read, and for captions of other images.
    """
    if len(paths) != 1:
        raise UserError("give one file or folder of captions: easycap import captions FILE data=NAME ...")
    if not any(word.lstrip("+").startswith("data=") for word in overrides):
        raise UserError(
            "name the data set that the captions belong to, e.g. data=coco_karpathy data.root=DIR"
        )
    folder = free_folder(folder, ["imported", "captions"])
    captions = read_any_captions(paths[0])
    config = check(compose(overrides).config)
    data: Dataset = build("data", config["data"], pixels=False, with_tags=False)
    split = split or next((one for one in _USUAL if data.splits.get(one)), None)
    images = split_of_other(OtherSet(str(config["data"]["name"]), config, data), split)
    found = _of_images(captions, [example.id for example in images.examples], paths[0], images.split)
    described = {"name": name or paths[0].stem}
    stored = {"task": "caption", "captions": described, "data": to_plain(config["data"])}

    def write(partial: Path) -> None:
        run = RunFolder(partial, command=command)
        run.write_config(yaml.safe_dump(stored, sort_keys=False, allow_unicode=True))
        _score(run, images.split, images.examples, data, found, segmenter_of(config), command)
        about = {"system": "captions", "files": [] if paths[0].is_dir() else origins(paths)}
        run.update_result({"imported": about, "seed": None})
        run.write_status("completed")

    atomic_dir(folder, write)
    return folder


def _of_images(captions: dict[str, str], ids: Sequence[str], path: Path, split: str) -> dict[str, str]:
    """The captions of a split's images; those of other images are left out, and the log says so."""
    found = match_ids(captions, ids)
    missing = [image_id for image_id in ids if image_id not in found]
    if missing:
        raise UserError(
            f"{path} has no caption for {len(missing):,} of the {len(ids):,} images of {split}, e.g. {missing[0]!r}: "
            "add them, or choose the right split with --split"
        )
    if others := len(found) - len(ids):
        logger.warning(
            "%s: %s captions of images that are not in %s are left out", path, f"{others:,}", split
        )
    return {image_id: found[image_id] for image_id in ids}


def _score(
    run: RunFolder,
    label: str,
    examples: Sequence[Example],
    data: Dataset,
    captions: dict[str, str],
    segmenter: Segmenter,
    command: str,
) -> None:
    references = {example.id: example.references for example in examples}
    settings: dict[str, Any] = {"split": label, "segmenter": segmenter}
    scores = score(
        captions,
        references,
        annotations={example.id: example.annotations for example in examples},
        scorers=(*DEFAULT_SCORERS, *data.scorers),
        **settings,
    )
    train = data.splits.get("train") or []
    training = normalized(Captions(train), segmenter) if train else None
    baselines = {}
    if training:
        df = DocumentFrequencies.cached(
            [example.references for example in train], source="train", eos=False, segmenter=segmenter
        )
        frequent = most_frequent_caption(training)
        baselines = score_baselines(
            captions, references, df=df, most_frequent=frequent, scorers=("cider_d",), **settings
        )
    health = caption_health(list(captions.values()), unknown="<unk>", training=training, segmenter=segmenter)
    write_scores(
        run,
        label,
        captions={image_id: [text] for image_id, text in captions.items()},
        references=references,
        scores=scores,
        baselines=baselines,
        diagnostics={**health, **scores.counts},
        command=command,
    )
    run.write_samples(label, gallery(examples, captions, scores, rank_by="CIDEr-D"))

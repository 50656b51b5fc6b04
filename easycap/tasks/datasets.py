"""The data set of a config: its source, with the features that its encoder reads."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from easycap.conditioning.conditions import build_conditions
from easycap.config.data_locations import check_locations
from easycap.config.instantiate import build, segmenter_of
from easycap.data.feature_files import precomputed_features
from easycap.data.issues import OnBadImage
from easycap.errors import UserError, while_reading
from easycap.metrics import DocumentFrequencies
from easycap.runs.reading import data_name
from easycap.types import DataIssue, Dataset
from easycap.utils.files import read_mapping

logger = logging.getLogger(__name__)


def read_data(config: dict[str, Any], *, with_tags: bool, stored: bool) -> Dataset:
    """Return the data of a config; of a `stored` one (of a checkpoint) it may have been moved.

    Raises `UserError` if a split has no image, or if the data is not where it was.
    """
    if stored or config["resume"] or config["init_from"]:
        check_locations(config)
    dataset = build_dataset(config, with_tags=with_tags)
    for issue in dataset.issues:
        if issue.split in dataset.splits and not dataset.splits[issue.split] and not issue.id:
            raise UserError(f"{issue.file} {issue.what}; `easycap data check` lists all problems")
    if not stored and not dataset.splits["train"]:
        raise UserError(
            f"data={dataset.name} has no training images: train on another data set, and evaluate the run on this one"
        )
    if config["trainer"]["overfit_batch"]:
        few = dataset.splits["train"][: config["trainer"]["batch_size"]]
        return dataset._replace(splits=dict.fromkeys(("train", "val", "test"), few))
    return dataset


def document_frequencies(config: dict[str, Any], data: Dataset, *, eos: bool) -> DocumentFrequencies:
    """Return the document frequencies of a config's training references, which end with an end token if `eos`.

    `data` without splits has not been read, and is read now; raises `UserError` if it is not where it was.
    """
    splits = data.splits or read_data(config, with_tags=False, stored=True).splits
    references = [example.references for example in splits["train"]]
    return DocumentFrequencies.cached(references, source="train", eos=eos, segmenter=segmenter_of(config))


def read_other_set(config: dict[str, Any]) -> Dataset:
    """Return the data of a config to evaluate on: some of its splits may have no images.

    What was dropped, and notes on the data, are logged. Raises `UserError` if the data cannot be read.
    """
    dataset = build_dataset(config)
    _log_notes(dataset)
    _log_dropped([issue for issue in dataset.issues if issue.dropped and issue.id], "`easycap data check`")
    return dataset


def data_summary(dataset: Dataset) -> dict[str, Any]:
    """Return how many images each split has, and what was dropped or fixed; the log says so too."""
    _log_notes(dataset)
    dropped = [issue for issue in dataset.issues if issue.dropped]
    _log_dropped(dropped, "result.json")
    return {
        "images": {split: len(examples) for split, examples in dataset.splits.items()},
        "dropped_count": len(dropped),
        "dropped": [{name: getattr(f, name) for name in ("split", "id", "file", "what")} for f in dropped],
        "fixed_count": len(dataset.issues) - len(dropped),
        "fingerprint": dataset.fingerprint,
    }


def check_unchanged(dataset: Dataset, run: Path) -> None:
    """Raise `UserError` if a data set with a fingerprint is not the one that the training of `run` began with."""
    path = run / "result.json"
    data = read_mapping(path).get("data") if path.is_file() else None
    began = data.get("fingerprint") if data else None
    if began and dataset.fingerprint and began != dataset.fingerprint:
        raise UserError(
            f"the data of {run} has changed since the run started (fingerprint {began}, now {dataset.fingerprint}): "
            "to resume, pass the location of the original data (data.root=DIR or data.path=DIR), or start "
            "a new run; for a set on the hub, data.revision=COMMIT pins one version"
        )


def _log_notes(dataset: Dataset) -> None:
    for note in dataset.notes:
        logger.warning("%s: %s", dataset.name, note)


def _log_dropped(dropped: Sequence[DataIssue], listed_in: str) -> None:
    for issue in dropped[:3]:
        logger.warning("dropped: %s %s (image %r)", issue.file, issue.what, issue.id)
    if len(dropped) > 3:
        logger.warning("dropped: %d in all, listed in %s", len(dropped), listed_in)


def build_dataset(config: dict[str, Any], *, with_tags: bool = False) -> Dataset:
    """Return the data of a config; `with_tags`: training images have the tags of the data's annotations too.

    If the encoder reads precomputed features, each image knows its file of features.
    """
    features = precomputed_features(config["encoder"])
    pixels = features is None or _conditions_need_pixels(config)
    with while_reading(f"data={data_name(config)}"):
        dataset = build("data", config["data"], pixels=pixels, with_tags=with_tags)
    if features is None:
        return dataset
    return features.attach(dataset, config["data"].get("on_bad_image", OnBadImage.error))


def _conditions_need_pixels(config: dict[str, Any]) -> bool:
    """Whether a text condition reads the images, whatever the captioner's encoder reads."""
    conditions = build_conditions(config, read_splits=dict, run=None, device=torch.device("cpu"))
    return any(condition.needs_pixels for condition in conditions.values())

"""Another set than a run's own: read for its evaluation, and what the run keeps of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easycap.config.data_locations import with_locations, without_locations
from easycap.config.schema import to_plain
from easycap.data.feature_files import precomputed_features
from easycap.errors import UserError
from easycap.evaluation.ensemble_pipeline import reads_features
from easycap.evaluation.evaluation_set import EvaluationSet, OtherSet, own_split, split_of_other
from easycap.evaluation.groups import examples_by_value, usual_fields
from easycap.evaluation.pipeline import Pipeline
from easycap.runs.reading import read_result
from easycap.runs.run_folder import RunFolder
from easycap.tasks.datasets import read_other_set
from easycap.types import Vocabulary
from easycap.utils.segmenters import SPACES, Segmenter
from easycap.vocab.survey import unknown_words

if TYPE_CHECKING:
    from easycap.config.other_set import OtherSetConfig
    from easycap.tasks.base import Task

RESULT_KEY = "other_sets"  # key in result.json
# Names of splits of the run's own data, whether they have been scored or not.
_OWN = ("train", "val", "test")


def load_other_set(task: Task, other: OtherSetConfig, locations: Mapping[str, str]) -> OtherSet:
    """Return another set than the run's own, with the features that the run's encoder reads.

    `locations` {encoder.features: path} says where precomputed ones lie. Raises `UserError`
    if the set cannot be read, and if its features are not given.
    """
    if task.is_ensemble and reads_features(task.pipeline):
        raise UserError(
            "an ensemble whose runs read precomputed features can only be evaluated on the runs' own data"
        )
    config = task.config | {"data": other.data}
    if "features" in config["encoder"] and "encoder.features" not in locations:
        raise UserError(
            f"the run reads precomputed features: give those of {other.name}'s images by encoder.features=PATH"
        )
    config = with_locations(config, locations)
    return OtherSet(other.name, config, read_other_set(config))


def evaluation_set(
    task: Task,
    split: str | None,
    run: Path,
    *,
    other: OtherSet | None = None,
    group_by: Sequence[str] = (),
) -> EvaluationSet:
    """Return a split of the task's own data or of another set, with the task's targets as references.

    Raises `UserError` for a split or a field of `group_by` that is not there, and if `run` has
    scores of something else under the set's name.
    """
    if other is None:
        images = own_split(task.data, split)
    else:
        images = split_of_other(other._replace(data=task.with_targets(other.data)), split)
        _check_label(images, read_result(run) or {}, run)
    for field in group_by:
        examples_by_value(images.examples, field)
    return replace(images, group_by=tuple(group_by) or usual_fields(images.examples))


def _check_label(images: EvaluationSet, result: Mapping[str, Any], run: Path) -> None:
    known = (result.get(RESULT_KEY) or {}).get(images.label)
    if known is None:
        if images.label in _OWN or images.label in (result.get("scores") or {}):
            raise UserError(
                f"{images.label} is a split of the run's own data: give the other set another name"
            )
        return
    data = _data_of(images)
    if known["split"] == images.split and data == known["data"]:
        return
    # The references tell whether it is the same set at another place, or under another name of its split.
    if without_locations("data", data) == without_locations("data", known["data"]) and _references_in(
        run, images.label
    ) == {e.id: list(e.references) for e in images.examples}:
        return
    different = (f"data.{key}={value}" for key, value in known["data"].items() if value != data.get(key))
    raise UserError(
        f"the run has scores of another set called {images.label} ({', '.join(different)}, split {known['split']}): "
        "give this one another name"
    )


def _references_in(run: Path, label: str) -> Any:
    path = run / f"references.{label}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _data_of(images: EvaluationSet) -> dict[str, Any]:
    assert images.other is not None
    return to_plain(dict(images.other.config["data"]))


def pipeline_for(pipeline: Pipeline, images: EvaluationSet) -> Pipeline:
    """Return the pipeline, for another set with its own precomputed features if the encoder reads such."""
    features = None if images.other is None else precomputed_features(images.other.config["encoder"])
    return pipeline if features is None else replace(pipeline, view=features)


def record_other_set(
    folder: RunFolder,
    images: EvaluationSet,
    vocabulary: Vocabulary | None = None,
    segmenter: Segmenter = SPACES,
) -> None:
    """Record another set in result.json, and the words of its references that `vocabulary` lacks."""
    if images.other is None:
        return
    about: dict[str, Any] = {
        "data": _data_of(images),
        "split": images.split,
        "images": len(images.examples),
    }
    if vocabulary is not None:
        references = (text for example in images.examples for text in example.references)
        unknown = unknown_words(vocabulary, references, segmenter=segmenter)
        about |= {
            "unknown_reference_words": unknown.share,
            "most_frequent_unknown": unknown.most_frequent,
        }
    folder.update_result({RESULT_KEY: {images.label: about}})

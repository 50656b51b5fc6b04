"""In what a run is known to differ from a published row."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from easycap.report.comparison.settings import AVERAGE_SIZE, ENSEMBLE_SIZE, group_of
from easycap.report.published.rows import Row
from easycap.runs.ensembles import training_commands
from easycap.runs.provenance import OF_TRAINING, is_trained_here
from easycap.utils.text import NOTHING

# What a published score of coco-caption stands on, as a signature says it.
_USUAL_TERMS = {"tok": "ptb", "df": "refs", "eos": "no", "reflen": "closest"}
# Published splits that runs can be scored on: (data, split, images); other layouts of the same images.
_SPLITS = {
    "Karpathy test": ("coco_karpathy", "test", 5000),
    "Flickr8k test": ("flickr8k", "test", 1000),
    "Flickr30k test": ("flickr30k", "test", 1000),
}
_SAME_IMAGES = {"flickr30k_annotations": "flickr30k"}
# Choices that change nothing that is computed; data and features are spoken of by themselves.
_NO_CHANGE = ("experiment", "seed", "device", "resume", "tracking", "hydra", "sweep", "launcher")
_PLACES = ("data.root", "data.images", "data.cache", "data.workers", "trainer.workers", "encoder.weights")
# What a captioner of transformers has not: it is one whole.
_PARTS = ("encoder", "image_tokens", "decoder", "vocab")
_BY_THEMSELVES = ("data", "encoder.features")


def recipe_of(run: Path) -> str | None:
    """Return the recipe that a run's command names: its experiment=..., None without one."""
    values = [value for key, value in _overrides(run) if key == "experiment"]
    return values[-1] if values else None


def _overrides(run: Path) -> list[tuple[str, str]]:
    """What was typed after `easycap train`, as (key, value); of an ensemble what all its runs have."""
    of_each = [
        [word.lstrip("+").partition("=") for word in shlex.split(command) if "=" in word]
        for command in training_commands(run)
    ]
    return [
        (key, value)
        for key, equals, value in of_each[0]
        if all((key, equals, value) in pairs for pairs in of_each)
    ]


def data_of(row: Row) -> str | None:
    """Return the config's data that has the row's split, None where none has."""
    return _SPLITS[row.split][0] if row.split in _SPLITS else None


def same_images(data: str | None) -> str | None:
    """Return the data that has the images of `data`, under the name that published splits have it."""
    return _SAME_IMAGES.get(data, data) if data else data


def of_data(
    row: Row, settings: Mapping[str, str], split: str, scores: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return what is other in the images that were scored."""
    data, its_split, images = _SPLITS.get(row.split, (None, None, None))
    if (same_images(settings.get("data")), split.partition("@")[0]) != (data, its_split):
        return [f"scored on {settings.get('data', NOTHING)} {split}, published on {row.split}"]
    counts = {_parts(str(score.get("signature"))).get("images", str(images)) for score in scores}
    return [f"scored on {count} images, published on {images}" for count in counts if count != str(images)]


def of_recipe(run: Path, row: Row, settings: Mapping[str, str], *, trained_here: bool = True) -> list[str]:
    """Return that it was another recipe, or none, and which settings were typed; no settings of training where the
    weights were not trained here.
    """
    trained = recipe_of(run)
    lines = []
    if not trained_here:
        if not row.settings:
            lines.append("what differs is unknown: the row states no settings")
    elif trained is None or trained != row.recipe:
        other = f"not with experiment={row.recipe}" if row.recipe else "no recipe of this row"
        lines.append(f"trained with experiment={trained or 'null'}, {other}")
        if not row.settings:
            lines.append("what else differs is unknown: the row states no settings")
    no_change = {*_NO_CHANGE, *_PLACES, *_BY_THEMSELVES}
    unknown = () if trained_here else OF_TRAINING
    if settings.get("objective") == "scst":
        no_change.add("init_from")  # as its recipes demand
    typed = [
        f"{key}={value}"
        for key, value in _overrides(run)
        if key not in no_change and key.split(".")[0] not in (*_NO_CHANGE, *unknown)
    ]
    if typed:
        lines.append(f"{'changed in the recipe' if trained else 'set'}: {' '.join(typed)}")
    size = settings.get(ENSEMBLE_SIZE)
    if size is not None and row.settings.get(ENSEMBLE_SIZE) != size:
        lines.append(f"an ensemble of {size} runs")
    size = settings.get(AVERAGE_SIZE)
    if size is not None and row.settings.get(AVERAGE_SIZE) != size:
        lines.append(f"the average of {size} checkpoints")
    return lines


def of_settings(row: Row, settings: Mapping[str, str], unknown: Collection[str] = ()) -> list[str]:
    """Return in which of the settings that a row states others differ, without the `unknown`; a stated * stands for
    anything.
    """
    whole = settings.get("captioner") == "huggingface"
    lines = [
        f"{key} {settings.get(key, NOTHING)}, published {value.strip('*')}"
        for key, value in row.settings.items()
        if key not in unknown
        and not (whole and group_of(key) in _PARTS)
        and not fnmatchcase(settings.get(key, NOTHING), value)
    ]
    if whole and any(group_of(key) in _PARTS for key in row.settings):
        lines.insert(0, f"another model: {settings.get('captioner.model')}, a captioner of transformers")
    return lines


def unknown_settings(row: Row, settings: Mapping[str, str], result: Mapping[str, Any]) -> list[str]:
    """Return the settings that a row states and that nobody knows of a run that was not trained here: of captions all,
    of weights those of their training.
    """
    if is_trained_here(result):
        return []
    model_known = "encoder" in settings  # captions alone have data, and nothing else
    return [
        key
        for key in row.settings
        if group_of(key) in OF_TRAINING or not (model_known or group_of(key) == "data")
    ]


def of_features(settings: Mapping[str, str]) -> list[str]:
    """Return that precomputed features are not known to be the published ones."""
    if settings.get("encoder") != "precomputed":
        return []
    return [f"features of {settings.get('encoder.features')}, not known to be the published ones"]


def of_terms(signatures: Mapping[str, str]) -> list[str]:
    """Return where the signatures of metrics say other than coco-caption does, once for all metrics it is true of."""
    found: dict[str, list[str]] = {}
    for metric, signature in signatures.items():
        for text in odd_terms(signature):
            found.setdefault(text, []).append(metric)
    return [
        f"{', '.join(metrics)} computed under a different protocol than coco-caption's: {text}"
        for text, metrics in found.items()
    ]


def odd_terms(signature: str) -> list[str]:
    """Return the parts of a signature that are other than coco-caption's."""
    parts = _parts(signature)
    odd = [
        f"{key}:{parts[key]}"
        for key, usual in _USUAL_TERMS.items()
        if not parts.get(key, usual).startswith(usual)
    ]
    return odd + [f"{key}:{parts[key]}" for key in ("partial", "tags", "draft") if key in parts]


def _parts(signature: str) -> dict[str, str]:
    return dict(part.partition(":")[::2] for part in signature.split("|")[1:])

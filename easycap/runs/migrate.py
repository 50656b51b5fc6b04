"""Configs and results stored by earlier versions: settings that did not exist yet, and names changed since.

When you add a setting to a component, add here the value that reproduces the earlier behaviour. It may differ from
the YAML's default, which is for new runs; existing runs must not change. When you rename a setting, add it to
RENAMED_KEYS, and one of its values to RENAMED_VALUES; for more than a name add a function to CHANGED.
tests/test_migrate.py has configs of earlier versions and fails for a setting that is missing here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# Root keys and whole groups that early configs lack.
FORMER_GROUPS: dict[str, Any] = {
    "task": "caption",
    "imports": [],
    "captioner": {"name": "parts", "word_vectors": None},
    "tags": {"name": "none"},
    "draft": {"name": "none"},
    "refine": {"name": "default", "rounds": 0},
    "tagger": {"name": "none"},
    "tag_vocab": {"name": "captions", "size": 500, "min_count": 5},
}

# group -> component (the group's `name`) -> setting -> value that reproduces the behaviour before it existed.
FORMER_VALUES: dict[str, dict[str, dict[str, Any]]] = {
    "captioner": {"huggingface": {"tiles": True}, "parts": {"word_vectors": None}},
    "data": {
        "scenes": {"language": "en"},
        "tables": {
            **{"split_list": None, "objects": None, "train_objects": None},
            **{"ids": "as_is", "sort_by_id": False, "restval": True},
        },
    },
    "decoder": {
        "attention_lstm": {"reinforce_cost": "caption", "variant": "release"},
        "causal_lm": {"bos": True, "predict_special": True},
        "lstm": {"dropout_inputs": True, "cell": "lstm", "init": "im2txt"},
        "m2": {"dropout_words": True, "dropout_feed_forward": False, "stored_positions": False},
        "transformer": {
            "dropout_words": True,
            "dropout_feed_forward": False,
            "layer_norm": "torch",
            "project_norm": True,
            "output_bias": False,
        },
        "updown": {"variant": "paper"},
    },
    "decoding": {
        "beam": {"on_end": "refill"},
        "consensus": {"whiten": None, "by_similarity": False, "likelihood": 0.0},
    },
    "draft": {"retrieval": {"count": 1, "separator": " ", "prompt": None}},
    "encoder": {
        "precomputed": {"zero_regions": False},
        "timm": {"crop_pct": None, "pool": None, "squash": False},
    },
    "image_tokens": {name: {"normalize": False} for name in ("mapper", "mlp", "split")},
    "objective": {"xe": {"ignore_unk": False}, "scst": {"ignore_unk": False, "temperature": 1.0}},
    "optim": {"sgd": {"decay_lstm_biases": False, "output_bias_factor": 1.0}},
    "tracking": {"wandb": {"also": []}},
    "trainer": {
        "default": {
            "threads": "auto",
            "keep_checkpoints": 0,
            "shard": False,
            "cached_crops": None,
            "freeze_batchnorm": False,
        },
    },
    "vocab": {
        **{name: {"segmenter": "spaces"} for name in ("bert", "word")},
        "gpt2": {"segmenter": "spaces", "end": None},
    },
}

# group -> former name of a setting -> its name today. On the command line the former name is an error that names
# today's.
_LENGTH = {"max_words": "max_length"}
RENAMED_KEYS: dict[str, dict[str, str]] = {
    "decoder": _LENGTH,
    "objective": _LENGTH,
    "tags": _LENGTH,
    "draft": _LENGTH,
    "decoding": {"min_words": "min_length", **_LENGTH},
}

# group -> setting -> former name of one of its values -> its name today.
RENAMED_VALUES: dict[str, dict[str, dict[str, str]]] = {"decoder": {"alpha_reduction": {"cells": "patches"}}}

# former name of a key of result.json -> its name today.
RENAMED_RESULTS = {"reference_points": "baselines"}

# Captions per image in COCO: what captions_per_image=null, all, mostly meant.
_CAPTIONS_OF_COCO = 5


def _release_is_patches(decoder: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """alpha_reduction=release multiplied the penalty of `patches` by the captions of a batch."""
    if decoder.get("alpha_reduction") != "release":
        return decoder
    trainer = config.get("trainer") or {}
    captions = trainer.get("batch_size", 1) * (trainer.get("captions_per_image") or _CAPTIONS_OF_COCO)
    weight = decoder.get("alpha_weight", 1.0) * captions
    return decoder | {"alpha_reduction": "patches", "alpha_weight": weight}


def _feature_dim_is_raw_features(decoder: dict[str, Any], _config: Mapping[str, Any]) -> dict[str, Any]:
    """feature_dim gave the width of features that are read as the encoder makes them."""
    if "feature_dim" not in decoder:
        return decoder
    others = {key: value for key, value in decoder.items() if key != "feature_dim"}
    return {"raw_features": decoder["feature_dim"] is not None} | others


# data.name of former readers -> how data=tables reads the same, and what its settings were called.
_TABLES = {
    **dict.fromkeys(("captions", "train", "val", "test", "sidecar", "image_list", "images", "entries")),
    **dict.fromkeys(("image_column", "caption_column", "split_column", "id_column", "rejected_column")),
    **{"fields": [], "val_share": 0.1, "test_share": 0.1, "seed": 0},
    **FORMER_VALUES["data"]["tables"],
}
_KARPATHY = {"caption_column": "sentences[].raw", "split_column": "split"}
_FLICKR = {"image_column": "filename", "ids": "stem", **_KARPATHY}
_FORMER_READERS: dict[str, dict[str, Any]] = {
    "coco": {
        **{
            "captions": "annotations/captions_{name}.json",
            "images": "{name}",
            "id_column": "id",
            "ids": "number",
        },
        **{"image_column": "file_name", "caption_column": "caption", "sort_by_id": True},
        **dict.fromkeys(("objects", "train_objects"), "annotations/instances_{name}.json"),
    },
    "coco_karpathy": {
        **{"image_column": "{filepath}/{filename}", "id_column": "cocoid", "ids": "number", **_KARPATHY},
        **{"objects": "annotations/instances_val2014.json"},
        **{"train_objects": "annotations/instances_train2014.json"},
    },
    "flickr8k": {"split_list": "Flickr_8k.{split}Images.txt", **_FLICKR},
    "flickr30k": _FLICKR,
}
_TOKENS = "|Flickr8k.token.txt"


def _as_tables(data: dict[str, Any], _config: Mapping[str, Any]) -> dict[str, Any]:
    """COCO and Flickr used to have their own readers."""
    former = str(data["name"])
    own = {key: value for key, value in data.items() if key not in ("name", "annotations")}
    dataset = "coco2014" if data.get("train") == "train2014" and data.get("val") == "val2014" else former
    if "annotations" in data:
        own["captions"] = data["annotations"] + (_TOKENS if former == "flickr8k" else "")
    return {**_TABLES, **_FORMER_READERS[former], "name": "tables", "dataset": dataset, **own}


def _as_former_reader(data: dict[str, Any]) -> dict[str, Any]:
    """The settings of a former reader that `_as_tables` makes these of, else the settings themselves."""
    former = "coco" if data.get("dataset") == "coco2014" else str(data.get("dataset"))
    if data.get("name") != "tables" or former not in _FORMER_READERS:
        return data
    kept = (
        "root",
        "on_bad_image",
        *{"coco": ("train", "val", "test"), "coco_karpathy": ("restval",)}.get(former, ()),
    )
    kept += ("images",) if former.startswith("flickr") else ()
    own = {"name": former, **{key: data[key] for key in kept if key in data}}
    if former != "coco":
        own["annotations"] = str(data["captions"]).removesuffix(_TOKENS)
    made = _as_tables(own, {})
    alike = all(_last(made.get(key)) == _last(value) for key, value in data.items())
    return own if alike else data


def _last(value: Any) -> Any:
    """A value, of a path its last part: hashes of configs are made without locations."""
    return value.rpartition("/")[2] if isinstance(value, str) else value


# group -> component -> function of the group's settings and the whole config that returns the settings of today.
CHANGED: dict[str, dict[str, Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any]]]] = {
    "data": dict.fromkeys(_FORMER_READERS, _as_tables),
    "decoder": {
        "attention_lstm": _release_is_patches,
        "m2": _feature_dim_is_raw_features,
        "transformer": _feature_dim_is_raw_features,
    },
}


def fill_former_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config, as plain data, as this version would have stored it."""
    return update_settings({**FORMER_GROUPS, **config})


def update_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the groups that a stored config has, with renamed settings and missing ones at their former value."""
    return {key: _updated(key, value, config) for key, value in config.items()}


def _updated(group: str, values: Any, config: Mapping[str, Any]) -> Any:
    if not isinstance(values, Mapping):
        return values
    settings = _rename(values, RENAMED_KEYS.get(group, {}))
    for key, names in RENAMED_VALUES.get(group, {}).items():
        if key in settings:
            settings[key] = names.get(str(settings[key]), settings[key])
    if change := CHANGED.get(group, {}).get(str(values.get("name"))):
        settings = change(settings, config)
    return _former(group, values) | settings


def _rename(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in values.items()}


def update_result_keys(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored result.json with the keys of today; what two versions wrote of one run is merged."""
    former = {new: result[old] for old, new in RENAMED_RESULTS.items() if old in result}
    today = {key: value for key, value in result.items() if key not in RENAMED_RESULTS}
    merged = {
        key: {**values, **today.get(key, {})} for key, values in former.items() if isinstance(values, Mapping)
    }
    return today | merged


def drop_former_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config, as plain data, without settings at their former value and with former names: as an earlier
    version would have stored the same run.
    """
    return {key: _dropped(key, value) for key, value in config.items()}


def _dropped(group: str, values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    if group == "data":
        values = _as_former_reader(dict(values))
    former = _former(group, values)
    kept = {key: value for key, value in values.items() if key not in former or former[key] != value}
    for key, names in RENAMED_VALUES.get(group, {}).items():
        if key in kept:
            kept[key] = {new: old for old, new in names.items()}.get(str(kept[key]), kept[key])
    return _rename(kept, {new: old for old, new in RENAMED_KEYS.get(group, {}).items()})


def _former(group: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return FORMER_VALUES.get(group, {}).get(str(values.get("name")), {})

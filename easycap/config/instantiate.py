"""From the checked settings of a group to the component that they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from easycap.config.schema import option_from_text
from easycap.errors import UserError
from easycap.registry import check_shared_settings, construct, is_condition, lookup, supplied_to
from easycap.types import Vocabulary
from easycap.utils.segmenters import SPACES, Segmenter, segmenter


def build(group: str, settings: dict[str, Any], **supplied: Any) -> Any:
    """Return the component that a checked group names; of `supplied` it gets what its signature asks for."""
    values = {key: value for key, value in settings.items() if key != "name"}
    return construct(lookup(group, settings["name"]), values, supplied)


def check_settings(group: str, settings: dict[str, Any]) -> None:
    """Raise `UserError` for settings of a checked group out of range, without building its component."""
    check_shared_settings(lookup(group, settings["name"]), settings)


def trackers_of(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the checked settings of a config's trackers: the chosen option, and those of `tracking.also`.

    Raises `UserError` for one that does not exist or is named twice.
    """
    first = config["tracking"]
    found = [first, *(option_from_text("tracking", text) for text in first.get("also", []))]
    names = [tracker["name"] for tracker in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"tracking={first['name']} tracking.also={first['also']} names {name} twice")
    return found


def condition_names(config: Mapping[str, Any]) -> list[str]:
    """Return the groups of a checked config that choose a text condition, in the config's order."""
    return [
        group
        for group, values in config.items()
        if isinstance(values, Mapping) and is_condition(group) and values["name"] != "none"
    ]


def special_ids(vocabulary: Vocabulary) -> dict[str, int | None]:
    """Return pad_id, bos_id, eos_id and unk_id of a vocabulary, as components take them."""
    return {name: getattr(vocabulary, name) for name in ("pad_id", "bos_id", "eos_id", "unk_id")}


def vocabulary_class(config: dict[str, Any]) -> Any:
    """Return the class of a config's vocabulary, which loads what it saved."""
    return lookup("vocab", config["vocab"]["name"])


def stored_vocabulary(config: dict[str, Any], folder: Path) -> Any:
    """Return the vocabulary that a config's class saved in `folder`; `UserError` names the folder if it is damaged."""
    try:
        return vocabulary_class(config).load(folder)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the vocabulary in {folder} is damaged ({error}); use another checkpoint") from None


def needs_captions(vocabulary: Any) -> bool:
    """Return whether a class of vocabularies is made from the training captions."""
    return "captions" in supplied_to(vocabulary)


def segmenter_of(config: Mapping[str, Any]) -> Segmenter:
    """Return the segmenter of a checked config's vocabulary; one of a user's own may have none."""
    whole = config.get("captioner", {}).get("segmenter", SPACES.name)
    return segmenter(config["vocab"].get("segmenter", whole))

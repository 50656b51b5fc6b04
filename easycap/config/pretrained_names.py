"""`hf:NAME_OR_FOLDER` in the place of a run: a pretrained captioner of transformers, as it is."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from easycap.errors import UserError
from easycap.runs.find import PRETRAINED, is_pretrained

_WORD = re.compile(r"\+{0,2}(captioner\.\w+|trainer\.precision)=.*", re.DOTALL)


def split_captioner(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into those that are not settings of the captioner, and those that are.

    The latter are for hf:NAME alone: without such a name there are none.
    """
    if not any(map(is_pretrained, argv)):
        return list(argv), []
    found = [word for word in argv if _WORD.fullmatch(word)]
    return [word for word in argv if word not in found], found


def pretrained_config(
    name: str | os.PathLike[str], overrides: Sequence[str] = (), *, device: str = "auto"
) -> dict[str, Any]:
    """Return the checked config of hf:NAME_OR_FOLDER; `UserError` as for a training's."""
    model = os.fspath(name).removeprefix(PRETRAINED)
    if not model:
        raise UserError(
            f"{PRETRAINED} is followed by a captioner's name on the hub or by its folder, e.g. "
            f"{PRETRAINED}Salesforce/blip-image-captioning-base"
        )
    # Only here, as Hydra would slow the start of captioning with a run.
    from easycap.config.compose import compose
    from easycap.config.validate import check_used, validate

    own = ["captioner=huggingface", f"captioner.model={model}", "captioner.tune=none", f"device={device}"]
    words = [*own, *overrides]
    check_used(words)
    return validate(compose(words).config)

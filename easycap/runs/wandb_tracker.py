"""The tracker that mirrors a run into Weights & Biases."""

from __future__ import annotations

import inspect
import json
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from easycap.errors import UserError
from easycap.registry import SharedSettings, describe_choices, register
from easycap.runs.run_folder import RunFolder, picture_of
from easycap.runs.trackers import chosen_parts, flat_scores, stored_run_id
from easycap.types import Tracker
from easycap.utils.extras import check_extra
from easycap.utils.shell import quoted

logger = logging.getLogger(__name__)

# The dashboard's summary shows the best of these, and the last value of everything else.
_BEST = {"val/CIDEr-D": "max", "val/BLEU-4": "max", "val/truth": "max", "val/loss": "min"}
_MODES = ("online", "offline", "disabled")
# What WANDB_MODE was called in earlier versions of wandb.
_OLD_MODES = {"dryrun": "offline", "run": "online"}
# W&B's limits, in characters.
_LONGEST_TAG, _LONGEST_NAME = 64, 128
_NOT_IN_PROJECT = "/\\#?%:"
# Seconds to wait for the server before tracking offline. WANDB_INIT_TIMEOUT overrides it.
_TIMEOUT = 20


@dataclass(frozen=True, kw_only=True)
class WandbSettings(SharedSettings):
    """Settings of W&B, checked against its limits.

    `mode` is online, offline or disabled; None takes WANDB_MODE, else online if there is a
    key for W&B on this machine and offline if not, so that it never asks at a prompt.
    `UserError` if wandb is not installed.
    """

    project: str
    entity: str | None
    group: str | None
    tags: list[str]
    mode: str | None
    also: list[str]

    def __post_init__(self) -> None:
        check_extra("wandb", "tracking=wandb")
        for tag in map(str, self.tags):
            if not 0 < len(tag) <= _LONGEST_TAG:
                raise UserError(
                    f"tracking.tags: {tag!r} has {len(tag)} characters; W&B accepts 1 to {_LONGEST_TAG}"
                )
        for name, value in (("project", self.project), ("group", self.group or "")):
            if len(value) > _LONGEST_NAME:
                raise UserError(
                    f"tracking.{name} has {len(value)} characters; W&B accepts at most {_LONGEST_NAME}"
                )
        if wrong := sorted(set(self.project) & set(_NOT_IN_PROJECT)):
            raise UserError(
                f"tracking.project={self.project!r}: W&B accepts none of {' '.join(_NOT_IN_PROJECT)} in it; "
                f"remove {' '.join(wrong)}"
            )
        name, mode = "tracking.mode" if self.mode else "WANDB_MODE", self._requested_mode()
        if mode is not None and mode not in _MODES:
            raise UserError(f"{name}={mode!r} does not exist; {describe_choices(mode, [*_MODES, 'null'])}")

    def _requested_mode(self) -> str | None:
        mode = self.mode or os.environ.get("WANDB_MODE") or None
        return mode and _OLD_MODES.get(mode, mode)

    def effective_mode(self) -> str:
        """Return online, offline or disabled."""
        return self._requested_mode() or ("online" if _has_key() else "offline")


@register("tracking", "wandb")
def wandb(folder: RunFolder, config: Mapping[str, Any], *, settings: WandbSettings) -> Tracker:
    """Track in Weights & Biases."""
    return WandbTracker(folder.path, settings, config)


class WandbTracker:
    """Mirrors a run into W&B; its files are staged inside the run's folder."""

    def __init__(self, path: Path, tracking: WandbSettings, config: Mapping[str, Any]) -> None:
        import wandb  # a second to import: only runs that use it pay

        os.environ["WANDB_DATA_DIR"] = str(path / "wandb")  # else images are staged in the user's home
        self._wandb, self._path, self._mode = wandb, path, tracking.effective_mode()
        settings = {
            "project": tracking.project,
            "entity": tracking.entity,
            "group": tracking.group,
            "tags": [*tracking.tags, *(part[:_LONGEST_TAG] for part in chosen_parts(config))],
            "name": path.name[-_LONGEST_NAME:],
            "config": dict(config),
        }
        try:
            self._run = self._start(self._mode, settings)
        except wandb.errors.CommError as error:
            reason = " ".join(str(error).split())[:200]
            logger.warning("W&B cannot be reached, so this run is tracked offline (%s)", reason)
            self._mode = "offline"
            wandb.teardown()  # else the failed start keeps the run's id
            self._run = self._start("offline", settings)
        except wandb.errors.UsageError as error:
            raise UserError(f"W&B rejects these tracking settings: {error}") from None
        self._run.define_metric("global_step")
        for pattern in ("train/*", "val/*"):
            self._run.define_metric(pattern, step_metric="global_step")
        for metric, best in _BEST.items():
            self._run.define_metric(metric, step_metric="global_step", summary=best)

    def _start(self, mode: str, settings: Mapping[str, Any]) -> Any:
        waits: dict[str, Any] = {} if "WANDB_INIT_TIMEOUT" in os.environ else {"init_timeout": _TIMEOUT}
        return self._wandb.init(
            **settings,
            id=stored_run_id(self._path / "wandb" / "run_id", lambda: secrets.token_hex(6)),
            resume="allow",
            dir=str(self._path),
            mode=cast(Literal["online", "offline", "disabled"], mode),
            reinit="finish_previous",
            settings=self._wandb.Settings(silent=True, **waits),
        )

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        self._run.log({**values, "global_step": step})

    def samples(self, rows: Sequence[Mapping[str, Any]], *, step: int, epoch: int) -> None:
        pictures = [
            self._wandb.Image(picture, caption=row["caption"])
            for row in rows
            if (picture := picture_of(row["image"])) is not None
        ]
        self._run.log({"samples": pictures, "global_step": step, "epoch": epoch})

    def finish(self, result: Mapping[str, Any] | None, *, status: str, error: str | None = None) -> None:
        for name, value in flat_scores(result).items():
            self._run.summary[name] = value
        for split in (result or {}).get("scores", {}):
            self._log_captions(split)
        self._run.finish(exit_code=0 if status == "completed" else 1)
        if self._mode == "offline":
            offline = os.path.relpath(Path(self._run.dir).parent)
            logger.info("W&B is offline; to upload this run: wandb sync %s", quoted(offline))

    def _log_captions(self, split: str) -> None:
        """A table of the captions that the run's folder keeps of a split, each with its own scores."""
        file = self._path / "samples" / f"{split}.json"
        if not file.is_file():
            return
        kinds = json.loads(file.read_text(encoding="utf-8"))
        metrics = list(
            dict.fromkeys(name for rows in kinds.values() for row in rows for name in row["scores"])
        )
        table = self._wandb.Table(columns=["kind", "id", "image", "caption", "references", *metrics])
        for kind, rows in kinds.items():
            for row in rows:
                picture = self._wandb.Image(str(self._path / row["image"])) if row["image"] else None
                scores = (row["scores"].get(name) for name in metrics)
                table.add_data(
                    kind, row["id"], picture, row["caption"], "\n".join(row["references"]), *scores
                )
        self._run.log({f"{split}/captions": table})


def _has_key() -> bool:
    """Whether W&B has a key for the configured server; never prompts."""
    import wandb

    try:
        wandb.setup(settings=wandb.Settings(silent=True))  # else login says where it found the key
        if "prompt" in inspect.signature(wandb.login).parameters:
            return bool(wandb.login(prompt=False, verify=False))  # without the network
        return bool(wandb.api.api_key)  # in earlier versions
    except (wandb.Error, ValueError) as error:
        logger.warning("the W&B key cannot be used, so this run is tracked offline (%s)", error)
        return False

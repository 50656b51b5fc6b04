"""Trackers: a run's own files first, Weights & Biases as their mirror."""

from __future__ import annotations

import json
import logging
import netrc
import os
import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from easycap.registry import register
from easycap.tracking.run_folder import RunFolder, picture_of, write_atomically
from easycap.types import Tracker, has_oracle

logger = logging.getLogger(__name__)

# The dashboard's summary shows the best of these, and the last value of everything else.
_BEST = {"val/CIDEr-D": "max", "val/BLEU-4": "max", "val/truth": "max", "val/loss": "min"}
_WANDB_HOST = "api.wandb.ai"


class FileTracker:
    """Writes metrics.jsonl, samples and status.json into the run's folder; that is all a report needs."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        self.folder.append_metrics(values, step=step)

    def samples(self, rows: Sequence[Mapping[str, Any]], *, step: int, epoch: int) -> None:
        self.folder.write_samples(f"epoch-{epoch:03d}", rows)

    def finish(self, result: Mapping[str, Any] | None, *, status: str, error: str | None = None) -> None:
        self.folder.write_status(status, error)


class Trackers:
    """Several trackers as one, told in order."""

    def __init__(self, members: Sequence[Tracker]) -> None:
        self.members = members

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        for member in self.members:
            member.log(values, step=step)

    def samples(self, rows: Sequence[Mapping[str, Any]], *, step: int, epoch: int) -> None:
        for member in self.members:
            member.samples(rows, step=step, epoch=epoch)

    def finish(self, result: Mapping[str, Any] | None, *, status: str, error: str | None = None) -> None:
        for member in self.members:
            member.finish(result, status=status, error=error)


@register("tracking", "none")
def none(*, folder: RunFolder, config: Mapping[str, Any]) -> Tracker:
    """Track in the run's folder only."""
    return FileTracker(folder)


@register("tracking", "wandb")
def wandb(
    *,
    project: str,
    entity: str | None,
    group: str | None,
    tags: list[str],
    mode: str | None,
    folder: RunFolder,
    config: Mapping[str, Any],
) -> Tracker:
    """Track in the run's folder and in Weights & Biases.

    `mode` is online, offline or disabled; null takes WANDB_MODE, else online if there is a key for W&B on this
    machine and offline if not, so that it never asks at a prompt.
    """
    mode = mode or os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    if mode not in ("online", "offline", "disabled"):
        raise ValueError(f"tracking.mode={mode!r} is not allowed; allowed: online, offline, disabled, null")
    mirror = WandbTracker(
        folder.path, project=project, entity=entity, group=group, tags=tags, mode=mode, config=config
    )
    return Trackers([FileTracker(folder), mirror])


class WandbTracker:
    """Mirrors a run into W&B; its files are staged inside the run's folder."""

    def __init__(
        self,
        path: Path,
        *,
        project: str,
        entity: str | None,
        group: str | None,
        tags: list[str],
        mode: str,
        config: Mapping[str, Any],
    ) -> None:
        import wandb  # a second to import: only runs that use it pay

        os.environ["WANDB_DATA_DIR"] = str(path / "wandb")  # else images are staged in the user's home
        self._wandb, self._path, self._mode = wandb, path, mode
        self._run = wandb.init(
            project=project,
            entity=entity,
            group=group,
            tags=[*tags, *_choices(config)],
            name=path.name,
            id=_run_id(path / "wandb" / "run_id"),
            resume="allow",
            dir=str(path),
            mode=mode,
            config=dict(config),
            reinit="finish_previous",
            settings=wandb.Settings(silent=True),
        )
        self._run.define_metric("global_step")
        for pattern in ("train/*", "val/*"):
            self._run.define_metric(pattern, step_metric="global_step")
        for metric, best in _BEST.items():
            self._run.define_metric(metric, step_metric="global_step", summary=best)

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
        for split, scores in (result or {}).get("scores", {}).items():
            for metric, score in scores.items():
                self._run.summary[f"{split}/{metric}"] = score.get("value")
            self._log_captions(split)
        for name, value in (result or {}).get("cost", {}).items():
            self._run.summary[f"cost/{name}"] = value
        self._run.finish(exit_code=0 if status == "completed" else 1)
        if self._mode == "offline":
            offline = os.path.relpath(Path(self._run.dir).parent)
            logger.info("W&B is offline; to upload this run: wandb sync %s", shlex.quote(offline))

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


def _choices(config: Mapping[str, Any]) -> list[str]:
    """The parts a run is made of, as W&B tags (of at most 64 characters), and whether its scores are an oracle's."""
    groups = ("data", "vocab", "encoder", "image_tokens", "decoder", "objective")
    parts = (
        f"{group}: {config[group].get('model') or config[group]['name']}"
        for group in groups
        if group in config
    )
    return [part[:64] for part in parts] + ["oracle"] * has_oracle(config)


def _run_id(file: Path) -> str:
    """W&B's id of the run, kept in its folder: a run that is resumed goes on under the same id."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, secrets.token_hex(6))
    return file.read_text(encoding="utf-8").strip()


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators(_WANDB_HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False

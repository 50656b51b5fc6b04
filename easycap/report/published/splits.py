"""Splits of runs by name, as in test, test@beam,num_beams=3 or test@round1."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from easycap.errors import UserError
from easycap.registry import describe_choices
from easycap.runs.migrate import RENAMED_KEYS
from easycap.runs.reading import read_result
from easycap.utils.paths import config_dir
from easycap.utils.shell import joined

_ROUND = re.compile(r"round\d+")

_WANTED = {"METEOR": "meteor", "SPICE": "spice"}  # scored only where they are asked for


def decoding_of(split: str) -> dict[str, Any] | None:
    """Return the settings of decoding that test@beam,num_beams=3 names, None where it names none, as test@round1.

    Raises `UserError` for a way of decoding or a setting that does not exist.
    """
    _, text, _ = _parts(split)
    if not text:
        return None
    name, *changes = text.split(",")
    files = {path.stem: path for path in (config_dir() / "decoding").glob("*.yaml")}
    if name not in files:
        raise UserError(f"--split {split}: decoding {name!r} does not exist; {describe_choices(name, files)}")
    settings = yaml.safe_load(files[name].read_text(encoding="utf-8"))
    for change in changes:
        key, equals, value = change.partition("=")
        key = RENAMED_KEYS["decoding"].get(key, key)
        if not equals or key not in settings:
            raise UserError(
                f"--split {split}: {change!r} is not a KEY=VALUE of decoding {name!r}; "
                f"{describe_choices(key, set(settings) - {'name'})}"
            )
        settings[key] = yaml.safe_load(value)
    return settings


def _parts(split: str) -> tuple[str, str, str]:
    """The split itself, its way of decoding, and its round of refinement, empty where it names none."""
    name, *ways = split.split("@")
    rounds = [way.removeprefix("round") for way in ways if _ROUND.fullmatch(way)]
    return name, "@".join(way for way in ways if not _ROUND.fullmatch(way)), "".join(rounds)


def check_split(split: str, runs: Sequence[Path]) -> None:
    """Raise `UserError` if of the runs that have scores none has them of `split`, naming those there are."""
    decoding_of(split)
    found = {run: scores for run in runs if (scores := (read_result(run) or {}).get("scores"))}
    if not found or any(split in scores for scores in found.values()):
        return
    splits = {name for scores in found.values() for name in scores}
    whose = "no run has" if len(found) > 1 else f"{next(iter(found))} has no"
    raise UserError(
        f"--split {split}: {whose} scores of it; {describe_choices(split, splits)}; further ones come from "
        "`easycap evaluate RUN --split NAME --decoding NAME`"
    )


def _evaluate(run: Path, split: str, metrics: str = "") -> str:
    """Return the command that captions and scores `split` of a run."""
    name, decoding, rounds = _parts(split)
    words = ["easycap", "evaluate", str(run), *(["--split", name] if name != "test" else [])]
    words += [*(["--decoding", decoding] if decoding else []), *(["--rounds", rounds] if rounds else [])]
    words += [*(["--metrics", metrics] if metrics else [])]
    return joined(words)


def what_is_missing(run: Path, split: str, result: Mapping[str, Any], missing: Sequence[str]) -> str:
    """Say how a run comes by the metrics that it has no scores of, empty where nothing is to be done."""
    if not result:
        return ""
    if split not in (result.get("scores") or {}):
        return f"no scores of {split}: {_evaluate(run, split)}"
    scores = result["scores"][split]
    tried = [
        f"no {metric}: {scores[metric]['absent']}" for metric in missing if "absent" in scores.get(metric, {})
    ]
    wanted = [metric for metric in missing if metric in _WANTED and metric not in scores]
    if not wanted:
        return "; ".join(tried)
    names = ",".join(_WANTED[metric] for metric in wanted)
    return "; ".join([*tried, f"no {' and '.join(wanted)}: {_evaluate(run, split, names)}"])

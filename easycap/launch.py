"""Between the command line and a training: composes and checks the config before anything starts, then calls Hydra."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from easycap.config import GROUPS, check, check_stored
from easycap.paths import config_dir, outputs_dir
from easycap.processes import PARENT, end_with_parent
from easycap.registry import describe_choices
from easycap.runs import shown
from easycap.tracking.run_folder import is_alive, new_run_folder
from easycap.training.place import place

logger = logging.getLogger(__name__)

_HELP = """easycap train: train a captioner, evaluate it, write its report.

usage: easycap train [GROUP=OPTION] [GROUP.FIELD=VALUE] [experiment=NAME] [resume=RUN] [--debug]
       easycap train -m [GROUP=OPTION,OPTION] [GROUP.FIELD=VALUE,VALUE] [sweep=NAME] [launcher=parallel]
       easycap train --cfg job ...      show the config these choices make

{groups}

Every field of a group is in conf/GROUP/OPTION.yaml, and --cfg job shows all of them. Examples:
  easycap train experiment=easycap/quickstart
  easycap train image_tokens=split image_tokens.count=5 trainer.epochs=2 seed=3
  easycap train task=tags tagger=cnn                      a model of tags; then tags=predicted tags.run=RUN
  easycap train data=coco data.root=COCO encoder=resnet18 encoder.pretrained=false
  easycap train -m image_tokens=split,resampler image_tokens.count=1,5,10 seed=1,2,3 sweep.dry_run=true"""


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap train`; raises `ValueError` for wrong input before any work."""
    if any(arg in ("-h", "--help") for arg in argv):
        print(help_text())
        return 0
    flags, overrides = _split(argv)
    if parent := os.environ.get(PARENT):
        end_with_parent(int(parent), signal.SIGTERM)
    here = place()
    if here.number > 0 and not flags:
        from easycap.train import follow

        return follow()
    if flags and flags <= {"-m", "--multirun"}:
        if here.count > 1:
            raise ValueError("a sweep (-m) starts processes of its own: run it without torchrun or srun")
        from easycap.sweep import run_sweep

        return run_sweep(overrides)
    if flags - {"--cfg", "-c", "--resolve"}:
        print(
            f"easycap: train does not know {', '.join(sorted(flags))}; see easycap train --help",
            file=sys.stderr,
        )
        return 2
    config, choices = compose(overrides)
    settings = check_all(config)
    if settings["resume"]:
        _check_only_resume(overrides)
        status = _status_of(Path(settings["resume"]))
        if status.get("status") == "completed":
            return _nothing_left(Path(settings["resume"]))
        if is_alive(status):
            raise ValueError(
                f"resume={settings['resume']} is still running (process {status['pid']}): stop it first"
            )
    extra = [] if any(arg.startswith("hydra.run.dir=") for arg in argv) else [_run_dir(settings, choices)]
    # argparse, which Hydra uses, wants its positional arguments in one piece.
    sys.argv = ["easycap train", *overrides, *extra, *(word for word in argv if word not in overrides)]
    # SIGTERM (a scheduler, a container) ends a run as Ctrl-C does: with a status, not without a word.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints a digest of an error and exits by itself
    failures: list[BaseException] = []
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")(
        partial(_guarded, failures)
    )()
    if failures:
        raise failures[0]
    return 0


def _guarded(failures: list[BaseException], config: DictConfig) -> float | None:
    """Keep an error from Hydra, which would announce it in words of its own; `main` raises it."""
    try:
        return _job(config)
    except (Exception, KeyboardInterrupt) as error:
        failures.append(error)
        return None


def help_text() -> str:
    """Return the help of `easycap train`, with the options found on disk."""
    groups = (*GROUPS, "experiment", "sweep", "launcher")
    lines = [f"  {group:<14}{' | '.join(options_of(group))}" for group in groups]
    return _HELP.format(groups="\n".join(lines))


def _split(argv: Sequence[str]) -> tuple[set[str], list[str]]:
    """Hydra's flags, and the overrides; --cfg has a value of its own (job, hydra, all)."""
    flags, overrides = set(), []
    words = iter(argv)
    for word in words:
        if word in ("--cfg", "-c"):
            next(words, None)
        if word.startswith("-"):
            flags.add(word.partition("=")[0])
        else:
            overrides.append(word)
    return flags, overrides


def compose(overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    """Return the composed config and the option chosen in each group.

    Raises `ValueError` for an override that cannot be read or an option that does not exist. Keys are not checked
    here: fields are added if need be, and `check` judges the result.
    """
    forced = [_forced(override) for override in parse(overrides)]
    try:
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = hydra.compose("train", overrides=forced, return_hydra_config=True)
            choices = dict(config.hydra.runtime.choices)
            OmegaConf.set_struct(config, False)
            del config["hydra"]
            OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(" ".join(str(error).split())) from error
    return config, choices


def check_all(config: DictConfig) -> dict[str, Any]:
    """Return the checked config; with `resume` that of the run, whose own config counts."""
    # Loads torch: after the words of the command line are known to be fine.
    from easycap.rehearsal import rehearse

    settings = check(config)
    if settings["resume"]:
        settings = _of_run(Path(settings["resume"]), settings)
    rehearse(settings)
    return settings


def _job(config: DictConfig) -> float:
    from easycap.train import train

    settings = check(config)
    path = Path(HydraConfig.get().runtime.output_dir)
    if settings["resume"]:
        path = Path(settings["resume"])
        settings = _of_run(path, settings)
    command = "easycap train " + " ".join(map(shown, HydraConfig.get().overrides.task))
    return _trained_and_shown(train(settings, path, command=command.strip()), path)


def _trained_and_shown(best: float, path: Path) -> float:
    from easycap.evaluate import show_run

    show_run(path)
    return best


def _of_run(run: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The stored config of a run, to go on with on the device asked for."""
    if not (run / "config.yaml").is_file():
        raise ValueError(
            f"resume={run} is no run's folder (config.yaml is missing); `easycap runs` lists runs"
        )
    stored = check_stored(OmegaConf.load(run / "config.yaml"))
    return stored | {"device": asked["device"], "resume": str(run)}


def _check_only_resume(overrides: Sequence[str]) -> None:
    others = [o for o in overrides if o.lstrip("+").partition("=")[0] not in ("resume", "device")]
    if others:
        raise ValueError(
            f"resume goes on with the run's own config; leave out {' '.join(others)} (only device= may differ)"
        )


def _status_of(run: Path) -> dict[str, Any]:
    path = run / "status.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error})") from None


def _nothing_left(run: Path) -> int:
    from easycap.evaluate import show_run

    print(f"{shown(run)} is completed: there is nothing left to do", file=sys.stderr)
    return show_run(run)


def _run_dir(settings: dict[str, Any], choices: dict[str, str]) -> str:
    if settings["resume"]:
        path = Path(settings["resume"]).absolute()
    else:
        tokens = f"{choices['image_tokens']}{settings['image_tokens'].get('count', '')}"
        parts = ["tags", choices["tagger"]] if settings["task"] == "tags" else [tokens, choices["decoder"]]
        names = [choices["data"], choices["encoder"], *parts]
        path = new_run_folder(outputs_dir() / "runs", names)
    return f"hydra.run.dir='{path}'"


def parse(overrides: Sequence[str]) -> list[Override]:
    """Return the overrides as Hydra reads them; `ValueError` names one that cannot be read."""
    parser = OverridesParser.create()
    parsed = []
    for override in overrides:
        try:
            parsed.append(parser.parse_override(override))
        except HydraException:
            raise ValueError(
                f"{override!r} cannot be read as GROUP=OPTION or GROUP.FIELD=VALUE; put a value with spaces or "
                "brackets in quotes twice, e.g. 'data.root=\"my data\"'"
            ) from None
    return parsed


def _forced(override: Override) -> str:
    """The override as one that sets its key whether it exists or not, after checking the option of a group."""
    key, text = override.key_or_group, override.input_line
    assert text is not None
    if override.is_sweep_override():
        raise ValueError(f"{text} names several values: add -m for a run with each of them")
    if key in ("sweep", "launcher"):
        raise ValueError(f"{text} is for sweeps: add -m")
    if key in GROUPS:
        _check_option(key, override.value(), options_of(key))
        return text.lstrip("+")
    if key == "experiment" and override.value() is not None:
        _check_option(key, override.value(), options_of(key))
        return text.lstrip("+")
    if override.is_delete() or key.startswith("hydra"):
        return text
    return "++" + text.lstrip("+")


def _check_option(group: str, option: Any, allowed: list[str]) -> None:
    if option not in allowed:
        name = "null" if option is None else str(option)
        raise ValueError(f"{group}={name} does not exist; {describe_choices(name, allowed)}")


def options_of(group: str) -> list[str]:
    """Return the options of a config group, recipes (easycap/quickstart) with their folder."""
    root = config_dir() / group
    return sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml"))

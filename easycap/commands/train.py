"""`easycap train`: compose -> validate -> dry run -> run folder -> train, each once."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from easycap.config.compose import config_text, import_own_modules
from easycap.config.hydra_job import show_info
from easycap.config.overrides import parse, quoted
from easycap.config.own_dirs import use_config_dirs
from easycap.config.schema import GROUPS
from easycap.errors import UserError
from easycap.registry import own_components
from easycap.runs.find import shown
from easycap.tasks.prepared_run import PreparedRun, prepare
from easycap.training.place import place
from easycap.training.restarts import Restarts
from easycap.utils.paths import config_files, own_config_dirs
from easycap.utils.plugins import packages_without_conf
from easycap.utils.processes import PARENT, end_as_on_interrupt, end_with_parent

# Hydra's flags that take a value after "=".
_FLAGS = frozenset({"--cfg", "--package", "--info", "--config-path", "--config-name"})

_HELP = """easycap train: train a captioner, evaluate it, write its report.

usage: easycap train [GROUP=OPTION] [GROUP.FIELD=VALUE] [experiment=NAME] [resume=RUN] [--debug]
       easycap train -m [GROUP=OPTION,OPTION] [GROUP.FIELD=VALUE,VALUE] [sweep=NAME] [launcher=parallel]
       easycap train --cfg job ...      print the resulting config (also hydra, all; --package PART, --resolve)
       easycap train --config-dir DIR   also take options, recipes and sweeps from DIR

{groups}

conf/GROUP/OPTION.yaml explains every setting; --cfg job prints all of them. Examples:
  easycap train experiment=easycap/quickstart
  easycap train image_tokens=split image_tokens.count=5 trainer.epochs=2 seed=3
  easycap train task=tags tagger=cnn                      a tagger; then train with tags=predicted tags.run=RUN
  easycap train data=coco data.root=COCO encoder=resnet18 encoder.pretrained=false
  easycap train -m image_tokens=split,resampler image_tokens.count=1,5,10 seed=1,2,3 sweep.dry_run=true"""


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap train`; raises `UserError` for wrong input before any work."""
    argv, config_dirs = use_config_dirs(argv)
    if any(arg in ("-h", "--help") for arg in argv):
        import_own_modules(parse([arg for arg in argv if arg.startswith("imports=")]))
        print(help_text())
        return 0
    flags, unknown = _parser().parse_known_intermixed_args([_as_override(arg) for arg in argv])
    flags.config_dirs = config_dirs
    if unknown:
        return _refuse(unknown)
    if flags.multirun and (flags.cfg or flags.info):
        raise UserError("-m cannot be combined with --cfg or --info, which show one config")
    if flags.info:
        show_info(flags.info, flags.overrides)
        return 0
    if parent := os.environ.get(PARENT):
        end_with_parent(int(parent), signal.SIGTERM)
    process = place()
    if flags.multirun or _asks_how_long(flags):
        if process.world_size > 1:
            raise UserError("a sweep (-m) starts processes of its own: run it without torchrun or srun")
        from easycap.sweeps.run import run_sweep

        return run_sweep(flags.overrides, config_dirs)
    if process.rank > 0 and not flags.cfg:
        from easycap.train import join_training

        join_training()
        return 0
    return _prepare_and_train(flags)


def _prepare_and_train(flags: argparse.Namespace) -> int:
    """Train the run that the overrides describe, or with --cfg only print its config."""
    overrides, restarts = flags.overrides, Restarts()
    if not flags.cfg and (run := restarts.run_to_resume()) is not None:
        print(f"torchrun has restarted the training: resuming {shown(run)}", file=sys.stderr, flush=True)
        device = [word for word in overrides if word.lstrip("+").startswith("device=")]
        overrides = [f"resume={quoted(str(run))}", *device]
    prepared = prepare(overrides, flags=flags.config_dirs)
    if prepared.is_completed:
        print(f"{shown(prepared.config['resume'])} is already complete; nothing to do", file=sys.stderr)
        return _show(prepared.folder)
    if flags.cfg:
        text = config_text(prepared.composition, flags.cfg, package=flags.package, resolve=flags.resolve)
        print(text, end="")
        return 0
    end_as_on_interrupt()
    restarts.remember(prepared.folder)
    code = prepared.run(lambda: _train(prepared))
    restarts.forget()
    return code


def _train(prepared: PreparedRun) -> int:
    from easycap.train import train

    train(prepared.config, prepared.folder, command=prepared.command)
    return _show(prepared.folder)


def _show(folder: Path) -> int:
    from easycap.commands.evaluate import show_run

    return show_run(folder)


# ------------------------------------------------------------------------------------------- command line


def _parser() -> argparse.ArgumentParser:
    """Hydra's flags; all other words are overrides."""
    parser = argparse.ArgumentParser(prog="easycap train", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("-p", "--package")
    kinds = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
    parser.add_argument("-i", "--info", nargs="?", const="all", choices=kinds)
    return parser


def _refuse(unknown: Sequence[str]) -> int:
    names = sorted({word.partition("=")[0] for word in unknown if word.startswith("-")} or set(unknown))
    settings = [f"{name.lstrip('-')}=VALUE" for name in names if "-" not in name.lstrip("-")]
    hint = f"; write settings as {', '.join(settings)}" if settings else ""
    print(f"easycap: train has no option {', '.join(names)}{hint}; see easycap train --help", file=sys.stderr)
    return 2


def _asks_how_long(flags: argparse.Namespace) -> bool:
    return not flags.cfg and any(word.startswith("sweep.dry_run=") for word in flags.overrides)


def help_text() -> str:
    """Return the help of `easycap train`, with the options found on disk and of modules that are imported already."""
    groups = [*GROUPS, "experiment", "sweep", "launcher"]
    own = own_components()
    further = {
        *own,
        *(path.name for folder in own_config_dirs() for path in folder.iterdir() if path.is_dir()),
    }
    lines = []
    for group in [*groups, *sorted(further - {*groups, "hydra"})]:
        found = sorted({*config_files(group), *own.get(group, {})})
        lines.append(f"  {group:<14}{' | '.join(found)}")
    if packages := packages_without_conf():  # importing them takes seconds
        lines += [
            "",
            f"Packages that may add components without a YAML (not listed): {', '.join(packages)}",
        ]
    return _HELP.format(groups="\n".join(lines))


def _as_override(arg: str) -> str:
    """Rewrite --seed=3, as W&B's agents write settings, to seed=3; keep Hydra's flags."""
    name, equals, _ = arg.partition("=")
    return arg[2:] if arg.startswith("--") and equals and name not in _FLAGS else arg

"""`easycap share RUN FOLDER` and `easycap share RUN --hub USER/MODEL`: export or upload a trained model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from easycap.errors import UserError
from easycap.runs.find import PRETRAINED, find_run, is_pretrained, shown
from easycap.utils.console import say
from easycap.utils.text import bytes_text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="easycap share",
        description="Save a trained model with a model card in a folder, or upload it to the Hugging Face hub. "
        "It holds no training state and no paths of this machine; `easycap caption` and `easycap.load` read it.",
    )
    parser.add_argument("run", type=Path, help="a run's folder or name")
    parser.add_argument("folder", type=Path, nargs="?", help="a new folder to save the model in")
    parser.add_argument("--hub", metavar="USER/MODEL", help="upload it to the hub under this name")
    parser.add_argument(
        "--license",
        metavar="ID",
        help="licence of the weights, as a hub identifier: mit, apache-2.0, cc-by-4.0",
    )
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--message", metavar="TEXT", help="commit message on the hub")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files in a folder that is not empty"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap share`; raises `UserError` for what cannot be saved or uploaded."""
    args = _parser().parse_args(argv)
    _check(args)
    from easycap.predict import load  # loads torch, which --help does not need

    model = load(args.run, device="cpu")
    if args.hub is not None:
        message = {} if args.message is None else {"commit_message": args.message}
        private = True if args.private else None
        url = model.push_to_hub(args.hub, license=args.license, private=private, **message)
        say(f"{url}: easycap.load({args.hub!r}) reads it")
        return 0
    model.save_pretrained(args.folder, license=args.license, overwrite=args.overwrite)
    for file in sorted(one for one in args.folder.rglob("*") if one.is_file()):
        say(f"{bytes_text(file.stat().st_size):>10}  {shown(file)}")
    if args.license is None:
        say("no licence given, so others may not use the model; add one with --license ID")
    say(f"try it: easycap caption {shown(args.folder)} photo.jpg")
    return 0


def _pretrained_of(run: Path) -> str | None:
    """Return the name of the pretrained captioner that hf:NAME, or the run of its scores, is of; None for others."""
    if is_pretrained(run):
        return str(run).removeprefix(PRETRAINED)
    from easycap.runs.reading import is_run, read_result

    folder = find_run(run)
    result = (read_result(folder) or {}) if is_run(folder) else {}
    found = result.get("pretrained")
    return None if found is None else str(found)


def _check(args: argparse.Namespace) -> None:
    """Raise `UserError` for incompatible arguments, before the model is loaded."""
    if (args.folder is None) == (args.hub is None):
        raise UserError("specify a new folder, or --hub USER/MODEL")
    if args.hub is None and (args.private or args.message is not None):
        raise UserError("--private and --message only apply to --hub USER/MODEL")
    if args.hub is not None and args.overwrite:
        raise UserError(
            "--overwrite only applies to a folder; on the hub, earlier versions stay in the history"
        )
    model = _pretrained_of(args.run)
    if model is not None:
        raise UserError(
            f"{shown(args.run)} is a pretrained captioner that was not trained here, so there is nothing to share: "
            f"others use it as {PRETRAINED}{model}"
        )
    from easycap.sharing.hub_models import check_model_id
    from easycap.sharing.model_folder import check_licence, check_target

    check_licence(args.license)
    if args.hub is not None:
        check_model_id(args.hub)
    else:
        check_target(args.folder, overwrite=args.overwrite)

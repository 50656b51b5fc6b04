"""`easycap export RUN`: a captioner as ONNX graphs, for transformers, or as files of released code."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from easycap.runs.find import shown
from easycap.utils.console import say
from easycap.utils.text import bytes_text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="easycap export",
        description="Write a captioner for other programs. ONNX graphs are checked with onnxruntime: greedy captions "
        "equal, logits within 1e-4.",
    )
    parser.add_argument("run", type=Path, help="a run's folder or name, or USER/MODEL on the hub")
    kind = parser.add_mutually_exclusive_group(required=True)
    add = kind.add_argument
    add(
        "--onnx",
        type=Path,
        metavar="FOLDER",
        help="a new folder for two ONNX graphs: encoder and decoder step",
    )
    add(
        "--transformers",
        type=Path,
        metavar="FOLDER",
        help="a new folder that transformers loads without easycap: of captioner=huggingface, or of "
        "encoder=timm, image_tokens=all and decoder=causal_lm",
    )
    add(
        "--clipcap", type=Path, metavar="FILE", help="a new file with the keys of rmokady/CLIP_prefix_caption"
    )
    add(
        "--m2",
        type=Path,
        metavar="FILE",
        help="a new file with the keys of aimagelab's Meshed-Memory, and vocab.pkl",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files in a folder that is not empty"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap export`; raises `UserError` for what cannot be exported."""
    args = _parser().parse_args(argv)
    for system in ("clipcap", "m2"):
        if (path := getattr(args, system)) is not None:
            # here and below: these load torch, which --help does not need
            from easycap.releases.exported import export_release
            from easycap.runs.find import checkpoint_of
            from easycap.sharing.hub_models import find_model
            from easycap.tasks.create import load_task

            # not by `predict.load`, which refuses models that see no photos
            task = load_task(checkpoint_of(find_model(args.run)), device="cpu")
            files, notes = export_release(task, system, path)
            for file in files:
                say(f"{bytes_text(file.stat().st_size):>10}  {shown(file)}")
            for note in notes:
                say(f"note: {note}")
            return 0
    return _onnx(args) if args.transformers is None else _transformers(args)


def _onnx(args: Any) -> int:
    from easycap.predict import load
    from easycap.sharing.model_folder import check_target
    from easycap.sharing.onnx_export import check_packages, export_onnx

    check_packages()
    check_target(args.onnx, overwrite=args.overwrite)
    found = export_onnx(load(args.run, device="cpu").task, args.onnx, overwrite=args.overwrite)
    _list(args.onnx)
    say(
        f"checked with onnxruntime: greedy captions of {len(found.captions)} random images are equal, logits differ by "
        f"at most {found.difference:.0e}"
    )
    return 0


def _transformers(args: Any) -> int:
    from easycap.predict import load
    from easycap.sharing.model_folder import check_target
    from easycap.sharing.transformers_export import export_transformers

    check_target(args.transformers, overwrite=args.overwrite)
    task = load(args.run, device="cpu").task
    found = export_transformers(task, args.transformers, overwrite=args.overwrite)
    _list(args.transformers)
    say(
        f"checked with transformers: log-probabilities differ by at most {found.difference:.0e}"
        + (f"; the prompt is {found.prompt}" if found.prompt else "")
    )
    return 0


def _list(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        say(f"{bytes_text(file.stat().st_size):>10}  {shown(file)}")

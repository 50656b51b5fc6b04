"""`easycap export RUN --onnx FOLDER`: export a captioner as ONNX graphs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from easycap.runs.find import shown
from easycap.utils.console import say
from easycap.utils.text import bytes_text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="easycap export",
        description="Write a captioner's encoder and decoder step as ONNX, and check them with onnxruntime: "
        "greedy captions equal, logits within 1e-4.",
    )
    parser.add_argument("run", type=Path, help="a run's folder or name, or USER/MODEL on the hub")
    parser.add_argument(
        "--onnx", type=Path, required=True, metavar="FOLDER", help="a new folder for the graphs"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files in a folder that is not empty"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap export`; raises `UserError` for what cannot be exported."""
    args = _parser().parse_args(argv)
    from easycap.predict import load  # loads torch, which --help does not need
    from easycap.sharing.model_folder import check_target
    from easycap.sharing.onnx_export import check_packages, export_onnx

    check_packages()
    check_target(args.onnx, overwrite=args.overwrite)
    found = export_onnx(load(args.run, device="cpu").task, args.onnx, overwrite=args.overwrite)
    for file in sorted(args.onnx.iterdir()):
        say(f"{bytes_text(file.stat().st_size):>10}  {shown(file)}")
    say(
        f"checked with onnxruntime: greedy captions of {len(found.captions)} random images are equal, logits differ by "
        f"at most {found.difference:.0e}"
    )
    return 0

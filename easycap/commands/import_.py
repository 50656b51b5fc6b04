"""`easycap import`: make a run from released weights, or from captions of any origin."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from easycap.errors import UserError
from easycap.runs.find import shown

_OVERRIDE = re.compile(r"\+{0,2}[a-z_]+(\.[\w.]+)?=.*", re.DOTALL)
_EXAMPLES = """
examples:
  easycap import m2 meshed_memory_transformer.pth vocab.pkl data.root=COCO encoder.features=coco_detections.hdf5
  easycap import ruotianluo model-best.pth infos_updown-best.pkl data.root=COCO encoder.features=cocobu_att
  easycap import clipcap coco_weights.pt data.root=COCO vocab.path=GPT2
  easycap import captions results.json data=coco_karpathy data.root=COCO

Pickles are read as data and never executed. A run with weights can be evaluated, compared
and trained further (init_from=RUN), and shared if it sees photos: those of m2 and ruotianluo, and clipcap with
encoder=precomputed, read precomputed features and cannot be. A run with captions only has scores and can be compared.
"""


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap import`."""
    overrides = [word for word in argv if _OVERRIDE.fullmatch(word) and not Path(word).exists()]
    args = _parser().parse_args([word for word in argv if word not in overrides])
    command = "easycap import " + " ".join(map(shown, argv))
    if args.system == "captions":
        return _captions(args, overrides, command)
    if args.split is not None or args.name is not None:
        raise UserError(
            f"--split and --name are for easycap import captions: leave them out with {args.system}"
        )
    return _weights(args, overrides, command)


def _weights(args: argparse.Namespace, overrides: Sequence[str], command: str) -> int:
    from easycap.releases.imported_run import import_release

    folder, release = import_release(args.system, args.files, overrides, folder=args.folder, command=command)
    print(f"run: {shown(folder)}")
    for sentence in release.not_known:
        print(f"not known: {sentence}")
    print(f"score it: easycap evaluate {shown(folder)}")
    return 0


def _captions(args: argparse.Namespace, overrides: Sequence[str], command: str) -> int:
    from easycap.commands.evaluate import show_run
    from easycap.releases.imported_captions import import_captions

    folder = import_captions(
        args.files, overrides, split=args.split, name=args.name, folder=args.folder, command=command
    )
    print(f"run: {shown(folder)}")
    return show_run(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="easycap import",
        usage="easycap import SYSTEM FILE ... [GROUP.FIELD=VALUE ...] [--folder DIR]\n"
        "       easycap import captions FILE data=NAME [data.KEY=VALUE ...] [--split NAME] [--folder DIR]",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "system",
        help="whose weights: m2, ruotianluo (newfc, updown, att2in2, transformer), clipcap, sgrvinod; or captions",
    )
    add(
        "files",
        nargs="*",
        type=Path,
        help="files of the release, in any order; or a file or folder of captions",
    )
    add("--folder", type=Path, metavar="DIR", help="the run's folder (default: a new one in outputs/runs)")
    add("--split", metavar="NAME", help="captions: the split they belong to (default: test, else val)")
    add("--name", metavar="NAME", help="captions: their name in tables (default: the file's name)")
    return parser

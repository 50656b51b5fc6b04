"""`easycap demo RUN ...`: a browser page for trying out models."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from easycap.config.data_locations import add_arguments, locations_from_args, split_locations
from easycap.config.own_dirs import use_config_dirs
from easycap.errors import UserError
from easycap.runs.find import find_run
from easycap.utils.console import say

_PORT = 7860


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="easycap demo",
        description="Serve a page for trying out models: photos, captions of all runs side by side, decoding, "
        "attention, probabilities of the next words. It needs no internet and stores no photos.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="run", help="a run's folder or name, or USER/MODEL on the hub"
    )
    parser.add_argument(
        "--port", type=int, default=_PORT, help=f"port, else the next free one; 0: any (default: {_PORT})"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0: also for other machines (default: 127.0.0.1, this machine only)",
    )
    parser.add_argument(
        "--max-mb", type=float, default=20, metavar="MB", help="largest file, in MB (default: 20)"
    )
    parser.add_argument(
        "--max-megapixels", type=float, default=50, metavar="MP", help="largest image (default: 50)"
    )
    parser.add_argument("--config-dir", metavar="DIR", help="also take options of decoding from DIR")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add_arguments(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap demo`; it serves until Ctrl-C."""
    words, locations = split_locations(use_config_dirs(argv)[0])
    args = _parser().parse_args(words)
    if not 0 <= args.port < 65536:
        raise UserError(f"--port {args.port} must be from 0 to 65535 (0: any free port)")
    if not (args.max_mb > 0 and args.max_megapixels > 0):
        raise UserError("--max-mb and --max-megapixels must be above 0")
    from easycap.demo.models import DemoModel, named
    from easycap.demo.photos import Limits
    from easycap.demo.server import DemoServer, is_loopback
    from easycap.predict import load

    locations |= locations_from_args(args)
    captioners = [load(run, device=args.device, locations=locations) for run in args.runs]
    local = [
        find_run(run) for run in args.runs
    ]  # else a model of the hub, whose folder is named by a checksum
    names = named([run.absolute() if run.exists() else run for run in local])
    models = [DemoModel(name, one) for name, one in zip(names, captioners, strict=True)]
    limits = Limits(int(args.max_mb * 1e6), int(args.max_megapixels * 1e6))
    with DemoServer(models, host=args.host, port=args.port, limits=limits) as server:
        if not is_loopback(args.host):
            print(
                f"easycap: with --host {args.host}, whoever reaches this port can use the models: there is no "
                "password, and photos travel unencrypted",
                file=sys.stderr,
            )
        say(f"demo: {server.address} (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)  # after the terminal's ^C
    return 0

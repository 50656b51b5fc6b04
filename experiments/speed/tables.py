"""A generated table of many images: seconds until the first batch, and memory beyond the program itself.

    python experiments/speed/tables.py [--rows 500000] [--format csv jsonl parquet] [--files] [--out FILE]

The table has an image, a caption of ten words and a URL in each row; images lie in folders of 10,000. With --files each
is there, a hard link to one of a few tiny JPEGs; without, the table is read as for precomputed features, and no file is
looked at. Each format is read by `data=tables` in a process of its own, which first reads a table of ten rows: what it
uses from then on is beyond the program. The first batch is that of two loader processes, whose proportional set sizes
(PSS) are looked at after 200 batches: pages that n processes share count 1/n in each. CPU seconds are those of the main
process, which other work on the machine disturbs less. --string-columns compares ways to
hold the captions instead.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from measure import keep, machine, markdown

_WORDS = "a man dog cat runs sits on in the red big park ball with two people near table of street".split()
_IN_A_FOLDER, _LINKS = 10_000, 50_000  # a file may have 65,000 links on ext4
_BATCHES = 200
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--format", nargs="+", default=["csv"], choices=["csv", "jsonl", "parquet"])
    parser.add_argument("--files", action="store_true", help="create the images too")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--string-columns", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # what the processes of their own do
    parser.add_argument("--folder", type=Path, help="where to create the files (default: a temporary folder)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, pixels=args.files, workers=args.workers)))
    elif args.string_columns:
        print(markdown([as_text(row) for row in string_columns(args.rows)]))
    else:
        with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
            rows = [in_a_process(Path(scratch), kind, args) for kind in args.format]
        print(markdown([as_text(row) for row in rows]))
        keep(args.out, {"machine": machine(), "rows": args.rows, "files": args.files, "formats": rows})


def in_a_process(folder: Path, kind: str, args: argparse.Namespace) -> dict[str, Any]:
    write_table(folder / f"small.{kind}", 10)
    write_table(folder / f"captions.{kind}", args.rows)
    if args.files and not (folder / _name(0)).exists():
        write_images(folder, args.rows)
    options = ["--files"] if args.files else []
    command = [
        sys.executable, "-W", "ignore", __file__, "--measure", str(folder / f"captions.{kind}"), *options,
        "--workers", str(args.workers),
    ]  # fmt: skip
    environment = os.environ | {"EASYCAP_CACHE": f"{folder}/cache"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    found = json.loads(done.stdout.splitlines()[-1])
    return {"format": kind} | found


def _name(number: int) -> str:
    return f"{number // _IN_A_FOLDER:05d}/{number:09d}.jpg"


def rows_of(count: int) -> Iterator[tuple[str, str, str]]:
    """Yield the image, the caption and the URL of each row."""
    rng = random.Random(0)
    for number in range(count):
        caption = " ".join(rng.choices(_WORDS, k=10))
        yield _name(number), caption, f"http://example.org/{rng.getrandbits(64):016x}.jpg"


def write_table(path: Path, count: int) -> None:
    names = ("image", "caption", "url")
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(name, pa.string()) for name in names])
        rows = rows_of(count)
        with pq.ParquetWriter(path, schema) as writer:
            while part := list(islice(rows, 100_000)):
                writer.write_table(pa.table(list(map(list, zip(*part, strict=True))), schema=schema))
        return
    with path.open("w", encoding="utf-8") as file:
        if path.suffix == ".csv":
            file.write(",".join(names) + "\n")
        for row in rows_of(count):
            line = ",".join(row) if path.suffix == ".csv" else json.dumps(dict(zip(names, row, strict=True)))
            file.write(line + "\n")


def write_images(folder: Path, count: int) -> None:
    from PIL import Image

    for number in range(count):
        if number % _LINKS == 0:
            source = folder / f"{number}.source"
            Image.new("RGB", (64, 48), (number // _LINKS % 256, 99, 0)).save(source, "JPEG")
        target = folder / _name(number)
        if number % _IN_A_FOLDER == 0:
            target.parent.mkdir(exist_ok=True)
        os.link(source, target)


# ---------------------------------------------------------------------------------- in a process of its own


class Constant:
    """An input that reads no image, for tables without files."""

    def begin_epoch(self, epoch: int) -> None:
        """Do nothing: the same in every epoch."""

    def of(self, example: Any) -> Any:
        """Return features (1,8) of zeros."""
        import torch

        return torch.zeros(1, 8)


def measure(table: Path, *, pixels: bool, workers: int) -> dict[str, Any]:
    """Read the table, make a vocabulary and load the first batches; return seconds and MiB."""
    from easycap.data.loader import TrainLoader
    from easycap.data.transforms import Transform
    from easycap.types import Preprocessing

    view: Any = Transform(Preprocessing(32, (0.5,) * 3, (0.5,) * 3)) if pixels else Constant()
    found: dict[str, Any] = {}
    for path in (table.with_stem("small"), table):
        before, started, busy = memory("Rss"), time.perf_counter(), time.process_time()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
        config, dataset = read(path, pixels=pixels)
        found["read, s"] = time.perf_counter() - started
        found["read, CPU s"] = time.process_time() - busy
        found["read, peak MiB"] = peak() - before
        vocabulary = vocabulary_of(config, dataset)
        found["vocabulary, s"] = time.perf_counter() - started - found["read, s"]
        loader = TrainLoader(
            dataset.splits["train"], view, vocabulary, {}, batch_size=4 if "small" in path.stem else 32,
            captions_per_image=1, max_length=20, workers=workers, seed=1, ranks=(0, 1),
        )  # fmt: skip
        batches = loader.epoch(0)
        next(batches)
        found["first batch, s"] = time.perf_counter() - started
        found["first batch, CPU s"] = time.process_time() - busy
        for _ in islice(batches, _BATCHES):
            pass
        found["peak MiB"] = peak() - before
        found["main, MiB"] = memory("Rss") - before
        found["workers, PSS MiB"] = sum(map(pss_of, children()))
        found["all, PSS MiB"] = memory("Pss") + found["workers, PSS MiB"]
        found["all before, PSS MiB"] = found.get("all before, PSS MiB", found["all, PSS MiB"])
        del batches, loader
    found["all beyond, PSS MiB"] = found.pop("all, PSS MiB") - found.pop("all before, PSS MiB")
    images = {split: len(examples) for split, examples in dataset.splits.items()}
    return found | {"images": images}


def read(path: Path, *, pixels: bool) -> tuple[dict[str, Any], Any]:
    from easycap.config.compose import compose
    from easycap.config.instantiate import build
    from easycap.config.schema import check

    overrides = ["data=tables", f"data.root={path.parent}", f"data.captions={path.name}", "vocab=word"]
    config = check(compose(overrides)[0])
    if (
        path.stem == "small" and pixels
    ):  # images of a folder of its own, as a walk through all is no small thing
        small = path.parent / "small"
        for name, *_ in rows_of(10):
            (small / name).parent.mkdir(parents=True, exist_ok=True)
            if not (small / name).exists():
                os.link(path.parent / name, small / name)
        (small / path.name).write_bytes(path.read_bytes())
        config["data"]["root"] = str(small)
    return config, build("data", config["data"], pixels=pixels, with_tags=False)


def vocabulary_of(config: dict[str, Any], dataset: Any) -> Any:
    from easycap.tasks.captioning import CaptioningTask

    return CaptioningTask.build_vocabulary(config, dataset, None)


def memory(kind: str, process: int | str = "self") -> float:
    """MiB of a process: Rss, or Pss, in which shared pages count in part."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) / 1024


def pss_of(child: str) -> float:
    """MiB of a child process, 0 if it has ended meanwhile."""
    try:
        return memory("Pss", int(child))
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def peak() -> float:
    """The most MiB that this process has had."""
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


# ------------------------------------------------------------------------------------------- string columns


def string_columns(count: int) -> list[dict[str, Any]]:
    """Seconds to fill, MiB and microseconds of an access for ways to hold captions, each in a process of its own."""
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.starmap(string_column, [(way, count) for way in _WAYS], chunksize=1)


def string_column(way: str, count: int) -> dict[str, Any]:
    texts = (caption for _, caption, _ in rows_of(count))
    make = _WAYS[way]()
    make(iter("some texts"))
    before, started = memory("Rss"), time.perf_counter()
    column = make(texts)
    row = {"column": way, "fill, s": time.perf_counter() - started, "MiB": memory("Rss") - before}
    places = random.Random(1).choices(range(count), k=100_000)
    started = time.perf_counter()
    for place in places:
        str(column[place])
    return row | {"access, us": (time.perf_counter() - started) * 10}


class _Empty:
    def __getitem__(self, place: int) -> str:
        return ""


def _pyarrow() -> Any:
    import pyarrow as pa

    return lambda texts: pa.array(texts, pa.large_string())


def _string_column() -> Any:
    from easycap.utils.string_column import StringColumn

    return StringColumn.of


_WAYS: dict[str, Any] = {
    "generating alone": lambda: lambda texts: [text for text in texts if not text] or _Empty(),
    "list": lambda: list,
    "StringDType": lambda: lambda texts: np.fromiter(texts, np.dtypes.StringDType()),
    "StringColumn": _string_column,
    "pyarrow": _pyarrow,
}


def as_text(row: dict[str, Any]) -> dict[str, str]:
    return {
        name: f"{value:,.1f}" if isinstance(value, float) else "" if value is None else str(value)
        for name, value in row.items()
        if not isinstance(value, dict)
    }


if __name__ == "__main__":
    main()

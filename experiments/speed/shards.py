"""A generated data set in tar shards: CPU seconds to read it, memory, and images/s of 1, 2 and 4 loader processes.

    python experiments/speed/shards.py [--images 1000000] [--workers 1 2 4] [--folder DIR] [--out FILE]

Shards of 10,000 samples: a JPEG of 40x40 pixels, and JSON with an id and a caption of ten words (2.6 GB for a million
images, removed afterwards), with the indexes that `easycap data shard` writes. They are read by `data=webdataset` in a
process of its own; what is used beyond reading a thousand images counts. A tenth of them is read without indexes too.
Then batches of 64 images are loaded, by turns with each number of processes, and as the library webdataset loads them
(shards and a buffer of 1,000 samples shuffled), with the same decoding. Proportional set sizes (PSS) are looked at
after the last batch: pages that n processes share count 1/n in each. CPU seconds are those of all processes, which
other work on the machine disturbs less than images/s.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from measure import keep, machine, markdown
from tables import children, memory, peak, pss_of

from easycap.data.shards.index_files import read_index, save_index, shards_at
from easycap.data.shards.tar_index import ShardIndex
from easycap.utils.string_column import StringColumn

_WORDS = "a man dog cat runs sits on in the red big park ball with two people near table of street".split()
_IN_A_SHARD, _DISTINCT = 10_000, 64
_BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--batches", type=int, default=200, help="loaded in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="where to create the shards (default: a temporary folder)"
    )
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # what the processes of their own do
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        folder = Path(scratch)
        for name, images in (("small", 1000), ("large", args.images), ("plain", args.images // 10)):
            (folder / name).mkdir()
            write_shards(folder / name, images, indexed=name != "plain")
        with_index = in_a_process(folder, args)
        without = index_seconds(folder / "plain")
    loaded = with_index.pop("loaded")
    without *= 10_000 / (args.images // 10)
    print(markdown([{**_as_text(with_index), "index, CPU s per 10,000 images": f"{without:.2f}"}]))
    print(markdown([_as_text(row) for row in loaded]))
    load = {"load average": os.getloadavg()[1], "cores": os.cpu_count()}
    result = {"machine": machine(), "load": load, "images": args.images, "read": with_index}
    keep(args.out, result | {"index, CPU s per 10,000 images": without, "loaded": loaded})


def _as_text(row: dict[str, Any]) -> dict[str, str]:
    return {name: f"{v:,.1f}" if isinstance(v, float) else str(v) for name, v in row.items()}


def index_seconds(folder: Path) -> float:
    """CPU seconds to read the headers and texts of all shards."""
    busy = time.process_time()
    for shard in shards_at(sorted(map(str, folder.glob("*.tar"))), cache_bytes=0):
        read_index(shard)
    return time.process_time() - busy


def in_a_process(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable, "-W", "ignore", __file__, "--measure", str(folder), "--batches", str(args.batches),
        "--rounds", str(args.rounds), "--workers", *map(str, args.workers),
    ]  # fmt: skip
    environment = os.environ | {"EASYCAP_CACHE": f"{folder}/cache"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


# ------------------------------------------------------------------------------------------------ shards


def write_shards(folder: Path, images: int, *, indexed: bool) -> None:
    """Write tars and their indexes, headers made here: a million images take seconds, not minutes."""
    from PIL import Image

    rng, pixels = random.Random(0), np.random.default_rng(0)
    pictures = []
    for _ in range(_DISTINCT):
        file = io.BytesIO()
        Image.fromarray(pixels.integers(0, 256, (5, 5, 3), np.uint8)).resize((40, 40)).save(file, "JPEG")
        pictures.append(file.getvalue())
    templates = {suffix: _template(suffix) for suffix in ("jpg", "json")}
    for begin in range(0, images, _IN_A_SHARD):
        path = folder / f"train-{begin // _IN_A_SHARD:05d}.tar"
        numbers = range(begin, min(begin + _IN_A_SHARD, images))
        texts = [
            json.dumps({"id": f"{n:09d}", "caption": " ".join(rng.choices(_WORDS, k=10))}) for n in numbers
        ]
        members: list[tuple[int, int, int]] = []  # offset, length and CRC of the header
        with path.open("wb") as file:
            for number, text in zip(numbers, texts, strict=True):
                for suffix, content in (("jpg", pictures[number % _DISTINCT]), ("json", text.encode())):
                    header = _header(templates[suffix], number, len(content))
                    members.append((file.tell() + 512, len(content), zlib.crc32(header)))
                    file.write(header + content.ljust(-(-len(content) // 512) * 512, b"\0"))
            file.write(bytes(1024))
        if indexed:
            save_index(_index(path, numbers, texts, np.array(members)), Path(f"{path}.index"))


def _index(path: Path, numbers: range, texts: list[str], members: np.ndarray) -> ShardIndex:
    count = len(numbers)
    return ShardIndex(
        path.stat().st_size,
        StringColumn.of(f"{n:09d}" for n in numbers),
        ("jpg", "json"),
        sample=np.repeat(np.arange(count, dtype=np.int32), 2),
        suffix=np.tile(np.array([0, 1], np.int16), count),
        offset=members[:, 0].astype(np.int64),
        length=members[:, 1].astype(np.int64),
        crc=members[:, 2].astype(np.uint32),
        text=np.arange(1, 2 * count, 2, dtype=np.int32),
        texts=StringColumn.of(texts),
        faults=(),
    )


def _template(suffix: str) -> bytes:
    info = tarfile.TarInfo(f"{0:09d}.{suffix}")
    return info.tobuf(tarfile.USTAR_FORMAT)


def _header(template: bytes, number: int, size: int) -> bytes:
    """A header with another name and size, and the sum of its bytes."""
    buffer = bytearray(template)
    buffer[:9] = b"%09d" % number
    buffer[124:135] = b"%011o" % size
    buffer[148:156] = b"        "
    buffer[148:155] = b"%06o\0" % sum(buffer)
    return bytes(buffer)


# ---------------------------------------------------------------------------------- in a process of its own


def cpu_seconds() -> float:
    """Return CPU seconds of this process and of those that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Read both data sets and make vocabularies, and then load batches; return seconds and MiB beyond the small one."""
    found: dict[str, Any] = {}
    for name in ("small", "large"):
        gc.collect()
        before, busy = memory("Rss"), time.process_time()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
        config, dataset = read(folder / name)
        found["read, CPU s"] = time.process_time() - busy
        found["read, peak MiB"] = peak() - before
        busy = time.process_time()
        vocabulary = vocabulary_of(config, dataset)
        found["vocabulary, CPU s"] = time.process_time() - busy
        gc.collect()
        found["afterwards, MiB"] = memory("Rss") - before
    images = sum(map(len, dataset.splits.values()))
    found["bytes per image"] = found["afterwards, MiB"] * 2**20 / images
    return found | {"loaded": load(folder / "large", dataset, vocabulary, args)}


def load(folder: Path, dataset: Any, vocabulary: Any, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Load batches by turns in each way."""
    ways: dict[tuple[str, int], Callable[[], Iterator[Any]]] = {}
    for workers in args.workers:
        ways["easycap", workers] = ours(dataset, vocabulary, workers)
        ways["webdataset", workers] = theirs(folder, workers)
    rows: dict[tuple[str, int], list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(args.rounds):
        for way in list(ways)[:: 1 if number % 2 == 0 else -1]:
            rows[way].append(one_round(ways[way](), args.batches))
    result = []
    for (who, workers), its in rows.items():
        row = {name: statistics.median(one[name] for one in its) for name in its[0]}
        first = statistics.median(
            a["images/s"] / b["images/s"] for a, b in zip(its, rows[who, args.workers[0]], strict=True)
        )
        result.append({"by": who, "processes": workers, **row, f"times {args.workers[0]} process": first})
    return result


def one_round(batches: Iterator[Any], count: int) -> dict[str, float]:
    """Load some batches; the first is not part of images/s, but of all else."""
    busy, started = cpu_seconds(), time.perf_counter()
    next(batches)
    first = time.perf_counter()
    images = sum(_BATCH for _ in islice(batches, count))
    done = time.perf_counter()
    pss = memory("Pss") + sum(map(pss_of, children()))
    getattr(batches, "close", lambda: None)()
    del batches
    gc.collect()
    return {
        "first batch, s": first - started,
        "images/s": images / (done - first),
        "CPU s per 10,000 images": (cpu_seconds() - busy) / (images + _BATCH) * 10_000,
        "all, PSS MiB": pss,
    }


def read(folder: Path) -> tuple[dict[str, Any], Any]:
    from easycap.config.compose import compose
    from easycap.config.instantiate import build
    from easycap.config.schema import check

    config = check(compose(["data=webdataset", f"data.root={folder}", "vocab=word"])[0])
    return config, build("data", config["data"], pixels=True, with_tags=False)


def vocabulary_of(config: dict[str, Any], dataset: Any) -> Any:
    from easycap.tasks.captioning import CaptioningTask

    return CaptioningTask.build_vocabulary(config, dataset, None)


def transform() -> Any:
    from easycap.data.transforms import Transform
    from easycap.types import Preprocessing

    return Transform(Preprocessing(32, (0.5,) * 3, (0.5,) * 3))


def ours(dataset: Any, vocabulary: Any, workers: int) -> Callable[[], Iterator[Any]]:
    from easycap.data.loader import TrainLoader

    loader = TrainLoader(
        dataset.splits["train"], transform(), vocabulary, {}, batch_size=_BATCH, captions_per_image=1,
        max_length=20, workers=workers, seed=1, ranks=(0, 1),
    )  # fmt: skip
    epochs = iter(range(1000))
    return lambda: loader.epoch(next(epochs))


class InMemory:
    """An image file in memory, as our transforms take images."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def array(self, at_least: int | None = None) -> np.ndarray:
        """Return its pixels (H,W,3)."""
        from easycap.data.images import decoded_array

        return decoded_array(io.BytesIO(self.content), Path("image"), at_least)


def theirs(folder: Path, workers: int) -> Callable[[], Iterator[Any]]:
    import torch
    import webdataset

    view = transform()

    def sample(one: dict[str, Any]) -> Any:
        return view(InMemory(one["jpg"])), json.loads(one["json"])["caption"]

    def collate(samples: list[Any]) -> Any:
        return torch.stack([image for image, _ in samples]), [text for _, text in samples]

    def batches() -> Iterator[Any]:
        shards = sorted(map(str, folder.glob("*.tar")))
        stream = webdataset.WebDataset(shards, shardshuffle=100, seed=1).shuffle(1000).map(sample)
        return iter(torch.utils.data.DataLoader(stream, _BATCH, num_workers=workers, collate_fn=collate))

    return batches


if __name__ == "__main__":
    main()

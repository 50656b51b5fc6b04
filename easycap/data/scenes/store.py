"""Scenes on disk: made once by several processes, in a folder that appears complete or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import random
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from easycap.data.images import PackedImage
from easycap.data.scenes.draw import draw
from easycap.data.scenes.grammar import references
from easycap.data.scenes.graph import Scene
from easycap.data.scenes.sample_scene import sample
from easycap.errors import UserError
from easycap.types import Example
from easycap.utils.machine import no_garbage_collection, usable_cores
from easycap.utils.paths import share_as_usual
from easycap.utils.processes import end_with_parent, lock
from easycap.utils.progress_bar import Progress

logger = logging.getLogger(__name__)
CHUNK = 250  # scenes drawn by a worker at a time
STALE_SECONDS = 24 * 3600


def make_record(seed: int, split: str, index: int) -> dict[str, Any]:
    """Return the id, scene graph, captions and tags of one scene: the same on any machine."""
    digest = hashlib.sha256(f"{seed}/{split}/{index}".encode()).digest()
    rng = random.Random(int.from_bytes(digest[:8], "big"))
    scene = sample(rng, novel=split == "test_novel")
    captions = references(scene, rng)
    return {
        "id": f"{split}-{index:06d}",
        "graph": scene.to_dict(),
        "captions": list(captions),
        "tags": list(tags(scene)),
    }


def tags(scene: Scene) -> tuple[str, ...]:
    """Return words for the things and actions of a scene, each once: things first."""
    things = [group.kind for group in scene.groups]
    actions = [group.action for group in scene.groups if group.action]
    if scene.relation in ("riding", "holding"):
        actions.append(scene.relation)
    return tuple(dict.fromkeys([*things, *actions]))


def write_line(record: dict[str, Any]) -> str:
    """Return a record as it stands in the file, without the end of line."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=True)


def load_split(folder: Path, split: str) -> list[Example]:
    """Read one split's examples; their pixels stay on disk."""
    lines = (folder / f"{split}.jsonl").read_text().splitlines()
    with no_garbage_collection():
        return _examples(json.loads(f"[{','.join(lines)}]"), folder / f"{split}.npy")


def _examples(records: list[dict[str, Any]], pixels: Path) -> list[Example]:
    return [
        Example(
            record["id"],
            PackedImage(pixels, row),
            tuple(record["captions"]),
            tuple(record["tags"]),
            record["graph"],
        )
        for row, record in enumerate(records)
    ]


def make(folder: Path, *, counts: dict[str, int], size: int, seed: int, workers: int) -> None:
    """Make every split in `folder` unless it is there; `UserError` if the place cannot be written.

    The work happens in a hidden folder beside it, renamed at the end: whoever is killed leaves nothing that looks
    whole; leftovers are removed after a day. Whoever comes second waits for the first.
    """
    if folder.is_dir():
        return
    with contextlib.ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock(folder.parent / ".locks" / folder.name))
            if folder.is_dir():
                return
            _remove_stale(folder.parent)
            hidden = Path(tempfile.mkdtemp(prefix=".scenes-", dir=folder.parent))
        except OSError as error:
            raise UserError(
                f"{folder.parent} cannot hold generated scenes ({error}): choose data.cache=FOLDER"
            ) from None
        _make_in(hidden, folder, counts=counts, size=size, seed=seed, workers=workers)


def _make_in(hidden: Path, folder: Path, **what: Any) -> None:
    try:
        share_as_usual(hidden)
        _fill(hidden, **what)
        with contextlib.suppress(OSError):  # another process was first: its folder is as good
            hidden.rename(folder)
        if not folder.is_dir():
            raise UserError(f"{folder} cannot be made: choose another data.cache=FOLDER")
        logger.info("scenes are in %s", folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _remove_stale(parent: Path) -> None:
    for folder in parent.glob(".scenes-*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _fill(folder: Path, *, counts: dict[str, int], size: int, seed: int, workers: int) -> None:
    for split, count in counts.items():
        _reserve(folder / f"{split}.npy", (count, size, size, 3))
    jobs = [
        (folder, split, start, min(start + CHUNK, count), size, seed)
        for split, count in counts.items()
        for start in range(0, count, CHUNK)
    ]
    lines: dict[tuple[str, int], str] = {}
    for job, text in _tracked(jobs, workers):
        lines[job[1], job[2]] = text
    for split in counts:
        parts = [text for (of, _), text in sorted(lines.items()) if of == split]
        (folder / f"{split}.jsonl").write_text("".join(parts))


def _reserve(path: Path, shape: tuple[int, ...]) -> None:
    """Take the disk space now, so that a full disk is an error here and not a crash of a worker."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    size = array.offset + array.nbytes
    del array
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)


Job = tuple[Path, str, int, int, int, int]


def _tracked(jobs: list[Job], workers: int) -> Iterator[tuple[Job, str]]:
    """Do the jobs, in child processes where the platform forks, and show how far they are."""
    workers = min(workers or usable_cores(), len(jobs))
    total = sum(stop - start for _, _, start, stop, _, _ in jobs)
    forks = "fork" in multiprocessing.get_all_start_methods() and not multiprocessing.current_process().daemon
    with contextlib.ExitStack() as stack:
        futures: dict[Future[str], Job] = {}
        if workers > 1 and forks:
            # Forked, so that a caller's script needs no __main__ guard; the children only draw.
            context = multiprocessing.get_context("fork")
            pool = ProcessPoolExecutor(
                workers, mp_context=context, initializer=end_with_parent, initargs=(os.getpid(),)
            )
            stack.enter_context(pool)
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                futures = {pool.submit(_make_chunk, job): job for job in jobs}
        progress = stack.enter_context(Progress("drawing scenes", total, unit="scenes"))
        for job, text in (
            ((futures[f], f.result()) for f in as_completed(futures)) if futures else _in_turn(jobs)
        ):
            progress.advance(job[3] - job[2])
            yield job, text


def _in_turn(jobs: list[Job]) -> Iterator[tuple[Job, str]]:
    for job in jobs:
        yield job, _make_chunk(job)


def _make_chunk(job: Job) -> str:
    """Draw scenes start..stop of a split into its pixel file and return their records' lines."""
    folder, split, start, stop, size, seed = job
    pixels = np.load(folder / f"{split}.npy", mmap_mode="r+")
    lines = []
    for index in range(start, stop):
        record = make_record(seed, split, index)
        pixels[index] = np.asarray(draw(Scene.from_dict(record["graph"]), size))
        lines.append(write_line(record) + "\n")
    pixels.flush()
    return "".join(lines)

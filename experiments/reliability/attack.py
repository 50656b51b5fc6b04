"""Repeat the faults that a training may meet on a small run: survived, refused in one sentence, or a failure."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from easycap.cli import main as easycap
from easycap.training.trainer import Trainer

# Two epochs of three steps of two batches on 32-pixel scenes; dropout, so that random numbers matter.
SHORT_RUN = [
    "data.size=32", "data.train_images=24", "data.val_images=4", "data.test_images=4", "data.workers=1",
    "encoder.image_size=32", "encoder.widths=[8,16]", "image_tokens.count=2", "image_tokens.num_heads=2",
    "decoder.width=16", "decoder.num_heads=2", "decoder.num_layers=1", "decoder.dropout=0.1",
    "trainer.batch_size=4", "trainer.accumulate=2", "trainer.epochs=2", "trainer.checkpoint_every_steps=1",
    "trainer.precision=fp32", "trainer.threads=1", "trainer.captions_per_image=1", "trainer.workers=0",
    "validation.images=4", "validation.batch_size=2", "validation.samples=1", "device=cpu", "tracking=none",
]  # fmt: skip
SURVIVED, REFUSED, FAILED = "survived", "refused clearly", "FAILED"
CHECKPOINT = ["model.safetensors", "vocab.json", "config.json", "preprocessing.json", "progress.json"]
CHECKPOINT += ["checksums.txt"]
SECONDS = 600.0
ELSEWHERE = "node17"

Attack = tuple[str, str, str]  # kind, what was done, outcome


class Place:
    """A folder to work in, with a run that was left alone and one that was killed after its fifth step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.whole, self.killed = folder / "whole", folder / "killed"
        code, said = command(["train", *SHORT_RUN, f"hydra.run.dir={self.whole}"])
        assert code == 0, said
        code, _ = command(["train", *SHORT_RUN, f"hydra.run.dir={self.killed}"], before_step=kill_at(5))
        assert code == -signal.SIGKILL

    def copy(self, run: Path) -> Path:
        """A copy of a run to attack."""
        copy = Path(tempfile.mkdtemp(dir=self.folder)) / "run"
        return shutil.copytree(run, copy)

    def resumed(self, run: Path) -> str:
        """Resume a run: survived if it ends with the bits of the run that was left alone."""
        code, said = command(["train", f"resume={run}"])
        if code != 0:
            return FAILED + ": " + said[-200:]
        return SURVIVED if bits(run) == bits(self.whole) else f"{FAILED}: other weights"


# ------------------------------------------------------------------------------------------------- attacks


def damage(place: Place) -> Iterator[Attack]:
    """One flipped bit in every file of a checkpoint."""
    for name in [*CHECKPOINT, "training.safetensors"]:
        run = place.copy(place.killed)
        flip_a_bit(run / "checkpoints/last" / name)
        yield "flipped bit", f"last/{name}, then resume", place.resumed(run)
    photo = place.whole / "samples/images"
    for name in CHECKPOINT:
        run = place.copy(place.whole)
        flip_a_bit(run / "checkpoints/best" / name)
        for words in (["evaluate", str(run)], ["caption", str(run), str(next(photo.glob("*.png")))]):
            yield "flipped bit", f"best/{name}, then {words[0]}", refused(*command(words), "is damaged: ")
    for name in CHECKPOINT:
        run = place.copy(place.killed)
        flip_a_bit(run / "checkpoints/best" / name)
        code, said = command(["train", f"resume={run}"])
        found = code == 0 and "best is damaged: " in said
        yield "flipped bit", f"best/{name}, then resume", SURVIVED if found else f"{FAILED}: {said[-200:]}"


def saved_copies(place: Place) -> Iterator[Attack]:
    """One flipped bit in every file that a run holds of other runs, and of a shared model but its card."""
    tagger = place.folder / "tagger"
    code, said = command(
        ["train", *SHORT_RUN, "task=tags", "tagger=cnn", "tag_vocab.min_count=1", f"hydra.run.dir={tagger}"]
    )
    assert code == 0, said
    run, shared = place.folder / "conditioned", place.folder / "shared"
    texts = ["tags=predicted", f"tags.run={tagger}", "draft=retrieval", f"draft.run={place.whole}"]
    for words in (["train", *SHORT_RUN, *texts, f"hydra.run.dir={run}"], ["share", str(run), str(shared)]):
        code, said = command(words)
        assert code == 0, said
    photo = str(next((place.whole / "samples/images").glob("*.png")))
    files = [
        one for name in ("tagger", "neighbours") for one in sorted((run / name).rglob("*")) if one.is_file()
    ]
    files += [one for one in sorted(shared.rglob("*")) if one.is_file() and one.name != "README.md"]
    for file in files:
        origin = run if file.is_relative_to(run) else shared
        copy = place.copy(origin)
        flip_a_bit(copy / file.relative_to(origin))
        what = f"{origin.name}/{file.relative_to(origin)}, then caption"
        outcome = refused(*command(["caption", str(copy), photo]), "is damaged: ")
        yield "flipped bit in copies", what, outcome
        shutil.rmtree(copy.parent)


def signals(place: Place) -> Iterator[Attack]:
    """Signals at the third step: the run saves, ends with a status, and is resumed to the same bits."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT):
        run = Path(tempfile.mkdtemp(dir=place.folder)) / "run"
        words = ["train", *SHORT_RUN, f"hydra.run.dir={run}"]
        code, said = command(words, before_step=lambda step, n=number: step == 3 and os.kill(os.getpid(), n))
        saved = code == 130 and json.loads((run / "status.json").read_text())["status"] == "interrupted"
        outcome = place.resumed(run) if saved else f"{FAILED}: {code} {said[-200:]}"
        yield "signal", f"{signal.Signals(number).name} in a step, then resume", outcome


def two_at_once(place: Place) -> Iterator[Attack]:
    """Two processes resume one run."""
    run = place.copy(place.killed)
    children = [begin(["train", f"resume={run}"], before_step=lambda step: time.sleep(15)) for _ in range(2)]
    ends = [wait() for wait in children]
    (lost,) = [end for end in ends if end[0] != 0] or [(0, "both trained")]
    outcome = refused(*lost, "stop it first")  # by the lock, or sooner by the status
    yield "two at once", "the second of two resumes of one run", outcome
    same = SURVIVED if bits(run) == bits(place.whole) else f"{FAILED}: other weights"
    yield "two at once", "the first of two resumes of one run", same


def node_death(place: Place) -> Iterator[Attack]:
    """A run whose status says that another host trains it: one that still writes, and one that died."""
    for silent in (0, 170, 3600):
        run = place.copy(place.killed)
        status = json.loads((run / "status.json").read_text()) | {"status": "running", "host": ELSEWHERE}
        (run / "status.json").write_text(json.dumps(status))
        (run / ".seconds").touch()
        for name in ("status.json", ".seconds"):
            os.utime(run / name, (time.time() - silent,) * 2)
        if silent == 0:
            wait = begin(["train", f"resume={run}"])
            for _ in range(60):
                (run / ".seconds").touch()
                time.sleep(1)
            yield "another host", "alive, then resume", refused(*wait(), f"is being trained on {ELSEWHERE}")
        else:
            yield "another host", f"dead for {silent} s, then resume", place.resumed(run)


def jobs_on_one_node(place: Place) -> Iterator[Attack]:
    """Two jobs of two ranks on one node, with the variables that srun sets."""
    shared = {
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_ID": "0",
        "MASTER_ADDR": "127.0.0.1",
    }
    runs, waits = {}, []
    for job in (7001, 7002):
        runs[job] = place.folder / f"job-{job}"
        words = ["train", *SHORT_RUN, "decoder.dropout=0", f"seed={job}", f"hydra.run.dir={runs[job]}"]
        for rank in (1, 0):
            own = {"SLURM_JOB_ID": str(job), "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
            waits.append(begin(words, variables=shared | own))
    ends = [wait() for wait in waits]
    seeds = [json.loads((run / "checkpoints/last/config.json").read_text())["seed"] for run in runs.values()]
    fine = all(code == 0 for code, _ in ends) and seeds == list(runs)
    yield "two jobs", "on one node, without MASTER_PORT", SURVIVED if fine else f"{FAILED}: {ends}"


def no_shared_disk(place: Place) -> Iterator[Attack]:
    """The second of two ranks has another disk where runs are written, in a mount namespace of its own."""
    outputs = place.folder / "outputs"
    outputs.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "EASYCAP_OUTPUTS": str(outputs),
    }
    words = [sys.executable, "-m", "easycap", "train", *SHORT_RUN]
    ranks = []
    for rank in range(2):
        hidden = [*in_namespace(str(outputs), "8m"), *words] if rank else words
        own = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        ranks.append(
            subprocess.Popen(hidden, env=own, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
    ends = [(rank.communicate(timeout=SECONDS)[1], rank.returncode) for rank in ranks]
    for number, (said, code) in enumerate(ends):
        outcome = refused(code, said, "cannot see")
        yield "no shared disk", f"what rank {number} says", outcome


def small_shared_memory(place: Place) -> Iterator[Attack]:
    """/dev/shm of 64 kB in a mount namespace, and loader processes."""
    for workers in ("2", "auto"):
        run = place.folder / f"shm-{workers}"
        words = ["train", *SHORT_RUN, f"trainer.workers={workers}", f"hydra.run.dir={run}"]
        inside = [*in_namespace("/dev/shm", "64k"), sys.executable, "-m", "easycap", *words]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=SECONDS)
        if workers == "auto":
            outcome = SURVIVED if done.returncode == 0 else f"{FAILED}: {done.stderr[-200:]}"
        else:
            outcome = refused(done.returncode, done.stderr, "/dev/shm has ")
        yield "small /dev/shm", f"trainer.workers={workers}", outcome


def data_and_weights(place: Place) -> Iterator[Attack]:
    """Half a character in a caption; a pickle with code as the weights of an encoder."""
    from PIL import Image

    photos = place.folder / "photos"
    photos.mkdir()
    rows = []
    for number in range(12):
        Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(photos / f"{number}.png")
        rows.append(f'{{"image": "{number}.png", "caption": "a red {number} \\ud83d photo"}}')
    (place.folder / "captions.jsonl").write_text("\n".join(rows))
    words = [word for word in SHORT_RUN if not word.startswith("data.")]
    words += ["data=folder", f"data.images={photos}", f"data.captions={place.folder / 'captions.jsonl'}"]
    words += ["data.val_share=0.2", "data.test_share=0.2", "encoder=small", "vocab.min_count=1"]
    run = place.folder / "surrogates"
    code, said = command(["train", *words, f"hydra.run.dir={run}"])
    told = code == 0 and json.loads((run / "result.json").read_text())["data"]["fixed_count"] == len(rows)
    yield "lone surrogate", "in every caption", SURVIVED if told else f"{FAILED}: {said[-200:]}"
    marker = place.folder / "attacked"
    torch.save({"state_dict": MakesFolder(marker)}, place.folder / "x.pth")
    words = ["encoder=timm", "encoder.model=resnet10t", f"encoder.weights={place.folder / 'x.pth'}"]
    rest = [word for word in SHORT_RUN if not word.startswith("encoder.")]
    code, said = command(["train", *rest, *words])
    outcome = refused(code, said, "could run any code")
    yield "pickle with code", "encoder.weights=x.pth", f"{FAILED}: it ran" if marker.exists() else outcome


DYING = """
import os, signal, sys
from easycap.training.trainer import Trainer

original = Trainer.train_step

def train_step(self, batches):
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and self.ranks.rank == 1 and self.state.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, batches)

Trainer.train_step = train_step
from easycap.cli import main
sys.exit(main(sys.argv[1:]))
"""


def restarts(place: Place) -> Iterator[Attack]:
    """A rank dies under `torchrun --max-restarts`."""
    dying = place.folder / "dying.py"
    dying.write_text(DYING)
    words = ["--nproc-per-node", "2", "--max-restarts", "1", str(dying), "train", *SHORT_RUN]
    own = {**os.environ, "EASYCAP_OUTPUTS": str(place.folder / "restarted")}
    torchrun = [sys.executable, "-m", "torch.distributed.run", *words]
    done = subprocess.run(torchrun, env=own, capture_output=True, text=True, timeout=SECONDS)
    runs = list((place.folder / "restarted/runs").iterdir())
    fine = done.returncode == 0 and len(runs) == 1 and "resuming from last at step 3" in done.stderr
    yield (
        "torchrun",
        "rank 1 of 2 is killed, --max-restarts 1",
        SURVIVED if fine else f"{FAILED}: {done.stderr[-300:]}",
    )


ATTACKS: list[Callable[[Place], Iterator[Attack]]] = [
    damage, saved_copies, signals, two_at_once, node_death, jobs_on_one_node, no_shared_disk, small_shared_memory,
    data_and_weights, restarts,
]  # fmt: skip


# ------------------------------------------------------------------------------------------------- means


class MakesFolder:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def kill_at(step: int) -> Callable[[int], Any]:
    return lambda now: now == step and os.kill(os.getpid(), signal.SIGKILL)


def begin(
    words: list[str], *, before_step: Callable[[int], Any] = lambda step: None, variables: dict | None = None
) -> Callable[[], tuple[int, str]]:
    """Start a command in a forked process; return what waits for its end and gives its exit code and its words."""
    log = Path(tempfile.mkstemp(suffix=".log")[1])
    child = os.fork()
    if child == 0:
        os.environ.update(variables or {})
        out = os.open(log, os.O_WRONLY)
        os.dup2(out, 1), os.dup2(out, 2)
        original = Trainer.train_step

        def train_step(self: Trainer, batches: list) -> Any:
            before_step(self.state.step)
            return original(self, batches)

        Trainer.train_step = train_step
        code = 1
        try:
            code = easycap(words)
        finally:
            os._exit(code)

    def wait() -> tuple[int, str]:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = log.read_text(errors="replace")
        log.unlink()
        return code, said

    return wait


def command(words: list[str], **options: Any) -> tuple[int, str]:
    return begin(words, **options)()


def refused(code: int, said: str, expected: str) -> str:
    """Refused clearly: exit code 1, the expected words in the last line, which is one sentence, and no traceback."""
    last = (said.strip().splitlines() or [""])[-1]
    fine = code == 1 and last.startswith("easycap: ") and expected in last and "Traceback" not in said
    return REFUSED if fine else f"{FAILED}: {code} {said[-300:]}"


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = random.Random(path.name).randrange(len(content) * 8)
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def in_namespace(folder: str, size: str) -> list[str]:
    """The beginning of a command that sees another, small disk at `folder`."""
    mount = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"'
    return ["unshare", *(["-m"] if os.geteuid() == 0 else ["-rm"]), "sh", "-c", mount, folder]


def bits(run: Path) -> dict[str, str]:
    """Digests of what must not depend on any fault."""
    files = ["checkpoints/last/model.safetensors", "checkpoints/last/training.safetensors"]
    files += ["checkpoints/best/model.safetensors", "captions.test.json"]
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in files}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [attack.__name__ for attack in ATTACKS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--out", type=Path, help="write the table there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Attack] = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= {"EASYCAP_CACHE": f"{scratch}/cache", "EASYCAP_OUTPUTS": f"{scratch}/outputs"}
        place = Place(Path(scratch))
        for attack in ATTACKS:
            for row in attack(place) if attack.__name__ in options.only else ():
                rows.append(row)
                print(*row, sep="  ", file=sys.stderr, flush=True)
    text = table(rows)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    return int(any(outcome.startswith(FAILED) for _, _, outcome in rows))


def table(rows: list[Attack]) -> str:
    lines = ["| fault | tried | survived | refused clearly | failed |", "|---|---|---|---|---|"]
    kinds = {kind: Counter(o.partition(":")[0] for k, _, o in rows if k == kind) for kind, _, _ in rows}
    kinds["all"] = sum(kinds.values(), Counter())
    for kind, counts in kinds.items():
        cells = [counts.total(), counts[SURVIVED], counts[REFUSED], counts[FAILED]]
        lines.append(f"| {kind} | " + " | ".join(map(str, cells)) + " |")
    lines += ["", "| fault | what was done | outcome |", "|---|---|---|"]
    clean = [[cell.replace("\n", " ").replace("|", "/") for cell in row] for row in rows]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in clean)])


if __name__ == "__main__":
    raise SystemExit(main())

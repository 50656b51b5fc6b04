"""Wrong commands, each run in this process in a folder of its own: what they answer, and whether they leave anything.

    python experiments/reliability/wrong_commands.py [--write]

Reads wrong_commands.csv, prints a line per command of easycap with how many were refused clearly (exit code 1 or 2, one
sentence, no traceback, nothing left behind), and with --write replaces the answers there by those of today. RUN, FILES
and TINY in a command stand for a run, a folder of odd files and the settings of a run of seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import re
import shlex
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from easycap.cli import main as easycap

TABLE = Path(__file__).with_name("wrong_commands.csv")
TINY = (
    "data.size=32 data.train_images=24 data.val_images=6 data.test_images=6 data.workers=1 encoder.image_size=32 "
    "encoder.widths=[8,16] image_tokens.count=2 image_tokens.num_heads=2 decoder.width=16 decoder.num_heads=2 "
    "decoder.num_layers=1 trainer.batch_size=4 trainer.epochs=1 trainer.precision=fp32 validation.images=6 "
    "validation.batch_size=3 validation.samples=2 device=cpu tracking=none"
)
TEXTS = {
    "captions.json": '[{"image_id": 1, "caption": "a dog"}]',
    "references.json": '{"1": ["a dog", "the dog"]}',
    "unknown.json": '{"1": "a dog", "2": "a cat"}',
    "number.json": '{"1": 5}',
    "list.json": "[1, 2]",
    "text.json": '"x"',
    "cut.json": '{"a": ',
    "empty.json": "",
}


class Answer(NamedTuple):
    """The exit code, the last line on standard error, and whether the command ended clearly and left nothing."""

    code: int
    sentence: str
    is_clear: bool


def make_files(folder: Path) -> None:
    """Write what the commands read: RUN, trained for seconds, and FILES."""
    files = folder / "FILES"
    (files / "images").mkdir(parents=True)
    Image.new("RGB", (32, 32), "red").save(files / "images" / "a.jpg")
    Image.new("RGB", (32, 32), "blue").save(files / "images" / "b.png")
    for name, text in TEXTS.items():
        (files / name).write_text(text)
    (files / "binary.json").write_bytes(b"\xff\xfe\x00\x01")
    os.mkfifo(files / "pipe.jpg")
    with contextlib.redirect_stdout(io.StringIO()):
        assert easycap(["train", *shlex.split(TINY), f"hydra.run.dir={folder / 'RUN'}"]) == 0


def answer_to(command: str, folder: Path, outputs: Path) -> Answer:
    """Run a command in `folder`; `outputs` is where runs would go."""
    names = {"RUN": str(folder / "RUN"), "FILES": str(folder / "FILES"), "TINY": TINY}
    words = shlex.split(re.sub(r"\b(RUN|FILES|TINY)\b", lambda match: names[match[0]], command))
    before = {*folder.rglob("*"), *outputs.rglob("*")}
    shown, errors = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(shown), contextlib.redirect_stderr(errors):
        try:
            code = easycap(words)
        except SystemExit as stop:  # of argparse
            code = int(stop.code or 0)
    lines = [line for line in errors.getvalue().splitlines() if line.strip()]
    sentence = (lines or [""])[-1].replace(str(folder) + "/", "")
    sentence = re.split(r"[;(,]? ?(?:did you mean|allowed:|choose from)", sentence)[0].rstrip(" ;,(")
    left = [path for path in {*folder.rglob("*"), *outputs.rglob("*")} - before if path.name != "runs"]
    text = errors.getvalue()
    clear = code in (1, 2) and not left and "Traceback" not in text and "unexpected" not in text
    return Answer(code, sentence, clear and bool(sentence))


def read_table() -> list[tuple[str, str]]:
    """Return the rows of wrong_commands.csv: (command, the beginning of its answer)."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [(row["command"], row["answer"]) for row in csv.DictReader(file)]


def main() -> None:
    """Run all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    tried, clear, rows = Counter[str](), Counter[str](), []
    with tempfile.TemporaryDirectory() as scratch:
        folder, outputs = Path(scratch) / "work", Path(scratch) / "outputs"
        os.environ |= {"EASYCAP_OUTPUTS": str(outputs), "EASYCAP_CACHE": str(Path(scratch) / "cache")}
        make_files(folder)
        for command, _ in read_table():
            found = answer_to(command, folder, outputs)
            name = command.split()[0] if command.split()[0].isalpha() else "(none)"
            tried[name] += 1
            clear[name] += found.is_clear
            rows.append((command, found.sentence))
            if not found.is_clear:
                print(f"not clear: {command}\n  {found}", file=sys.stderr)
    for name, count in tried.items():
        print(
            f"{name:<12} tried {count:>4}  refused clearly {clear[name]:>4}  failed {count - clear[name]:>4}"
        )
    print(
        f"{'all':<12} tried {len(rows):>4}  refused clearly {clear.total():>4}  failed {len(rows) - clear.total():>4}"
    )
    if write:
        with TABLE.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("command", "answer"), *rows])


if __name__ == "__main__":
    main()

"""A run's folder: what compare, report, resume and W&B all read."""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easycap.errors import UserError
from easycap.runs.holding import LOCK, SECONDS
from easycap.runs.migrate import update_result_keys
from easycap.types import ImageSource
from easycap.utils.files import naming, overwrite, read_mapping, write_atomically, write_json
from easycap.utils.processes import lock

if TYPE_CHECKING:
    import PIL.Image

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOTED_EVERY = 5.0


def new_run_folder(root: Path, choices: Sequence[str]) -> Path:
    """Return root/<time>-<choices>-<unique>, not yet made; two runs in one second differ in the last part."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return root / "-".join([stamp, *choices, secrets.token_hex(3)])


class RunFolder:
    """Writes the files of one run; readers never see half a file.

    While the run's status is running, its wall time is written to `.seconds` every few seconds: a killed process leaves
    no other record, and other hosts see no other heartbeat. `clock` is monotonic, in seconds. `is_new` says that
    there was nothing there but a log.
    """

    def __init__(self, path: Path, *, command: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self.command, self.clock = path, command, clock
        self._started = clock() - _seconds_of_legs(path)
        self._over: threading.Event | None = None
        self.is_new = not path.exists() or {entry.name for entry in path.iterdir()} <= {"train.log", LOCK}
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / "samples" / "images").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror}): choose another with EASYCAP_OUTPUTS"
            ) from None

    def seconds(self) -> float:
        """Return the wall time of the run, the sum over its legs if it was resumed."""
        return self.clock() - self._started

    def write_config(self, yaml: str) -> None:
        """Write config.yaml, the whole config of the run."""
        write_atomically(self.path / "config.yaml", yaml)

    def write_status(self, status: str, error: str | None = None) -> None:
        """status: running, completed, interrupted or failed; "seconds" is the run's wall time until now."""
        self._note_time(status == "running")
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        path = self.path / "status.json"
        before = self._read("status.json")
        values = {
            "status": status,
            "error": error,
            "started": before.get("started", now),
            "ended": None if status == "running" else now,
            "seconds": round(self.seconds(), 3),
            "command": before.get("command", self.command),
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }
        try:
            write_json(path, values)
        except OSError as problem:
            if problem.errno not in _FULL or not path.is_file():
                raise
            overwrite(path, json.dumps(values, indent=1, ensure_ascii=False))

    def completed_status(self) -> bytes | None:
        """Return the content of status.json if it says that the run is completed, else None."""
        status = self._read("status.json")
        return (self.path / "status.json").read_bytes() if status.get("status") == "completed" else None

    def restore_status(self, content: bytes | None) -> None:
        """Write back what `completed_status` returned, if that is not None."""
        if content is not None:
            write_atomically(self.path / "status.json", content.decode("utf-8"))

    def _note_time(self, running: bool) -> None:
        """Begin to note the clock in the background, or stop it."""
        if self._over is not None:
            self._over.set()
        self._over = threading.Event() if running else None
        if running:
            threading.Thread(target=self._note_times, args=(self._over,), daemon=True).start()

    def _note_times(self, over: threading.Event) -> None:
        while not over.wait(_NOTED_EVERY):
            with suppress(OSError):  # a full disk must not end what is only a note
                write_json(self.path / SECONDS, {"seconds": round(self.seconds(), 3)})

    def append_metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Append one line to metrics.jsonl; numbers that are not finite are written as null."""
        line: dict[str, float | None] = {"step": step, "seconds": round(self.seconds(), 3)}
        line |= {name: _rounded(value) for name, value in values.items()}
        path = self.path / "metrics.jsonl"
        with naming(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def write_samples(self, name: str, rows: Any, *, images: str = "") -> None:
        """Write samples/<name>.json: a list of rows or {group: rows}; images become files next to it.

        Of a row, "image" is an ImageSource, in the file null if it cannot be read; "attention", where it has one, a
        picture of where the decoder looked. Images lie in samples/images/, in a folder `images` of it if their ids may
        be those of other images of the run.
        """
        grouped = rows if isinstance(rows, Mapping) else {"": rows}
        stored = {
            group: [self._store_images(name, row, images) for row in members]
            for group, members in grouped.items()
        }
        write_json(
            self.path / "samples" / f"{name}.json", stored if isinstance(rows, Mapping) else stored[""]
        )

    def _store_images(self, label: str, row: Mapping[str, Any], images: str) -> dict[str, Any]:
        file = f"{_file_name(row['id'])}.png"
        relative = Path("samples", "images", images, file)
        target = self.path / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        is_there = target.exists() or _save_picture(row["image"], target)
        stored = {**row, "image": relative.as_posix() if is_there else None}
        if "attention" in row:
            stored["attention"] = f"samples/attention/{_file_name(label)}/{file}"
            drawn = self.path / stored["attention"]
            drawn.parent.mkdir(parents=True, exist_ok=True)
            row["attention"].save(drawn)
        return stored

    def write_captions(self, split: str, captions: Mapping[str, str | Sequence[str]]) -> None:
        """Write captions.<split>.json in COCO's results format, a row for each caption of an image.

        Numeric ids become numbers, as COCO has them.
        """
        rows = [
            {"image_id": int(i) if i.isdecimal() and str(int(i)) == i else i, "caption": text}
            for i, texts in captions.items()
            for text in ([texts] if isinstance(texts, str) else texts)
        ]
        write_json(self.path / f"captions.{split}.json", rows)

    def write_references(self, split: str, references: Mapping[str, Sequence[str]]) -> None:
        """Write references.<split>.json: {id: [reference, ...]}, what the split's captions were scored against."""
        write_json(
            self.path / f"references.{split}.json", {i: list(texts) for i, texts in references.items()}
        )

    def write_per_image(self, split: str, values: Mapping[str, Mapping[str, float]]) -> None:
        """Write per_image.<split>.json: {metric: {id: value}}, from which two runs are compared in pairs."""
        write_json(self.path / f"per_image.{split}.json", {name: dict(of) for name, of in values.items()})

    def update_result(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `values` into result.json, two levels deep, and return the whole; two at once lose nothing."""
        with lock(self.path / ".result.json.lock"):
            result = update_result_keys(self._read("result.json"))
            for name, value in values.items():
                if isinstance(value, Mapping) and isinstance(result.get(name), dict):
                    result[name] |= value
                else:
                    result[name] = value
            write_json(self.path / "result.json", result)
        return result

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        return read_mapping(path) if path.is_file() else {}


def _seconds_of_legs(run: Path) -> float:
    """The wall time of a run's starts so far: the largest that its files record, 0 for a new run."""
    texts = {
        name: (run / name).read_text(encoding="utf-8", errors="replace")
        for name in (SECONDS, "status.json", "metrics.jsonl")
        if (run / name).is_file()
    }
    lines = {name: text.splitlines() if name == "metrics.jsonl" else [text] for name, text in texts.items()}
    return max((_last_seconds(of) for of in lines.values()), default=0.0)


def _last_seconds(lines: Sequence[str]) -> float:
    """The "seconds" of the last JSON line that has them; 0 if none does."""
    for line in reversed(lines):
        try:
            return float(json.loads(line)["seconds"])
        except (ValueError, KeyError, TypeError):  # cut off by a kill, or written by an earlier version
            continue
    return 0.0


def _rounded(value: float) -> float | None:
    value = float(value)
    return float(f"{value:.7g}") if value == value and abs(value) != float("inf") else None


def _file_name(image_id: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in image_id)[-80:]


def picture_of(image: ImageSource) -> PIL.Image.Image | None:
    """Return the picture of a sample, None if it cannot be read: features made elsewhere may be all there is of it."""
    try:
        return image.load()
    except (OSError, ValueError):
        return None


def _save_picture(image: ImageSource, target: Path) -> bool:
    """Save an image, made smaller, and return whether it could be read."""
    picture = picture_of(image)
    if picture is None:
        return False
    picture.thumbnail((320, 320))
    picture.save(target)
    return True

"""A run's folder: what compare, report, resume and W&B all read."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easycap.processes import lock, runs_python
from easycap.types import ImageSource

if TYPE_CHECKING:
    import PIL.Image


def new_run_folder(root: Path, choices: Sequence[str]) -> Path:
    """Return root/<time>-<choices>-<unique>, not yet made; two runs in one second differ in the last part."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return root / "-".join([stamp, *choices, secrets.token_hex(3)])


def is_alive(status: Mapping[str, Any]) -> bool:
    """Whether another process than this, called running by a status.json, still is, as far as can be told here."""
    here = status.get("status") == "running" and status.get("host") == socket.gethostname()
    return here and status.get("pid") != os.getpid() and runs_python(status.get("pid"))


class RunFolder:
    """Writes the files of one run; readers never see half a file."""

    def __init__(self, path: Path, *, command: str) -> None:
        self.path, self.command = path, command
        # A resumed run's clock goes on from what its last leg logged last: a kill writes nothing else.
        self._started = time.time() - _last_seconds(path / "metrics.jsonl")
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / "samples" / "images").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"{path} cannot be written ({error.strerror}): choose another with EASYCAP_OUTPUTS"
            ) from None

    def seconds(self) -> float:
        """Return the wall time of the run, the sum over its legs if it was resumed."""
        return time.time() - self._started

    def write_config(self, yaml: str) -> None:
        write_atomically(self.path / "config.yaml", yaml)

    def write_status(self, status: str, error: str | None = None) -> None:
        """status: running, completed or failed."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        before = self._read_json("status.json") or {}
        write_json(
            self.path / "status.json",
            {
                "status": status,
                "error": error,
                "started": before.get("started", now),
                "ended": None if status == "running" else now,
                "command": before.get("command", self.command),
                "pid": os.getpid(),
                "host": socket.gethostname(),
            },
        )

    def append_metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Append one line to metrics.jsonl; numbers that are not finite are written as null."""
        line = {"step": step, "seconds": round(self.seconds(), 3)}
        line |= {name: _rounded(value) for name, value in values.items()}
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def write_samples(self, name: str, rows: Any) -> None:
        """Write samples/<name>.json: a list of rows or {group: rows}; images become files beside it.

        Of a row, "image" is an ImageSource, in the file null if it cannot be read; "attention", where it has one, a
        picture of where the decoder looked.
        """
        grouped = rows if isinstance(rows, Mapping) else {"": rows}
        stored = {
            group: [self._store_images(name, row) for row in members] for group, members in grouped.items()
        }
        write_json(
            self.path / "samples" / f"{name}.json", stored if isinstance(rows, Mapping) else stored[""]
        )

    def _store_images(self, label: str, row: Mapping[str, Any]) -> dict[str, Any]:
        file = f"{_file_name(row['id'])}.png"
        target = self.path / "samples" / "images" / file
        is_there = target.exists() or _save_picture(row["image"], target)
        stored = {**row, "image": f"samples/images/{file}" if is_there else None}
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
            result = self._read_json("result.json") or {}
            for name, value in values.items():
                if isinstance(value, Mapping) and isinstance(result.get(name), dict):
                    result[name] |= value
                else:
                    result[name] = value
            write_json(self.path / "result.json", result)
        return result

    def _read_json(self, name: str) -> Any:
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that readers see the old file or the new one."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False))


def write_atomically(path: Path, text: str) -> None:
    """Write text so that readers see the old file or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _last_seconds(metrics: Path) -> float:
    """The time of the last whole line of a metrics.jsonl, 0 in a new run."""
    if not metrics.is_file():
        return 0.0
    for line in reversed(metrics.read_text(encoding="utf-8", errors="replace").splitlines()):
        try:
            return float(json.loads(line)["seconds"])
        except (ValueError, KeyError, TypeError):  # cut off by a kill
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

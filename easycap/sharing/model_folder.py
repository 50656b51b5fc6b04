"""The folder of a shared model: weights, config, vocabulary, preprocessing, model card; no training state."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from easycap.config.schema import to_plain
from easycap.errors import UserError
from easycap.models.checkpoint import PREPROCESSING
from easycap.models.stored_weights import save_weights
from easycap.runs.find import CONFIG, checkpoint_of, run_of
from easycap.runs.reading import read_result, read_status
from easycap.sharing.model_card import model_card
from easycap.sharing.portable import make_portable, portable_config, portable_result
from easycap.tasks.base import Task
from easycap.utils.checksums import write_checksums
from easycap.utils.files import write_json
from easycap.utils.paths import expanded, share_as_usual

RESULT, CARD = "result.json", "README.md"
_HUGGINGFACE = "huggingface"  # the folder of what a model of transformers has besides weights
_OF_RUNS = ("status.json", "progress.json", "checkpoints")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
# What users must pass to caption a photo where a condition has no text for it.
_GIVEN = {"draft": 'draft="a dog"', "tags": 'tags="dog,ball"'}


def check_target(folder: Path, *, overwrite: bool) -> Path:
    """Return the folder to save a model in; `UserError` if it is a file, a run, or not empty without `overwrite`."""
    folder = expanded(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a new folder")
    if any((folder / name).exists() for name in _OF_RUNS):
        raise UserError(f"{folder} is a run or a checkpoint: save the model in a new folder")
    visible = [one for one in folder.glob("*") if not one.name.startswith(".")] if folder.is_dir() else []
    if visible and not overwrite:
        raise UserError(
            f"{folder} is not empty: name a new folder, or replace files there with --overwrite (overwrite=True)"
        )
    return folder


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Yield an empty folder whose files are moved into `folder` at the end, or thrown away after an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as made:
        partial = Path(made)
        yield partial
        share_as_usual(*partial.rglob("*"))
        folder.mkdir(exist_ok=True)
        for file in partial.iterdir():
            file.replace(folder / file.name)


def check_licence(licence: str | None) -> None:
    """Raise `UserError` unless `licence` has the form of the hub's identifiers."""
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise UserError(
            f"licence {licence!r} must be a hub licence identifier, e.g. mit, apache-2.0, cc-by-4.0"
        )


def save_model_folder(
    task: Task, checkpoint: Path, folder: Path, *, name: str, licence: str | None, overwrite: bool
) -> None:
    """Write what captioning needs of a `checkpoint` into `folder`; `name` is what `easycap.load` will take.

    Files of the same names are replaced. Raises `UserError` for what `check_target` and
    `check_licence` refuse, for a text condition that cannot be saved, and for a full disk.
    """
    check_licence(licence)
    folder = check_target(folder, overwrite=overwrite)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as partial:
            _write(task, checkpoint, Path(partial), name, licence)
            folder.mkdir(exist_ok=True)
            for made in Path(partial).iterdir():
                target = folder / made.name
                if target.is_dir():
                    shutil.rmtree(target)
                made.replace(target)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from None


def _write(task: Task, checkpoint: Path, folder: Path, name: str, licence: str | None) -> None:
    save_weights(task.model, folder)
    task.vocabulary.save(folder)
    config = portable_config(to_plain(task.config))
    write_json(folder / CONFIG, config)
    pixels = task.model.encoder.preprocessing
    write_json(folder / PREPROCESSING, pixels and pixels._asdict())
    for condition in task.conditions.values():
        condition.save_for_photos(folder)
    carried = sorted(one.name for one in folder.iterdir() if one.is_dir())
    for one in carried:
        make_portable(folder / one)
        write_checksums(folder / one)
    result = _result(checkpoint)
    write_json(folder / RESULT, result)
    described = {key: condition.describe() for key, condition in task.conditions.items()}
    card = model_card(
        config,
        result,
        name=name,
        licence=licence,
        model_class=_model_class(folder / _HUGGINGFACE / CONFIG),
        needs=[_GIVEN[key] for key, info in described.items() if key in _GIVEN and not info.any_image],
        carries=[
            f"The folder `{one}` {_CARRIED.get(one, 'is read by a text condition')}." for one in carried
        ],
    )
    (folder / CARD).write_text(card, encoding="utf-8")
    write_checksums(folder, without=(CARD,))  # which people edit
    share_as_usual(*folder.rglob("*"))


_CARRIED = {
    "tagger": "holds the tags, and the model that predicts them where there is one",
    "neighbours": "holds captions and features of the training images, and the encoder that finds the nearest",
    _HUGGINGFACE: "holds the base model's config, processor and tokenizer",
    "drafts": "holds the scores of the run whose captions were drafts in training",
}


def _model_class(file: Path) -> str | None:
    """The class of a model of transformers as its config names it; None for captioners of our own parts."""
    if not file.is_file():
        return None
    names = json.loads(file.read_text(encoding="utf-8")).get("architectures") or [None]
    return names[0]


def _result(checkpoint: Path) -> dict[str, Any]:
    """Facts about a checkpoint's run; the scores are those of its best weights."""
    run = run_of(checkpoint)
    result = read_result(run) or {}
    if "state" in result:  # a shared model, saved again
        return json.loads((run / RESULT).read_text(encoding="utf-8"))
    state = read_status(run).state if (run / "status.json").is_file() else "unknown"
    found = portable_result(result, state=state)
    if checkpoint != checkpoint_of(run):
        found = {key: value for key, value in found.items() if key not in ("scores", "baselines")}
    return found

"""Released weights as a run: config, checkpoint, status and where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from easycap.config.compose import compose
from easycap.config.instantiate import build
from easycap.config.schema import config_hash, to_plain, to_yaml
from easycap.config.validate import validate
from easycap.data.feature_files import precomputed_features
from easycap.errors import UserError
from easycap.models.build import build_captioner, with_architecture
from easycap.models.captioner import Captioner
from easycap.releases.release import Release
from easycap.releases.systems import read_release
from easycap.runs.environment import environment
from easycap.runs.find import shown
from easycap.runs.run_folder import RunFolder, new_run_folder
from easycap.training.checkpoint_files import save_checkpoint
from easycap.utils.cache import atomic_dir
from easycap.utils.paths import outputs_dir


def import_release(
    system: str,
    files: Sequence[Path],
    overrides: Sequence[str] = (),
    *,
    folder: Path | None = None,
    command: str,
) -> tuple[Path, Release]:
    """Write a run with the released weights in `files`; return its folder and what was read.

    `overrides` change the config, as in training; `folder` is the run's, a new one in outputs/runs if None. Nothing is
    left behind if it fails. Raises `UserError` for files and settings that do not fit.
    """
    folder = free_folder(folder, ["imported", system])
    release = read_release(system, files)
    config = validate(compose([*release.overrides, *overrides]).config)
    precomputed_features(config["encoder"])  # raises for files that are not there
    torch.manual_seed(config["seed"])
    vocabulary: Any = release.vocabulary or _vocabulary_of(config, release, files)
    captioner = _captioner(config, vocabulary, release, [*files], overrides)
    load_release(captioner, release)
    config = with_architecture(config)

    def write(partial: Path) -> None:
        run = RunFolder(partial, command=command)
        run.write_config(to_yaml(config))
        save_checkpoint(
            partial / "checkpoints" / "best", captioner, vocabulary, to_plain(config), progress={"step": 0}
        )
        run.update_result(
            {
                "imported": {
                    "system": system,
                    "model": release.model,
                    "files": origins(files),
                    "not_known": list(release.not_known),
                },
                "vocabulary": {"size": len(vocabulary)},
                "config_hash": config_hash(config),
                "seed": config["seed"],
                "environment": environment(torch.device("cpu")),
            }
        )
        run.write_status("completed")

    atomic_dir(folder, write)
    return folder, release


def _captioner(
    config: dict[str, Any], vocabulary: Any, release: Release, files: Sequence[Path], overrides: Sequence[str]
) -> Captioner:
    """The captioner of a config; `UserError` if its language model is not in the files and cannot be had."""
    try:
        return build_captioner(config, vocabulary)
    except UserError as error:
        named = any(word.startswith("decoder.pretrained=") for word in overrides)
        if named or "decoder." not in release.kept:
            raise
        raise UserError(
            f"{files[0]} holds no language model: give that which it was trained with, decoder.pretrained=FOLDER "
            f"({config['decoder']['pretrained']} from the hub is the default, which cannot be used here: {error})"
        ) from None


def _vocabulary_of(config: dict[str, Any], release: Release, files: Sequence[Path]) -> Any:
    """The vocabulary that the config names; `UserError` if the release was trained with one of another size."""
    vocabulary = build("vocab", config["vocab"])
    own = vocabulary.tokenizer.get_vocab_size()
    if release.num_words not in (None, own):
        path = config["vocab"]["path"] or "the hub"
        raise UserError(
            f"the vocabulary of {path} has {own:,} tokens, but the weights of {files[0]} are for "
            f"{release.num_words:,}: give the folder of the tokenizer they were trained with (vocab.path=FOLDER)"
        )
    return vocabulary


def free_folder(folder: Path | None, choices: Sequence[str]) -> Path:
    """Return the folder of a new run, which is not made yet; `UserError` if it is there already."""
    if folder is None:
        return new_run_folder(outputs_dir() / "runs", choices)
    if folder.exists():
        raise UserError(f"{shown(folder)} exists already: choose another --folder")
    return folder.absolute()


def origins(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return name, size and sha256 of files."""
    found = []
    for file in files:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        found.append({"name": file.name, "bytes": file.stat().st_size, "sha256": digest})
    return found


def load_release(captioner: Captioner, release: Release) -> None:
    """Put released weights into a captioner; `UserError` names the first that does not fit."""
    own = {
        name: tensor for name, tensor in captioner.state_dict().items() if not name.startswith(release.kept)
    }
    given = release.weights
    for name in sorted(own.keys() | given.keys()):
        here, there = ([*one[name].shape] if name in one else None for one in (own, given))
        if here != there:
            raise UserError(
                f"the weights do not fit the config: {name} is {there or 'missing'} there and {here or 'missing'} "
                "here; leave out the settings that change the model"
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(given[name])

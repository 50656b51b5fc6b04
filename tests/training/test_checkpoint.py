"""Checkpoints: what is saved comes back, nothing half written counts, nothing is unpickled."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.damage import flip_a_bit
from torch import nn

import easycap.training.checkpoint_files as checkpoint
from easycap.models.checkpoint import load_weights
from easycap.runs.find import checkpoint_of
from easycap.training.optim import Muon, Optimization
from easycap.types import Preprocessing
from easycap.utils.checksums import CHECKSUMS, damage, write_checksums
from easycap.vocab.word import WordVocabulary

WORDS = WordVocabulary(size=5, min_count=1, captions=["a b c"], segmenter="spaces")


class Model(nn.Module):
    """With a tied pair, as GPT-2 has."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 3)
        self.encoder.preprocessing = Preprocessing(
            size=4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), crop=0.9
        )
        self.embedding = nn.Embedding(4, 3)
        self.output = nn.Linear(3, 4, bias=False)
        self.output.weight = self.embedding.weight

    def loss(self) -> torch.Tensor:
        return self.output(self.encoder(self.embedding.weight)).square().sum()


def optimization(model: nn.Module) -> Optimization:
    settings = {"matrix_lr": 0.1, "encoder_matrix_lr": 0.1, "momentum": 0.9, "lr": 0.1, "encoder_lr": 0.1}
    return Muon(**settings, weight_decay=0.0, betas=(0.9, 0.99), eps=1e-8)(
        model, lambda step: 1.0 / (step + 1)
    )


def take_steps(model: Model, optimizers: Optimization, steps: range) -> None:
    for step in steps:
        (model.loss() * torch.rand(())).backward()
        optimizers.step(step)


def save(folder: Path, model: Model, optimizers: Optimization, step: int) -> None:
    kept = {"rng.cpu": torch.get_rng_state()}
    progress = {"step": step}
    checkpoint.save_checkpoint(
        folder, model, WORDS, {"x": 1}, progress=progress, optimization=optimizers, tensors=kept
    )


def test_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Model()
    optimizers = optimization(model)
    take_steps(model, optimizers, range(3))
    save(tmp_path / "last", model, optimizers, 3)
    take_steps(model, optimizers, range(3, 6))
    torch.manual_seed(7)
    again = Model()
    others = optimization(again)
    load_weights(again, tmp_path / "last")
    torch.set_rng_state(checkpoint.load_training(others, tmp_path / "last")["rng.cpu"])
    assert checkpoint.read_progress(tmp_path / "last") == {"step": 3}
    take_steps(again, others, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_kill_while_saving_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    optimizers = optimization(model)
    save(tmp_path / "last", model, optimizers, 1)
    monkeypatch.setattr(checkpoint, "_sync", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "last", model, optimizers, 2)
    assert checkpoint.read_progress(checkpoint.newest(tmp_path / "last")) == {"step": 1}
    checkpoint.remove_leftovers(tmp_path, finished=False)
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_kill_between_the_renames_leaves_the_one_before(tmp_path: Path) -> None:
    model = Model()
    save(tmp_path / "last", model, optimization(model), 1)
    (tmp_path / "last").rename(tmp_path / "last.previous")
    assert checkpoint.newest(tmp_path / "last") == tmp_path / "last.previous"
    assert checkpoint.newest(tmp_path / "best") is None


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("name", [checkpoint.MODEL, checkpoint.TRAINING, checkpoint.PROGRESS])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, caplog, name: str) -> None:
    model = Model()
    optimizers = optimization(model)
    for step in (1, 2):
        save(tmp_path / "last", model, optimizers, step)
    _cut_short(tmp_path / "last" / name)
    assert checkpoint.newest(tmp_path / "last") == tmp_path / "last.previous"
    assert "is damaged" in caplog.text and "resuming from last.previous" in caplog.text
    _cut_short(tmp_path / "last.previous" / name)
    with pytest.raises(ValueError, match="last is damaged .*last.previous is damaged .*start from scratch"):
        checkpoint.newest(tmp_path / "last")


FILES = ["model.safetensors", "training.safetensors", "vocab.json", "config.json", "preprocessing.json"]
FILES += ["progress.json", CHECKSUMS]


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_found_in_every_file(tmp_path: Path, caplog, name: str) -> None:
    model = Model()
    optimizers, run = optimization(model), tmp_path / "run"
    for step in (1, 2):
        save(run / "checkpoints/last", model, optimizers, step)
    assert sorted(path.name for path in (run / "checkpoints/last").iterdir()) == sorted(FILES)
    assert checkpoint_of(run) == run / "checkpoints/last"
    flip_a_bit(run / "checkpoints/last" / name)
    assert checkpoint.newest(run / "checkpoints/last") == run / "checkpoints/last.previous"
    assert name in caplog.text or name == CHECKSUMS
    with pytest.raises(ValueError, match="last is damaged: .*; use .*last.previous instead"):
        checkpoint_of(run)
    flip_a_bit(run / "checkpoints/last.previous" / name)
    with pytest.raises(ValueError, match="last is damaged .*last.previous is damaged .*start from scratch"):
        checkpoint.newest(run / "checkpoints/last")
    with pytest.raises(ValueError, match="last is damaged: .*; restore it from a copy"):
        checkpoint_of(run)


@pytest.mark.parametrize("content", ["", "0123", "no checksums\n"])
def test_checksums_that_were_cut_short_are_damage(tmp_path: Path, content: str) -> None:
    model = Model()
    save(tmp_path / "last", model, optimization(model), 1)
    (tmp_path / "last" / CHECKSUMS).write_text(content)
    assert damage(tmp_path / "last") == f"{CHECKSUMS} is not a list of checksums"


def test_a_missing_file_is_damage_and_a_further_one_is_not(tmp_path: Path) -> None:
    model = Model()
    save(tmp_path / "last", model, optimization(model), 1)
    (tmp_path / "last" / "notes.txt").write_text("mine")
    assert damage(tmp_path / "last") is None
    (tmp_path / "last" / "vocab.json").unlink()
    assert damage(tmp_path / "last") == "vocab.json is missing"


def test_a_checkpoint_of_an_earlier_version_has_no_checksums(tmp_path: Path) -> None:
    model = Model()
    save(tmp_path / "last", model, optimization(model), 1)
    (tmp_path / "last" / CHECKSUMS).unlink()
    assert checkpoint.newest(tmp_path / "last") == tmp_path / "last" == checkpoint_of(tmp_path / "last")


def test_a_checkpoint_that_is_replaced_while_it_is_checked_is_not_called_damaged(
    tmp_path: Path, monkeypatch
) -> None:
    model = Model()
    optimizers = optimization(model)
    save(tmp_path / "last", model, optimizers, 1)
    original, calls = hashlib.file_digest, iter(range(99))

    def replacing(file, name: str):
        if next(calls) == 0:
            save(tmp_path / "last", model, optimizers, 2)
        return original(file, name)

    monkeypatch.setattr("easycap.utils.checksums.hashlib.file_digest", replacing)
    monkeypatch.setattr("easycap.training.checkpoint_files.write_checksums", _with(original))
    assert damage(tmp_path / "last") is None


def _with(digest):
    def write(folder: Path, known: dict[str, str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("easycap.utils.checksums.hashlib.file_digest", digest)
            write_checksums(folder, known)

    return write


def test_sha256sum_reads_the_checksums(tmp_path: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    model = Model()
    save(tmp_path / "last", model, optimization(model), 1)
    check = ["sha256sum", "--check", "--strict", "--quiet", CHECKSUMS]
    assert subprocess.run(check, cwd=tmp_path / "last").returncode == 0
    flip_a_bit(tmp_path / "last" / "model.safetensors")
    assert subprocess.run(check, cwd=tmp_path / "last", capture_output=True).returncode == 1


def test_a_full_disk_is_one_sentence_and_keeps_what_is_there(tmp_path: Path, monkeypatch) -> None:
    model = Model()
    optimizers = optimization(model)
    save(tmp_path / "last", model, optimizers, 1)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: SimpleNamespace(free=50))
    with pytest.raises(ValueError, match="need 0 MB but its disk has 0 MB free: make room, or"):
        save(tmp_path / "last", model, optimizers, 2)
    assert checkpoint.read_progress(tmp_path / "last") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    model = Model()
    save(tmp_path / "last", model, optimization(model), 1)
    other = Model()
    other.encoder = nn.Linear(5, 3)
    with pytest.raises(ValueError, match="cannot be loaded into this model"):
        load_weights(other, tmp_path / "last")


def test_nothing_in_a_checkpoint_is_pickled(tmp_path: Path) -> None:
    model = Model()
    save(tmp_path / "last", model, optimization(model), 1)
    files = [path for path in (tmp_path / "last").iterdir() if path.name != CHECKSUMS]
    assert {path.suffix for path in files} == {".safetensors", ".json"}


def test_no_module_can_unpickle_a_file() -> None:
    package = Path(checkpoint.__file__).parents[1]
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name == "packed.py":  # examples in memory, packed by itself
            text = text.replace("pickle.loads(self.packed[", "")
        assert "pickle.load" not in text and "allow_pickle=True" not in text, path
        loads = [line for line in text.splitlines() if "torch.load(" in line]
        assert all("weights_only=True" in line for line in loads), (
            path
        )  # torchvision's own files: tensors alone


def test_no_call_of_transformers_runs_the_code_of_a_model() -> None:
    """Left out, `trust_remote_code` asks on a terminal, and answers by a setting of the user elsewhere."""
    package, calls = Path(checkpoint.__file__).parents[1], []
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr in ("from_pretrained", "from_config"):
                calls.append(f"{path.name}:{node.lineno}")
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert given.get("trust_remote_code") == "False", calls[-1]
    assert len(calls) >= 5, calls


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077], ids=oct)
def test_every_file_follows_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        model = Model()
        save(tmp_path / "last", model, optimization(model), 3)
    finally:
        os.umask(before)
    files = list((tmp_path / "last").iterdir())
    assert {checkpoint.MODEL, checkpoint.TRAINING} < {file.name for file in files}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o666 & ~umask}

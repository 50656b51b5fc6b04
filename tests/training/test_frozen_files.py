"""Frozen weights on disk: kept once, in their own precision, in every checkpoint all the same."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from helpers import whole_runs
from safetensors.torch import load_file
from torch import nn

import easycap.training.checkpoint_files as checkpoint
from easycap.models.checkpoint import check_weights, load_encoder, load_weights
from easycap.models.stored_weights import frozen_names, read_weights, weight_files
from easycap.predict import load
from easycap.runs.find import MODEL, checkpoint_of
from easycap.training.frozen_files import FrozenFiles
from easycap.training.weight_average import save_average
from easycap.types import Preprocessing
from easycap.utils.checksums import damage
from easycap.vocab.word import WordVocabulary

WORDS = WordVocabulary(size=5, min_count=1, captions=["a b c"], segmenter="spaces")
SIZE = 96


class Model(nn.Module):
    """A frozen encoder with BatchNorm, and a frozen decoder in bfloat16's values with tied words, beside a mapper."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(SIZE, SIZE), nn.BatchNorm1d(SIZE))
        self.encoder.preprocessing = Preprocessing(size=4, mean=(0.1,) * 3, std=(0.5,) * 3, crop=0.9)
        self.mapper = nn.Sequential(nn.Linear(SIZE, 2), nn.BatchNorm1d(2))
        self.decoder = nn.ModuleDict({"words": nn.Embedding(SIZE, SIZE), "output": nn.Linear(SIZE, SIZE)})
        self.decoder["output"].weight = self.decoder["words"].weight
        self.decoder.to(torch.bfloat16).float().requires_grad_(False)
        self.encoder.requires_grad_(False)


def save(folder: Path, model: Model, step: int = 1, files: FrozenFiles | None = None) -> Path:
    """A checkpoint that can be resumed is replaced by the next one, which keeps it as `previous`."""
    progress = {"step": step}
    checkpoint.save_checkpoint(folder, model, WORDS, {"x": 1}, progress=progress, frozen_files=files)
    return folder


def frozen_in(folder: Path) -> list[Path]:
    return weight_files(folder)[1:]


def assert_equal_weights(folder: Path, model: Model) -> None:
    torch.manual_seed(9)
    again = Model()
    check_weights(again, folder)
    load_weights(again, folder)
    expected = model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())


def test_frozen_weights_are_written_once_in_their_own_precision(tmp_path: Path) -> None:
    model = Model()
    first, second = (save(tmp_path / name, model) for name in ("last", "best"))
    assert set(load_file(first / MODEL)) == {name for name in model.state_dict() if name.startswith("mapper")}
    encoder, decoder = sorted(frozen_in(first), key=lambda file: "encoder.0.weight" not in load_file(file))
    assert {"encoder.1.running_mean", "encoder.1.num_batches_tracked"} < set(load_file(encoder))
    assert load_file(encoder)["encoder.0.weight"].dtype is torch.float32
    assert {tensor.dtype for tensor in load_file(decoder).values()} == {torch.bfloat16}
    assert sum(file.stat().st_size for file in (encoder, decoder)) < SIZE * SIZE * (4 + 2) + 8_000
    assert [file.stat().st_ino for file in frozen_in(first)] == [
        file.stat().st_ino for file in frozen_in(second)
    ]
    for folder in (first, second):
        assert damage(folder) is None
        assert_equal_weights(folder, model)


def test_the_runs_of_a_folder_share_them_and_each_stands_alone(tmp_path: Path) -> None:
    model = Model()
    one, two = (save(tmp_path / name / "checkpoints/best", model) for name in ("one", "two"))
    assert {file.stat().st_nlink for file in frozen_in(two)} == {2}
    alone = shutil.copytree(tmp_path / "two", tmp_path / "elsewhere" / "two")
    subprocess.run(["tar", "-cf", tmp_path / "two.tar", "two"], cwd=tmp_path, check=True)
    shutil.rmtree(tmp_path / "one")
    shutil.rmtree(tmp_path / "two")
    subprocess.run(["tar", "-xf", tmp_path / "two.tar"], cwd=tmp_path, check=True)
    for run in (alone, tmp_path / "two"):
        assert_equal_weights(checkpoint_of(run), model)
    assert not one.exists()


def test_runs_that_start_at_once_agree_on_one_file(tmp_path: Path) -> None:
    model, files = Model(), (FrozenFiles(), FrozenFiles())
    runs = [tmp_path / name / "checkpoints" for name in ("one", "two")]
    for run in runs:  # each before the other has saved
        save(run / "last", model, files=files[runs.index(run)])
        run.parent.rename(tmp_path.parent / f"{tmp_path.name}-{run.parent.name}")
    for run in runs:
        (tmp_path.parent / f"{tmp_path.name}-{run.parent.name}").rename(run.parent)
    assert {file.stat().st_nlink for run in runs for file in frozen_in(run / "last")} == {1}
    for run, own in zip(runs, files, strict=True):
        save(run / "last", model, 2, own)
    first, second = ([file.stat().st_ino for file in frozen_in(run / "last")] for run in runs)
    assert first == second


def test_what_is_trained_later_is_no_longer_shared(tmp_path: Path) -> None:
    model, best = Model(), tmp_path / "best"
    before = save(best, model) and read_weights(best)["encoder.0.weight"].clone()
    model.encoder.requires_grad_(True)
    with torch.no_grad():
        model.encoder[0].weight += 1
    save(tmp_path / "last", model)
    assert "encoder.1.running_mean" in load_file(tmp_path / "last" / MODEL)
    assert len(frozen_in(best)) == 2 and len(frozen_in(tmp_path / "last")) == 1
    assert torch.equal(read_weights(best)["encoder.0.weight"], before)
    assert_equal_weights(tmp_path / "last", model)


def test_buffers_count_with_the_weights_beside_them() -> None:
    model = Model()
    names = frozen_names(model)
    assert "encoder.1.running_var" in names and "mapper.1.running_var" not in names
    model.encoder[0].requires_grad_(True)
    assert "encoder.1.running_var" in frozen_names(model), "its own weights are frozen"
    model.encoder[1].requires_grad_(True)
    assert "encoder.1.running_var" not in frozen_names(model)


def test_a_frozen_buffer_that_changes_is_saved_as_it_is(tmp_path: Path) -> None:
    model = Model()
    for name in ("last", "best"):
        model.encoder[1].running_mean += 1
        assert_equal_weights(save(tmp_path / name, model), model)


def test_a_flipped_bit_in_the_shared_file_is_found_and_not_passed_on(tmp_path: Path) -> None:
    model, files, run = Model(), FrozenFiles(), tmp_path / "run"
    for name in ("last", "best"):
        save(run / "checkpoints" / name, model, files=files)
    shared = frozen_in(run / "checkpoints/last")[0]
    content, before = shared.read_bytes(), shared.stat()
    with shared.open("r+b") as file:  # as on a disk, in place
        file.seek(len(content) // 2)
        file.write(bytes([content[len(content) // 2] ^ 1]))
    os.utime(shared, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(
        ValueError, match=f"best is damaged: {shared.name} has changed .*restore it from a copy"
    ):
        checkpoint_of(run)
    os.utime(shared)  # what this process knew of the file is of no use then
    new = save(run / "checkpoints/last", model, files=FrozenFiles())
    assert frozen_in(new)[0].read_bytes() == content and damage(new) is None
    assert checkpoint_of(new) == new
    with pytest.raises(ValueError, match="best is damaged: .*; use .*last instead"):
        checkpoint_of(run)


def test_a_link_to_what_has_rotted_meanwhile_is_noticed(tmp_path: Path) -> None:
    model, files = Model(), FrozenFiles()
    shared = frozen_in(save(tmp_path / "last", model, files=files))[0]
    before = shared.stat()
    with shared.open("r+b") as file:
        file.seek(before.st_size - 1)
        last = file.read(1)[0]
        file.seek(before.st_size - 1)
        file.write(bytes([last ^ 1]))
    os.utime(shared, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (
        damage(save(tmp_path / "best", model, files=files)) == f"{shared.name} has changed since it was saved"
    )


def test_a_missing_shared_file_is_one_sentence(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("last", "best"):
        save(run / "checkpoints" / name, Model())
    gone = frozen_in(run / "checkpoints/best")[0]
    gone.unlink()
    with pytest.raises(ValueError, match=rf"best is damaged: {gone.name} is missing; use .*last instead"):
        checkpoint_of(run)


def test_a_disk_without_hard_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    model = Model()
    folders = [save(tmp_path / name, model) for name in ("last", "best")]
    assert {file.stat().st_nlink for folder in folders for file in frozen_in(folder)} == {1}
    for folder in folders:
        assert damage(folder) is None
        assert_equal_weights(folder, model)


def test_a_file_with_the_right_name_and_other_weights_is_not_used(tmp_path: Path) -> None:
    model = Model()
    name = frozen_in(save(tmp_path / "elsewhere" / "last", model))[0].name
    planted = tmp_path / "run" / "checkpoints" / "best" / name
    planted.parent.mkdir(parents=True)
    planted.write_bytes(frozen_in(save(tmp_path / "other" / "last", Model()))[0].read_bytes())
    assert_equal_weights(save(tmp_path / "run" / "checkpoints" / "last", model), model)


def test_a_kill_while_linking_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    save(tmp_path / "last", model, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path / "last", model, 2)
    assert checkpoint.read_progress(tmp_path / "last") == {"step": 1} and damage(tmp_path / "last") is None
    save(tmp_path / "last", model, 3)
    assert {file.stat().st_nlink for file in frozen_in(tmp_path / "last")} == {1}


def test_averages_share_frozen_weights_and_widen_those_that_differ(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Model()
    one = save(tmp_path / "one", model)
    with torch.no_grad():
        for weight in model.mapper.parameters():
            weight += 1
    two = save(tmp_path / "two", model)
    save_average([one, two], tmp_path / "mean")
    assert {file.stat().st_nlink for file in frozen_in(tmp_path / "mean")} == {3}
    assert damage(tmp_path / "mean") is None
    with torch.no_grad():
        for weight in model.mapper.parameters():
            weight -= 0.5
    again = Model()
    load_weights(again, tmp_path / "mean")
    torch.testing.assert_close(again.state_dict(), model.state_dict())
    with torch.no_grad():
        model.decoder["words"].weight += 2**-10
    save_average([one, save(tmp_path / "three", model)], tmp_path / "other")
    assert len(frozen_in(tmp_path / "other")) == 1
    load_weights(again, tmp_path / "other")
    middle = model.decoder["words"].weight - 2**-11
    torch.testing.assert_close(again.decoder["words"].weight, middle, rtol=0, atol=1e-7)


def test_the_encoder_alone_is_taken_from_its_frozen_file(tmp_path: Path) -> None:
    model = Model()
    load_encoder(again := Model(), save(tmp_path / "best", model))
    assert torch.equal(again.encoder[0].weight, model.encoder[0].weight)
    assert not torch.equal(again.decoder["words"].weight, model.decoder["words"].weight)


def test_a_checkpoint_of_an_earlier_version_has_all_in_one_file(tmp_path: Path) -> None:
    from safetensors.torch import save_model

    model = Model()
    folder = save(tmp_path / "best", model)
    for file in frozen_in(folder):
        file.unlink()
    save_model(model, str(folder / MODEL))
    assert_equal_weights(folder, model)


def test_another_model_is_refused_also_by_its_frozen_part(tmp_path: Path) -> None:
    folder, other = save(tmp_path / "best", Model()), Model()
    other.decoder["output"] = nn.Linear(SIZE, SIZE + 1)
    with pytest.raises(ValueError, match="belong to another model: decoder.output"):
        check_weights(other, folder)
    with pytest.raises(ValueError, match="cannot be loaded into this model"):
        load_weights(other, folder)


def test_whole_runs_share_a_frozen_encoder_until_it_is_trained(
    tmp_path: Path, scenes_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYCAP_CACHE", str(scenes_cache))
    one = whole_runs.run(tmp_path / "one", "trainer.unfreeze_encoder_at_epoch=null", "trainer.epochs=2")
    two = whole_runs.run(
        tmp_path / "two",
        "trainer.unfreeze_encoder_at_epoch=1",
        "trainer.keep_checkpoints=2",
        "trainer.epochs=2",
    )
    folders = [one / "checkpoints/last", one / "checkpoints/best", two / "checkpoints/epoch-1"]
    assert len({file.stat().st_ino for folder in folders for file in frozen_in(folder)}) == 1
    name = "encoder.stages.0.0.weight"
    before, after = (read_weights(two / "checkpoints" / epoch)[name] for epoch in ("epoch-1", "epoch-2"))
    assert not frozen_in(two / "checkpoints/last") and not torch.equal(before, after)
    shutil.rmtree(two)
    photo = next((one / "samples/images").iterdir())
    assert isinstance(load(one, device="cpu").caption([photo])[0], str)

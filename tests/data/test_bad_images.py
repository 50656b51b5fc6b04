"""Bad files: listed by `skip` and trained without, the end of a run with `error`; odd ones are simply read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.bad_files import BAD, FINE, make_bad_files
from helpers.tiny_config import TINY
from PIL import Image

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.data import verify
from easycap.data.folder import folder
from easycap.data.images import BadImage, ImageFile
from easycap.data.issues import OnBadImage
from easycap.data.loader import evaluation_batches
from easycap.data.transforms import Transform
from easycap.train import train
from easycap.types import Dataset, Preprocessing
from easycap.vocab.word import WordVocabulary

SQUARE = Transform(Preprocessing(size=8, mean=(0.5,) * 3, std=(0.5,) * 3))


def read(table: Path, on_bad_image: OnBadImage) -> Dataset:
    """Read a CSV file and the folder beside it, or a folder with texts."""
    return folder(
        images=str(table.with_suffix("")),
        captions=str(table),
        image_column="image",
        caption_column="caption",
        split_column=None,
        val_share=0.2,
        test_share=0.2,
        seed=0,
        on_bad_image=on_bad_image,
        pixels=True,
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bad_files(tmp_path_factory.mktemp("bad") / "photos")


def test_skip_lists_everything_bad_and_keeps_the_rest(table: Path) -> None:
    dataset = read(table, OnBadImage.skip)
    dropped = {f.id: f.what for f in dataset.issues if f.dropped}
    assert dropped.keys() == BAD.keys()
    assert all(BAD[name] in what for name, what in dropped.items())
    kept = {example.id for examples in dataset.splits.values() for example in examples}
    assert kept == {f"good{number:02d}.jpg" for number in range(24)} | set(FINE)
    fixed = {f.id: f.what for f in dataset.issues if not f.dropped}
    assert fixed.keys() == {"good00.jpg", "good01.jpg", "good02.jpg"}
    captions = {e.id: e.references for examples in dataset.splits.values() for e in examples}
    assert captions["good00.jpg"] == ("a picture called good00", "two lines")
    assert captions["good01.jpg"][1] == "a separator"
    assert captions["good02.jpg"] == ("a picture called good02",)


def test_error_stops_at_the_first_and_says_what_to_do(table: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown image 'missing.jpg'.*data.on_bad_image=skip"):
        read(table, OnBadImage.error)


def test_skip_trains_and_the_result_lists_what_was_left_out(table: Path, tmp_path: Path) -> None:
    settings = [setting for setting in TINY if not setting.startswith("data.")]
    data = ["data=folder", f"data.images={table.with_suffix('')}", f"data.captions={table}"]
    config = check(compose([*settings, *data, "data.on_bad_image=skip"])[0])
    train(config, tmp_path / "run", command="easycap train")
    found = json.loads((tmp_path / "run" / "result.json").read_text())["data"]
    assert found["dropped_count"] == len(BAD) and found["fixed_count"] == 3
    assert {row["id"] for row in found["dropped"]} == BAD.keys()
    assert sum(found["images"].values()) == 24 + len(FINE)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_ends_the_loading_in_one_sentence(tmp_path: Path, workers: int) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(30):
        Image.new("RGB", (8, 8)).save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text("a word")
    dataset = read(photos, OnBadImage.error)
    damaged = dataset.splits["train"][3].image.path
    damaged.write_bytes(damaged.read_bytes()[:40])
    vocabulary = WordVocabulary(size=10, min_count=1, captions=["a word"], segmenter="spaces")
    batches = evaluation_batches(
        dataset.splits["train"], SQUARE, vocabulary, {}, batch_size=2, max_length=5, workers=workers
    )
    with pytest.raises(ValueError) as caught:
        list(batches)
    assert str(damaged) in str(caught.value) and "data.on_bad_image=skip" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_what_was_found_is_remembered_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path / "cache"))
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.new("RGB", (8, 8)).save(good)
    bad.write_bytes(b"no image")
    assert verify.bad_images([ImageFile(good), ImageFile(bad)]).keys() == {ImageFile(bad)}
    with monkeypatch.context() as patched:
        patched.setattr(verify, "_what_is_wrong", lambda path: pytest.fail("read again"))
        assert verify.bad_images([ImageFile(good), ImageFile(bad)]).keys() == {ImageFile(bad)}
    Image.new("RGB", (9, 9)).save(bad)
    assert verify.bad_images([ImageFile(good), ImageFile(bad)]) == {}


def test_trouble_of_the_disk_is_no_bad_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not be remembered, nor cost an image."""
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")

    def fails(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(OSError, match="Input/output") as caught:
        verify.bad_images([ImageFile(tmp_path / "x.png")])
    assert not isinstance(caught.value, BadImage)


def test_sixteen_bits_are_scaled_not_cut_off(table: Path) -> None:
    assert np.asarray(ImageFile(table.with_suffix("") / "deep.png").load())[0, 0].tolist() == [128] * 3


def test_what_is_transparent_is_white(table: Path) -> None:
    assert np.asarray(ImageFile(table.with_suffix("") / "alpha.png").load()).min() == 255


@pytest.mark.parametrize("name", FINE)
def test_odd_images_become_the_square(table: Path, name: str) -> None:
    tensor = SQUARE(ImageFile(table.with_suffix("") / name))
    assert tensor.shape == (3, 8, 8) and tensor.dtype == torch.uint8

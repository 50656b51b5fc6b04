"""The feature cache: each image is encoded once, whoever asks; what is stale or damaged is never read."""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
from collections import namedtuple
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_config import TINY, try_out

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.data import features
from easycap.data.array_cache import CannotCache
from easycap.data.features import CachedFeatures, FeatureCache, MirroredFeatures, fingerprint
from easycap.data.images import PackedImage
from easycap.data.transforms import Mirrored, Transform
from easycap.errors import OutOfTime
from easycap.models.stored_weights import read_weights
from easycap.predict import load
from easycap.tasks.feature_caching import cached_view
from easycap.tasks.training import training_loader
from easycap.train import create_task, train
from easycap.types import Example, Features, Preprocessing

COUNT = 10
TRANSFORM = Transform(Preprocessing(size=4, mean=(0.5,) * 3, std=(0.5,) * 3))
CACHED = ["trainer.cache_features=true", "trainer.unfreeze_encoder_at_epoch=null"]


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    return [Example(str(row), PackedImage(tmp_path / "x.npy", row), ("x",)) for row in range(COUNT)]


class Encoder:
    """Two patches of three channels, the second masked in images whose first value is odd.

    Counts the images it sees, fails after `breaks_after` of them.
    """

    def __init__(self, breaks_after: int | None = None) -> None:
        self.seen, self.breaks_after = 0, breaks_after

    def __call__(self, images: torch.Tensor) -> Features:
        if self.breaks_after is not None and self.seen >= self.breaks_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        patches = images.float().mean(3)[:, :, :2].transpose(1, 2)
        mask = torch.ones(patches.shape[:2], dtype=torch.bool)
        mask[:, 1] = images[:, 0, 0, 0] % 2 == 0
        return Features(patches, mask, None)


def fill(cache: FeatureCache, encoder: Encoder) -> None:
    cache.encode(encoder, TRANSFORM, batch_size=3, workers=0)


def test_every_image_is_encoded_once(examples: list[Example], tmp_path: Path) -> None:
    encoder = Encoder()
    fill(cache := FeatureCache(tmp_path / "cache", examples, "a"), encoder)
    expected = Encoder()(torch.stack([TRANSFORM(example.image) for example in examples]))
    cached = torch.stack([cache(example.image) for example in examples])
    assert 0 < expected.mask[:, 1].sum() < COUNT
    assert torch.equal(~cached.isnan().any(2), expected.mask)
    assert torch.equal(cached[expected.mask], expected.patches.half()[expected.mask])
    fill(FeatureCache(tmp_path / "cache", examples, "a"), encoder)
    assert encoder.seen == COUNT


def test_what_was_encoded_before_an_interruption_is_kept(examples: list[Example], tmp_path: Path) -> None:
    first, second = Encoder(breaks_after=6), Encoder()
    with pytest.raises(KeyboardInterrupt):
        fill(FeatureCache(tmp_path / "cache", examples, "a"), first)
    fill(cache := FeatureCache(tmp_path / "cache", examples, "a"), second)
    assert (first.seen, second.seen) == (6, COUNT - 6)
    fill(whole := FeatureCache(tmp_path / "other", examples, "a"), Encoder())
    for example in examples:
        torch.testing.assert_close(cache(example.image), whole(example.image), equal_nan=True)


def test_features_of_another_shape_are_refused(examples: list[Example], tmp_path: Path) -> None:
    sizes = iter((4, 5))

    def growing(images: torch.Tensor) -> Features:
        patches = torch.ones(len(images), next(sizes), 2)
        return Features(patches, torch.ones(patches.shape[:2], dtype=torch.bool), None)

    with pytest.raises(CannotCache, match=r"features of shapes \[4, 2\] and \[5, 2\] do not fit"):
        fill(FeatureCache(tmp_path / "cache", examples, "a"), growing)


def _fill_in_a_process(examples: list[Example], root: Path, seen) -> None:
    encoder = Encoder()
    fill(FeatureCache(root, examples, "a"), encoder)
    seen.put(encoder.seen)


def test_of_two_that_ask_at_once_one_encodes(examples: list[Example], tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    seen = context.Queue()
    arguments = (examples, tmp_path / "cache", seen)
    processes = [context.Process(target=_fill_in_a_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    assert sorted(seen.get(timeout=30) for _ in processes) == [0, COUNT]
    for process in processes:
        process.join()


def test_other_weights_and_changed_images_are_another_cache(examples: list[Example], tmp_path: Path) -> None:
    weights = torch.nn.BatchNorm1d(2)  # with a count of batches, a tensor of no dimension
    before = fingerprint(weights.state_dict().items(), "settings")
    assert before == fingerprint(weights.state_dict().items(), "settings")
    assert before != fingerprint(weights.state_dict().items(), "others")
    weights.weight.data[0] += 1e-6
    assert before != fingerprint(weights.state_dict().items(), "settings")

    folder = FeatureCache(tmp_path / "cache", examples, "a").folder
    assert folder != FeatureCache(tmp_path / "cache", examples, "b").folder
    assert folder != FeatureCache(tmp_path / "cache", examples[1:], "a").folder
    np.save(tmp_path / "x.npy", np.zeros((COUNT, 4, 4, 3), dtype=np.uint8))
    assert folder != FeatureCache(tmp_path / "cache", examples, "a").folder


def test_features_by_another_encoder_are_not_taken_and_it_is_reported(
    examples: list[Example], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    fill(first := FeatureCache(tmp_path / "cache", examples, "a"), Encoder())
    assert "not used" not in caplog.text
    fill(FeatureCache(tmp_path / "cache", examples, "b"), encoder := Encoder())
    assert f"{first.folder} are not used: another encoder" in caplog.text
    assert encoder.seen == COUNT


def test_another_version_of_a_library_is_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint([("weight", torch.ones(2))], "settings")
    assert before == fingerprint([("weight", torch.ones(2))], "settings")
    monkeypatch.setattr(features, "version", lambda name: "99" if name == "torchvision" else version(name))
    assert before != fingerprint([("weight", torch.ones(2))], "settings")


def test_a_damaged_cache_is_refused(examples: list[Example], tmp_path: Path) -> None:
    fill(cache := FeatureCache(tmp_path / "cache", examples, "a"), Encoder())
    with (cache.folder / "features").open("r+b") as file:
        file.truncate(50)
    with pytest.raises(ValueError, match="is damaged .* remove it"):
        fill(FeatureCache(tmp_path / "cache", examples, "a"), Encoder())


def test_a_disk_too_small_is_known_before(
    examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(10, 10, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match="features of 10 images need .* EASYCAP_CACHE"):
        fill(FeatureCache(tmp_path / "cache", examples, "a"), Encoder())


def test_features_beyond_half_precision_are_refused(examples: list[Example], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too large for half precision"):
        cache = FeatureCache(tmp_path / "cache", examples, "a")
        cache.encode(lambda images: _times(1e6, Encoder()(images)), TRANSFORM, batch_size=3, workers=0)


def _times(factor: float, features: Features) -> Features:
    return features._replace(patches=factor * features.patches)


# ------------------------------------------------------------------------------------------- training


def run(path: Path, *overrides: str) -> Path:
    train(check(compose([*TINY, *overrides])[0]), path, command="easycap train")
    return path


def losses(path: Path) -> list[float]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.fixture
def own_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("own_features")
def test_training_from_the_cache_is_training_and_a_second_run_encodes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = run(tmp_path / "cached", *CACHED)
    live = run(tmp_path / "live", "trainer.unfreeze_encoder_at_epoch=null")
    assert losses(cached) == pytest.approx(losses(live), rel=1e-3)
    monkeypatch.setattr(FeatureCache, "_compute_rows", lambda *args, **settings: pytest.fail("encoded again"))
    assert losses(run(tmp_path / "again", *CACHED, "decoder.width=32")) != losses(cached)
    assert losses(run(tmp_path / "same", *CACHED)) == losses(cached)


@pytest.mark.usefixtures("own_features")
def test_at_the_unfreeze_epoch_training_goes_live(tmp_path: Path) -> None:
    settings = ["trainer.cache_features=true", "trainer.epochs=2"]
    frozen = run(tmp_path / "frozen", *settings, "trainer.unfreeze_encoder_at_epoch=null")
    released = run(tmp_path / "released", *settings, "trainer.unfreeze_encoder_at_epoch=1")
    weights = [read_weights(path / "checkpoints" / "last") for path in (frozen, released)]
    name = "encoder.stages.0.0.weight"
    assert not torch.equal(weights[0][name], weights[1][name])
    assert losses(frozen)[:6] == losses(released)[:6]
    photo = released / "samples" / "images"
    assert isinstance(load(released, device="cpu").caption(sorted(photo.iterdir())[:1])[0], str)


@pytest.mark.usefixtures("own_features")
def test_cached_features_go_with_another_half_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("easycap.training.hardware._cpu_has_bf16", lambda: True)  # emulated it is right
    path = run(tmp_path / "run", *CACHED, "trainer.precision=bf16", "trainer.max_steps=1")
    assert all(torch.isfinite(torch.tensor(losses(path))))


def test_a_run_goes_on_from_the_cache(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", *CACHED)
    with pytest.raises(OutOfTime):
        run(tmp_path / "cut", *CACHED, "trainer.max_hours=1e-9")
    config = check(compose([*TINY, *CACHED])[0]) | {"resume": str(tmp_path / "cut")}
    train(config, tmp_path / "cut", command="easycap train")
    last = [read_weights(tmp_path / name / "checkpoints/last") for name in ("whole", "cut")]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])
    assert losses(tmp_path / "cut") == losses(whole)


# ------------------------------------------------------------------------------------------- auto

FROZEN = ["trainer.unfreeze_encoder_at_epoch=null"]


def is_cached(*overrides: str, start: Path | None = None, more_runs: bool = False) -> bool:
    """Whether a training with these settings, frozen and of two epochs unless they say otherwise, would be cached."""
    config = check(compose([*TINY, "trainer.epochs=2", *FROZEN, *overrides])[0])
    task = create_task(config, resume_from=start)
    assert config["trainer"]["cache_features"] == "auto"
    return cached_view(task, start, more_runs=more_runs) is not None


@pytest.mark.usefixtures("own_features")
def test_features_are_cached_by_default_where_images_are_seen_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert not is_cached("trainer.epochs=1")
    assert not is_cached("trainer.max_steps=6")  # of the 6 that an epoch has
    assert not is_cached("trainer.unfreeze_encoder_at_epoch=0")
    assert not is_cached("trainer.unfreeze_encoder_at_epoch=1")
    assert not is_cached("trainer.overfit_batch=true")
    assert "caching features of" not in caplog.text
    assert is_cached("trainer.unfreeze_encoder_at_epoch=1", more_runs=True)
    assert re.search(r"caching features of 24 images: 0.00 GB in .*, about \d+ s", caplog.text)
    assert is_cached("trainer.epochs=1")  # as they are there already
    assert "features of 30 images from " in caplog.text


@pytest.mark.usefixtures("own_features")
def test_a_tag_model_caches_features_too() -> None:
    assert is_cached("task=tags", "tagger=cnn", "tag_vocab.min_count=1")


@pytest.mark.usefixtures("own_features")
def test_images_that_change_are_not_cached_and_it_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert not is_cached("trainer.crop=0.5")
    assert "runs in every epoch, because trainer.crop changes its images" in caplog.text


@pytest.mark.usefixtures("own_features")
def test_cached_features_are_mirrored_where_pixels_would_be() -> None:
    flip = ["trainer.flip=true", "trainer.precision=fp32"]
    task = create_task(check(compose([*TINY, "trainer.epochs=2", *FROZEN, *flip])[0]))
    task.model.eval()
    cached, seen = training_loader(task, cached_view(task, None, more_runs=False)), training_loader(task)
    for epoch in (0, 1):
        for copied, pixels in zip(cached.epoch(epoch), seen.epoch(epoch), strict=True):
            wanted = task.model.encode(pixels.inputs.images).patches
            torch.testing.assert_close(copied.inputs.images.float(), wanted, atol=2e-3, rtol=2e-3)


def _left_column(images: torch.Tensor) -> Features:
    patches = images.float()[:, :, :2, 0].transpose(1, 2)
    return Features(patches, torch.ones(patches.shape[:2], dtype=torch.bool), None)


def test_mirrored_features_are_of_training_images_in_some_epochs(
    examples: list[Example], tmp_path: Path
) -> None:
    plain = FeatureCache(tmp_path / "cache", examples, "a")
    plain.encode(_left_column, TRANSFORM, batch_size=3, workers=0)
    other = FeatureCache(tmp_path / "mirrored", examples[:5], "a")
    other.encode(_left_column, Mirrored(TRANSFORM), batch_size=3, workers=0)
    mirrored = MirroredFeatures(other, TRANSFORM, seed=1)
    view = CachedFeatures([plain], TRANSFORM, live_from=20, augmented=mirrored)
    flipped = []
    for epoch in range(20):
        view.begin_epoch(epoch)
        flipped += [view.of(e).equal(other(e.image)) for e in examples[:5]]
        assert all(view.of(e).equal(plain(e.image)) for e in examples[5:])
    assert 30 < sum(flipped) < 70
    live = []
    for epoch in range(20, 40):
        view.begin_epoch(epoch)
        live += [view.of(e).equal(TRANSFORM(e.image).flip(2)) for e in examples[:5]]
        assert all(view.of(e).equal(TRANSFORM(e.image)) for e in examples[5:])
    assert 30 < sum(live) < 70


@pytest.mark.usefixtures("own_features")
@pytest.mark.parametrize("free", [0, 122_000])  # bytes; 30 images of 8 x 8 patches of 16 numbers take 61,440
def test_by_default_at_most_half_of_the_disk_is_taken(
    free: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2 * free, free, free))
    assert not is_cached()
    assert "30 images need 0.0 GB, more than 50% of" in caplog.text


@pytest.mark.usefixtures("own_features")
def test_by_default_what_cannot_be_cached_is_encoded_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(FeatureCache, "_write", lambda *args: (_ for _ in ()).throw(OSError("no space")))
    assert not is_cached()
    assert "not cached, so it runs in every epoch: no space" in caplog.text


@pytest.mark.usefixtures("own_features")
@pytest.mark.parametrize("before", [True, False])
def test_a_resumed_run_sees_images_as_before(before: bool, tmp_path: Path) -> None:
    live = ["trainer.epochs=2", *FROZEN, f"trainer.cache_features={before}".lower()]
    path = run(tmp_path / "run", *live, "trainer.max_steps=1")
    result = json.loads((path / "result.json").read_text())
    assert result["features_cached"] is before
    shutil.rmtree(tmp_path / "cache")
    assert is_cached("trainer.epochs=2", start=path / "checkpoints" / "last") is before


def test_other_words_than_auto_are_refused() -> None:
    with pytest.raises(ValueError, match="trainer.cache_features=sometimes must be auto, true or false"):
        try_out(check(compose([*TINY, "trainer.cache_features=sometimes"])[0]))


def test_an_encoder_in_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs an encoder that is frozen at first"):
        run(tmp_path / "run", "trainer.cache_features=true")

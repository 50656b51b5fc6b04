"""trainer.cached_crops: a frozen encoder sees a few crops of each training image, whose features runs share."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter, namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.interrupted_runs import killed, left_behind, run
from helpers.tiny_config import TINY, try_out

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.data.array_cache import CannotCache
from easycap.data.features import CachedFeatures, FeatureCache
from easycap.data.fixed_views import FIRST_CROP, MIRRORED, WHOLE, FixedViews
from easycap.data.images import PackedImage
from easycap.data.transforms import Transform
from easycap.tasks.base import Task
from easycap.tasks.feature_caching import cached_view
from easycap.tasks.training import make_trainer, training_loader
from easycap.train import create_task
from easycap.training.trainer import Trainer
from easycap.types import Example, Preprocessing

SIZE, COUNT = 8, 12
TRANSFORM = Transform(Preprocessing(size=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3))
CROPS = ["trainer.crop=0.5", "trainer.cached_crops=2", "trainer.unfreeze_encoder_at_epoch=null"]
FLIP = "trainer.flip=true"


@pytest.fixture(autouse=True)
def own_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """Every third has a caption with left, so that it is not mirrored."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 64, 64, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    captions = [("a left one",), ("one",), ("another",)] * (COUNT // 3)
    return [Example(str(n), PackedImage(tmp_path / "x.npy", n), captions[n]) for n in range(COUNT)]


def views(**settings: object) -> FixedViews:
    defaults = {"crop": 0.3, "count": 3, "flip": False, "seed": 1, "live_from": None}
    return FixedViews(TRANSFORM, **(defaults | settings))


def seen(view: FixedViews, example: Example, epochs: int) -> Iterator[torch.Tensor]:
    for epoch in range(epochs):
        view.begin_epoch(epoch)
        yield view.of(example)


def key(pixels: torch.Tensor) -> bytes:
    return pixels.numpy().tobytes()


@pytest.mark.parametrize("flip", [False, True])
def test_each_view_of_an_image_is_seen_once_before_any_is_seen_again(
    flip: bool, examples: list[Example]
) -> None:
    for number, example in enumerate(examples):
        count = 5 if flip and number % 3 else 4
        whole = TRANSFORM(example.image)
        pixels = [key(one) for one in seen(views(flip=flip), example, 2 * count)]
        assert set(Counter(pixels[:count]).values()) == {1}
        assert set(pixels[:count]) == set(pixels[count:])
        assert key(whole) in pixels
        assert (key(whole.flip(2)) in pixels) == (count == 5)


def test_in_an_epoch_views_are_as_frequent_as_each_other(examples: list[Example]) -> None:
    many = [dataclasses.replace(examples[1], id=str(n)) for n in range(2000)]
    view = views(flip=True)
    for epoch in (0, 3):
        view.begin_epoch(epoch)
        found = Counter(map(view.drawn, many))
        assert set(found) == {WHOLE, MIRRORED, *range(FIRST_CROP, FIRST_CROP + 3)}
        assert all(340 < number < 460 for number in found.values())


def test_the_seed_draws_the_order_and_never_the_crops(examples: list[Example]) -> None:
    first, second = ([[*map(key, seen(views(seed=seed), e, 4))] for e in examples] for seed in (1, 2))
    assert first != second
    assert [set(of) for of in first] == [set(of) for of in second]
    fewer = [{*map(key, seen(views(count=2), e, 3))} for e in examples]
    assert all(few < set(of) for few, of in zip(fewer, first, strict=True))


def test_an_encoder_in_training_sees_new_crops(examples: list[Example]) -> None:
    pixels = [*map(key, seen(views(live_from=4), examples[0], 24))]
    assert not set(pixels[:4]) & set(pixels[4:])
    assert len(set(pixels)) == 24


def test_a_crops_folder_is_of_all_that_makes_it(examples: list[Example]) -> None:
    def name(of: list[Example] = examples, *, number: int = 0, **settings: object) -> str:
        return views(**({"flip": True} | settings)).folders(of)[number]

    assert name() == name()
    renamed = [dataclasses.replace(examples[0], id="other"), *examples[1:]]
    told = [examples[0], dataclasses.replace(examples[1], references=("on the right",)), *examples[2:]]
    reworded = [examples[0], dataclasses.replace(examples[1], references=("other words",)), *examples[2:]]
    others = [name(crop=0.6), name(flip=False), name(number=1), name(renamed), name(told)]
    assert len({name(), *others}) == 6
    assert name(reworded) == name()
    assert name(told, flip=False) == name(flip=False)


# ------------------------------------------------------------------------------------------- training


def task_of(*overrides: str) -> Task:
    return create_task(check(compose([*TINY, *CROPS, *overrides])[0]))


def view_of(task: Task) -> CachedFeatures:
    view = cached_view(task, None, more_runs=False)
    assert view is not None
    return view


@pytest.mark.parametrize("flip", [[], [FLIP]])
def test_cached_features_are_those_of_the_pixels_that_would_be_seen(flip: list[str]) -> None:
    task = task_of(*flip)
    task.model.eval()
    cached, live = training_loader(task, view_of(task)), training_loader(task)
    drawn = []
    for epoch in range(4):
        for copied, pixels in zip(cached.epoch(epoch), live.epoch(epoch), strict=True):
            assert copied.image_ids == pixels.image_ids
            wanted = task.model.encode(pixels.inputs.images).patches
            torch.testing.assert_close(copied.inputs.images.float(), wanted, atol=2e-3, rtol=2e-3)
            drawn.append(copied.inputs.images)
    assert len({one.numpy().tobytes() for batch in drawn for one in batch}) > 60  # of 24 images


def test_validation_sees_whole_images_even_of_training(tmp_path: Path) -> None:
    task = task_of(FLIP)
    task.data.splits["val"] = task.data.splits["train"][:6]
    features = view_of(task)
    trainer = make_trainer(task, features, tracker=None, checkpoints=tmp_path)
    images, transform = task.examples("train")[:6], task.pipeline.transform
    task.model.eval()
    with torch.no_grad():
        wanted = task.model.encode(torch.stack([transform(e.image) for e in images])).patches
    for epoch in range(3):
        features.begin_epoch(epoch)
        found = torch.cat([batch.inputs.images for batch in trainer.validator.batches])
        torch.testing.assert_close(found.float(), wanted, atol=2e-3, rtol=2e-3)


def test_runs_of_other_seeds_and_more_crops_share_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    # the encoder of a run starts as its seed says, and would be another
    view_of(task := task_of("trainer.cached_crops=3"))
    weights = task.model.encoder.state_dict()
    encoded: list[int] = []
    compute = FeatureCache._compute_rows
    monkeypatch.setattr(
        FeatureCache,
        "_compute_rows",
        lambda self, rows, *args, **settings: (
            encoded.append(len(rows)),
            compute(self, rows, *args, **settings),
        ),
    )

    def caches(*overrides: str) -> list[int]:
        other = task_of(*overrides)
        other.model.encoder.load_state_dict(weights)
        encoded.clear()
        view_of(other)
        return [*encoded]

    assert caches("trainer.cached_crops=3", "data.seed=0", "seed=7") == []
    assert "using cached features of 102 images" in caplog.text  # 24, 6 of validation, and 3 crops of each
    assert caches("trainer.cached_crops=2") == []
    assert caches("trainer.cached_crops=5") == [24, 24]
    assert caches("trainer.crop=0.6") == [24, 24]
    assert "are not used" not in caplog.text


def test_all_views_count_for_the_disk(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # 24 + 6 + 2 * 24 images of 8 x 8 patches of 16 numbers take 159,744 bytes
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 319_000))
    task = task_of()
    assert cached_view(task, None, more_runs=False) is None
    assert "78 images need 0.0 GB, more than 50% of" in caplog.text
    assert isinstance(training_loader(task).view, FixedViews)  # what is seen does not depend on the disk
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 320_000))
    with pytest.raises(CannotCache, match="GB are free"):  # past this check, to the spare gigabyte
        view_of(task_of("trainer.cache_features=true"))


def test_a_kill_leaves_no_trace_of_a_run_with_cached_crops(tmp_path: Path) -> None:
    settings = [*CROPS, FLIP, "trainer.epochs=3"]
    whole = run(tmp_path / "whole", *settings)
    assert json.loads((whole / "result.json").read_text())["features_cached"] is True
    cut = run(killed(tmp_path / "cut", Trainer, "train_step", 9, *settings), *settings)
    assert left_behind(cut) == left_behind(whole)
    assert left_behind(run(tmp_path / "plain", *CROPS, "trainer.epochs=3")) != left_behind(whole)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["trainer.crop=null"],
            "trainer.cached_crops=2 needs random crops to cache: set e.g. trainer.crop=0.6",
        ),
        (
            ["trainer.unfreeze_encoder_at_epoch=0"],
            "trainer.cached_crops=2 needs an encoder that is frozen at first",
        ),
        (
            ["trainer.cache_features=false"],
            "trainer.cached_crops=2 excludes trainer.cache_features=false",
        ),
        (["trainer.cached_crops=0"], "trainer.cached_crops=0 must be at least 1"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        try_out(check(compose([*TINY, *CROPS, *overrides])[0]))

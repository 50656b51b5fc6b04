"""Random crops and flips: training alone sees them, and each is a function of seed, epoch and image id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.interrupted_runs import killed, left_behind, run
from helpers.tiny_config import TINY, try_out
from PIL import Image

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.data.images import ImageFile
from easycap.data.loader import TrainLoader
from easycap.data.transforms import Augmentation, Transform
from easycap.tasks.training import training_loader
from easycap.train import create_task
from easycap.training.trainer import Trainer
from easycap.types import Example, Preprocessing
from easycap.vocab.word import WordVocabulary

SIZE = 16
WHOLE = Transform(Preprocessing(size=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3))


def slope(tmp_path: Path, size: tuple[int, int] = (96, 64), *, caption: str = "a slope") -> Example:
    """A picture whose red grows to the right and whose green grows downwards, both from 0 to 255."""
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    Image.fromarray(np.stack([across, down, 0 * down], 2).astype(np.uint8)).save(tmp_path / "x.png")
    return Example("x", ImageFile(tmp_path / "x.png"), ("a picture", caption))


def views(example: Example, count: int = 40, **settings: object) -> list[torch.Tensor]:
    view = Augmentation(WHOLE, **({"crop": None, "flip": False, "seed": 1} | settings))
    seen = []
    for epoch in range(count):
        view.begin_epoch(epoch)
        seen.append(view.of(example))
    return seen


def test_half_of_the_epochs_see_the_mirrored_square(tmp_path: Path) -> None:
    example = slope(tmp_path)
    plain = WHOLE(example.image)
    flipped = [torch.equal(square, plain.flip(2)) for square in views(example, flip=True)]
    assert 10 < sum(flipped) < 30
    assert all(
        torch.equal(s, plain) for s, f in zip(views(example, flip=True), flipped, strict=True) if not f
    )


@pytest.mark.parametrize(
    "caption",
    [
        "a dog on the left",
        "Left of it, a cat",
        "the right-hand side",
        "rightmost",
        "Topleft a cat",
        "bottomright",
        "ein Hund links von einer Katze",
        "auf der rechten Seite",
        "一只狗在猫的左边",
    ],
)
def test_an_image_with_left_or_right_in_a_caption_is_never_mirrored(tmp_path: Path, caption: str) -> None:
    example = slope(tmp_path, caption=caption)
    assert all(torch.equal(square, WHOLE(example.image)) for square in views(example, flip=True))
    assert any(
        s[0, 0, 0] > s[0, 0, -1]
        for s in views(
            slope(tmp_path, caption="a bright, upright copyright, linked; ein Link, das Gerechte"), flip=True
        )
    )


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (2000, 1), (20, 20)])
def test_a_random_part_has_its_share_of_the_area_and_lies_in_the_image(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    parts = views(slope(tmp_path, size), crop=0.3)
    assert all(part.shape == (3, SIZE, SIZE) and part.dtype == torch.uint8 for part in parts)
    if min(size) < 64:
        return
    # red grows over the width and green over the height; half a pixel at each end is averaged away
    shares = torch.stack([_extent(part, 0) * _extent(part, 1) for part in parts]) * (SIZE / (SIZE - 1)) ** 2
    assert shares.min() > 0.25 and shares.max() > 0.8 and shares.std() > 0.1
    assert len({tuple(part[:2, 0, 0].tolist()) for part in parts}) > 20  # at many places


def _extent(part: torch.Tensor, channel: int) -> torch.Tensor:
    return (part[channel].max().float() - part[channel].min().float()) / 255


def test_a_small_part_of_a_large_jpeg_is_not_blurred(tmp_path: Path) -> None:
    """Scaled decoding must leave the part as many pixels as the square has: fine stripes stay stripes."""
    stripes = np.tile(np.array([0, 255], dtype=np.uint8).repeat(8), 512 // 16)
    Image.fromarray(np.broadcast_to(stripes, (512, 512))).save(tmp_path / "x.jpg", quality=95)
    parts = views(Example("x", ImageFile(tmp_path / "x.jpg"), ("stripes",)), crop=0.001, count=200)
    assert max(float(part[0].max()) - float(part[0].min()) for part in parts) > 200


def test_a_view_depends_on_seed_epoch_and_id_alone(tmp_path: Path) -> None:
    example = slope(tmp_path)
    settings = {"crop": 0.5, "flip": True}
    first = torch.stack(views(example, **settings))
    assert torch.equal(first, torch.stack(views(example, **settings)))
    assert not torch.equal(first, torch.stack(views(example, **settings, seed=2)))
    other = Example("y", example.image, example.references)
    assert not torch.equal(first, torch.stack(views(other, **settings)))
    assert len({tuple(view.flatten().tolist()) for view in first}) > 35


def test_worker_processes_see_the_same_epoch(tmp_path: Path) -> None:
    example = slope(tmp_path)
    examples = [Example(str(n), example.image, ("a picture",)) for n in range(8)]
    vocabulary = WordVocabulary(size=10, min_count=1, captions=["a picture"], segmenter="spaces")
    images = []
    for workers in (0, 2):
        loader = TrainLoader(
            examples, Augmentation(WHOLE, crop=0.5, flip=True, seed=1), vocabulary, {}, batch_size=4,
            captions_per_image=1, max_length=5, workers=workers, seed=1, ranks=(0, 1),
        )  # fmt: skip
        list(loader.epoch(0))
        images.append(torch.stack([batch.inputs.images for batch in loader.epoch(3)]))
    assert torch.equal(images[0], images[1])


AUGMENTED = ["trainer.crop=0.5", "trainer.flip=true"]


def test_validation_sees_the_plain_square(tmp_path: Path) -> None:
    task = create_task(check(compose([*TINY, *AUGMENTED])[0]))
    examples, transform = task.examples("train")[:4], task.pipeline.transform
    plain = torch.stack([transform(example.image) for example in examples])
    assert torch.equal(next(iter(task.pipeline.batches(examples, 4))).inputs.images, plain)
    batch = next(training_loader(task).epoch(0))
    known = {example.id: transform(example.image) for example in task.examples("train")}
    assert not torch.equal(
        batch.inputs.images, torch.stack([known[image_id] for image_id in batch.image_ids])
    )


def test_a_kill_leaves_no_trace_of_an_augmented_run(tmp_path: Path) -> None:
    whole = left_behind(run(tmp_path / "whole", *AUGMENTED))
    cut = run(killed(tmp_path / "cut", Trainer, "train_step", 5, *AUGMENTED, "trainer.workers=1"))
    assert left_behind(cut) == whole
    assert left_behind(run(tmp_path / "plain")) != whole


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.crop=0"], "trainer.crop=0.0 must be above 0"),
        (["trainer.crop=1.5"], "trainer.crop=1.5 must be above 0"),
        (
            ["trainer.crop=0.5", "trainer.cache_features=true", "trainer.unfreeze_encoder_at_epoch=null"],
            "trainer.cache_features=true cannot cache random crops",
        ),
        (
            ["trainer.crop=0.5", "trainer.overfit_batch=true"],
            "trainer.overfit_batch=true excludes random crops",
        ),
        (
            ["trainer.flip=true", "objective=scst", "+objective.rewards.truth=0.5"],
            "trainer.flip=true cannot be combined with a reward for truth",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        try_out(check(compose([*TINY, *overrides])[0]))

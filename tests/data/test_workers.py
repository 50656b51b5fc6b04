"""The number of processes that load images: what the user says, else by cores, GPU and batches."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from helpers.tiny_config import TINY

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.data import workers
from easycap.data.images import ImageFile, PackedImage
from easycap.data.workers import AUTO, loading_workers
from easycap.tasks.preflight import _about_untrained_encoders_of_photos
from easycap.types import Example

PHOTOS = [Example(str(n), ImageFile(Path(f"{n}.jpg")), ("x",)) for n in range(1000)]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    def of(cores: int, *, gpu: bool, start: str = "fork") -> None:
        monkeypatch.setattr(workers, "usable_cores", lambda: cores)
        monkeypatch.setattr(workers.torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(multiprocessing, "get_start_method", lambda: start)

    return of


@pytest.mark.parametrize(
    ("cores", "gpu", "ranks", "number"),
    [
        (1, False, 1, 0), (2, False, 1, 1), (16, False, 1, 2),
        (1, True, 1, 0), (2, True, 1, 1), (6, True, 1, 5), (64, True, 1, 8), (64, True, 8, 7), (4, True, 8, 0),
    ],
)  # fmt: skip
def test_cores_are_shared_with_what_computes(machine, cores: int, gpu: bool, ranks: int, number: int) -> None:
    machine(cores, gpu=gpu)
    assert loading_workers(AUTO, PHOTOS, 10, ranks=ranks) == number


def test_few_batches_are_not_worth_another_process(machine) -> None:
    machine(16, gpu=True)
    assert [loading_workers(AUTO, PHOTOS[:count], 10) for count in (0, 10, 20, 40, 100)] == [0, 0, 1, 2, 5]
    machine(16, gpu=True, start="spawn")
    assert [loading_workers(AUTO, PHOTOS[:count], 10) for count in (100, 500, 1000)] == [0, 1, 2]


def test_what_the_user_says_counts_and_mapped_pixels_need_none(machine) -> None:
    machine(16, gpu=True)
    assert loading_workers(3, PHOTOS[:1], 10) == 3 and loading_workers(0, PHOTOS, 10) == 0
    packed = [Example("1", PackedImage(Path("x.npy"), 0), ("x",))] * 1000
    assert loading_workers(AUTO, packed, 10) == 0


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (["data=flickr8k", "data.root=x"], "encoder=small starts untrained at 32 pixels, and captions alone"),
        (["data=vizwiz", "data.root=x"], "photos (data=vizwiz)"),
        (["data=coco", "data.root=x"], "use pretrained weights, e.g. encoder=resnet18"),
        (
            ["data=folder", "data.images=x", "encoder=resnet18", "encoder.pretrained=false"],
            "encoder=timm starts",
        ),
        (["data=folder", "data.images=x", "encoder=resnet18"], None),
        (["data=coco", "data.root=x", "encoder=precomputed", "encoder.features=x"], None),
        ([], None),
    ],
)
def test_an_encoder_that_cannot_learn_to_see_photos_is_warned_of(
    words: list[str], warned: str | None
) -> None:
    chosen = [word for word in words if word.startswith("encoder")]
    settings = [s for s in TINY if not s.startswith(("data.", "encoder.") if chosen else "data.")]
    config = check(compose([*settings, *words])[0])
    found = [text for _, text in _about_untrained_encoders_of_photos(config)]
    assert (len(found) == 1 and warned in found[0]) if warned else not found

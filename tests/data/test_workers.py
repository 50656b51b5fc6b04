"""The number of processes that load images: what the user says, else by cores, GPU and batches."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_config import TINY
from helpers.waiting import wait_for

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.data import workers
from easycap.data.images import BadImage, ImageFile, PackedImage
from easycap.data.workers import AUTO, data_loader, loaded_batches, loading_workers, workers_with_room
from easycap.errors import UserError
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


class View:
    """Images of 3 x 100 x 100 bytes, but the first cannot be read."""

    def of(self, example: Example) -> torch.Tensor:
        if example.id == "0":
            raise BadImage(example, "broken")
        return torch.zeros(3, 100, 100, dtype=torch.uint8)


@pytest.fixture
def shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def of(megabytes: float) -> None:
        monkeypatch.setattr(workers, "SHARED_MEMORY", str(tmp_path))
        disk = SimpleNamespace(f_bavail=int(megabytes * 1000), f_frsize=1000)
        monkeypatch.setattr(workers.os, "statvfs", lambda path: disk)

    return of


def test_too_many_loader_processes_for_the_shared_memory_are_refused(shared_memory) -> None:
    shared_memory(3.3)  # 9 batches of 10 images of 30 kB and their texts
    assert workers_with_room(4, PHOTOS, View(), 10, given=4) == 4
    shared_memory(3.2)
    with pytest.raises(
        ValueError, match=r"has 3 MB free, but 4 loader processes need 3 MB there: give it more"
    ):
        workers_with_room(4, PHOTOS, View(), 10, given=4)
    assert workers_with_room(0, PHOTOS, View(), 10, given=0) == 0


@pytest.mark.parametrize(("megabytes", "number"), [(3.3, 4), (3.2, 3), (1.1, 1), (1.0, 0), (0.0, 0)])
def test_auto_starts_as_many_as_there_is_room_for(shared_memory, caplog, megabytes, number) -> None:
    shared_memory(megabytes)
    assert workers_with_room(4, PHOTOS, View(), 10, given=AUTO) == number
    assert (f"loading with {number}; give it more (docker run --shm-size=1g)" in caplog.text) == (number < 4)


@pytest.mark.parametrize("deed", ["dies", "is silent"])
def test_a_lost_loader_process_is_one_sentence(monkeypatch, deed: str) -> None:
    class Items(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> int:
            if deed == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
            return index

    monkeypatch.setattr(workers, "_SECONDS_FOR_A_BATCH", 2.0)
    loader = data_loader(Items(), workers=1, batch_size=1)
    with pytest.raises(
        UserError, match=r"a loader process of trainer.workers=1 died \(DataLoader .*--shm-size"
    ):
        list(loaded_batches(loader))


def test_after_an_error_no_loader_process_is_waited_for() -> None:
    class Items(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> int:
            raise RuntimeError("mine")

    others = set(multiprocessing.active_children())  # of the tests before
    with pytest.raises(RuntimeError, match="mine") as kept:
        list(loaded_batches(data_loader(Items(), workers=2)))
    assert kept.tb is not None
    wait_for(lambda: set(multiprocessing.active_children()) <= others, seconds=30)


def test_other_errors_of_images_pass_as_they_are() -> None:
    class Items(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> int:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        list(loaded_batches(data_loader(Items(), workers=0)))


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

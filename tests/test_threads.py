"""How many threads are taken, by a clock that the test moves."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import torch
from torch.utils.data import DataLoader

import easycap.utils.cpu_threads as threads
from easycap.data.workers import begin_worker
from easycap.utils.cpu_threads import (
    VARIABLES,
    FastestThreads,
    Trial,
    choose_threads,
    one_thread_for_little,
    restore_thread_count,
    try_threads,
    use_threads,
)


class Machine:
    """Work that takes `per_image[threads]` seconds per image of its clock, and what it was asked."""

    def __init__(self, per_image: dict[int, float]) -> None:
        self.per_image, self.now, self.threads = per_image, 0.0, 0
        self.calls: list[tuple[int, int]] = []

    def work(self, count: int) -> None:
        self.calls.append((self.threads, count))
        self.now += count * self.per_image[self.threads]

    def set_threads(self, count: int) -> None:
        self.threads = count

    def tried(self, candidates: Sequence[int], *, images: int = 32, ahead: int = 100_000) -> Trial:
        return try_threads(
            self.work,
            candidates,
            images=images,
            ahead=ahead,
            clock=lambda: self.now,
            set_threads=self.set_threads,
        )


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("per_image", "fastest"),
    [
        ({2: 0.003, 1: 0.006}, 2),
        ({2: 0.013, 1: 0.006}, 1),
        ({2: 0.0100, 1: 0.0098}, 2),  # hardly faster is not faster
        ({64: 0.0001, 1: 0.004}, 64),
    ],
)
def test_the_faster_is_taken_within_three_seconds(per_image: dict[int, float], fastest: int) -> None:
    machine = Machine(per_image)
    trial = machine.tried(list(per_image))
    assert trial.fastest == fastest and set(trial.seconds) == set(per_image)
    assert machine.now <= 3.0
    assert machine.threads == next(iter(per_image))  # the first again


def test_a_slow_model_is_tried_on_fewer_images_or_not_at_all() -> None:
    machine = Machine({2: 0.05, 1: 0.09})
    trial = machine.tried([2, 1])
    assert trial.fastest == 2 and 2 <= trial.images < 32 and machine.now <= 3.0
    machine = Machine({2: 2.0, 1: 4.0})
    assert machine.tried([2, 1]) == Trial({}) and machine.threads == 2
    assert [call for call in machine.calls if call[0] == 2] == [(2, 2)], "nothing but the first call"


def test_threads_that_wait_for_another_process_are_noticed_at_once() -> None:
    """Beside a busy process two threads take seconds for what one does in a moment."""
    trial = Machine({2: 1.4, 1: 0.05}).tried([2, 1])
    assert trial.fastest == 1


def test_little_work_is_not_worth_a_trial() -> None:
    machine = Machine({2: 0.01, 1: 0.02})
    assert machine.tried([2, 1], ahead=64) == Trial({})
    assert machine.tried([2]) == Trial({})
    assert machine.now < 0.1 * 64 * 0.02 + 0.1


def chosen(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], *, device: str = "cpu") -> list[int]:
    """Threads after a choice among those that were found to need these seconds, and after its block."""
    monkeypatch.setattr(threads, "max_threads", lambda: max(seconds))
    monkeypatch.setattr(threads, "try_threads", lambda *_, **__: Trial(seconds, 8))
    seen = []
    with restore_thread_count():
        choose_threads(
            lambda count: None, images=8, ahead=100, device=torch.device(device), what="captioning"
        )
        seen.append(torch.get_num_threads())
    return [*seen, torch.get_num_threads()]


def test_a_choice_is_said_and_ends_with_its_block(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = torch.get_num_threads()
    assert chosen(monkeypatch, {3: 8.0, 2: 1.0}) == [2, before]
    assert "captioning with 2 threads (tried: 8 images/s with 2 threads, 1 images/s" in caplog.text
    assert chosen(monkeypatch, {3: 1.0, 2: 8.0}) == [3, before]


@pytest.mark.parametrize("name", VARIABLES)
def test_what_the_user_sets_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    before = torch.get_num_threads()
    assert chosen(monkeypatch, {3: 8.0, 2: 1.0}) == [before, before]


def test_a_number_that_is_decided_stays() -> None:
    with restore_thread_count():
        use_threads(3)
        with restore_thread_count():
            choose_threads(
                lambda count: None, images=8, ahead=10**6, device=torch.device("cpu"), what="captioning"
            )
        assert torch.get_num_threads() == 3
    assert not threads._decided


@pytest.mark.parametrize(
    ("weights", "device", "count"), [(10**6, "cpu", 1), (10**8, "cpu", 2), (10**6, "cuda", 2)]
)
def test_a_few_images_of_a_small_model_use_one_thread(weights: int, device: str, count: int) -> None:
    with restore_thread_count():
        torch.set_num_threads(2)
        one_thread_for_little(weights, images=3, device=torch.device(device))
        assert torch.get_num_threads() == count


def test_a_number_that_the_user_set_stays_for_a_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with restore_thread_count():
        torch.set_num_threads(2)
        one_thread_for_little(10**6, images=1, device=torch.device("cpu"))
        assert torch.get_num_threads() == 2


def test_on_a_gpu_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert chosen(monkeypatch, {3: 8.0, 2: 1.0}, device="cuda")[0] == 3
    assert not caplog.text


def test_the_first_batch_chooses_for_all_and_draws_no_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def choose(work, **settings):
        asked.append(settings["images"])
        with torch.random.fork_rng([]):
            work(2)

    monkeypatch.setattr(threads, "choose_threads", choose)
    seen: list[int] = []
    encode = FastestThreads(
        lambda images: seen.append(len(images)), ahead=9, device=torch.device("cpu"), what=""
    )
    encode(torch.zeros(4, 3))
    encode(torch.zeros(5, 3))
    assert asked == [4] and seen == [2, 4, 5]


def test_processes_that_load_images_use_one_thread_each() -> None:
    with restore_thread_count():
        torch.set_num_threads(2)
        loader = DataLoader(_Threads(), batch_size=None, num_workers=2, worker_init_fn=begin_worker)
        assert list(loader) == [1, 1, 1, 1]


class _Threads(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return torch.get_num_threads()

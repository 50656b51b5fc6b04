import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.waiting import wait_for

from easycap.data.scenes import source, store
from easycap.data.scenes.draw import draw
from easycap.data.scenes.graph import Scene
from easycap.data.scenes.sample_scene import pairs
from easycap.data.scenes.tables import NOVEL_PAIRS
from easycap.registry import lookup

scenes = partial(source.scenes, language=source.Language.en)
VALUES = {"size": 32, "train_images": 30, "val_images": 5, "test_images": 12, "seed": 0, "workers": 1}


def run(cache: Path, **values) -> subprocess.Popen:
    """A script without a __main__ guard that makes scenes in `cache`."""
    arguments = ", ".join(
        f"{k}={v!r}" for k, v in ({**VALUES, "workers": 2} | values | {"cache": str(cache)}).items()
    )
    script = (
        "from easycap.data.scenes.source import Language, scenes\n"
        f"print(len(scenes({arguments}, language=Language.en).splits['train']))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_splits_hold_what_was_asked_for(tmp_path):
    dataset = scenes(**VALUES, cache=str(tmp_path))
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 30, "val": 5, "test": 12, "test_novel": 12,
    }  # fmt: skip
    assert dataset.scorers == ("truth",) and all(lookup("scorer", name) for name in dataset.scorers)
    example = dataset.splits["val"][2]
    assert example.id == "val-000002" and len(example.references) == 5 and example.tags
    assert example.image.array().shape == (32, 32, 3)
    expected = np.asarray(draw(Scene.from_dict(example.annotations), 32))
    assert (np.asarray(example.image.load()) == expected).all()
    everything = [e.id for split in dataset.splits.values() for e in split]
    assert len(set(everything)) == len(everything)


def test_novel_pairs_are_in_test_novel_only(tmp_path):
    dataset = scenes(**VALUES, cache=str(tmp_path))
    for name, split in dataset.splits.items():
        for example in split:
            shown = pairs(Scene.from_dict(example.annotations)) & set(NOVEL_PAIRS)
            assert bool(shown) == (name == "test_novel")


def test_one_or_two_processes_make_the_same_and_a_second_call_reads_it(tmp_path, monkeypatch):
    alone = scenes(**VALUES, cache=str(tmp_path / "alone"))
    monkeypatch.setattr(store, "CHUNK", 4)
    both = scenes(**{**VALUES, "workers": 2}, cache=str(tmp_path / "both"))
    for name, split in alone.splits.items():
        for one, other in zip(split, both.splits[name], strict=True):
            assert (one.id, one.references, one.tags) == (other.id, other.references, other.tags)
            assert (one.image.array() == other.image.array()).all()
    monkeypatch.setattr(store, "_fill", lambda *a, **k: pytest.fail("made twice"))
    assert scenes(**VALUES, cache=str(tmp_path / "both")).splits.keys() == both.splits.keys()


def test_other_values_are_kept_apart(tmp_path):
    first = scenes(**VALUES, cache=str(tmp_path))
    second = scenes(**{**VALUES, "seed": 1}, cache=str(tmp_path))
    assert first.splits["val"][0].references != second.splits["val"][0].references
    assert len(list(tmp_path.glob("scenes-*"))) == 2


def test_two_at_once_both_end_well_and_leave_one_folder(tmp_path):
    both = [run(tmp_path, train_images=300) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and out.strip() == "300", err
    assert len(list(tmp_path.glob("scenes-*"))) == 1 and not list(tmp_path.glob(".scenes-*"))


def test_a_killed_generation_leaves_nothing_that_looks_whole(tmp_path):
    process = run(tmp_path, train_images=20000)
    wait_for(lambda: list(tmp_path.glob(".scenes-*/train.npy")) or process.poll() is not None, 30)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=240)  # ends only when the workers, which share its output, have ended too
    assert not list(tmp_path.glob("scenes-*"))
    (left,) = tmp_path.glob(".scenes-*")
    scenes(**VALUES, cache=str(tmp_path))
    assert left.exists()  # it could be at work
    os.utime(left, (time.time() - 2 * store.STALE_SECONDS,) * 2)
    scenes(**{**VALUES, "seed": 7}, cache=str(tmp_path))
    assert not left.exists()


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "draw", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scenes(**VALUES, cache=str(tmp_path))
    assert not list(tmp_path.glob("*scenes-*"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 0),
        ("size", -64),
        ("size", 5000),
        ("train_images", 0),
        ("val_images", -1),
        ("test_images", 0),
        ("workers", -2),
    ],
)
def test_senseless_values_are_refused(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"data.{name}={value} must be"):
        scenes(**{**VALUES, name: value}, cache=str(tmp_path))
    assert not list(tmp_path.glob("*scenes-*"))


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="choose data.cache"):
        scenes(**VALUES, cache=str(tmp_path / "file" / "below"))


@pytest.mark.slow
def test_the_full_set_loads_quickly(tmp_path):
    values = {**VALUES, "size": 16, "train_images": 20000, "workers": 0}
    scenes(**values, cache=str(tmp_path))
    start = time.perf_counter()
    scenes(**values, cache=str(tmp_path))
    assert time.perf_counter() - start < 2

"""Images streamed from Parquet files: each row group is read once per epoch, in an order of (seed, epoch) alone."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.interrupted_runs import Killed, left_behind
from helpers.tiny_config import TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from easycap.commands.evaluate import main as evaluate
from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.data import parquet_images, sampler
from easycap.data.huggingface import huggingface
from easycap.data.issues import OnBadImage
from easycap.data.loader import TrainLoader
from easycap.data.parquet_images import ParquetImage, blocks_of
from easycap.data.sampler import Blocks, EpochSampler
from easycap.data.transforms import Transform
from easycap.train import train
from easycap.training.step import TrainStep
from easycap.types import Dataset, Preprocessing
from easycap.vocab.word import WordVocabulary

GROUP, GROUPS = 6, 8  # rows of a row group, row groups of a file


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two row groups are a window."""
    monkeypatch.setattr(sampler, "WINDOW_ROWS", 2 * GROUP)
    monkeypatch.setattr(parquet_images, "WINDOW_ROWS", 2 * GROUP)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The row groups that are read, with their images."""
    found: list[tuple[str, int]] = []
    original = parquet_images._read_group

    def read(file: str, column: str, group: int) -> Any:
        found.append((Path(file).name, group))
        return original(file, column, group)

    monkeypatch.setattr(parquet_images, "_read_group", read)
    monkeypatch.setattr(parquet_images, "_last_read", parquet_images._RowGroups())
    return found


def content(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (9, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(file: Path, first: int, count: int, **more: Callable[[int], Any]) -> None:
    entries = [
        {"image": {"bytes": content(n), "path": f"{n}.png"}, "caption": f"a dog {n}"}
        | {name: of(n) for name, of in more.items()}
        for n in range(first, first + count)
    ]
    made = datasets.Dataset.from_list(entries).cast_column("image", datasets.Image())
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made.data.table, file, row_group_size=GROUP)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet") / "photos"
    for part in range(2):
        write(folder / f"train-0000{part}-of-00002.parquet", part * GROUP * GROUPS, GROUP * GROUPS)
    write(folder / "validation-00000-of-00001.parquet", 1000, 2 * GROUP)
    write(folder / "test-00000-of-00001.parquet", 2000, GROUP)
    return folder


def read(path: Path, **changes: Any) -> Dataset:
    names = "config revision train val test image_column caption_column id_column".split()
    settings: dict[str, Any] = dict.fromkeys(names) | {"val_share": 0.2, "test_share": 0.2, "seed": 0}
    settings |= {"streaming": True, "on_bad_image": OnBadImage.error, "pixels": True, "path": str(path)}
    return huggingface(**(settings | changes))


def loader(dataset: Dataset, workers: int = 0) -> TrainLoader:
    vocabulary = WordVocabulary(size=100, min_count=1, captions=["a dog"], segmenter="spaces")
    transform = Transform(Preprocessing(8, (0.5,) * 3, (0.5,) * 3))
    settings = {"batch_size": 4, "captions_per_image": 1, "max_length": 8, "seed": 3, "ranks": (0, 1)}
    return TrainLoader(dataset.splits["train"], transform, vocabulary, {}, workers=workers, **settings)


def test_streamed_and_stored_sets_have_the_same_examples(
    folder: Path, reads: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    streamed = read(folder)
    assert not reads and not list((tmp_path / "hf").rglob("*.arrow"))  # nothing is unpacked
    stored = read(folder, streaming=False)
    for split, examples in stored.splits.items():
        assert [(e.id, e.references) for e in streamed.splits[split]] == [
            (e.id, e.references) for e in examples
        ]
    one, other = streamed.splits["val"][3], stored.splits["val"][3]
    assert isinstance(one.image, ParquetImage) and np.array_equal(one.image.array(), other.image.array())


def test_each_row_group_is_read_once_per_epoch(folder: Path, reads: list) -> None:
    images = loader(read(folder))
    seen = []
    for epoch in range(2):
        reads.clear()
        seen.append([i for batch in images.epoch(epoch) for i in batch.image_ids])
        assert len(seen[-1]) == len(set(seen[-1])) == 2 * GROUP * GROUPS
        assert len(reads) <= 2 * GROUPS and len(set(reads)) == len(reads)
    assert seen[0] != seen[1] and sorted(seen[0]) == sorted(seen[1])
    assert len(parquet_images._last_read.kept) <= 5  # two windows, and the group read last


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_taken_up_anywhere(folder: Path, workers: int) -> None:
    dataset = read(folder)
    whole = [batch.image_ids for batch in loader(dataset).epoch(1)]
    assert [batch.image_ids for batch in loader(dataset, workers).epoch(1, 7)] == whole[7:]


def test_a_resumed_epoch_reads_no_more_than_is_left(folder: Path, reads: list) -> None:
    images = loader(read(folder))
    list(images.epoch(0, images.batches_per_epoch - 3))
    assert len(reads) <= 2


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.integers(0, 5), st.integers(1, 5))
def test_the_order_is_a_permutation_by_blocks(rows: list[int], epoch: int, batch_size: int) -> None:
    of = [block for block, count in enumerate(rows) for _ in range(count)]
    batch_size = min(batch_size, len(of))
    order = EpochSampler(len(of), seed=1, batch_size=batch_size, number=0, count=1, blocks=Blocks(of, rows))
    order.epoch = epoch
    found = list(order)
    assert len(set(found)) == len(found) == len(of) // batch_size * batch_size == len(order)
    # A block whose images began to come ends before a window and the block after it are over.
    places = {block: [i for i, one in enumerate(found) if of[one] == block] for block in set(of)}
    longest = 2 * GROUP + max(rows)
    assert all(max(its) - min(its) < longest for its in places.values() if its)


def test_rows_are_one_image_only_by_an_id_column(tmp_path: Path) -> None:
    write(tmp_path / "p" / "train.parquet", 0, 12, number=lambda n: n // 2)
    assert sum(map(len, read(tmp_path / "p").splits.values())) == 12
    dataset = read(tmp_path / "p", id_column="number")
    found = {e.id: e.references for its in dataset.splits.values() for e in its}
    assert found == {str(n): (f"a dog {2 * n}", f"a dog {2 * n + 1}") for n in range(6)}


def test_rows_without_an_id_are_not_one_image(tmp_path: Path) -> None:
    write(tmp_path / "p" / "train.parquet", 0, 12, number=lambda n: None if n in (3, 7) else str(n))
    with pytest.raises(ValueError, match=r"train.parquet has no id in row 3 \(data.id_column\)"):
        read(tmp_path / "p", id_column="number")
    for streaming in (True, False):
        dataset = read(tmp_path / "p", id_column="number", on_bad_image=OnBadImage.skip, streaming=streaming)
        found = {e.id: e.references for its in dataset.splits.values() for e in its}
        assert found == {str(n): (f"a dog {n}",) for n in range(12) if n not in (3, 7)}
        assert [i.what for i in dataset.issues] == [f"has no id in row {n} (data.id_column)" for n in (3, 7)]


def test_other_images_in_the_same_places_are_noticed(tmp_path: Path) -> None:
    write(tmp_path / "p" / "train.parquet", 0, 12)
    before = read(tmp_path / "p").fingerprint
    made = pq.read_table(tmp_path / "p" / "train.parquet").to_pylist()
    made[5]["image"]["bytes"] = content(5)[:-20]
    table = datasets.Dataset.from_list(made).cast_column("image", datasets.Image())
    pq.write_table(table.data.table, tmp_path / "p" / "train.parquet", row_group_size=GROUP)
    parquet_images._opened.cache_clear()
    parquet_images._bytes_of_groups.cache_clear()
    assert read(tmp_path / "p").fingerprint != before


def test_numbered_captions_are_told_from_their_ids(tmp_path: Path) -> None:
    more = {
        "caption_1": lambda n: f"a cat {n}",
        "caption_2": lambda n: f"a bus {n}",
        "caption_id": lambda n: n,
    }
    write(tmp_path / "p" / "train.parquet", 0, 12, **more)
    dataset = read(tmp_path / "p", caption_column="caption_#")
    found = {e.id: e.references for its in dataset.splits.values() for e in its}
    assert found == {f"{n}.png": (f"a cat {n}", f"a bus {n}") for n in range(12)}


def test_other_formats_are_refused(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"caption": "x"}]).save_to_disk(tmp_path / "arrow")
    with pytest.raises(ValueError, match=r"data.streaming=true reads Parquet files, and .*arrow has others"):
        read(tmp_path / "arrow")


def test_blocks_are_row_groups(folder: Path) -> None:
    blocks = blocks_of(read(folder).splits["train"])
    assert blocks is not None and list(blocks.rows) == [GROUP] * 2 * GROUPS
    assert list(blocks.of) == [n // GROUP for n in range(2 * GROUP * GROUPS)]


@pytest.mark.parametrize("features", [False, True])
def test_a_resumed_run_has_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: bool
) -> None:
    settings = [word for word in TINY if not word.startswith("data.")]
    words = ["data=huggingface", f"data.path={folder}", "data.streaming=true", "vocab.min_count=1"]
    words += ["trainer.epochs=2", "trainer.batch_size=16", "trainer.checkpoint_every_steps=2"]
    words += [f"trainer.cache_features={str(features).lower()}", "decoder.dropout=0.1"]
    words += ["trainer.unfreeze_encoder_at_epoch=null"] if features else []
    config = check(compose([*settings, *words])[0])
    train(config, tmp_path / "whole", command="")

    original, calls = TrainStep.__call__, iter(range(1, 1000))

    def dies(*args: Any) -> Any:
        if next(calls) == 6:
            raise Killed
        return original(*args)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(TrainStep, "__call__", dies)
        train(config, tmp_path / "killed", command="")
    stored = OmegaConf.load(tmp_path / "killed" / "config.yaml")
    resumed = check(OmegaConf.merge(stored, {"resume": str(tmp_path / "killed")}))
    train(resumed, tmp_path / "killed", command="")
    assert left_behind(tmp_path / "killed") == left_behind(tmp_path / "whole")

    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    assert evaluate([str(tmp_path / "again")]) == 0
    before, after = ((tmp_path / name / "captions.test.json").read_text() for name in ("whole", "again"))
    assert json.loads(before) == json.loads(after)

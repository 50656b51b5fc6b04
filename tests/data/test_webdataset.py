"""`data=webdataset` on folders: what is a sample, its captions and id; damage; the order; resumed runs."""

from __future__ import annotations

import io
import json
import pickle
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as library
from helpers.small_data import read_set
from helpers.tar_shards import picture, write_shard

from easycap.commands.data import main as data_command
from easycap.data import sampler
from easycap.data.example_table import Captions, ExampleTable
from easycap.data.images import BadImage
from easycap.data.loader import TrainLoader, evaluation_batches
from easycap.data.shards import index_files, shard_images
from easycap.data.shards.shard_images import ShardImage
from easycap.data.transforms import Transform
from easycap.errors import UserError
from easycap.types import Dataset, Preprocessing
from easycap.vocab.word import WordVocabulary

SHARD = 12  # images


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shard_images, "BLOCK_IMAGES", 5)
    monkeypatch.setattr(sampler, "WINDOW_ROWS", 10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        write_shard(tmp_path / "s" / f"train-{number}.tar", range(SHARD * number, SHARD * (number + 1)))
    write_shard(tmp_path / "s" / "val-0.tar", range(100, 106))
    write_shard(tmp_path / "s" / "test-0.tar", range(200, 206))
    return tmp_path / "s"


def read(folder: Path | str, *overrides: str) -> Dataset:
    return read_set(folder, "webdataset", *overrides)


def captions_of(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {e.id: e.references for examples in dataset.splits.values() for e in examples}


def test_samples_are_those_of_the_library(folder: Path) -> None:
    dataset = read(folder)
    assert {split: len(its) for split, its in dataset.splits.items()} == {"train": 36, "val": 6, "test": 6}
    wanted = list(library.WebDataset(str(folder / "train-{0..2}.tar"), shardshuffle=False))
    examples = dataset.splits["train"]
    assert isinstance(examples, ExampleTable) and len(wanted) == len(examples)
    for sample, example in zip(wanted, examples, strict=True):
        about = json.loads(sample["json"])
        assert (example.id, list(example.references)) == (about["id"], about["captions"])
        assert isinstance(example.image, ShardImage)
        assert example.image.content().getvalue() == sample["png"]
        pixels = np.asarray(example.image.load())
        assert pixels.shape == (9, 8, 3) and np.array_equal(example.image.array(), pixels)
    assert list(Captions(examples))[:3] == ["a dog 0", "it runs", "a dog 1"]
    assert pickle.loads(pickle.dumps(examples)) == examples


def test_captions_are_lines_of_text_or_a_field_of_json(tmp_path: Path) -> None:
    def made(name: str, *overrides: str, **files: Any) -> dict[str, tuple[str, ...]]:
        write_shard(tmp_path / name / "0.tar", range(8), **files)
        return captions_of(read(tmp_path / name, *overrides))

    keys = [f"{n:06d}" for n in range(8)]
    assert made("txt", txt=lambda n: f"a dog {n}\n\nruns {n}\n") == {
        key: (f"a dog {n}", f"runs {n}") for n, key in enumerate(keys)
    }
    both = {"txt": lambda n: f"a dog {n}", "json": lambda n: {"text": f"a cat {n}", "id": n}}
    assert made("both", **both) == {str(n): (f"a dog {n}",) for n in range(8)}
    assert made("both", "caption_column=text", **both) == {str(n): (f"a cat {n}",) for n in range(8)}
    assert made("both", "id_column=__key__", **both) == {key: (f"a dog {n}",) for n, key in enumerate(keys)}
    coco = {"json": lambda n: {"annotations": [{"caption": f"a dog {n}"}, {"caption": "runs"}], "url": "x"}}
    assert made("coco", **coco)["000001"] == ("a dog 1", "runs")
    named = {"caption_txt": lambda n: f"a dog {n}", "ocr_txt": lambda n: f"EXIT {n}"}
    with pytest.raises(
        UserError, match=r"0.tar has no captions in .txt or .json, only .caption.txt, .ocr.txt"
    ):
        made("named", **named)
    assert made("named", "text_suffix=caption.txt", **named)["000002"] == ("a dog 2",)
    with pytest.raises(UserError, match=r"data.text_suffix=cap must end in txt or json"):
        made("named", "text_suffix=cap", **named)
    with pytest.raises(
        UserError, match=r"data.text_suffix=alt.txt: no sample has it, only caption.txt, ocr.txt, png"
    ):
        made("named", "text_suffix=alt.txt", **named)
    two = {"json": lambda n: {"title": f"a dog {n} here", "comment": f"one dog {n} there"}}
    with pytest.raises(UserError, match=r"set data.caption_column"):
        made("two", **two)


def test_fields_tags_and_several_images(tmp_path: Path) -> None:
    about = {
        "json": lambda n: {"captions": f"a dog {n}", "place": "sea" if n % 2 else "land", "tags": ["dog"]}
    }
    write_shard(tmp_path / "a" / "0.tar", range(8), **about)
    found = {e.id: e for its in read(tmp_path / "a").splits.values() for e in its}
    assert found["000001"].fields == {"place": "sea"} and found["000001"].tags == ("dog",)
    write_shard(tmp_path / "b" / "0.tar", range(8), mask_png=picture, **about)
    with pytest.raises(
        UserError, match=r"several images in sample '000000': set data.image_suffix to one of mask"
    ):
        read(tmp_path / "b")
    (example, *_) = read(tmp_path / "b", "image_suffix=mask.png").splits["train"]
    assert example.image.content().getvalue() == picture(int(example.id))


def test_splits_by_names_patterns_and_hash(folder: Path) -> None:
    by_pattern = read(folder, "train='train-{0..1}.tar'", "val='train-2.tar'")
    assert [len(by_pattern.splits[s]) for s in ("train", "val", "test")] == [24, 12, 12]
    assert any("val is test too" in note for note in by_pattern.notes)
    hashed = read(folder, "train='train-*.tar'", "val_share=0.2")
    assert sum(map(len, hashed.splits.values())) == 36 and all(hashed.splits.values())
    assert read(folder, "train='train-*.tar'", "val_share=0.2").fingerprint == hashed.fingerprint
    for bad, what in {
        "train='x-*.tar'": r"has no shard x-\*.tar",
        "train='train-{0,0}.tar'": r"names 1 shards twice",
        "train='pipe:cat x.tar'": r"a pipe does not allow",
        "cache_gb=0": r"data.cache_gb=0 must be at least 0.1",
    }.items():
        with pytest.raises(UserError, match=what):
            read(folder, bad)
    with pytest.raises(UserError, match=r"data.root=\S*nowhere is not a folder"):
        read(folder / "nowhere")
    (folder / "test_novel-0.tar").touch()
    with pytest.raises(UserError, match=r"test_novel-0.tar does not begin with the name of a split"):
        read(folder)


def test_names_that_begin_anew_in_each_shard(tmp_path: Path) -> None:
    for number in range(2):
        write_shard(
            tmp_path / "s" / f"{number}.tar", range(8), txt=lambda n, shard=number: f"a dog {shard} {n}"
        )
    found = captions_of(read(tmp_path / "s"))
    assert len(found) == 16 and found["1/000003"] == ("a dog 1 3",)


def damaged(folder: Path, change: Any) -> Path:
    path = folder / "train-1.tar"
    path.write_bytes(change(bytearray(path.read_bytes())))
    return folder


def flipped(content: bytearray) -> bytearray:
    content[content.index(b"000016.json") + 3] ^= 1
    return content


@pytest.mark.parametrize(
    ("change", "what", "left"),
    [
        (lambda c: c[: len(c) // 2], r"train-1.tar is truncated", 31),
        (
            lambda c: c[: c.index(b"000020.json")],
            r"train-1.tar is truncated after 000019.png: the end-of-archive",
            32,
        ),
        (flipped, r"train-1.tar is damaged after 000015.png: what follows is not a file header", 28),
        (lambda c: b"x" * 2048, r"train-1.tar is not a tar file", None),
        (lambda c: b"", r"train-1.tar is not a tar file", None),
    ],
)
def test_broken_shards_are_named(folder: Path, change: Any, what: str, left: int | None) -> None:
    damaged(folder, change)
    with pytest.raises(UserError, match=what):
        read(folder)
    if left is None:
        with pytest.raises(UserError, match=what):
            read(folder, "on_bad_image=skip")
    else:
        dataset = read(folder, "on_bad_image=skip")
        assert len(dataset.splits["train"]) == left
        assert re.search(what.partition(" ")[2], dataset.issues[0].what)


def test_samples_without_image_or_caption_are_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "s" / "0.tar", range(20), txt=lambda n: "" if n == 3 else f"a dog {n}")
    with tarfile.open(tmp_path / "s" / "0.tar", "a") as tar:
        for name, content in {
            "lost.txt": b"a cat",
            "bad.png": b"no image",
            "bad.txt": b"a bird sings",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(UserError, match=r"0.tar has no image, only txt \(image 'lost' of train\)"):
        read(tmp_path / "s")
    dataset = read(tmp_path / "s", "on_bad_image=skip")
    said = {issue.id: issue.what for issue in dataset.issues}
    assert said.keys() == {"lost", "000003", "bad"} and said["000003"] == "has no caption"
    assert "cannot be read as an image" in said["bad"]
    assert data_command(["check", "data=webdataset", f"data.root={tmp_path / 's'}"]) == 1


def test_the_index_is_made_once_and_anew_for_another_tar(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    original = index_files.read_index
    monkeypatch.setattr(
        index_files, "read_index", lambda s, a: made.append(Path(s.place).name) or original(s, a)
    )
    before = read(folder)
    assert len(made) == 5
    assert read(folder).fingerprint == before.fingerprint and len(made) == 5
    write_shard(folder / "train-1.tar", range(50, 50 + SHARD))
    after = read(folder)
    assert made[5:] == ["train-1.tar"] and after.fingerprint != before.fingerprint


def test_an_index_that_is_not_of_the_shard_is_noticed(folder: Path) -> None:
    for path in folder.glob("*.tar"):
        (shard,) = index_files.shards_at([str(path)], cache_bytes=0)
        index_files.save_index(index_files.read_index(shard), Path(f"{path}.index"))
    dataset = read(folder)
    example = next(e for e in dataset.splits["train"] if e.id == "14.png")
    other = write_shard(folder / "other.tar", range(70, 70 + SHARD))
    size = (folder / "train-1.tar").stat().st_size
    other.write_bytes(other.read_bytes()[:size].ljust(size, b"\0"))
    other.replace(folder / "train-1.tar")
    with pytest.raises(BadImage, match=r"train-1.tar is not the tar that its index describes \(000014.png"):
        example.image.load()
    (folder / "train-1.tar").write_bytes(b"\0" * 512)
    with pytest.raises(UserError, match=r"is the index of a tar of .* bytes, and .*train-1.tar has 512"):
        read(folder)
    (folder / "train-1.tar.index").write_bytes(b"no index")
    with pytest.raises(UserError, match=r"train-1.tar.index is damaged"):
        read(folder)


@pytest.mark.parametrize("name", ["keys_ends", "offset", "sample", "texts_ends", "header"])
def test_indexes_whose_parts_do_not_fit_are_refused(folder: Path, name: str) -> None:
    (shard,) = index_files.shards_at([str(folder / "val-0.tar")], cache_bytes=0)
    path = folder / "val-0.tar.index"
    index_files.save_index(index_files.read_index(shard), path)
    arrays = dict(np.load(path))
    arrays[name] = arrays[name] + 100_000 if name != "header" else arrays[name][:-3]
    with path.open("wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(UserError, match=r"val-0.tar.index is damaged"):
        read(folder)


def loader(dataset: Dataset, *, workers: int = 0, ranks: tuple[int, int] = (0, 1)) -> TrainLoader:
    vocabulary = WordVocabulary(size=100, min_count=1, captions=["a dog"], segmenter="spaces")
    transform = Transform(Preprocessing(8, (0.5,) * 3, (0.5,) * 3))
    settings = {"batch_size": 6, "captions_per_image": 1, "max_length": 8, "seed": 3, "ranks": ranks}
    return TrainLoader(dataset.splits["train"], transform, vocabulary, {}, workers=workers, **settings)


def ids(batches: Any) -> list[list[str]]:
    return [batch.image_ids for batch in batches]


def test_the_order_is_the_same_for_workers_ranks_and_resumed_epochs(folder: Path) -> None:
    dataset = read(folder)
    whole = ids(loader(dataset).epoch(1))
    assert sorted(i for batch in whole for i in batch) == sorted(e.id for e in dataset.splits["train"])
    assert whole != ids(loader(dataset).epoch(0))
    assert ids(loader(dataset, workers=2).epoch(1)) == whole
    assert ids(loader(dataset, workers=2).epoch(1, 3)) == whole[3:]
    parts = [ids(loader(dataset, ranks=(rank, 2)).epoch(1, 2)) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole[2:]


def test_neighbours_are_needed_together(folder: Path) -> None:
    dataset = read(folder)
    blocks = dataset.splits["train"].blocks()
    assert blocks is not None and list(blocks.rows) == [5, 5, 2] * 3
    block_of = {e.id: b for e, b in zip(dataset.splits["train"], blocks.of, strict=True)}
    order = [block_of[i] for batch in ids(loader(dataset).epoch(0)) for i in batch]
    places = {b: [n for n, one in enumerate(order) if one == b] for b in set(order)}
    assert all(max(its) - min(its) < 20 for its in places.values())  # a window, and the block that fills it
    assert [order.index(b) for b in range(9)] != sorted(order.index(b) for b in range(9))


def test_evaluation_sees_each_image_once_in_order(folder: Path) -> None:
    dataset = read(folder)
    vocabulary = WordVocabulary(size=100, min_count=1, captions=["a dog"], segmenter="spaces")
    transform = Transform(Preprocessing(8, (0.5,) * 3, (0.5,) * 3))
    batches = evaluation_batches(
        dataset.splits["val"], transform, vocabulary, {}, batch_size=4, max_length=8, workers=1
    )
    assert ids(batches) == [[f"{n}.png" for n in range(100, 104)], ["104.png", "105.png"]]

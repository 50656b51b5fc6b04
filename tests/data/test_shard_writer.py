"""`easycap data shard`: the same ids, captions, images and splits come back, from any source; it can be continued."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import webdataset as library
from helpers.small_data import write_json
from helpers.tar_shards import picture, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from easycap.commands.data import checked_config
from easycap.commands.data import main as data_command
from easycap.commands.shard import _bytes
from easycap.data.shards import shard_writer
from easycap.data.shards.shard_images import BLOCK_BYTES, BLOCK_IMAGES, block_numbers
from easycap.errors import UserError
from easycap.tasks.datasets import build_dataset
from easycap.types import Dataset

COUNT = 20


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def folder(root: Path) -> list[str]:
    for n in range(COUNT):
        path = root / "photos" / f"a {n % 3}" / f"{n}.b.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(n))
        path.with_suffix(".txt").write_text(f"a dog {n} — é\nit runs\n")
    return ["data=folder", f"data.images={root / 'photos'}"]


def coco(root: Path) -> list[str]:
    for split, numbers in {"train2017": range(14), "val2017": range(14, COUNT)}.items():
        (root / split).mkdir(parents=True)
        for n in numbers:
            (root / split / f"{n:012d}.jpg").write_bytes(picture(n))
        images = [{"id": n, "file_name": f"{n:012d}.jpg"} for n in numbers]
        captions = [{"image_id": n, "caption": f"a dog {n} {i}"} for n in numbers for i in range(5)]
        write_json(
            root / "annotations" / f"captions_{split}.json", {"images": images, "annotations": captions}
        )
    return ["data=coco", f"data.root={root}"]


def table(root: Path) -> list[str]:
    splits = ["train"] * 12 + ["val"] * 4 + ["test"] * 4
    rows = [
        {"image": f"{n}.png", "caption": f"a dog {n}", "split": splits[n], "sea": n % 2} for n in range(COUNT)
    ]
    write_json(root / "rows.json", rows)
    for n in range(COUNT):
        (root / f"{n}.png").write_bytes(picture(n))
    return ["data=tables", f"data.root={root}", "data.captions=rows.json", "data.split_column=split"]


def hub(root: Path) -> list[str]:
    rows = [
        {"image": {"bytes": picture(n), "path": f"{n}.png"}, "caption": [f"a dog {n}", "it runs"]}
        for n in range(COUNT)
    ]
    made = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    made.save_to_disk(root / "arrow")
    return ["data=huggingface", f"data.path={root / 'arrow'}"]


def scenes(root: Path) -> list[str]:
    return ["data=scenes", "data.size=32", "data.train_images=8", "data.val_images=4", "data.test_images=4"]


def build(overrides: list[str]) -> Dataset:
    return build_dataset(checked_config(overrides), with_tags=True)


SOURCES = {source.__name__: source for source in (folder, coco, table, hub, scenes)}


@pytest.mark.parametrize("name", SOURCES)
def test_a_round_trip(name: str, tmp_path: Path) -> None:
    overrides, out = SOURCES[name](tmp_path / "source"), tmp_path / "shards"
    assert data_command(["shard", *overrides, str(out), "--images-per-shard", "5"]) == 0
    before, after = build(overrides), build(["data=webdataset", f"data.root={out}"])
    for split, examples in before.splits.items():
        for one, other in zip(examples, after.splits[split], strict=True):
            assert (one.id, one.references, one.tags) == (other.id, other.references, other.tags)
            assert dict(one.fields) == dict(other.fields)
            assert np.array_equal(one.image.array(), other.image.array())
            if name != "scenes":  # it has pixels only
                assert shard_writer._image_file(one.image)[1] == other.image.content().getvalue()
    with serving(out) as server:
        remote = build(["data=webdataset", f"data.root={server.url}"])
    assert remote.fingerprint == after.fingerprint and remote.splits.keys() == before.splits.keys()
    paths = sorted(map(str, out.glob("*.tar")))
    samples = list(library.WebDataset(paths, shardshuffle=False))
    assert len(samples) == sum(len(its) for its in {id(i): i for i in before.splits.values()}.values())
    assert {json.loads(sample["json"])["id"] for sample in samples} == {
        e.id for its in before.splits.values() for e in its
    }


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_it_is_deterministic_and_can_be_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["shard", *table(tmp_path / "source"), "--images-per-shard", "5", "--shuffle", "3"]
    assert data_command([*words, str(tmp_path / "one")]) == 0
    assert "train: 12 images in 3 shards" in capsys.readouterr().out
    original, calls = shard_writer._write_shard, iter(range(100))

    def dies(*args: object) -> object:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return original(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shard_writer, "_write_shard", dies)
        data_command([*words, str(tmp_path / "two")])
    with pytest.raises(UserError, match=r"index.json is not complete: `easycap data shard` was stopped"):
        build(["data=webdataset", f"data.root={tmp_path / 'two'}"])
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").glob("*.tar")}
    assert len(kept) == 2
    assert data_command([*words, str(tmp_path / "two")]) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    capsys.readouterr()
    assert data_command(["guess", str(tmp_path / "two")]) == 0
    assert capsys.readouterr().out == f"data=webdataset data.root={tmp_path / 'two'}\n"
    ids = [e.id for e in build(["data=webdataset", f"data.root={tmp_path / 'two'}"]).splits["train"]]
    assert sorted(ids, key=lambda i: int(i.partition(".")[0])) == [f"{n}.png" for n in range(12)] != ids


def test_help_says_what_is_given_and_what_comes_last(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        data_command(["shard", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith("usage: easycap data shard [options] OVERRIDE... FOLDER positional")
    assert "images per shard, at most" in shown and "start a new shard at this size" in shown


def test_other_content_is_left_alone(tmp_path: Path) -> None:
    words = ["shard", *table(tmp_path / "source")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").touch()
    with pytest.raises(UserError, match=r"out is not empty \(it has letter.txt\)"):
        data_command([*words, str(tmp_path / "out")])
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["letter.txt"]
    assert data_command([*words, str(tmp_path / "new")]) == 0
    with pytest.raises(UserError, match=r"new has shards of other data or of other sizes"):
        data_command([*words, str(tmp_path / "new"), "--images-per-shard", "3"])
    (tmp_path / "new" / "val-000000.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"val-000000.tar is not the shard that .*index.json lists"):
        data_command([*words, str(tmp_path / "new")])
    with pytest.raises(UserError, match=r"data.captions=x is not a folder"):
        data_command(["shard", "data=tables", "data.captions=x"])


def test_sizes(tmp_path: Path) -> None:
    assert [_bytes(text) for text in ("500MB", "1 gb", "1.5k", "7")] == [500_000_000, 10**9, 1500, 7]
    for wrong in ("", "0", "1XB", "-1"):
        with pytest.raises(UserError, match=r"is not a size"):
            _bytes(wrong)
    words = ["shard", *folder(tmp_path / "source")]
    assert data_command([*words, str(tmp_path / "out"), "--shard-size", "1kB"]) == 0
    stored = json.loads((tmp_path / "out" / "index.json").read_text())
    assert sum(one["images"] for one in stored["shards"]) == COUNT and len(stored["shards"]) > 5
    shutil.rmtree(tmp_path / "out")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, BLOCK_BYTES), max_size=3 * BLOCK_IMAGES))
def test_blocks_are_small(lengths: list[int]) -> None:
    ends = np.cumsum(np.array(lengths, np.int64))
    numbers = block_numbers(ends - lengths, np.array(lengths, np.int64))
    assert sorted(numbers.tolist()) == numbers.tolist()
    for number in set(numbers.tolist()):
        its = np.flatnonzero(numbers == number)
        assert len(its) <= BLOCK_IMAGES and (len(its) == 1 or sum(np.array(lengths)[its]) <= BLOCK_BYTES)

"""Shards at addresses: parts of files, indexes, a limited cache, cut connections, servers that refuse."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.small_data import read_set
from helpers.tar_shards import ShardServer, picture, serving, write_shard

from easycap.data import sampler
from easycap.data.images import BadImage
from easycap.data.issues import UnreadImage, unread_or_bad
from easycap.data.loader import TrainLoader
from easycap.data.shards import block_cache, byte_ranges, shard_images
from easycap.data.shards.index_files import read_index, save_index, shards_at
from easycap.data.transforms import Transform
from easycap.errors import UserError
from easycap.types import Dataset, Example, Preprocessing
from easycap.vocab.word import WordVocabulary

TRAIN = "train='train-{0..2}.tar'"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(byte_ranges, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(shard_images, "BLOCK_IMAGES", 5)
    monkeypatch.setattr(sampler, "WINDOW_ROWS", 10)
    block_cache._opened.cache_clear()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ShardServer]:
    for number in range(3):
        write_shard(tmp_path / "s" / f"train-{number}.tar", range(20 * number, 20 * (number + 1)))
    with serving(tmp_path / "s") as shards:
        yield shards


def read(server: ShardServer, *overrides: str) -> Dataset:
    return read_set(server.url, "webdataset", *(overrides or (TRAIN,)))


def with_indexes(folder: Path) -> None:
    for path in folder.glob("*.tar"):
        (shard,) = shards_at([str(path)], cache_bytes=0)
        save_index(read_index(shard), Path(f"{path}.index"))


def test_they_are_what_they_are_in_a_folder(server: ShardServer) -> None:
    remote, local = read(server), read_set(server.folder, "webdataset", TRAIN)
    assert remote.fingerprint == local.fingerprint
    for split, examples in local.splits.items():
        for here, there in zip(examples, remote.splits[split], strict=True):
            assert (here.id, here.references) == (there.id, there.references)
            assert there.image.content().getvalue() == here.image.content().getvalue()
            assert there.image.content().getvalue() == picture(int(there.id.removesuffix(".png")))


def epoch(dataset: Dataset, number: int, start: int = 0, workers: int = 0) -> list[str]:
    vocabulary = WordVocabulary(size=100, min_count=1, captions=["a dog"], segmenter="spaces")
    transform = Transform(Preprocessing(8, (0.5,) * 3, (0.5,) * 3))
    settings = {"batch_size": 4, "captions_per_image": 1, "max_length": 8, "seed": 3, "ranks": (0, 1)}
    loader = TrainLoader(dataset.splits["train"], transform, vocabulary, {}, workers=workers, **settings)
    return [i for batch in loader.epoch(number, start) for i in batch.image_ids]


def images_read(server: ShardServer) -> list[tuple[str, int, int]]:
    return [one for one in server.parts if one[2] - one[1] > 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_each_part_is_fetched_once_for_all_processes(server: ShardServer, workers: int) -> None:
    with_indexes(server.folder)
    dataset = read(server)
    assert not images_read(server)  # the index says where everything is
    seen = epoch(dataset, 0, workers=workers)
    assert len(set(seen)) == len(seen) and len(seen) == len(dataset.splits["train"]) // 4 * 4
    parts = images_read(server)
    assert len(parts) == len(set(parts)) <= 12
    assert epoch(dataset, 0, 5, workers=workers) == seen[20:] and len(images_read(server)) == len(parts)


def test_without_an_index_a_shard_is_read_once(server: ShardServer) -> None:
    read(server)
    first = len(images_read(server))
    read(server)
    assert first == 3 and len(images_read(server)) == first
    server.etag = '"2"'
    read(server)
    assert len(images_read(server)) == 2 * first


def test_the_cache_has_a_limit(server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_cache, "_OPEN", 1)
    dataset = read(server)
    for example in dataset.splits["train"][:30]:
        shard = example.image.shard
        small = shard_images.Shard(shard.place, shard.size, shard.version, 9000)
        small.read(example.image.offset, example.image.offset + 1, example.image.block)
    kept = [one for one in (tmp_path / "cache/shards/blocks").iterdir() if one.is_file()]
    assert kept and sum(one.stat().st_size for one in kept) <= 9000
    assert len(images_read(server)) > 3 + len(kept)


def test_a_limit_below_one_part_and_a_full_disk_are_said(
    server: ShardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = read(server).splits["train"][0]
    with monkeypatch.context() as patched, pytest.raises(UnreadImage, match=r"raise data.cache_gb"):
        patched.setattr(
            block_cache, "_make_room", lambda folder, limit: [p.unlink() for p in folder.glob("*-*")]
        )
        example.image.load()

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UnreadImage, match=r"no space is left .*blocks: .* set EASYCAP_CACHE to a folder"):
        example.image.load()


def test_a_damaged_image_is_named_by_its_address(server: ShardServer) -> None:
    texts = {"txt": lambda n: f"a dog {n}", "jpg": lambda n: b"no image"}
    write_shard(server.folder / "train-0.tar", range(9), **texts)
    image = read(server, "image_suffix=jpg", "train=train-0.tar").splits["train"][0].image
    with pytest.raises(BadImage) as error:
        image.load()
    assert str(error.value).startswith(f"{server.url}/train-0.tar/{image.member} cannot be read as an image")


@pytest.mark.parametrize("cut", [False, True])
def test_failures_are_tried_again(server: ShardServer, cut: bool) -> None:
    server.failures, server.cut = 2, cut
    example = read(server).splits["train"][7]
    assert example.image.content().getvalue() == picture(int(example.id.removesuffix(".png")))
    server.failures = 100
    block_cache._opened.cache_clear()
    with pytest.raises(
        UnreadImage, match=r"cannot be read \(.*\), tried 3 times: check the connection"
    ) as error:
        _far_from(example, read_set(server.folder, "webdataset", TRAIN), server).image.load()
    assert "on_bad_image" not in str(unread_or_bad(error.value))


def _far_from(example: Example, local: Dataset, server: ShardServer) -> Example:
    """An image of another part than that of `example`, at the server."""
    other = next(e for e in local.splits["train"] if e.image.offset > example.image.block[1])
    shard = shard_images.Shard(
        f"{server.url}/{Path(other.image.shard.place).name}", other.image.shard.size, server.etag, 10**8
    )
    image = shard_images.ShardImage(
        shard, other.image.member, other.image.offset, other.image.length, other.image.crc, other.image.block
    )
    return Example(other.id, image, other.references)


def test_a_changed_shard_is_noticed(server: ShardServer) -> None:
    with_indexes(server.folder)
    example = read(server).splits["train"][0]
    server.etag = '"2"'
    with pytest.raises(UnreadImage, match=r"train-0.tar has changed since it was indexed"):
        example.image.load()


def test_what_cannot_be_read_is_said(server: ShardServer) -> None:
    with pytest.raises(UserError, match=r"/index.json does not exist: name the shards"):
        read(server, "val=null")
    with pytest.raises(UserError, match=r"/train-9.tar does not exist \(HTTP 404\)"):
        read(server, "train=train-9.tar")
    with pytest.raises(UserError, match=r"names at an address cannot be listed; use braces"):
        read(server, "train='train-*.tar'")
    server.ranges = False
    with pytest.raises(UserError, match="does not support range requests"):
        read(server)
    with pytest.raises(UserError, match=r"cannot be read \(.*refused\), tried 3 times"):
        read_set("http://127.0.0.1:9", "webdataset", TRAIN)

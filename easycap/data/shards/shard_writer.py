"""Write the examples of any data source as tar shards with their indexes, the same bytes for the same data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from easycap.data.arrow_images import ArrowImage
from easycap.data.images import ImageFile, ImageWithFeatures, header_of
from easycap.data.parquet_images import ParquetImage
from easycap.data.shards.find_shards import LIST, LIST_FORMAT
from easycap.data.shards.index_files import index_place, read_index, save_index, shards_at
from easycap.data.shards.shard_images import ShardImage
from easycap.data.shards.shard_samples import ID, TAGS
from easycap.errors import UserError
from easycap.types import Dataset, Example, ImageSource
from easycap.utils.extras import check_extra
from easycap.utils.files import naming, read_mapping, write_json
from easycap.utils.processes import lock

CAPTIONS = "captions"
_OWN = (ID, CAPTIONS, TAGS)


@dataclass(frozen=True)
class ShardSizes:
    """A shard ends after `images` images or the image with which it has `size` bytes; `shuffle` is the seed of the
    order of training images, None for that of the source.
    """

    images: int
    size: int
    shuffle: int | None


class Written(NamedTuple):
    """One shard: its file, its split, how many images and bytes it has."""

    file: str
    split: str
    images: int
    bytes: int


def write_shards(
    dataset: Dataset, out: Path, sizes: ShardSizes, *, advance: Callable[[int], None]
) -> list[Written]:
    """Write the splits of a data set into `out` and return its shards; a split that equals another is written once.

    A sample is the image file as it is (PNG where the source has only pixels) and JSON: id, captions, tags if there are
    any, and fields. index.json in `out` lists the shards. The same call continues after an interruption; `advance` is
    called with the number of images done. Raises `UserError` if `out` has anything else.
    """
    check_extra("webdataset", "data shard")
    splits = _distinct(dataset.splits)
    out.mkdir(parents=True, exist_ok=True)
    with lock(out / ".lock", wait=False) as held:
        if held is None:
            raise UserError(f"another `easycap data shard` writes into {out}")
        try:
            return _write_all(splits, out, sizes, advance)
        finally:
            (out / ".lock").unlink(missing_ok=True)


def _write_all(
    splits: Mapping[str, Sequence[Example]], out: Path, sizes: ShardSizes, advance: Callable[[int], None]
) -> list[Written]:
    """Write the remaining shards; the list of shards in `out` always matches the shards that are there."""
    made_of = _digest(splits, sizes)
    done = _begun(out, made_of)
    list_of_shards = {"format": LIST_FORMAT, "complete": False, "made_of": made_of}
    _write_list(out, list_of_shards, done)
    for split, examples in splits.items():
        own = [one for one in done if one.split == split]
        order = _order(len(examples), sizes.shuffle if split == "train" else None)
        place = sum(one.images for one in own)
        advance(sum(one.images for one in done))
        number = len(own)
        while place < len(order):
            shard = _write_shard(out, split, number, examples, order, place, sizes)
            done.append(shard)
            _write_list(out, list_of_shards, done)
            place, number = place + shard.images, number + 1
            advance(sum(one.images for one in done))
    _write_list(out, list_of_shards | {"complete": True}, done)
    return done


def lost_fields(dataset: Dataset) -> list[str]:
    """Return sentences on what examples have that shards do not hold."""
    names = {name for its in dataset.splits.values() for one in its for name in one.fields if name in _OWN}
    lost = [
        f"the field {name!r} is not written: shards use this name for a field of their own"
        for name in sorted(names)
    ]
    if any(one.annotations is not None for its in dataset.splits.values() for one in its[:1]):
        lost.append(
            "annotations are not written: scores that need them (objects, scene graphs) cannot be computed"
        )
    return lost


def _distinct(splits: Mapping[str, Sequence[Example]]) -> dict[str, Sequence[Example]]:
    seen: list[Sequence[Example]] = []
    kept = {}
    for split, examples in splits.items():
        if len(examples) and not any(examples is one for one in seen):
            seen.append(examples)
            kept[split] = examples
    return kept


def _digest(splits: Mapping[str, Sequence[Example]], sizes: ShardSizes) -> str:
    """A digest of the images, of what is known of them, and of the sizes."""
    digest = hashlib.blake2b(repr(asdict(sizes)).encode(), digest_size=16)
    for split, examples in splits.items():
        for one in examples:
            known = (split, one.id, one.references, one.tags, dict(one.fields), one.image.identity())
            digest.update(repr(known).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _begun(out: Path, made_of: str) -> list[Written]:
    """The shards that an interrupted call wrote; raises `UserError` for a folder that has something else."""
    path = out / LIST
    if not path.is_file():
        other = next((one for one in sorted(out.iterdir()) if one.name != ".lock"), None)
        if other is not None:
            raise UserError(f"{out} is not empty (it has {other.name}): choose a new folder")
        return []
    stored = read_mapping(path)
    if stored.get("made_of") != made_of:
        raise UserError(
            f"{out} has shards of other data or of other sizes: choose a new folder, or remove this one first"
        )
    done = [Written(**one) for one in stored["shards"]]
    for one in done:
        file = out / one.file
        if not file.is_file() or file.stat().st_size != one.bytes:
            raise UserError(f"{file} is not the shard that {path} lists: remove {out} and write it again")
    return done


def _write_list(out: Path, about: Mapping[str, Any], shards: Sequence[Written]) -> None:
    write_json(out / LIST, {**about, "shards": [one._asdict() for one in shards]})


def _order(count: int, shuffle: int | None) -> np.ndarray:
    return np.arange(count) if shuffle is None else np.random.default_rng(shuffle).permutation(count)


def _write_shard(
    out: Path,
    split: str,
    number: int,
    examples: Sequence[Example],
    order: np.ndarray,
    place: int,
    sizes: ShardSizes,
) -> Written:
    """Write the next images of a split, from `place` in their order, as shard `number`, and its index."""
    from webdataset import TarWriter

    path = out / f"{split}-{number:06d}.tar"
    part = out / f".{path.name}.part"
    count = size = 0
    with naming(part), part.open("wb") as file, TarWriter(file, mtime=0, encoder=False) as tar:
        for sample in _samples(examples, order, place, sizes.images):
            size += tar.write(sample)
            count += 1
            if size >= sizes.size:
                break
    (shard,) = shards_at([str(part)], cache_bytes=0)
    save_index(read_index(shard), Path(index_place(str(path))))
    part.replace(path)
    return Written(path.name, split, count, shard.size)


def _samples(
    examples: Sequence[Example], order: np.ndarray, place: int, most: int
) -> Iterator[dict[str, str | bytes]]:
    for number, row in enumerate(order[place : place + most].tolist(), place):
        example = examples[row]
        fields = {name: value for name, value in example.fields.items() if name not in _OWN}
        about: dict[str, Any] = {ID: example.id, CAPTIONS: example.references, **fields}
        if example.tags:
            about[TAGS] = example.tags
        suffix, content = _image_file(example.image)
        text = json.dumps(about, ensure_ascii=False)
        yield {"__key__": f"{number:09d}", suffix: content, "json": text.encode("utf-8", "backslashreplace")}


def _image_file(image: ImageSource) -> tuple[str, bytes]:
    """The suffix and the content of an image as a file."""
    if isinstance(image, ImageWithFeatures):
        return _image_file(image.image)
    if isinstance(image, ImageFile):
        try:
            return image.path.suffix.lower().removeprefix("."), image.path.read_bytes()
        except FileNotFoundError:
            raise UserError(
                f"{image.path} does not exist: leave it out with data.on_bad_image=skip"
            ) from None
    if isinstance(image, ShardImage):
        return image.member.rpartition(".")[2], image.content().getvalue()
    if isinstance(image, ArrowImage | ParquetImage):
        content = image.content().getvalue()
        kind = header_of(content)[0].lower()
        return {"jpeg": "jpg", "mpo": "jpg"}.get(kind, kind), content
    file = BytesIO()
    image.load().save(file, "PNG")
    return "png", file.getvalue()

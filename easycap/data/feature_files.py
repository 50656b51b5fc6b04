"""Precomputed features of images: one array of regions per image, read as batches need them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from easycap.data.image_files import visible_files
from easycap.data.images import BadImage, ImageWithFeatures
from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.verify import bad_ones
from easycap.errors import UserError
from easycap.types import Dataset, Example, PrecomputedSettings
from easycap.utils.extras import check_extra
from easycap.utils.ids import without_suffix
from easycap.utils.paths import expanded

if TYPE_CHECKING:
    import h5py

_ARRAYS = ("feat", "features")  # what the tools around bottom-up attention call the one that counts
_COCO_NAME = re.compile(r"(?:COCO_[a-z]+\d{4}_)?0*(\d+)")


class PrecomputedFeatures:
    """Precomputed features (R,C) of images, R from `min_regions` to `max_regions`, C = `region_dim`, from files.

    `features` is a folder with NAME.npz (its only array, or the one called feat or features) or NAME.npy of each image,
    as tools around Up-Down (1707.07998) write them, or one HDF5 file with a dataset NAME_features of each image, as
    Meshed-Memory (1912.08226) reads it; an array (C,) is one region, (h,w,C) is h w of them. NAME is the image's id,
    with or without the ending of an image file; for an id that is a number or one of COCO's file names also that
    number, plain, padded to 12 digits, or after that COCO_train2014_ or COCO_val2014_. Of a file in a folder below
    `features` the folder is part of the name.
    Of more regions than `max_regions` the first ones count, as in Meshed-Memory's code; with `zero_regions` zeros stand
    in the place of missing ones, which that code shows its model. Raises `UserError` if there is
    nothing of the kind.
    """

    def __init__(self, settings: PrecomputedSettings) -> None:
        self.settings, self.store = settings, _open(expanded(settings.features))

    def attach(self, dataset: Dataset, on_bad_image: OnBadImage) -> Dataset:
        """Return `dataset` with images that know their features; those without any are dropped, or an error.

        With OnBadImage.skip all features are read once, and the outcome is cached until a file changes.
        """
        issues = DataIssues(on_bad_image)
        done: dict[int, list[Example]] = {}  # a list may serve as two splits: val as test
        taken: dict[str, str] = {}
        for split, examples in dataset.splits.items():
            if id(examples) not in done:
                done[id(examples)] = list(self._with_features(split, examples, taken, issues))
        if on_bad_image is OnBadImage.skip:
            self._drop_damaged(done, dataset, issues)
        splits = {split: done[id(examples)] for split, examples in dataset.splits.items()}
        for split, examples in splits.items():
            if dataset.splits[split] and not examples:
                issues.empty(split, self.store.path, "")
        return dataset._replace(splits=splits, issues=(*dataset.issues, *issues.found))

    def _with_features(
        self, split: str, examples: Sequence[Example], taken: dict[str, str], issues: DataIssues
    ) -> Iterator[Example]:
        """Those that have features of their own; `taken` {name: image id} grows."""
        for example in examples:
            names = names_of(example.id)
            found = next((name for name in names if name in self.store), None)
            if found is None:
                what = f"holds no features called {' or '.join(names)}"
                issues.drop(split, example.id, self.store.path, what)
            elif taken.setdefault(found, example.id) != example.id:
                what = f"holds the features of image {taken[found]!r} already"
                issues.drop(split, example.id, self.store.where(found), what)
            else:
                yield replace(example, image=ImageWithFeatures(example.image, found))

    def _drop_damaged(self, done: dict[int, list[Example]], dataset: Dataset, issues: DataIssues) -> None:
        names = [_name(example) for examples in done.values() for example in examples]
        digest = hashlib.blake2b(
            repr((self.settings.region_dim, self.settings.min_regions)).encode(), digest_size=16
        )
        for name in names:
            digest.update(f"{name}\0{self.store.version(name)}\0".encode())
        bad = bad_ones("bad_features", names, self._what_is_wrong, key=digest.hexdigest())
        splits = {id(examples): split for split, examples in reversed(list(dataset.splits.items()))}
        for key, examples in done.items():
            for example in examples:
                if what := bad.get(_name(example)):
                    where = self.store.where(_name(example))
                    issues.drop(splits[key], example.id, where, what)
            done[key] = [example for example in examples if _name(example) not in bad]

    def _what_is_wrong(self, name: str) -> str | None:
        try:
            self._read(name)
        except BadImage as error:
            return error.what
        return None

    def begin_epoch(self, epoch: int) -> None:
        """The same in every epoch."""

    def of(self, example: Example) -> torch.Tensor:
        """Return an example's features (R,C) float32; raises `BadImage` naming the file if they cannot be used."""
        most = self.settings.max_regions
        found = torch.from_numpy(self._read(_name(example))[:most].astype(np.float32))
        missing = most - len(found) if self.settings.zero_regions else 0
        return torch.nn.functional.pad(found, (0, 0, 0, missing))

    def _read(self, name: str) -> np.ndarray:
        try:
            features = self.store.read(name)
        except MemoryError:
            raise
        except Exception as error:  # readers of damaged files raise whatever their parsing stumbles on
            raise BadImage(self.store.where(name), f"cannot be read as features ({error})") from None
        if features.ndim in (1, 3):  # one vector of an image, or a map of them
            features = features.reshape(-1, features.shape[-1])
        if what := self._why_useless(features):
            raise BadImage(self.store.where(name), what)
        return features

    def _why_useless(self, features: np.ndarray) -> str | None:
        if features.ndim != 2 or features.shape[1] != self.settings.region_dim:
            return f"has the shape {features.shape}, not (regions, encoder.region_dim={self.settings.region_dim})"
        if len(features) < self.settings.min_regions:
            return f"has {len(features)} regions, fewer than encoder.min_regions={self.settings.min_regions}"
        if features.dtype.kind not in "fiu":
            return f"has values of the type {features.dtype}, not numbers"
        if not np.isfinite(features).all():  # NaN marks padding
            return "has values that are not finite"
        return None


def names_of(image_id: str) -> tuple[str, ...]:
    """Return the names that the features of an image may have."""
    bare = without_suffix(image_id)
    number = _COCO_NAME.fullmatch(bare)
    padded = f"{int(number[1]):012d}" if number else ""
    long = (f"COCO_{split}_{padded}" for split in ("train2014", "val2014"))
    numbers = (number[1], padded, *long) if number else ()
    return tuple(dict.fromkeys((image_id, bare, *numbers)))


def _name(example: Example) -> str:
    assert isinstance(example.image, ImageWithFeatures)  # `PrecomputedFeatures.join` made it
    return example.image.features


class _Store(Protocol):
    path: Path

    def __contains__(self, name: str) -> bool: ...
    def read(self, name: str) -> np.ndarray: ...
    def where(self, name: str) -> Path: ...
    def version(self, name: str) -> str: ...


def _open(path: Path) -> _Store:
    if path.is_dir():
        return _Folder(path)
    if path.is_file() and _is_hdf5(path):
        return _HDF5(path)
    what = "is neither a folder nor an HDF5 file" if path.exists() else "does not exist"
    raise UserError(
        f"encoder.features={path} {what}: it must be a folder with ID.npz or ID.npy of each image, or an HDF5 file "
        "with ID_features"
    )


def _is_hdf5(path: Path) -> bool:
    check_extra("hdf5", f"encoder.features={path}, a file,")
    import h5py  # it costs a tenth of a second to import: who uses it pays

    return h5py.is_hdf5(path)


def _version(path: Path) -> str:
    status = path.stat()
    return f"{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}"


class _Folder:
    """A file for each image."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # One listing instead of a question per image: on a network disk that is minutes less.
        files = [file for file in visible_files(path) if file.suffix in (".npy", ".npz")]
        self.files = {file.relative_to(path).with_suffix("").as_posix(): file for file in files}
        if not files:
            raise UserError(f"encoder.features={path} holds no .npz or .npy files")

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def where(self, name: str) -> Path:
        return self.files[name]

    def version(self, name: str) -> str:
        return _version(self.files[name])

    def read(self, name: str) -> np.ndarray:
        loaded: Any = np.load(self.files[name], allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = [one for one in _ARRAYS if one in loaded.files] or loaded.files
            if len(names) != 1:
                raise UserError(f"of its arrays {', '.join(names)} none is called {' or '.join(_ARRAYS)}")
            return loaded[names[0]]


class _HDF5:
    """All images in one file, open once it is read. HDF5 must not be used across a fork: it is closed before one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: h5py.File | None = None
        os.register_at_fork(before=self._close)  # every process that loads opens its own
        self.names = frozenset(n.removesuffix("_features") for n in self._opened() if n.endswith("_features"))
        if not self.names:
            raise UserError(f"encoder.features={path} holds no dataset called ID_features")

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getstate__(self) -> dict[str, Any]:
        self._close()  # an open file cannot go to a process that is started instead of forked
        return self.__dict__

    def where(self, name: str) -> Path:
        return self.path / f"{name}_features"

    def version(self, name: str) -> str:
        return _version(self.path)

    def read(self, name: str) -> np.ndarray:
        return self._opened()[f"{name}_features"][()]

    def _opened(self) -> h5py.File:
        import h5py

        if self._file is None:
            self._file = h5py.File(self.path, "r")
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def precomputed_features(encoder: dict[str, Any]) -> PrecomputedFeatures | None:
    """Return the precomputed features that the encoder of a checked group reads, None if it sees images."""
    if encoder["name"] != "precomputed":
        return None
    settings = {key: value for key, value in encoder.items() if key != "name"}
    return PrecomputedFeatures(PrecomputedSettings(**settings))

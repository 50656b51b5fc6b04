"""Region features of images made for a test, in the layouts that `encoder=precomputed` reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from easycap.config.compose import compose
from easycap.config.instantiate import build
from easycap.config.schema import check

DIM = 6


def regions(name: str, count: int | None = None, dim: int = DIM) -> np.ndarray:
    """Features (R,dim) that depend on the name alone; R from 1 to 5 unless given."""
    rng = np.random.default_rng(list(name.encode()))
    return rng.normal(size=(count or int(rng.integers(1, 6)), dim)).astype(np.float32)


def write_folder(folder: Path, names: Iterable[str], *, ending: str = ".npz", dim: int = DIM) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if ending == ".npz":
            np.savez_compressed(folder / f"{name}.npz", feat=regions(name, dim=dim))
        else:
            np.save(folder / f"{name}.npy", regions(name, dim=dim))
    return folder


def write_hdf5(file: Path, names: Iterable[str]) -> Path:
    with h5py.File(file, "w") as opened:
        for name in names:
            opened[f"{name}_features"] = regions(name)
            opened[f"{name}_boxes"] = np.zeros((1, 4))
    return file


def ids_of_data(overrides: list[str]) -> list[str]:
    """The ids of all images of the data that overrides of `easycap train` describe."""
    data = [o for o in overrides if o.startswith("data")]
    dataset = build("data", check(compose(data)[0])["data"], pixels=True)
    return [example.id for examples in dataset.splits.values() for example in examples]

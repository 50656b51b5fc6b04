"""Splits of images that have none: made by a hash of their ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from easycap.errors import UserError
from easycap.utils.string_column import StringColumn

SPLITS = ("train", "val", "test")
_TRAIN, _VAL, _TEST = range(3)


def check_shares(val_share: float, test_share: float) -> None:
    """Raise `UserError` unless both shares are positive and leave something to train on."""
    if min(val_share, test_share) <= 0 or val_share + test_share >= 1:
        raise UserError(
            f"data.val_share={val_share:g} and data.test_share={test_share:g} must be positive and below 1 together"
        )


def hashed_splits(ids: Sequence[str], *, seed: int, val_share: float, test_share: float) -> dict[str, str]:
    """Return {image: split} by `hashed_split`; only if there are fewer images than splits is one of them empty.

    A share of 0 is a split that is not made. Where a hash would leave a split empty, those closest go there.
    """
    ids = list(dict.fromkeys(ids))
    numbers = hashed_split_numbers(ids, len(ids), seed=seed, val_share=val_share, test_share=test_share)
    return {image_id: SPLITS[number] for image_id, number in zip(ids, numbers.tolist(), strict=True)}


def hashed_split_numbers(
    ids: Iterable[str], count: int, *, seed: int, val_share: float, test_share: float
) -> np.ndarray:
    """Return the splits of `count` images as `hashed_splits` does, as places in `SPLITS` (N,), int8."""
    places = _places(ids, count, seed)
    numbers = np.full(count, _TRAIN, np.int8)
    numbers[places < test_share + val_share] = _VAL
    numbers[places < test_share] = _TEST
    shares = {_TEST: test_share, _VAL: val_share, _TRAIN: 1.0}
    made = [split for split, share in shares.items() if share]
    there = np.bincount(numbers, minlength=len(SPLITS))
    if count >= len(made) and not all(there[split] for split in made):
        order = np.argsort(places, kind="stable")  # test, val, train
        for split, place in ((_TEST, 0), (_TRAIN, -1), (_VAL, int(there[_TEST] or test_share > 0))):
            if split in made and not (numbers == split).any():
                numbers[order[min(place, count - 2)]] = split
    return numbers


def hashed_split(image_id: str, *, seed: int, val_share: float, test_share: float) -> str:
    """Return the split of an image by a hash of `seed` and its id alone: it stays when other images come or go."""
    place = float(_places([image_id], 1, seed)[0])
    return "test" if place < test_share else "val" if place < test_share + val_share else "train"


def with_missing(
    splits: Mapping[str, np.ndarray], ids: StringColumn, *, seed: int, val_share: float, test_share: float
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the images of each split, places in `ids` (N,), and in words what was made up for missing splits.

    A missing val, and a test that is missing with it, is taken from train by `hashed_split_numbers`; else what is
    missing of val and test is the other one.
    """
    splits, notes = dict(splits), []
    train, test = splits["train"], splits["test"]
    if len(train) and not len(splits["val"]):
        shares = {"val_share": val_share, "test_share": 0.0 if len(test) else test_share}
        hashed = hashed_split_numbers(ids.at(train), len(train), seed=seed, **shares)
        splits |= {split: train[hashed == number] for number, split in enumerate(SPLITS)}
        splits["test"] = test if len(test) else splits["test"]
        taken = " and ".join(split for split in ("val", "test") if shares[f"{split}_share"])
        notes.append(
            f"the data has no split {taken}: taken from train by a hash of the ids (data.seed={seed})"
        )
    for split, other in (("test", "val"), ("val", "test")):
        if not len(splits[split]) and len(splits[other]):
            splits[split] = splits[other]
            notes.append(f"the data has no split {split}: {other} is {split} too")
    if not len(splits["train"]):
        notes.append("the data has no training images: models can be evaluated on it, not trained")
    return splits, notes


def _places(ids: Iterable[str], count: int, seed: int) -> np.ndarray:
    """Numbers from 0 to 1 (N,) that depend only on the seed and each id."""
    begun = hashlib.blake2b(f"{seed}/".encode(), digest_size=8)

    def digest(image_id: str) -> bytes:
        hashed = begun.copy()
        hashed.update(image_id.encode("utf-8", "surrogateescape"))
        return hashed.digest()

    digests = np.fromiter(map(digest, ids), np.dtype("S8"), count)
    return digests.view(">u8") / 2**64

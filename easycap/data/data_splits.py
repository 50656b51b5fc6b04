"""Splits of images that have none: made by a hash of their ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from easycap.errors import UserError

SPLITS = ("train", "val", "test")


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
    shares = {"test": test_share, "val": val_share, "train": 1.0}
    made = [split for split, share in shares.items() if share]
    places = sorted((_place(image_id, seed), image_id) for image_id in ids)
    splits = [_at(place, val_share, test_share) for place, _ in places]
    if len(splits) >= len(made):  # in the order of places: test, val, train
        for split, number in (("test", 0), ("train", -1), ("val", splits.count("test") or bool(test_share))):
            if split in made and split not in splits:
                splits[min(number, len(splits) - 2)] = split
    return {image_id: split for (_, image_id), split in zip(places, splits, strict=True)}


def hashed_split(image_id: str, *, seed: int, val_share: float, test_share: float) -> str:
    """Return the split of an image by a hash of `seed` and its id alone: it stays when other images come or go."""
    return _at(_place(image_id, seed), val_share, test_share)


def _place(image_id: str, seed: int) -> float:
    """A number from 0 to 1 that depends on seed and id alone."""
    digest = hashlib.blake2b(f"{seed}/{image_id}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _at(place: float, val_share: float, test_share: float) -> str:
    return "test" if place < test_share else "val" if place < test_share + val_share else "train"

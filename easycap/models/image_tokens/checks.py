"""Checks shared by the image token modes."""

from __future__ import annotations


def check_count(count: int) -> int:
    """Return `count`; `ValueError` unless it is at least 1."""
    if count < 1:
        raise ValueError(f"image_tokens.count={count} must be at least 1")
    return count

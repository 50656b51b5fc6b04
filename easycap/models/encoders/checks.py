"""Checks shared by the encoders."""

from __future__ import annotations


def check_regions(min_regions: int, max_regions: int) -> None:
    """Raise `ValueError` unless 1 <= min_regions <= max_regions."""
    if not 1 <= min_regions <= max_regions:
        raise ValueError(
            f"encoder.min_regions={min_regions} must be at least 1 and at most encoder.max_regions={max_regions}"
        )

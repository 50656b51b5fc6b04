"""Checks shared by the decoders."""

from __future__ import annotations


def check_positive(group: str, **sizes: int) -> None:
    """Raise `ValueError` naming the first of `sizes` that is below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{group}.{name}={value} must be at least 1")

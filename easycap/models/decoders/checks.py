"""Checks shared by the decoders."""

from __future__ import annotations


def check_positive(group: str, **sizes: int) -> None:
    """Raise `ValueError` naming the first of `sizes` that is below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{group}.{name}={value} must be at least 1")


def check_dropout(dropout: float) -> float:
    """Return `dropout`; `ValueError` unless it is a share below 1."""
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"decoder.dropout={dropout} must be in [0, 1)")
    return dropout

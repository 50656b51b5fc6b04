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


def check_transformer(width: int, num_heads: int, max_words: int, dropout: float) -> None:
    """Raise `ValueError` naming what does not fit a decoder with heads and sinusoid positions."""
    check_positive("decoder", width=width, num_heads=num_heads, max_words=max_words)
    check_dropout(dropout)
    if width % num_heads:
        raise ValueError(f"decoder.num_heads={num_heads} must divide decoder.width={width}")
    if width % 2:
        raise ValueError(f"decoder.width={width} must be even: a position is as many sines as cosines")

"""Checks of settings that several components of a model share."""

from __future__ import annotations

from easycap.errors import UserError


def check_positive(group: str, **sizes: int) -> None:
    """Raise `UserError` naming the first of `sizes` that is below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise UserError(f"{group}.{name}={value} must be at least 1")


def check_not_negative(group: str, **weights: float) -> None:
    """Raise `UserError` naming the first of `weights` that is below 0."""
    for name, value in weights.items():
        if value < 0:
            raise UserError(f"{group}.{name}={value} must not be negative (0: off)")


def check_dropout(dropout: float) -> float:
    """Return `dropout`; `UserError` unless it is a share below 1."""
    if not 0.0 <= dropout < 1.0:
        raise UserError(f"decoder.dropout={dropout} must be in [0, 1)")
    return dropout


def check_transformer(width: int, num_heads: int, max_length: int, dropout: float) -> None:
    """Raise `UserError` naming what does not fit a decoder with heads and sinusoid positions."""
    check_positive("decoder", width=width, num_heads=num_heads, max_length=max_length)
    check_dropout(dropout)
    if width % num_heads:
        raise UserError(f"decoder.num_heads={num_heads} must divide decoder.width={width}")
    if width % 2:
        raise UserError(f"decoder.width={width} must be even: a position is as many sines as cosines")


def check_regions(min_regions: int, max_regions: int) -> None:
    """Raise `UserError` unless 1 <= min_regions <= max_regions."""
    if not 1 <= min_regions <= max_regions:
        raise UserError(
            f"encoder.min_regions={min_regions} must be at least 1 and at most encoder.max_regions={max_regions}"
        )


def check_count(count: int) -> int:
    """Return `count`; `UserError` unless it is at least 1."""
    if count < 1:
        raise UserError(f"image_tokens.count={count} must be at least 1")
    return count

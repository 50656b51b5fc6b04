"""Damage to files as disks do it, and changes that are meant."""

from __future__ import annotations

from pathlib import Path

from easycap.utils.checksums import write_checksums


def flip_a_bit(path: Path) -> None:
    """Change the lowest bit of the byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path: Path, text: str) -> None:
    """Give a file of a checkpoint other content, as if it had been saved with it."""
    path.write_text(text, encoding="utf-8")
    write_checksums(path.parent)

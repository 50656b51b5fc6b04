"""What is wrong with a source's data: one bad image ends the reading, or is left out and listed."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from easycap.types import Finding


class OnBadImage(Enum):
    """What to do about an image that cannot be used: end with its name, or leave it out and list it."""

    error = "error"
    skip = "skip"


class Findings:
    """Collects what is wrong while a source is read; with OnBadImage.error the first image lost ends the reading.

    Without `pixels` nobody reads the files of images, and it does not matter whether they are there.
    """

    def __init__(self, on_bad_image: OnBadImage, *, pixels: bool = True) -> None:
        self.on_bad_image, self.pixels = on_bad_image, pixels
        self.found: list[Finding] = []

    def leave_out(self, split: str, image_id: str, file: Path, what: str) -> None:
        """Note an image or annotation that cannot be used; raises `ValueError` unless such are to be skipped."""
        if self.on_bad_image is OnBadImage.error:
            raise ValueError(
                f"{file} {what} (image {image_id!r} of {split}): mend it, or leave such images out with "
                "data.on_bad_image=skip; `easycap data check` lists them all"
            )
        self.found.append(Finding(split, image_id, str(file), what, True))

    def repaired(self, split: str, image_id: str, file: Path, what: str) -> None:
        """Note what was wrong and is not any more."""
        self.found.append(Finding(split, image_id, str(file), what, False))

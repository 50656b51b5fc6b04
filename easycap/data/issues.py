"""What is wrong with a source's data: one bad image ends the reading, or is dropped and listed."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path

from easycap.data.images import BadImage, bad_image_ends
from easycap.errors import UserError
from easycap.types import DataIssue
from easycap.utils.paths import path_text

_REMEDY = "with data.on_bad_image=skip; `easycap data check` lists them all"


class OnBadImage(Enum):
    """What to do about an image that cannot be used: end with its name, or drop it and list it."""

    error = "error"
    skip = "skip"


class UnreadImage(BadImage):
    """An image in a file that cannot be read over the network, or has changed; `what` is a whole sentence.

    Other than a bad image it is never skipped, and nothing about it is remembered.
    """

    def __str__(self) -> str:
        return self.what


def unread_or_bad(error: BadImage) -> UserError:
    """Return the error that ends a run at an image that cannot be read, with the remedy."""
    return UserError(error.what) if isinstance(error, UnreadImage) else bad_image_ends(error)


def grouped(issues: Iterable[DataIssue]) -> list[str]:
    """Return issues as sentences, in their order; those that differ in the image alone are one, with their number."""
    alike: dict[tuple[str, str], list[str]] = {}
    for issue in issues:
        alike.setdefault((issue.file, issue.what), []).append(issue.id)
    return [
        f"{file} {what}" + (f" ({len(ids):,}, e.g. {ids[0]!r})" if len(ids) > 1 else "")
        for (file, what), ids in alike.items()
    ]


class DataIssues:
    """Collects what is wrong while a source is read; with OnBadImage.error the first image lost ends the reading.

    Without `pixels` nobody reads the files of images, and it does not matter whether they are there.
    """

    def __init__(self, on_bad_image: OnBadImage, *, pixels: bool = True) -> None:
        self.on_bad_image, self.pixels = on_bad_image, pixels
        self._found: list[DataIssue] = []
        self._alike: dict[tuple[str, str], list[str]] = {}

    @property
    def found(self) -> list[DataIssue]:
        """All issues; similar ones are merged into one."""
        alike = [
            DataIssue("", ids[0], file, f"{what} ({len(ids):,}, e.g. {ids[0]!r})", False)
            for (file, what), ids in self._alike.items()
        ]
        return [*self._found, *alike]

    def drop(self, split: str, image_id: str, file: Path, what: str) -> None:
        """Record an unusable image or annotation; raises `UserError` unless on_bad_image=skip."""
        if self.on_bad_image is OnBadImage.error:
            raise UserError(
                f"{path_text(file)} {what} (image {image_id!r} of {split}): fix it, or skip such images {_REMEDY}"
            )
        self._found.append(DataIssue(split, image_id, path_text(file), what, True))

    def malformed(self, where: str, what: str) -> None:
        """Record an unreadable line or entry (`where`: file and place); raises `UserError` as `drop` does."""
        if self.on_bad_image is OnBadImage.error:
            raise UserError(f"{where} {what}: fix it, or skip such entries {_REMEDY}")
        self._found.append(DataIssue("", "", where, what, True))

    def fixed(self, split: str, image_id: str, file: Path, what: str) -> None:
        """Note what was wrong and is not any more."""
        self._found.append(DataIssue(split, image_id, path_text(file), what, False))

    def fixed_alike(self, image_id: str, file: Path, what: str) -> None:
        """Record a fixed problem that may affect every image: listed once, with the number of images."""
        self._alike.setdefault((path_text(file), what), []).append(image_id)

    def empty(self, split: str, file: Path, why: str, *, noted_as: str | None = None) -> None:
        """Record a split without images, and why; `noted_as` is the split's name in issues."""
        lost = [one for one in self._found if one.dropped and one.split == (noted_as or split)]
        reason = f"all of its images were skipped, e.g. {lost[0].file} {lost[0].what}" if lost else why
        self._found.append(
            DataIssue(split, "", path_text(file), f"has no images for the {split} split: {reason}", True)
        )

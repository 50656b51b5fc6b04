"""The error of an image that nothing can be said about, as what holds it cannot be read."""

from __future__ import annotations

from easycap.data.images import BadImage, bad_image_ends
from easycap.errors import UserError


class UnreadImage(BadImage):
    """An image in a file that cannot be read over the network, or has changed; `what` is a whole sentence.

    Other than a bad image it is never skipped, and nothing about it is remembered.
    """

    def __str__(self) -> str:
        return self.what


def unread_or_bad(error: BadImage) -> UserError:
    """Return the error that ends a run at an image that cannot be read, with the remedy."""
    return UserError(error.what) if isinstance(error, UnreadImage) else bad_image_ends(error)

"""Which columns of a data set of the library datasets hold the images, the captions and the ids."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from easycap.data.arrow_rows import Columns
from easycap.data.cells import column_of, is_pattern
from easycap.data.table_columns import guess_caption, samples_of
from easycap.errors import UserError
from easycap.registry import describe_choices

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

# Columns that may name an image, where they name each image alone.
_NAMES = ("file_name", "filename", "image_id", "img_id", "imgid", "cocoid", "image_name", "__key__")
_LONGEST_FIELD = 60  # letters; longer texts are not used to group scores


def columns_of(
    features: datasets.Features,
    entries: Iterable[Mapping[str, Any]],
    path: str,
    *,
    image: str | None,
    caption: str | None,
    id_column: str | None,
) -> Columns:
    """Return the columns of a set; those that are None are guessed, and the log says so.

    `entries` are some of its rows. Raises `UserError` for one that does not exist, and where none or
    several could be meant.
    """
    for setting, name in {"image_column": image, "caption_column": caption, "id_column": id_column}.items():
        base = column_of(name or "", features)
        if name is not None and base not in features and not is_pattern(base):
            raise UserError(
                f"data.{setting}={name}: {path} has no such column; {describe_choices(base, features)}"
            )
    chosen_image = image or _image_column(features, path)
    samples = samples_of({k: v for k, v in entry.items() if k != chosen_image} for entry in entries)
    chosen_caption = caption or guess_caption(samples, where=path)
    if image is None or caption is None:
        logger.info("images are taken from column %r, captions from %r", chosen_image, chosen_caption)
    names = [name for name in _NAMES if name in features and _is_plain(features[name])]
    used = {chosen_image, chosen_caption, id_column, *names[:1]}
    fields = [
        name for name, values in samples.items() if name not in used and _groups(features.get(name), values)
    ]
    return Columns(chosen_image, chosen_caption, id_column, names[0] if names else None, tuple(fields))


def _image_column(features: datasets.Features, path: str) -> str:
    found = [name for name, feature in features.items() if is_image(feature)]
    found = found or [
        name for name, feature in features.items() if str(getattr(feature, "dtype", "")) == "binary"
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(
            f"{path} has no column of images, only {', '.join(features)}: sets of URLs are downloaded first, e.g. by "
            "img2dataset, and then read by data=folder"
        )
    raise UserError(
        f"{path} has several columns of images: set data.image_column to one of {', '.join(found)}"
    )


def is_image(feature: object) -> bool:
    """Return whether a feature holds an image: the library's own, or a struct of bytes and path as it stores them."""
    return type(feature).__name__ == "Image" or (
        isinstance(feature, dict) and {"bytes", "path"} == set(feature)
    )


def _is_plain(feature: object) -> bool:
    return str(getattr(feature, "dtype", "")).startswith(("string", "large_string", "int", "uint"))


def _groups(feature: object, values: list) -> bool:
    """Whether the values of a column are short texts or whole numbers."""
    short = all(
        isinstance(value, int) or len(value) <= _LONGEST_FIELD for value in values if _is_short(value)
    )
    return feature is not None and _is_plain(feature) and bool(values) and short


def _is_short(value: object) -> bool:
    return isinstance(value, int | str)

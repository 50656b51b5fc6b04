"""The entries of a JSON file, whatever it is wrapped in.

Read are: a list of objects; such a list under the only key that holds one; splits as keys; COCO's `images` and
`annotations`, joined by `image_id`; {image: caption or captions, texts or objects}, also below a key; and
{column: list of values}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from easycap.data.issues import DataIssues
from easycap.data.table_columns import split_named
from easycap.errors import UserError
from easycap.utils.ids import KnownIds, plain_number, without_suffix

# What an entry of {image: caption} is made of.
KEY, VALUE = "image", "caption"
_SAMPLES = 200  # entries that a format is recognised by


class Entry(NamedTuple):
    """A row of a table or an object of a JSON file: where it stands, its values, and the split it stands under.

    `has_caption` is false for an image without annotations.
    """

    where: str
    values: Mapping[str, Any]
    split: str | None = None
    has_caption: bool = True


def json_entries(stored: Any, path: Path, issues: DataIssues, *, key: str | None = None) -> Iterator[Entry]:
    """Yield the entries of what a JSON file holds; `key` names the list where several could be meant.

    Raises `UserError` where no list of entries is found, or several.
    """
    if key is not None:
        yield from _below_key(stored, path, issues, key)
    elif isinstance(stored, list):
        yield from _objects(stored, str(path), issues)
    elif not isinstance(stored, dict) or not stored:
        raise UserError(
            f"{path} holds no captions: it must be a list of objects, or an object with such a list"
        )
    elif (lists := _lists_to_join(stored)) is not None:
        yield from _joined(stored, path, issues, lists)
    elif all(map(split_named, stored)):
        for name, part in stored.items():
            for entry in json_entries(part, path, issues):
                where = entry.where.replace(str(path), f"{path}, {name}", 1)
                yield entry._replace(where=where, split=split_named(name))
    else:
        yield from _from_object(stored, path, issues)


def _lists_to_join(stored: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """COCO's lists `images` and `annotations` and the key that joins them, or the only others that can be joined so:
    of objects with an id and an image's file name, and of objects that all have such an id under a key.
    """
    if isinstance(stored.get("images"), list) and isinstance(stored.get("annotations"), list):
        return "images", "annotations", "image_id"
    lists = [name for name, value in stored.items() if _is_list_of_objects(value)]
    of_images = [name for name in lists if any(map(_is_file_name, stored[name][0].values()))]
    pairs = [
        (one, other, key)
        for one in of_images
        for other in lists
        if other != one
        for key in _keys_to(stored[one], stored[other])
    ]
    return pairs[0] if len(pairs) == 1 else None


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and without_suffix(value) != value


def _keys_to(images: list[Any], others: list[Any]) -> list[str]:
    """The keys of `others` under which ids of `images` stand: those called an id, if there are any."""
    ids = {_id(image["id"]) for image in images if isinstance(image, dict) and "id" in image}
    first = [entry for entry in others[:_SAMPLES] if isinstance(entry, dict)]
    keys = [key for key in first[0] if key != "id" and all(_id(entry.get(key)) in ids for entry in first)]
    return [key for key in keys if key.lower().endswith("id")] or keys


def _from_object(stored: Mapping[str, Any], path: Path, issues: DataIssues) -> Iterator[Entry]:
    if _is_objects_by_image(stored):
        for name, value in stored.items():
            yield Entry(f"{path}, {name!r}", {KEY: name, VALUE: value})
        return
    lists = [name for name, value in stored.items() if _is_list_of_objects(value)]
    if len(lists) > 1:
        raise UserError(f"{path} has several lists of objects: set data.entries to one of {', '.join(lists)}")
    if lists:
        yield from _objects(stored[lists[0]], f"{path}, {lists[0]}", issues)
    elif (below := _captions_below(stored)) is not None:
        yield from _from_object(stored[below], path, issues)
    elif all(isinstance(value, dict) for value in stored.values()):
        for name, value in stored.items():
            yield Entry(f"{path}, {name!r}", {KEY: name} | value)
    elif _is_columns(stored):
        for number, values in enumerate(zip(*stored.values(), strict=True)):
            yield Entry(f"{path}, row {number}", dict(zip(stored, values, strict=True)))
    else:
        for name, value in stored.items():
            if isinstance(value, str | list):
                yield Entry(f"{path}, {name!r}", {KEY: name, VALUE: value})
            else:
                issues.malformed(f"{path}, {name!r}", "is neither a caption nor a list of captions")


def _captions_below(stored: Mapping[str, Any]) -> str | None:
    """The only key of an object that holds {image: caption or captions}, e.g. beside a version; None if none does."""
    objects = [name for name, value in stored.items() if isinstance(value, dict)]
    held = stored[objects[0]] if len(objects) == 1 and without_suffix(objects[0]) == objects[0] else {}
    texts = [value for value in held.values() if isinstance(value, str | list)]
    others = [value for value in stored.values() if isinstance(value, list)]
    return objects[0] if len(texts) == len(held) > 1 and not others else None


def _is_objects_by_image(stored: Mapping[str, Any]) -> bool:
    """Whether an object is {image: [{"raw": caption}, ...]}: all keys name images, and the objects do not."""
    if not all(isinstance(value, list) for value in stored.values()):
        return False
    first = next((value[0] for value in stored.values() if value), None)
    if not isinstance(first, dict) or any(map(_is_image_name, first.values())):
        return False
    return all(_is_image_name(name) or plain_number(name) is not None for name in stored)


def _is_image_name(value: Any) -> bool:
    return isinstance(value, str) and without_suffix(value) != value


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _is_columns(stored: Mapping[str, Any]) -> bool:
    """Whether an object is {column: values}: few keys, equally long lists, and a list of image names among them."""
    values = list(stored.values())
    if not all(isinstance(value, list) for value in values) or len({len(value) for value in values}) != 1:
        return False
    names = [
        name for name in stored if name.lower() in ("image", "file_name", "filename", "image_id", "file")
    ]
    return len(names) == 1


def _below_key(stored: Any, path: Path, issues: DataIssues, key: str) -> Iterator[Entry]:
    value = stored
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            there = ", ".join(map(str, value)) if isinstance(value, dict) else "no keys"
            raise UserError(f"{path} has no {name!r} (data.entries={key}); it has {there}")
        value = value[name]
    if not isinstance(value, list):
        raise UserError(f"{path}: data.entries={key} must name a list of objects")
    yield from _objects(value, f"{path}, {key}", issues)


def _objects(values: list[Any], where: str, issues: DataIssues) -> Iterator[Entry]:
    for number, value in enumerate(values):
        if isinstance(value, dict):
            yield Entry(f"{where}[{number}]", value)
        else:
            issues.malformed(
                f"{where}[{number}]", 'is not a JSON object, e.g. {"image": ..., "caption": ...}'
            )


def _joined(
    stored: Mapping[str, Any], path: Path, issues: DataIssues, lists: tuple[str, str, str]
) -> Iterator[Entry]:
    """Each annotation with the fields of its image; an image without annotations gives an entry of its own, and so
    does one with the id of another.
    """
    of_images, of_captions, key = lists
    images: dict[str, Entry] = {}
    alone: list[Entry] = []
    for entry in _objects(stored[of_images], f"{path}, {of_images}", issues):
        if entry.values.get("id") is None:
            has = "has no 'id'" if "id" not in entry.values else "has the 'id' null"
            issues.malformed(entry.where, f"{has}; it has {', '.join(map(repr, entry.values))}")
        elif images.setdefault(_id(entry.values["id"]), entry) is not entry:
            alone.append(entry)
    ids = (_id(one[key]) for one in stored[of_captions] if isinstance(one, dict) and key in one)
    unknown = dict.fromkeys(image_id for image_id in ids if image_id not in images)
    known = _known_ids(images) if unknown else None
    meant = known.resolve(unknown) if known else {}
    for name in meant:
        issues.fixed_alike(name, path, "has captions with differently written image ids: matched")
    annotated = set()
    for entry in _objects(stored[of_captions], f"{path}, {of_captions}", issues):
        image_id = _id(entry.values.get(key))
        image_id = meant.get(image_id, image_id)
        if image_id in images:
            annotated.add(image_id)
            yield entry._replace(values={**entry.values, **images[image_id].values})
        elif key in entry.values:
            hint = known.suggestion(image_id) if known else ""
            issues.malformed(entry.where, f"has captions of the unknown image {image_id!r}{hint}")
        else:
            issues.malformed(entry.where, f"has no {key!r}; it has {', '.join(map(repr, entry.values))}")
    alone += (entry for image_id, entry in images.items() if image_id not in annotated)
    yield from (entry._replace(has_caption=False) for entry in alone)


def _known_ids(images: Mapping[str, Entry]) -> KnownIds:
    """The ids of images; the names of an image's files stand for its id too."""
    names = {
        value: image_id
        for image_id, entry in images.items()
        for value in entry.values.values()
        if _is_file_name(value)
    }
    return KnownIds(images, names)


def _id(value: Any) -> str:
    number = plain_number(value) if not isinstance(value, str) or value.strip().isdecimal() else None
    return str(value) if number is None else number

"""Which column of a table holds the image, the caption and the split: guessed from names and sample values.

A guess is made only where exactly one column fits; otherwise a `UserError` lists the candidates and
the setting that decides. Columns are given as {name or path: sample values}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from easycap.data.cells import column_of, paths_of, texts_of
from easycap.errors import UserError
from easycap.utils.ids import without_suffix

Samples = Mapping[str, Sequence[Any]]

# Names of the splits as data sets spell them.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Words of column names, the more telling first.
_IMAGE_WORDS = (
    *("file_name", "filename", "image_file", "image_path", "img_path", "filepath", "image", "img"),
    *(
        "image_name",
        "img_name",
        "image_id",
        "img_id",
        "path",
        "file",
        "photo",
        "picture",
        "name",
        "key",
        "id",
    ),
)
_CAPTION_WORDS = (
    *("caption", "captions", "text", "texts", "sentence", "sentences", "raw", "caption_str", "report"),
    *("description", "descriptions", "title", "comment", "alt_text", "reference", "references"),
)
# The names of a field that says who speaks, and of those who answer.
_ROLE_WORDS = ("from", "role", "speaker")
_ANSWERING = ("gpt", "assistant", "model", "bot")
_SPLIT_WORDS = ("split", "subset", "partition", "set_name", "set", "part", "fold", "phase")
_URL = re.compile(r"[a-z]+://", re.IGNORECASE)
_WORDS = re.compile(r"\w+")
MOST_SAMPLES = 200


class SeveralCaptionColumns(UserError):
    """Several columns could be the captions: `columns`, one of which a setting must name."""

    def __init__(self, message: str, columns: Sequence[str]) -> None:
        super().__init__(message)
        self.columns = tuple(columns)


class TableColumns(NamedTuple):
    """The columns of a table by name or path; `split` is None if no column names the split."""

    image: str
    caption: str
    split: str | None

    def wanted(self) -> dict[str, str]:
        """Return {setting: column}."""
        return {f"{name}_column": column for name, column in self._asdict().items() if column}

    def describe(self) -> str:
        """Return the guess in words, for the log."""
        split = f", the split from {self.split!r}" if self.split else ""
        return f"images are taken from column {self.image!r}, captions from {self.caption!r}{split}"


def samples_of(entries: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return {path: values} of the first `MOST_SAMPLES` entries; nulls are left out."""
    samples: dict[str, list[Any]] = {}
    for _, entry in zip(range(MOST_SAMPLES), entries, strict=False):
        for path, value in paths_of(entry):
            column = samples.setdefault(path, [])
            if value is not None:
                column.append(value)
    return samples


def guess_columns(
    samples: Samples,
    *,
    where: str,
    image: str | None = None,
    caption: str | None = None,
    split: str | None = None,
    is_image: Callable[[str], bool] | None = None,
) -> TableColumns:
    """Return the columns of image, caption and split; those given are not guessed.

    `where` names the table in errors; `is_image` says whether a cell names an image that is there.
    Raises `UserError` where no column or several fit.
    """
    image = image or guess_image(samples, where=where, is_image=is_image)
    own = column_of(image, samples)
    rest = {name: values for name, values in samples.items() if name != own}
    split = split or guess_split(rest)
    caption = caption or guess_caption({n: v for n, v in rest.items() if n != split}, where=where)
    return TableColumns(image, caption, split)


def guess_image(
    samples: Samples,
    *,
    where: str,
    is_image: Callable[[str], bool] | None = None,
    setting: str = "image_column",
) -> str:
    """Return the column that names the images; of a list of views the first (`column[0]`).

    Before columns that are only called like one come those whose values are file names, and before
    these, with `is_image`, those that name an image that is there. Raises `UserError` for none or several.
    """
    views = {n: [_first_view(v) for v in values] for n, values in samples.items() if values}
    files = [name for name, values in views.items() if all(map(_is_file_name, values))]
    others = [name for name in views if name not in files]

    def there(names: Iterable[str]) -> list[str]:
        return [n for n in names if is_image and all(_named(v, is_image) for v in views[n])]

    called = _by_name(views, _IMAGE_WORDS)
    # Names of files first: they are looked for in their folders, all other texts among all images there are.
    found = there(files) or there(others) or files or called[:1]
    if len(found) > 1:
        same = len({tuple(map(_stem, views[name])) for name in found}) == 1
        named = [name for name in called if name in found]
        found = named[:1] if named and (same or len(named) == 1) else found
    name = _only(found, samples, where, setting, "the image")
    return f"{name}[0]" if any(isinstance(value, list) for value in samples[name]) else name


def guess_caption(samples: Samples, *, where: str, setting: str = "caption_column") -> str:
    """Return the column of captions: the one called like it, else the only one that holds sentences.

    Columns that differ in a number alone (caption_0, caption_1) are one, `caption_#`. Raises
    `UserError` for none or several.
    """
    texts = [name for name, values in samples.items() if values and all(map(_is_text, values))]
    sentences = [name for name in texts if _mean_words(samples[name]) >= 3]
    found = _numbered(_by_name(texts, _CAPTION_WORDS) or sentences)
    if len(found) > 1:  # a caption and its title: the one that is written in sentences
        found = [name for name in found if name in sentences] or found
    name = _only(found, samples, where, setting, "the captions")
    _check_no_dialogue(name, samples, where, setting)
    return name


def _check_no_dialogue(name: str, samples: Samples, where: str, setting: str) -> None:
    """Raise `UserError` if the texts of a path are turns of several speakers, of whom some only ask for a caption."""
    turns, _, field = name.rpartition("[].")
    for word in _ROLE_WORDS:
        speakers = samples.get(f"{turns}[].{word}") if turns else None
        who = list(dict.fromkeys(str(one) for row in speakers or () for one in row))
        if len(who) < 2:
            continue
        first = speakers[0] if speakers else []
        place = next((n for n, one in enumerate(first) if str(one).lower() in _ANSWERING), len(first) - 1)
        answer, speaking = f"{turns}[{place}].{field}", ", ".join(map(repr, who[:4]))
        raise UserError(
            f"{where}: {name!r} is a dialogue ({turns}[].{word}: {speaking}), and questions are not captions; set "
            f"data.{setting} to {answer!r} if that turn is always the caption"
        )


def guess_split(samples: Samples) -> str | None:
    """Return the column that names train, val or test in every row, None if there is none or several."""
    found = [
        name
        for name, values in samples.items()
        if values and _last(name) in _SPLIT_WORDS and all(_is_split(value) for value in values)
    ]
    return found[0] if len(found) == 1 else None


def split_named(value: Any) -> str | None:
    """Return train, val or test for any usual spelling of it, else None."""
    return SPLIT_NAMES.get(str(value).strip().lower())


def _is_split(value: Any) -> bool:
    return isinstance(value, str) and split_named(value) is not None


def _first_view(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and without_suffix(value) != value and not _URL.match(value)


def _named(value: Any, is_image: Callable[[str], bool]) -> bool:
    plain = isinstance(value, str | int) and not isinstance(value, bool)
    return plain and is_image(str(value))


def _stem(value: Any) -> str:
    return without_suffix(str(value).replace("\\", "/").rpartition("/")[2])


def _is_text(value: Any) -> bool:
    """Whether a cell holds captions: words, not a URL, a file or a number."""
    try:
        texts = texts_of(value)
    except ValueError:
        return True  # a list that is cut short: reading it says so
    return bool(texts) and all(isinstance(t, str) and _is_sentence(t) for t in texts)


def _is_sentence(text: str) -> bool:
    if _URL.match(text) or _is_file_name(text.strip()):
        return False
    # A caption of an emoji or a full stop alone is one that `data check` names, no reason to doubt its column.
    return any(letter.isalpha() for letter in text) or not any(letter.isdigit() for letter in text)


def _mean_words(values: Sequence[Any]) -> float:
    """Words per caption; writing without spaces counts every second letter."""
    texts = [text for value in values for text in texts_of_or_none(value)]
    words = [
        max(len(_WORDS.findall(t)), len(re.findall(r"[^\W\d_a-zA-Z\u00c0-\u1fff]", t)) / 2) for t in texts
    ]
    return sum(words) / max(1, len(words))


def texts_of_or_none(value: Any) -> list[str]:
    """Return the texts of a cell, none where it cannot be read."""
    try:
        return [text for text in texts_of(value) if isinstance(text, str)]
    except ValueError:
        return []


def _last(path: str) -> str:
    """The last name of a path, in lower case with _ between words."""
    name = re.sub(r"\[-?\d*\]", "", path).rpartition(".")[2].strip()
    return re.sub(r"[\s-]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)).lower()


def _by_name(names: Iterable[str], words: Sequence[str]) -> list[str]:
    """Those of `names` that are called by one of `words`, a number at the end aside, in the order of `words`."""
    places = {name: _last(name).rstrip("0123456789").rstrip("_") for name in names}
    places |= {name: _last(name) for name in places if _last(name) in words}
    return sorted((n for n, word in places.items() if word in words), key=lambda n: words.index(places[n]))


def _numbered(names: list[str]) -> list[str]:
    """`names`, or one pattern of `values_at` if they differ only in a number at the end."""
    stems = {name.rstrip("0123456789") for name in names}
    numbered = len(names) > 1 and len(stems) == 1 and all(name[-1].isdigit() for name in names)
    return [f"{stems.pop()}#"] if numbered else names


def _only(found: Sequence[str], samples: Samples, where: str, setting: str, what: str) -> str:
    if len(found) == 1:
        return found[0]
    there = ", ".join(map(repr, list(samples)[:12])) or "none"
    if not found:
        raise UserError(f"{where}: no column is recognised as {what}; set data.{setting} to one of {there}")
    message = (
        f"{where}: {' and '.join(map(repr, found))} could each be {what}; set data.{setting} to one of them"
    )
    raise SeveralCaptionColumns(message, found) if setting == "caption_column" else UserError(message)

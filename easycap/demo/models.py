"""What the page shows of a run, and a run's answer for a photo, as plain data."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from easycap.config.options import option_values, options
from easycap.demo.photos import Photo
from easycap.errors import UserError
from easycap.evaluation.attention_maps import why_no_attention
from easycap.predict import Caption, Captioner
from easycap.tasks.photo_captioning import CaptionPredictor

_NUM_TAGS = 12
_TEXTS = ("draft", "tags")
_LONGEST_TEXT = 2000  # characters
# One request must not take all memory, or the model for minutes.
_MOST = {"num_beams": 20, "rounds": 10}
# One caption is shown, and sampling draws new random numbers at each click.
_HIDDEN = frozenset({"name", "num_samples", "seed"})
_VALUE = re.compile(r"[-+.\w]{1,20}")


class DemoModel:
    """A run on the page, under `name`."""

    def __init__(self, name: str, captioner: Captioner) -> None:
        self.name, self.captioner, self.task = name, captioner, captioner.task
        self.captions = self.task.config["task"] == "caption"
        conditions = self.task.conditions if self.captions else {}
        self.reads = [text for text in _TEXTS if text in conditions]
        pipeline, config = self.task.pipeline, self.task.config
        why = why_no_attention(pipeline, config) if self.captions else ""
        self.no_attention = why.partition(":")[0]  # without what to train instead

    def describe(self) -> dict[str, Any]:
        """Return what the page shows of the run before there is a photo."""
        found: dict[str, Any] = {"name": self.name, "captions": self.captions}
        if self.captions:
            own = self.task.config["decoding"]
            rounds = self.task.config["refine"]["rounds"]
            found |= {"decoding": own["name"], "reads": self.reads, "rounds": rounds}
            found |= {"no_attention": self.no_attention}
        return found

    def answer(self, photo: Photo, fields: Mapping[str, str]) -> dict[str, Any]:
        """Return the caption of a photo with its details, or its tags; `fields` are those of the page's form.

        Raises `UserError` for fields that cannot be used.
        """
        start = time.perf_counter()
        if self.captions:
            found = self._caption(photo, _options(fields, self.reads))
        else:
            probabilities = self.captioner.tags(photo.content)
            assert isinstance(probabilities, dict)  # of one image
            found = {"tags": [[tag, value] for tag, value in list(probabilities.items())[:_NUM_TAGS]]}
        return found | {"seconds": round(time.perf_counter() - start, 2)}

    def _caption(self, photo: Photo, given: Mapping[str, Any]) -> dict[str, Any]:
        predictor = self.captioner.predictor(**given)
        assert isinstance(predictor, CaptionPredictor)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the notices, which the page shows itself
            caption: Caption = self.captioner.caption(photo.content, details=True, **given)
        starts = _starts_of_words(caption.text, caption.tokens)
        rows = zip(caption.tokens, caption.log_probabilities, caption.likeliest, starts, strict=True)
        return {
            "caption": caption.text,
            "log_probability": round(caption.log_probability, 3),
            "tokens": [
                {
                    "text": token,
                    "space": space,
                    "p": _probability(value),
                    "likeliest": [[text, _probability(one)] for text, one in likeliest],
                }
                for token, value, likeliest, space in rows
            ],
            "attention": self._maps(caption.attention, photo.preview.size),
            "notices": list(predictor.notices),
        }

    def _maps(self, attention: np.ndarray | None, size: tuple[int, int]) -> dict[str, Any] | None:
        """Maps (T,h,w) with where they lie, as left, top, right, bottom in shares of the photo; None without maps."""
        if attention is None or self.no_attention:
            return None
        window = self.task.pipeline.transform.window(size)
        return {
            "maps": [[[round(float(value), 5) for value in row] for row in one] for one in attention],
            "window": [round(edge / size[axis % 2], 5) for axis, edge in enumerate(window)],
        }


def decodings() -> dict[str, dict[str, Any]]:
    """Return {option of conf/decoding: {setting: its value}} with the settings that are numbers or switches."""
    found = {}
    for name in options("decoding"):
        values = option_values("decoding", name)
        fields = {str(key): values[key] for key in values if key not in _HIDDEN}
        kinds = int | float | bool | None
        found[name] = {key: value for key, value in fields.items() if isinstance(value, kinds)}
    return found


def named(folders: Sequence[Path]) -> list[str]:
    """Return a short name for each run: its folder's, with those above where two are alike."""
    depth = 1
    names = [folder.name for folder in folders]
    while len(set(names)) < len(set(folders)):
        depth += 1
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
    return names


def _options(fields: Mapping[str, str], reads: Sequence[str]) -> dict[str, Any]:
    """What `Captioner.caption` takes, from the fields of the form that are not empty."""
    found: dict[str, Any] = {}
    given = {key: value.strip() for key, value in fields.items() if value.strip()}
    for key in _TEXTS:
        text = given.pop(key, None)
        if text is not None and len(text) > _LONGEST_TEXT:
            raise UserError(f"{key} has {len(text):,} characters; at most {_LONGEST_TEXT:,} are read")
        if text is not None and key in reads:
            found[key] = text
    rounds = given.pop("rounds", None)
    if rounds is not None and "draft" in reads:
        found["rounds"] = _whole("rounds", rounds)
    decoding = given.pop("decoding", None)
    for key, value in given.items():
        if decoding is None:
            raise UserError(f"{key}={value} needs a decoding method: choose one")
        if not key.isidentifier() or not _VALUE.fullmatch(value):
            raise UserError(f"decoding.{key}={value} is not a number, true, false or null")
        if key in _MOST:
            _whole(key, value)
    if decoding is not None:
        settings = [f"{key}={value}" for key, value in given.items()]
        found["decoding"] = ",".join([decoding, *settings])
    return found


def _whole(key: str, value: str) -> int:
    if not value.isdecimal() or int(value) > _MOST[key]:
        raise UserError(f"{key}={value} must be a whole number, on this page at most {_MOST[key]}")
    return int(value)


def _probability(log_probability: float) -> float:
    return round(float(np.exp(log_probability)), 5)


def _starts_of_words(text: str, tokens: Sequence[str]) -> list[bool]:
    """Return for each token whether a space goes before it in the text; a piece of a word follows without one."""
    found, end = [], 0
    for token in tokens:
        start = text.find(token, end) if token else -1
        between = text[end:start] if start >= 0 else "?"
        if between.strip():  # not the next piece of the text: the end token, half a character
            found.append(token == "<eos>")
            continue
        found.append(bool(between))
        end = start + len(token)
    return found

"""Every registered vocabulary at toy size: a new one needs a row in TINY."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers.tiny_tokenizers import CAPTIONS, tiny_bert, tiny_gpt2, tiny_language_model_tokenizer

from easycap.registry import lookup
from easycap.types import Vocabulary

TINY: dict[str, Callable[[], dict]] = {
    "word": lambda: {"size": 100, "min_count": 1, "captions": CAPTIONS, "segmenter": "spaces"},
    "gpt2": lambda: {"path": str(tiny_gpt2()), "segmenter": "spaces", "end": None},
    "pretrained": lambda: {"path": str(tiny_language_model_tokenizer()), "segmenter": "spaces"},
    "bert": lambda: {"path": str(tiny_bert()), "segmenter": "spaces"},
}


_MADE: dict[str, Vocabulary] = {}


def tiny_vocabulary(name: str) -> Vocabulary:
    if name not in TINY:
        pytest.fail(f"vocabulary {name!r} has no row in TINY: add its constructor arguments at toy size")
    return _MADE.setdefault(name, lookup("vocab", name)(**TINY[name]()))

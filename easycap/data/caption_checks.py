"""A caption as it is stored: one line in NFC; and whether a metric finds a word in it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from easycap.metrics.tokenizer import tokenize

# What is wrong with a caption; the flags of one are added.
NOT_TEXT, EMPTY, LINES, WORDLESS, SURROGATES = 1, 2, 4, 8, 16

# All that str.splitlines ends a line at, and tabs.
_SEPARATORS = re.compile(r"[\n\r\t\v\f\x1c-\x1e\x85\u2028\u2029]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# A word between spaces is a token whatever stands around it; to look for one is quicker than to tokenise.
_PLAIN_WORD = re.compile(r"(?:^| )[A-Za-z]{2,}(?: |$)")


def cleaned(text: Any) -> tuple[str, int]:
    """Return a caption as one line in NFC, "" if nothing is left, and its flags NOT_TEXT, EMPTY, LINES or SURROGATES.

    In NFC "é" is one word with "e" and an accent. COCO captions that merely end with a line break are not
    reported. A lone surrogate, as JSON has when an emoji was cut in half, becomes the replacement character, because
    UTF-8 cannot encode it.
    """
    if not isinstance(text, str):
        return "", NOT_TEXT
    if _SURROGATE.search(text):
        whole = text.encode("utf-16-le", "surrogatepass").decode(
            "utf-16-le", "replace"
        )  # halves that belong together
        caption, flags = cleaned(whole)
        return caption, flags | SURROGATES
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = text.strip()
    if not text:
        return "", EMPTY
    if not text.isprintable() and _SEPARATORS.search(text):
        return " ".join(text.split()), LINES
    return text, 0


def are_clean(captions: Sequence[str]) -> bool:
    """Return whether none of `captions`, which are stripped, has a flag, and `cleaned` changes none.

    This is quicker than asking for each one.
    """
    whole = "\n".join(captions)
    return (
        all(captions)
        and unicodedata.is_normalized("NFC", whole)
        and whole.count("\n") == len(captions) - 1
        and (whole.replace("\n", " ").isprintable() or not _SEPARATORS.search(whole.replace("\n", " ")))
        and (all(map(_PLAIN_WORD.search, captions)) or all(map(has_word, captions)))
    )


def has_word(caption: str) -> bool:
    """Return whether a caption contains a word according to the metrics; others cannot be scored."""
    return _PLAIN_WORD.search(caption) is not None or bool(tokenize(caption))

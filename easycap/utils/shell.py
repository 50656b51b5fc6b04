"""Words of a command as one would type them in a shell: in quotes only where it needs them."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Letters of any language need no quotes. Some shells expand an equals sign at the beginning.
_PLAIN = re.compile(r"[\w@%+:,./-][\w@%+:,./=-]*")
_SPECIAL_IN_DOUBLE_QUOTES = re.compile(r'["$`\\!]')


def quoted(word: str) -> str:
    """Return a word as it is if the shell takes it so, else in single quotes, or in double ones if it has single ones:
    data.root=DIR, 'a b.jpg', "data.captions='a, b.csv'".
    """
    if _PLAIN.fullmatch(word):
        return word
    if "'" in word and not _SPECIAL_IN_DOUBLE_QUOTES.search(word):
        return f'"{word}"'
    return "'" + word.replace("'", """'"'"'""") + "'"


def joined(words: Iterable[str]) -> str:
    """Return words as one line for a shell, which shlex.split splits into the same words."""
    return " ".join(map(quoted, words))

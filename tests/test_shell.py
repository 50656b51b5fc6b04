"""Commands are shown as one would type them, and mean the same when they are pasted."""

from __future__ import annotations

import shlex

import pytest

from easycap.utils.shell import joined, quoted


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("image_tokens=split,resampler", "image_tokens=split,resampler"),
        ("data.root=/fotos/öl+2@50%", "data.root=/fotos/öl+2@50%"),
        ("a photo.jpg", "'a photo.jpg'"),
        ("data.captions='a, b.csv'", "\"data.captions='a, b.csv'\""),
        ("it's $5", """'it'"'"'s $5'"""),
        ("optim.lr=interval(1e-4,1e-2)", "'optim.lr=interval(1e-4,1e-2)'"),
        ("~tags", "'~tags'"),
        ("data.root=~/x", "'data.root=~/x'"),
        ("=ls", "'=ls'"),
        ("", "''"),
    ],
)
def test_words_are_quoted_only_where_needed(word: str, shown: str) -> None:
    assert quoted(word) == shown and shlex.split(shown) == [word]


def test_a_line_splits_into_the_same_words() -> None:
    words = ["a b", "it's", 'say "hi"', "`x`", "$HOME", "back\\slash", "wow!", "new\nline", "'"]
    assert shlex.split(joined(words)) == words

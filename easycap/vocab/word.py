"""A vocabulary of the most frequent words of the training captions."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from easycap.registry import register
from easycap.vocab.files import words_as_pieces

_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
_SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")


@register("vocab", "word")
class WordVocabulary:
    """Lower-cased words <-> ids; ids 0..3 are pad, bos, eos and unk, then words by falling frequency.

    A word is a run of letters and digits, joined by inner apostrophes, hyphens or dots; other punctuation is
    dropped. Of the words of `captions` seen at least `min_count` times the `size` most frequent are kept (special
    ids not counted); equal counts go in alphabetical order, so the ids depend on the captions alone.
    """

    pad_id, bos_id, eos_id, unk_id = range(4)

    def __init__(self, *, size: int, min_count: int, captions: Iterable[str]) -> None:
        if size < 1:
            raise ValueError(f"vocab.size={size} must be at least 1 (15000 on COCO)")
        if min_count < 1:
            raise ValueError(f"vocab.min_count={min_count} must be at least 1")
        counts = Counter(word for caption in captions for word in split_words(caption))
        kept = sorted((-count, word) for word, count in counts.items() if count >= min_count)[:size]
        if not kept:
            raise ValueError(
                f"no word is seen {min_count} times in the training captions: lower vocab.min_count"
            )
        self._number([*_SPECIAL, *(word for _, word in kept)])

    def _number(self, words: list[str]) -> None:
        self.words = words
        self._ids = {word: index for index, word in enumerate(words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """Return the ids of the words of `text`, without special ids but with unk for words it does not know."""
        return [self._ids.get(word, self.unk_id) for word in split_words(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the words up to the first eos, joined by spaces; pad and bos are skipped."""
        words = []
        for index in ids:
            if index == self.eos_id:
                break
            if index not in (self.pad_id, self.bos_id):
                words.append(self.words[index])
        return " ".join(words)

    def pieces(self, tokenizer: Tokenizer) -> list[list[int]]:
        """Return each id as pieces of `tokenizer`: words as in running text, none for special ids."""
        said = words_as_pieces(tokenizer)
        return [[] for _ in _SPECIAL] + [said(f" {word}") for word in self.words[len(_SPECIAL) :]]

    def save(self, folder: Path) -> None:
        """Write vocab.json into `folder`."""
        text = json.dumps({"type": "word", "words": self.words[len(_SPECIAL) :]}, ensure_ascii=False)
        (Path(folder) / "vocab.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> WordVocabulary:
        """Return the vocabulary that `save` wrote into `folder`."""
        vocabulary = cls.__new__(cls)  # its words are chosen already
        stored = json.loads((Path(folder) / "vocab.json").read_text(encoding="utf-8"))
        vocabulary._number([*_SPECIAL, *stored["words"]])
        return vocabulary


def split_words(text: str) -> list[str]:
    """Return the lower-cased words of a caption in order."""
    return _WORD.findall(text.lower())

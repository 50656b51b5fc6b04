"""A vocabulary of the most frequent words of the training captions."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from tokenizers import Tokenizer

from easycap.errors import UserError
from easycap.registry import register
from easycap.utils.files import read_mapping
from easycap.utils.segmenters import SPACES
from easycap.utils.segmenters import segmenter as find_segmenter
from easycap.vocab.tokenizer_files import subword_encoder

# Vocabularies saved before there was a number: words ended at combining marks.
_OLD_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
# Key in vocab.json for how its words were split.
_SPLIT = 2
_SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")


@register("vocab", "word")
class WordVocabulary:
    """Lower-cased words <-> ids; ids 0..3 are pad, bos, eos and unk, then words by falling frequency.

    A word is a run of letters, digits and combining marks in NFC, joined by inner apostrophes, hyphens or dots;
    other punctuation is dropped. Of the words of `captions` seen at least `min_count` times the `size` most frequent
    are kept (special ids not counted); equal counts go in alphabetical order, so the ids depend on the captions alone.
    Captions in scripts without spaces are cut into words by `segmenter` first, and written without spaces again.
    """

    pad_id, bos_id, eos_id, unk_id = range(4)

    def __init__(self, captions: Iterable[str], *, size: int, min_count: int, segmenter: str) -> None:
        if size < 1:
            raise UserError(f"vocab.size={size} must be at least 1 (15000 on COCO)")
        if min_count < 1:
            raise UserError(f"vocab.min_count={min_count} must be at least 1")
        self._split, self._segmenter = split_words, find_segmenter(segmenter)
        counts = Counter(chain.from_iterable(map(self.split, captions)))
        kept = sorted((-count, word) for word, count in counts.items() if count >= min_count)[:size]
        if not kept:
            raise UserError(
                f"no word occurs {min_count} times in the training captions: lower vocab.min_count"
            )
        self._number([*_SPECIAL, *(word for _, word in kept)])

    @classmethod
    def of_words(cls, words: Sequence[str]) -> WordVocabulary:
        """Return the vocabulary of these words, special ids not among them, in this order of ids.

        Raises `UserError` for a word that is there twice.
        """
        if len({*words, *_SPECIAL}) < len(words) + len(_SPECIAL):
            twice = [word for word, count in Counter([*words, *_SPECIAL]).items() if count > 1]
            raise UserError(f"the vocabulary has the word {twice[0]!r} twice")
        vocabulary = cls.__new__(cls)
        vocabulary._split, vocabulary._segmenter = split_words, SPACES
        vocabulary._number([*_SPECIAL, *words])
        return vocabulary

    def _number(self, words: list[str]) -> None:
        self.words = words
        self._ids = {word: index for index, word in enumerate(words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """Return the ids of the words of `text`, without special ids but with unk for words it does not know."""
        return [self._ids.get(word, self.unk_id) for word in self.split(text)]

    def split(self, text: str) -> list[str]:
        """Return the words of a caption in order."""
        return self._split(self._segmenter(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the words up to the first eos, as one writes them; pad and bos are skipped."""
        words = []
        for index in ids:
            if index == self.eos_id:
                break
            if index not in (self.pad_id, self.bos_id):
                words.append(self.words[index])
        return self._segmenter.join(words)

    def subword_ids(self, tokenizer: Tokenizer) -> list[list[int]]:
        """Return the ids of each token in `tokenizer`: words as in running text, none for special ids."""
        encode = subword_encoder(tokenizer)
        return [[] for _ in _SPECIAL] + [encode(f" {word}") for word in self.words[len(_SPECIAL) :]]

    def save(self, folder: Path) -> None:
        """Write vocab.json into `folder`."""
        stored: dict[str, object] = {"type": "word", "words": self.words[len(_SPECIAL) :]}
        if self._split is split_words:
            stored["split"] = _SPLIT
        if self._segmenter is not SPACES:
            stored["segmenter"] = self._segmenter.name
        text = json.dumps(stored, ensure_ascii=False)
        (Path(folder) / "vocab.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> WordVocabulary:
        """Return the vocabulary that `save` wrote into `folder`; it splits captions as when it was built."""
        vocabulary = cls.__new__(cls)  # its words are chosen already
        stored = read_mapping(Path(folder) / "vocab.json")
        if not isinstance(stored.get("words"), list):
            raise UserError(f"{Path(folder) / 'vocab.json'} is damaged (it holds no list 'words')")
        vocabulary._split = split_words if "split" in stored else _old_words
        vocabulary._segmenter = find_segmenter(stored.get("segmenter", SPACES.name))
        vocabulary._number([*_SPECIAL, *stored["words"]])
        return vocabulary


class _Shapes(dict[int, str]):
    """What each character is to a word: "a" a letter or a digit, "m" a combining mark, else itself."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character.isalnum():
            self[code] = "a"
        elif unicodedata.category(character).startswith("M"):
            self[code] = "m"
        else:
            # The letters of shapes must come from letters alone.
            self[code] = character
        return self[code]


_SHAPES = _Shapes()
# Joiners shape letters (Persian, Sinhala, Malayalam); they occur inside words, or at the end after a mark.
_RUN = "a(?:[am]|[\u200c\u200d](?=[am])|(?<=m)\u200d)*"
# Inner signs: apostrophes, hyphens, dots, those of Catalan, Hebrew, Armenian, Tibetan and Japanese.
_INNER = "['’.\u2010\u2011\u00b7\u055a-\u055e\u058a\u05be\u05f3\u05f4\u066b\u066c\u0f0b\u0f0c\u30fb-]"
_WORD = re.compile(f"{_RUN}(?:{_INNER}{_RUN})*")
# Invisible and not part of the spelling: soft hyphens, byte order marks, direction marks.
_UNSEEN = re.compile("[\xad\u2060\ufeff\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")


def split_words(text: str) -> list[str]:
    """Return the lower-cased words of a caption in order, in Unicode's composed form (NFC).

    A combining mark is part of its word, in every script. In scripts without spaces, a "word" is everything between
    spaces or punctuation.
    """
    if text.isascii():
        return _OLD_WORD.findall(text.lower())
    text = unicodedata.normalize("NFC", _UNSEEN.sub("", text).lower())
    return [text[match.start() : match.end()] for match in _WORD.finditer(text.translate(_SHAPES))]


def _old_words(text: str) -> list[str]:
    return _OLD_WORD.findall(text.lower())

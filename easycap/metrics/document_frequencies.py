"""In how many images' references an n-gram occurs: what weighs the n-grams of CIDEr-D.

A CIDEr-D without its document frequencies is not a number: the same captions score .79 with their own, .86
with another split's. So they are an object of their own, with a source and N, saved and loaded.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from easycap.errors import UserError
from easycap.metrics.ngrams import MAX_N, NgramCounts, NgramTree, count_ngrams, distinct
from easycap.metrics.tokenizer import tokenize
from easycap.utils import paths
from easycap.utils.cache import cached_dir, digest_of
from easycap.utils.segmenters import SPACES, Segmenter

# The end token. A caption cannot contain it: the tokeniser cuts a lone control character off.
EOS = "\x03"


@dataclass(frozen=True)
class DocumentFrequencies:
    """n-grams of 1 to 4 words and how many of `num_documents` images use each.

    counts: per n (G,), in the order of the tree's keys; eos: whether every reference ended with an end token.
    """

    tree: NgramTree
    counts: tuple[np.ndarray, ...]
    num_documents: int
    source: str
    eos: bool = False

    @classmethod
    def from_references(
        cls,
        references: Iterable[Sequence[str]],
        *,
        source: str,
        eos: bool = False,
        segmenter: Segmenter = SPACES,
    ) -> DocumentFrequencies:
        """Count each image's references (raw text) as one document; `source` names them, e.g. "train"."""
        end = [EOS] if eos else []
        documents = [[tokenize(segmenter(text)) + end for text in texts] for texts in references]
        owners = np.repeat(np.arange(len(documents)), [len(texts) for texts in documents])
        counts = count_ngrams([tokens for texts in documents for tokens in texts])
        return cls.from_counts(counts, owners, len(documents), source=source, eos=eos)

    @classmethod
    def from_counts(
        cls, counts: NgramCounts, owners: np.ndarray, num_documents: int, *, source: str, eos: bool = False
    ) -> DocumentFrequencies:
        """The same from counted sentences (S); owners (S,) is the document of each, numbered from 0."""
        frequencies = []
        for level in counts.levels:
            pairs = distinct(level.grams * num_documents + owners[level.sentences])
            frequencies.append(np.bincount(pairs // max(1, num_documents), minlength=len(level.keys)))
        return cls(counts.tree, tuple(frequencies), num_documents, source, eos)

    @classmethod
    def cached(
        cls,
        references: Sequence[Sequence[str]],
        *,
        source: str,
        eos: bool = False,
        segmenter: Segmenter = SPACES,
    ) -> DocumentFrequencies:
        """Return `from_references`, read from the user's cache if they have been counted before."""
        texts = ("\0".join(of) + "\0" for of in references)
        name = "document_frequencies_eos" if eos else "document_frequencies"
        named = chain([segmenter.signature], texts) if segmenter.signature else texts
        folder = paths.cache_dir() / name / digest_of(named, code=Path(__file__).parent)
        file = f"{source}.npz"
        cached_dir(
            folder,
            lambda new: cls.from_references(references, source=source, eos=eos, segmenter=segmenter).save(
                new / file
            ),
        )
        return cls.load(folder / file)

    def idf(self, tree: NgramTree) -> list[np.ndarray]:
        """Return per n the weight (G,) of each n-gram of `tree`: log N - log max(1, df)."""
        places = [np.arange(len(k)) for k in tree.keys] if tree is self.tree else self.tree.find(tree)
        total = np.log(max(1, self.num_documents))
        return [total - self._logs(n, found) for n, found in enumerate(places)]

    def _logs(self, n: int, found: np.ndarray) -> np.ndarray:
        # The 0 appended stands at index -1: what is not here.
        return np.log(np.maximum(1, np.append(self.counts[n], 0)[found]))

    @cached_property
    def signature(self) -> str:
        """Source and N, and for fixed frequencies a digest, since two training sets may share both."""
        if self.source == "refs":
            return f"refs,N={self.num_documents}"
        digest = hashlib.blake2b(digest_size=4)
        for word in self.tree.vocabulary:
            digest.update(word.encode("utf-8", "surrogatepass") + b"\0")
        for array in (*self.tree.keys, *self.counts):
            digest.update(np.ascontiguousarray(array, "<i8").tobytes())
        return f"{self.source},N={self.num_documents},{digest.hexdigest()}"

    def save(self, path: Path) -> None:
        """Write a .npz file without pickles; equal frequencies give equal contents."""
        words = np.frombuffer("\n".join(self.tree.vocabulary).encode("utf-8", "surrogatepass"), np.uint8)
        arrays: dict[str, Any] = {"words": words}
        arrays |= {"num_documents": self.num_documents, "eos": self.eos, "source": self.source}
        arrays |= {f"keys{n}": keys for n, keys in enumerate(self.tree.keys, 1)}
        arrays |= {f"counts{n}": counts for n, counts in enumerate(self.counts, 1)}
        with open(path, "wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> DocumentFrequencies:
        """Read what `save` wrote; raises `UserError` for another file, `OSError` if it cannot be read."""
        try:
            with np.load(path, allow_pickle=False) as file:
                words = file["words"].tobytes().decode("utf-8", "surrogatepass").split("\n")
                keys = tuple(file[f"keys{n}"] for n in range(1, MAX_N + 1))
                counts = tuple(file[f"counts{n}"] for n in range(1, MAX_N + 1))
                facts = (int(file["num_documents"]), str(file["source"]), bool(file["eos"]))
        except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{str(path)!r} holds no document frequencies; write them with save()") from error
        vocabulary = {word: number for number, word in enumerate(words)} if len(keys[0]) else {}
        return cls(NgramTree(vocabulary, keys), counts, *facts)

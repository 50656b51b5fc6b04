"""`captioner.word_vectors`: a decoder's word embeddings start from the table of a language model or a BERT."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import nn

from easycap.errors import UserError
from easycap.models.decoders.token_embedding import means_of_subwords
from easycap.types import Vocabulary
from easycap.utils.hub import fetch, in_one_line
from easycap.utils.transformers_adapter import word_table_name
from easycap.vocab.tokenizer_files import read_tokenizer

logger = logging.getLogger(__name__)

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"  # {weight_map: {tensor: file}} of weights in several files


class WordVectors(NamedTuple):
    """The input embeddings (P,D) of a model, its tokenizer, and the id of what that has no token for, or None."""

    table: torch.Tensor
    tokenizer: Tokenizer
    unk_id: int | None


def read_word_vectors(source: str) -> WordVectors:
    """Return those of `source`, a name on the hub or a folder; of its weights nothing else is read.

    Raises `UserError` if it has no readable tokenizer or table.
    """
    try:
        tokenizer = read_tokenizer(source)
        table = _read_table(source, word_table_name(source))
    except (OSError, ValueError, KeyError, NotImplementedError, SafetensorError) as error:
        raise UserError(
            f"captioner.word_vectors={source!r} has no readable word embeddings ({in_one_line(error)}): pass a "
            "language model or a BERT, a name on the hub or a folder with config.json, model.safetensors and "
            "tokenizer.json"
        ) from error
    return WordVectors(table, tokenizer, _unk_id(tokenizer))


def _unk_id(tokenizer: Tokenizer) -> int | None:
    """The id of text without a token; Unigram has the id itself."""
    model = json.loads(tokenizer.to_str())["model"]
    token = model.get("unk_token")
    return model.get("unk_id") if token is None else tokenizer.token_to_id(token)


def _read_table(source: str, name: str) -> torch.Tensor:
    """The tensor `name` in fp32; heads of a model put a prefix before it ("bert.", "model.")."""
    for file in _weight_files(source, name):
        with safe_open(file, framework="pt") as opened:
            found = [key for key in opened.keys() if f".{key}".endswith(f".{name}")]  # noqa: SIM118  it is not a dict
            if found:
                return opened.get_tensor(min(found, key=len)).float()
    raise UserError(f"its weights hold no {name}")


def _weight_files(source: str, name: str) -> list[Path]:
    try:
        return fetch(source, _WEIGHTS)
    except OSError as error:
        try:
            (index,) = fetch(source, _INDEX)
        except OSError:
            raise error from None
    files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    return fetch(source, *sorted({file for key, file in files.items() if key.endswith(name)}))


@torch.no_grad()
def start_from_word_vectors(
    embedding: nn.Embedding, vocabulary: Vocabulary, source: str, *, seed: int
) -> None:
    """Start the rows (V,E) of `embedding` at those of `source`, each word at the mean of its subwords' rows (D).

    The rows are centred, reduced to their first E principal components if they are wider, turned at random (by `seed`)
    into E dimensions, and each scaled to the root mean square length of the rows that they replace: the angles between
    words are theirs, lengths and the spread over dimensions those of a random start. In a tied output layer lengths of
    their own, which follow a word's frequency, would predict words before any training. Special tokens, and words that
    `source` has no subwords for, keep their random rows. No number is drawn from torch's own generator, so that all
    other weights start as without. Raises `UserError` if there is no table, or one that does not fit.
    """
    vectors = read_word_vectors(source)
    subword_ids = _subword_ids(vocabulary, vectors)
    largest = max((index for ids in subword_ids for index in ids), default=0)
    if largest >= len(vectors.table):
        raise UserError(
            f"captioner.word_vectors={source!r} has word embeddings for {len(vectors.table):,} tokens, but its "
            f"tokenizer has the id {largest}: the files are not of one model"
        )
    known = [word for word, ids in enumerate(subword_ids) if ids]
    if len(known) < 2:
        raise UserError(
            f"captioner.word_vectors={source!r} has none of the vocabulary's words: use another model"
        )
    means = means_of_subwords(vectors.table, [subword_ids[word] for word in known])
    rows, share = _resized(means, embedding.embedding_dim, seed)
    replaced = embedding.weight[known]
    length = replaced.norm(dim=1).square().mean().sqrt()
    embedding.weight[known] = nn.functional.normalize(rows).to(replaced) * length
    logger.info(
        "%d of %d word embeddings start from %s: %d dimensions with %.0f%% of the variance of its %d",
        *(len(known), len(subword_ids), source, embedding.embedding_dim, 100 * share, means.shape[1]),
    )


def _subword_ids(vocabulary: Vocabulary, vectors: WordVectors) -> list[list[int]]:
    """For each id of the vocabulary the rows that it starts at the mean of; none for those that stay random."""
    special = {vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id}
    return [
        [] if word in special else [index for index in ids if index != vectors.unk_id]
        for word, ids in enumerate(vocabulary.subword_ids(vectors.tokenizer))
    ]


def _resized(rows: torch.Tensor, width: int, seed: int) -> tuple[torch.Tensor, float]:
    """rows (P,D) -> their first principal components turned at random (P,width), and their share of the variance."""
    centred = rows - rows.mean(0)
    variances, directions = torch.linalg.eigh((centred.T @ centred).double())  # in rising order
    kept = directions[:, -width:]  # (D,K)
    drawn = torch.randn(
        width, kept.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    turned = torch.linalg.qr(drawn).Q.T  # (K,width), orthonormal rows
    return centred @ (kept @ turned).float(), float(variances[-width:].sum() / variances.sum())

"""Where the words of a new vocabulary start in the table of a trained language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from easycap.errors import UserError
from easycap.models.stored_weights import in_own_precision
from easycap.utils.transformers_adapter import LanguageModel, initial_std


def means_of_subwords(table: torch.Tensor, subword_ids: Sequence[Sequence[int]]) -> torch.Tensor:
    """table (P,D), V lists of its rows -> (V,D), the mean of each list; of the whole table for an empty list."""
    rows = torch.tensor([row for one in subword_ids for row in one], dtype=torch.long)
    lengths = torch.tensor([len(one) for one in subword_ids])
    means = nn.functional.embedding_bag(rows, table, lengths.cumsum(0) - lengths, mode="mean")
    means[lengths == 0] = table.mean(0)
    return means


def check_embedding(embedding: str, pretrained: str | None) -> None:
    """Raise `UserError` unless decoder.embedding is auto, random, or pretrained with a language model to take it of."""
    if embedding not in ("auto", "pretrained", "random"):
        raise UserError(f"decoder.embedding={embedding} must be auto, pretrained or random")
    if embedding == "pretrained" and pretrained is None:
        raise UserError(
            "decoder.embedding=pretrained needs a language model's table: set decoder.pretrained to a name on the hub "
            "or a folder, or decoder.embedding=random"
        )


def _check_ids_fit(lm: LanguageModel, subword_ids: list[list[int]], special: dict[int, int | None]) -> None:
    """Raise `UserError` if words would start at rows that the model's table does not have."""
    rows = len(lm.get_input_embeddings().weight)
    of_words = max((index for ids in subword_ids for index in ids), default=0)
    of_config = max((own for own in special.values() if isinstance(own, int)), default=0)
    for whose, index in (("tokenizer", of_words), ("config (bos or eos)", of_config)):
        if index >= rows:
            raise UserError(
                f"the language model of decoder.pretrained has word vectors for {rows:,} tokens, but its "
                f"{whose} has the id {index}: the folder's files are not of one model; give all of the same, or set "
                "decoder.embedding=random"
            )


def start_words(
    lm: LanguageModel,
    vocab_size: int,
    subword_ids: list[list[int]] | None,
    special: dict[int, int | None],
    *,
    pad_id: int,
) -> None:
    """Give a Hugging Face language model a table of `vocab_size` words, in the input and in the output layer.

    With `subword_ids`, for each word its ids in the model's own vocabulary, a word starts at their mean, and an id of
    `special` {new id: the model's own id, or None} that has none as that one; without, all rows are drawn at random.
    The row that gets no gradient, where a model has one, is that of `pad_id`. Raises `UserError` for ids that the
    model's table does not have.
    """
    with torch.no_grad():
        if subword_ids is None:
            # Another vocabulary's ids mean nothing to the trained table.
            _resize(lm, vocab_size, pad_id)
            for table in word_tables(lm):
                nn.init.normal_(table, std=initial_std(lm.config))
            return
        _check_ids_fit(lm, subword_ids, special)
        known = {new: [own] for new, own in special.items() if isinstance(own, int)}
        subword_ids = [ids or known.get(word, []) for word, ids in enumerate(subword_ids)]
        # Means are rounded like the table's own rows, so that a frozen table takes no more room than before.
        starts = [
            means_of_subwords(table, subword_ids).to(in_own_precision(table).dtype)
            for table in word_tables(lm)
        ]
        _resize(lm, vocab_size, pad_id)
        for table, start in zip(word_tables(lm), starts, strict=True):
            table.copy_(start)


def _resize(lm: LanguageModel, vocab_size: int, pad_id: int) -> None:
    has_pad = lm.get_input_embeddings().padding_idx is not None
    lm.resize_token_embeddings(vocab_size, mean_resizing=False)
    if has_pad:  # the model's own stays, which may be the id of a word of ours, or is dropped
        lm.get_input_embeddings().padding_idx = pad_id


def word_tables(lm: LanguageModel) -> list[torch.Tensor]:
    """Return the embeddings (V,D) of the input and of the output layer; one if they are shared."""
    tables = [lm.get_input_embeddings().weight, lm.get_output_embeddings().weight]
    return tables[:1] if tables[0] is tables[1] else tables

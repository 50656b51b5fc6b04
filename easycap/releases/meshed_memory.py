"""Meshed-Memory Transformer: aimagelab/meshed-memory-transformer at 239100b, `meshed_memory_transformer.pth` and
`vocab.pkl`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from easycap.errors import UserError
from easycap.releases.pickles import StoredTensor
from easycap.releases.release import (
    Release,
    System,
    check_vocabulary_size,
    count,
    need,
    renamed,
    vocabulary_among,
    weights_among,
)
from easycap.releases.torch_files import ReleasedFile, is_pickle_of
from easycap.vocab.word import WordVocabulary

_SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")  # in our order
HEAD = 64  # the width of a head there, whatever the model's
_LONGEST = 20  # tokens of a caption, end included, in their beam search
_LINEARS = {"q": "query", "k": "key", "v": "value", "o": "out"}


def _names() -> list[tuple[str, str]]:
    """Patterns of the release's names, and ours."""
    names = [
        (r"(.*\.)?(running_\w+|enc_output|mask_enc)", ""),  # what a step of decoding left behind
        (r"encoder\.fc\.(\w+)", r"decoder.project.0.\1"),
        (r"encoder\.layer_norm\.(\w+)", r"decoder.project.3.\1"),
        (r"decoder\.fc\.weight", "decoder.output.weight"),
        (r"decoder\.word_emb\.weight", "decoder.words.table.weight"),
        (r"decoder\.pos_emb\.weight", "decoder.words.positions"),
        (r"encoder\.layers\.(\d+)\.mhatt\.attention\.m_k", r"decoder.encoder.\1.attention.memory_keys"),
        (r"encoder\.layers\.(\d+)\.mhatt\.attention\.m_v", r"decoder.encoder.\1.attention.memory_values"),
    ]
    for theirs, ours in (("encoder", "decoder.encoder"), ("decoder", "decoder.layers")):
        layer = rf"{theirs}\.layers\.(\d+)\."
        names += [
            (layer + r"pwff\.fc1\.(\w+)", rf"{ours}.\1.feed_forward.0.\2"),
            (layer + r"pwff\.fc2\.(\w+)", rf"{ours}.\1.feed_forward.2.\2"),
            (layer + r"pwff\.layer_norm\.(\w+)", rf"{ours}.\1.around_feed_forward.norm.\2"),
        ]
    for theirs, ours, attention, norm in (
        (r"encoder\.layers\.(\d+)\.mhatt", "decoder.encoder", "attention", "around_attention"),
        (r"decoder\.layers\.(\d+)\.self_att", "decoder.layers", "self_attention", "around_self"),
        (r"decoder\.layers\.(\d+)\.enc_att", "decoder.layers", "cross_attention", "around_cross"),
    ):
        names += [
            (rf"{theirs}\.attention\.fc_{letter}\.(\w+)", rf"{ours}.\1.{attention}.{linear}.\2")
            for letter, linear in _LINEARS.items()
        ]
        names.append((rf"{theirs}\.layer_norm\.(\w+)", rf"{ours}.\1.{norm}.norm.\2"))
    names += [
        (rf"decoder\.layers\.(\d+)\.fc_alpha{level}\.(\w+)", rf"decoder.layers.\1.gates.{level - 1}.\2")
        for level in range(1, 10)
    ]
    return names


NAMES = _names()


def _state_dict(content: Any) -> Mapping[Any, Any]:
    """The weights of the release's file, or of a state dict saved alone."""
    inner = content.get("state_dict") if isinstance(content, Mapping) else None
    return inner if isinstance(inner, Mapping) else content if isinstance(content, Mapping) else {}


def recognise(content: Any) -> str | None:
    """Return the model's name for its weights."""
    stored = _state_dict(content)
    wanted = ("decoder.word_emb.weight", "decoder.layers.0.enc_att.attention.fc_q.weight")
    return "m2" if all(isinstance(stored.get(name), StoredTensor) for name in wanted) else None


def _words(content: Any) -> list[str] | None:
    return content.get("itos") if is_pickle_of(content, "Vocab") else None


def read(files: Sequence[ReleasedFile]) -> Release:
    """Return the model of a file of weights and one of the vocabulary."""
    file = weights_among(files, SYSTEM)
    vocabulary, itos = vocabulary_among(files, SYSTEM, _words)
    theirs = file.tensors(_state_dict(file.content))
    table = need(theirs, "decoder.word_emb.weight", file)
    check_vocabulary_size(vocabulary, len(itos), file, len(table))
    words = [word for word in itos if word not in _SPECIAL]
    where = {word: index for index, word in enumerate(itos)}
    known = WordVocabulary.of_words(words)
    order = [where[word] if word in where else _absent(word, vocabulary) for word in (*_SPECIAL, *words)]
    weights = renamed(theirs, NAMES, file)
    width, rows = table.shape[1], torch.tensor(order)
    weights["decoder.words.table.weight"] = table[rows] / width**0.5  # there, words are not scaled by sqrt(D)
    weights["decoder.output.weight"] = need(theirs, "decoder.fc.weight", file)[rows]
    weights["decoder.words.positions"] = need(theirs, "decoder.pos_emb.weight", file)[
        1:
    ]  # row 0 is for padding
    for name in [name for name in weights if ".memory_" in name]:
        weights[name] = weights[name].squeeze(0)
    return Release("m2", _overrides(theirs, file), known, weights, not_known=_NOT_KNOWN)


def _absent(word: str, file: ReleasedFile) -> int:
    raise UserError(f"the vocabulary of {file.path} lacks {word}: give the vocab.pkl of Meshed-Memory")


def _overrides(theirs: Mapping[str, torch.Tensor], file: ReleasedFile) -> list[str]:
    width, features = need(theirs, "encoder.fc.weight", file).shape
    positions = len(need(theirs, "decoder.pos_emb.weight", file)) - 1
    memory = theirs.get("encoder.layers.0.mhatt.attention.m_k")
    sizes = {
        "decoder.width": width,
        "decoder.num_layers": count(theirs, r"decoder\.layers\.(\d+)\."),
        "decoder.num_levels": count(theirs, r"encoder\.layers\.(\d+)\."),
        "decoder.num_heads": max(1, width // HEAD),
        "decoder.feed_forward_dim": len(need(theirs, "encoder.layers.0.pwff.fc1.weight", file)),
        "decoder.num_memory_vectors": 0 if memory is None else memory.shape[1],
        "decoder.max_length": positions,
        "decoding.max_length": min(_LONGEST, positions),
        "encoder.region_dim": features,
    }
    chosen = [
        "experiment=m2/bottom_up",
        "decoder.stored_positions=true",
        "encoder.zero_regions=true",
        "encoder.min_regions=1",
        "decoding.min_length=0",
        "decoding.allow_unk=true",
    ]
    return [*chosen, *(f"{name}={value}" for name, value in sizes.items())]


_NOT_KNOWN = (
    "number of heads: assumed to be width / 64, as in the release (decoder.num_heads)",
    "features: the release reads 50 regions per image, with zeros for missing ones (encoder.features)",
    "doubled words: the release merges them before scoring (a a dog -> a dog), easycap does not",
    "stage: cross entropy or CIDEr",
)

SYSTEM = System(
    "m2", "Meshed-Memory Transformer (aimagelab)", "meshed_memory_transformer.pth vocab.pkl", recognise, read
)

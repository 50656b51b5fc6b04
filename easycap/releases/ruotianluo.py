"""ruotianluo/ImageCaptioning.pytorch at 4c48a33: `model-best.pth` (a state dict) and `infos_*.pkl` (options and the
words by their index), after cross entropy or self-critical training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from easycap.errors import UserError
from easycap.releases.pickles import Opaque, StoredTensor
from easycap.releases.release import (
    NO_WORD,
    Release,
    System,
    Weights,
    check_vocabulary_size,
    need,
    renamed,
    vocabulary_among,
    weights_among,
)
from easycap.releases.ruotianluo_transformer import transformer_weights
from easycap.releases.torch_files import ReleasedFile
from easycap.vocab.word import WordVocabulary

# A weight by which each model is known. Those without an importer below are named, to say so.
_MODELS = {
    "core.lang_lstm.weight_ih": "updown",
    "core.a2c.weight": "att2in2",
    "_core.i2h.weight": "newfc",
    "model.generator.proj.weight": "transformer",
    "core.a2h.weight": "att2all2",
    "core.lstm.w2h.weight": "adaatt",
    "core.lstm0.i2h.weight": "stackatt",
    "img_embed.weight": "fc",
    "core.att_lstm.weight_ih": "aoa",
}
_UNK = "UNK"
# Options of theirs whose values change the net in ways that are not built here.
_UNUSUAL = {"use_bn": 0, "use_box": 0, "norm_att_feat": 0, "logit_layers": 1}


def recognise(content: Any) -> str | None:
    """Return the model's name for its weights."""
    if not isinstance(content, Mapping):
        return None
    return next(
        (model for name, model in _MODELS.items() if isinstance(content.get(name), StoredTensor)), None
    )


def _words(content: Any) -> list[str] | None:
    """The words by index, from 1 on, of an infos file."""
    stored = content.get("vocab") if isinstance(content, Mapping) else None
    if not isinstance(stored, Mapping):
        return None
    try:
        return [word for _, word in sorted((int(index), word) for index, word in stored.items())]
    except (TypeError, ValueError):
        return None


def read(files: Sequence[ReleasedFile]) -> Release:
    """Return the model of a file of weights and one of infos."""
    file = weights_among(files, SYSTEM)
    model = recognise(file.content)
    if model not in _READERS:
        raise UserError(
            f"{file.path} holds the weights of ruotianluo's {model}, which cannot be imported; those that can are "
            f"{', '.join(_READERS)}"
        )
    infos, words = vocabulary_among(files, SYSTEM, _words)
    _check_options(infos)
    theirs = {name: tensor.float() for name, tensor in file.tensors(file.content).items()}
    output = "model.generator.proj.weight" if model == "transformer" else "logit.weight"
    check_vocabulary_size(infos, len(words) + 1, file, len(need(theirs, output, file)))
    known = WordVocabulary.of_words([word for word in words if word != _UNK])
    overrides, weights = _READERS[model](theirs, file, infos)
    return Release(
        model,
        [*_COMMON, *overrides, *_lengths(infos)],
        known,
        _with_our_words(weights, words),
        not_known=_NOT_KNOWN,
    )


def _option(infos: ReleasedFile, name: str) -> Any:
    options = infos.content.get("opt")
    return options.get(name) if isinstance(options, Opaque | dict) else None


def _check_options(infos: ReleasedFile) -> None:
    for name, usual in _UNUSUAL.items():
        if (value := _option(infos, name)) not in (None, usual, False):
            raise UserError(f"{infos.path} says {name}={value}, but only {name}={usual} can be imported")


def _lengths(infos: ReleasedFile) -> list[str]:
    """Their samplers write at most max_length words, 20 where an early file does not say so."""
    longest = _option(infos, "max_length")
    longest = longest if isinstance(longest, int) and longest > 0 else 20
    return [f"decoder.max_length={longest + 1}", f"decoding.max_length={longest}"]


def _with_our_words(weights: Weights, words: Sequence[str]) -> Weights:
    """Rows of the word table and the output layer in our order of words: pad, bos, eos, unk, then theirs.

    Index 0 begins a caption there, and ends it. What a release lacks has no probability.
    """
    unknown = words.index(_UNK) + 1 if _UNK in words else None
    ours = [index for index, word in enumerate(words, 1) if word != _UNK]
    rows = torch.tensor([0, 0, 0, unknown or 0, *ours])
    for table in _TABLES & weights.keys():
        weights[table] = weights[table][rows]
    output, bias = weights["decoder.output.weight"], weights["decoder.output.bias"]
    absent = torch.tensor([0, 1] if unknown else [0, 1, 3])
    weights["decoder.output.weight"] = output[rows].index_fill(0, absent, 0.0)
    weights["decoder.output.bias"] = bias[rows].index_fill(0, absent, NO_WORD)
    return weights


def _newfc(theirs: Weights, file: ReleasedFile, _infos: ReleasedFile) -> tuple[list[str], Weights]:
    weights = renamed(
        theirs,
        [
            (r"embed\.weight", "decoder.embedding.weight"),
            (r"fc_embed\.(\w+)", r"image_tokens.project.\1"),
            (r"_core\.i2h\.(\w+)", r"decoder.lstm.from_input.\1"),
            (r"_core\.h2h\.(\w+)", r"decoder.lstm.from_hidden.\1"),
            (r"logit\.(\w+)", r"decoder.output.\1"),
        ],
        file,
    )
    width, features = need(theirs, "fc_embed.weight", file).shape
    hidden = need(theirs, "logit.weight", file).shape[1]
    chosen = ["experiment=show_and_tell/ruotianluo_fc", "encoder=precomputed", "encoder.min_regions=1"]
    sizes = [f"decoder.embed_dim={width}", f"decoder.hidden_dim={hidden}", f"encoder.region_dim={features}"]
    return [*chosen, *sizes], weights


# Words go through a ReLU there, which the table can have gone through already.
_ATTENTION = [
    (r"embed\.0\.weight", "decoder.embedding.weight"),
    (r"att_embed\.0\.(\w+)", r"decoder.embed_patches.\1"),
    (r"ctx2att\.(\w+)", r"decoder.attention.key.\1"),
    (r"core\.attention\.h2att\.weight", "decoder.attention.query.weight"),
    (r"core\.attention\.h2att\.bias", ""),  # added to the keys'
    (r"core\.attention\.alpha_net\.weight", "decoder.attention.energy.weight"),
    (r"core\.attention\.alpha_net\.bias", ""),  # cancels in the softmax
    (r"logit\.(\w+)", r"decoder.output.\1"),
]


def _attending(
    theirs: Weights, further: Sequence[tuple[str, str]], file: ReleasedFile
) -> tuple[list[str], Weights]:
    """What models with attention share: sizes, and weights under our names."""
    weights = renamed(theirs, [*_ATTENTION, *further], file)
    weights["decoder.embedding.weight"] = need(theirs, "embed.0.weight", file).relu()
    bias = need(theirs, "ctx2att.bias", file) + need(theirs, "core.attention.h2att.bias", file)
    weights["decoder.attention.key.bias"] = bias
    hidden, features = need(theirs, "att_embed.0.weight", file).shape
    sizes = {
        "decoder.embed_dim": need(theirs, "embed.0.weight", file).shape[1],
        "decoder.hidden_dim": hidden,
        "decoder.attention_dim": len(bias),
        "encoder.region_dim": features,
    }
    return [*_REGIONS, *(f"{name}={value}" for name, value in sizes.items())], weights


def _updown(theirs: Weights, file: ReleasedFile, _infos: ReleasedFile) -> tuple[list[str], Weights]:
    overrides, weights = _attending(
        theirs,
        [
            (r"fc_embed\.0\.(\w+)", r"decoder.embed_mean.\1"),
            (r"core\.(att|lang)_lstm\.(weight|bias)_[ih]h", ""),  # cut up below
        ],
        file,
    )
    hidden = need(theirs, "logit.weight", file).shape[1]
    first = need(theirs, "core.att_lstm.weight_ih", file)  # reads [h2 ; image ; word]
    weights["decoder.image_gates.weight"] = first[:, hidden : 2 * hidden]
    weights["decoder.word_gates.weight"] = first[:, 2 * hidden :]
    for ours, name, inputs in (
        ("lstm1", "core.att_lstm", first[:, :hidden]),
        ("lstm2", "core.lang_lstm", need(theirs, "core.lang_lstm.weight_ih", file)),
    ):
        recurrent = need(theirs, f"{name}.weight_hh", file)
        weights[f"decoder.{ours}.gates.weight"] = torch.cat([inputs, recurrent], 1)
        biases = (need(theirs, f"{name}.bias_{kind}", file) for kind in ("ih", "hh"))
        weights[f"decoder.{ours}.gates.bias"] = sum(biases, torch.zeros(4 * hidden))
    return ["decoder=updown", "decoder.variant=ruotianluo", *overrides], weights


def _att2in2(theirs: Weights, file: ReleasedFile, _infos: ReleasedFile) -> tuple[list[str], Weights]:
    overrides, weights = _attending(
        theirs,
        [
            (r"core\.a2c\.(\w+)", r"decoder.from_context.\1"),
            (r"core\.i2h\.(\w+)", r"decoder.lstm.from_input.\1"),
            (r"core\.h2h\.(\w+)", r"decoder.lstm.from_hidden.\1"),
        ],
        file,
    )
    return ["decoder=att2in2", *overrides], weights


def _transformer(theirs: Weights, file: ReleasedFile, infos: ReleasedFile) -> tuple[list[str], Weights]:
    heads = _option(infos, "num_att_heads")
    overrides, weights = transformer_weights(theirs, file, heads if isinstance(heads, int) else 8)
    return [*_REGIONS, *overrides], weights


_REGIONS = ("encoder=precomputed", "encoder.min_regions=1", "encoder.max_regions=196", "image_tokens=all")
_TABLES = {"decoder.embedding.weight", "decoder.words.table.weight"}

_READERS: dict[str, Callable[[Weights, ReleasedFile, ReleasedFile], tuple[list[str], Weights]]] = {
    "newfc": _newfc,
    "updown": _updown,
    "att2in2": _att2in2,
    "transformer": _transformer,
}
_COMMON = (
    "data=coco_karpathy",
    "decoding=beam",
    "decoding.length_penalty=0.0",
    "decoding.min_length=0",
    "trainer.precision=fp32",
    "trainer.unfreeze_encoder_at_epoch=null",
    "validation.images=null",
)
_NOT_KNOWN = (
    "features: which ones, and whether the image's own vector is the mean of them, as for bottom-up features "
    "(encoder.features)",
    "stage: cross entropy or self-critical",
    "bad endings: scores published there after self-critical training may be without words such as `a` at the end "
    "(REMOVE_BAD_ENDINGS=1)",
)

SYSTEM = System(
    "ruotianluo",
    "newfc, updown, att2in2, transformer of ImageCaptioning.pytorch",
    "model-best.pth infos_ID-best.pkl",
    recognise,
    read,
)

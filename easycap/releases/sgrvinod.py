"""sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning at cc9c7e2: `BEST_checkpoint_*.pth.tar`, a dict in which encoder and
decoder are whole pickled modules, and `WORDMAP_*.json`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from easycap.errors import UserError
from easycap.releases.pickles import Opaque, StoredTensor
from easycap.releases.release import (
    Release,
    System,
    Weights,
    check_vocabulary_size,
    need,
    renamed,
    vocabulary_among,
    weights_among,
)
from easycap.releases.torch_files import ReleasedFile
from easycap.vocab.word import WordVocabulary

_SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")  # in our order
_LONGEST = 51  # words of a caption there, its end among them
# Blocks of each stage, and whether blocks have three convolutions -> the network. The tutorial has the ResNet-101.
_RESNETS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18.tv_in1k",
    ((3, 4, 6, 3), False): "resnet34.tv_in1k",
    ((3, 4, 6, 3), True): "resnet50.tv_in1k",
    ((3, 4, 23, 3), True): "resnet101.tv_in1k",
    ((3, 8, 36, 3), True): "resnet152.tv_in1k",
}
_ENCODER = [
    (r"resnet\.0\.(\w+)", r"encoder.network.conv1.\1"),
    (r"resnet\.1\.(\w+)", r"encoder.network.bn1.\1"),
    *((rf"resnet\.{stage + 3}\.(.+)", rf"encoder.network.layer{stage}.\1") for stage in range(1, 5)),
]
_DECODER = [
    (r"embedding\.weight", "decoder.embedding.weight"),
    (r"init_h\.(\w+)", r"decoder.initial_hidden.\1"),
    (r"init_c\.(\w+)", r"decoder.initial_cell.\1"),
    (r"attention\.encoder_att\.(\w+)", r"decoder.attention.key.\1"),
    (r"attention\.decoder_att\.weight", "decoder.attention.query.weight"),
    (r"attention\.decoder_att\.bias", ""),  # added to the keys'
    (r"attention\.full_att\.weight", "decoder.attention.energy.weight"),
    (r"attention\.full_att\.bias", ""),  # cancels in the softmax
    (r"f_beta\.(\w+)", r"decoder.gate.\1"),
    (r"decode_step\.\w+", ""),  # cut up below
    (r"fc\.(\w+)", r"decoder.output.\1"),
]


def module_state(module: Any) -> dict[str, StoredTensor]:
    """Return the tensors of a pickled torch module and of those inside it, under the names of its state dict."""
    found: dict[str, StoredTensor] = {}
    waiting, seen = [("", module)], set()
    while waiting:
        place, one = waiting.pop()
        if not isinstance(one, Opaque) or id(one) in seen:  # a file may say that a module is inside itself
            continue
        seen.add(id(one))
        for kind in ("_parameters", "_buffers", "_modules"):
            parts = one.get(kind)
            for name, part in parts.items() if isinstance(parts, Mapping) else ():
                if isinstance(part, StoredTensor):
                    found[f"{place}{name}"] = part
                elif kind == "_modules":
                    waiting.append((f"{place}{name}.", part))
    return found


def _parts(content: Any) -> tuple[dict[str, StoredTensor], dict[str, StoredTensor]]:
    """The encoder's and the decoder's tensors."""
    encoder, decoder = (
        module_state(content.get(name)) if isinstance(content, Mapping) else {}
        for name in ("encoder", "decoder")
    )
    return encoder, decoder


def recognise(content: Any) -> str | None:
    """Return the model's name for its weights."""
    wanted = {"attention.full_att.weight", "decode_step.weight_ih", "f_beta.weight"}
    return "sgrvinod" if wanted <= _parts(content)[1].keys() else None


def _words(content: Any) -> list[str] | None:
    """The words by index of a word map."""
    if not isinstance(content, Mapping) or not set(_SPECIAL) <= content.keys():
        return None
    if sorted(map(str, content.values())) != sorted(map(str, range(len(content)))):
        return None
    return sorted(content, key=lambda word: int(content[word]))


def read(files: Sequence[ReleasedFile]) -> Release:
    """Return the model of a checkpoint and a word map."""
    file = weights_among(files, SYSTEM)
    word_map, by_index = vocabulary_among(files, SYSTEM, _words)
    stored = _parts(file.content)
    encoder, theirs = ({name: tensor for name, tensor in file.tensors(part).items()} for part in stored)
    table = need(theirs, "embedding.weight", file)
    check_vocabulary_size(word_map, len(by_index), file, len(table))
    words = [word for word in by_index if word not in _SPECIAL]
    where = {word: index for index, word in enumerate(by_index)}
    rows = torch.tensor([where[word] for word in (*_SPECIAL, *words)])
    weights = renamed(theirs, _DECODER, file) | _encoder_weights(encoder, file)
    for name in ("decoder.embedding.weight", "decoder.output.weight", "decoder.output.bias"):
        weights[name] = weights[name][rows]
    _add_gates(theirs, weights, table.shape[1], file)
    return Release(
        "sgrvinod",
        [*_COMMON, *_sizes(theirs, file), f"encoder.model={_network(encoder, file)}", *_grid(file)],
        WordVocabulary.of_words(words),
        {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()},
        not_known=_NOT_KNOWN,
    )


def _encoder_weights(encoder: Mapping[str, torch.Tensor], file: ReleasedFile) -> Weights:
    """Those of the trunk; files of before torch 0.4.1 do not count BatchNorm's batches."""
    weights = renamed(encoder, _ENCODER, file)
    for name in [name for name in weights if name.endswith("running_var")]:
        weights.setdefault(name.replace("running_var", "num_batches_tracked"), torch.tensor(0))
    return weights


def _add_gates(theirs: Mapping[str, torch.Tensor], weights: Weights, embed: int, file: ReleasedFile) -> None:
    """Their LSTM reads [word ; image] and has two biases; ours has the word's part apart, and the biases' sum."""
    inputs, recurrent, *biases = (
        need(theirs, f"decode_step.{name}", file) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    weights["decoder.word_gates.weight"] = inputs[:, :embed]
    weights["decoder.lstm.gates.weight"] = torch.cat([inputs[:, embed:], recurrent], 1)
    weights["decoder.lstm.gates.bias"] = biases[0] + biases[1]
    bias = need(theirs, "attention.encoder_att.bias", file) + need(theirs, "attention.decoder_att.bias", file)
    weights["decoder.attention.key.bias"] = bias


def _sizes(theirs: Mapping[str, torch.Tensor], file: ReleasedFile) -> list[str]:
    sizes = {
        "embed_dim": need(theirs, "embedding.weight", file).shape[1],
        "hidden_dim": need(theirs, "fc.weight", file).shape[1],
        "attention_dim": len(need(theirs, "attention.encoder_att.weight", file)),
    }
    return [f"decoder.{name}={value}" for name, value in sizes.items()]


def _network(encoder: Mapping[str, torch.Tensor], file: ReleasedFile) -> str:
    blocks = tuple(
        len({match[1] for name in encoder if (match := re.match(rf"resnet\.{stage}\.(\d+)\.", name))})
        for stage in range(4, 8)
    )
    found = _RESNETS.get((blocks, "resnet.4.0.conv3.weight" in encoder))
    if found is None:
        raise UserError(
            f"{file.path} has an encoder that is not a ResNet of torchvision, such as the tutorial's ResNet-101, and "
            "cannot be imported"
        )
    return found


def _grid(file: ReleasedFile) -> list[str]:
    """The side of the grid that the encoder averages its map to, 14 unless the file says otherwise."""
    encoder = file.content["encoder"]
    side = encoder.get("enc_image_size") if isinstance(encoder, Opaque) else None
    return [f"encoder.pool={side if isinstance(side, int) and side > 0 else 14}"]


_COMMON = (
    "experiment=show_attend_tell/sgrvinod_soft",
    "encoder.pretrained=false",
    "encoder.image_size=256",
    "encoder.squash=true",
    f"decoder.max_length={_LONGEST}",
    f"decoding.max_length={_LONGEST}",
    "decoding.num_beams=5",
    "decoding.length_penalty=0.0",
    "decoding.min_length=0",
    "decoding.on_end=drop",
    "decoding.allow_unk=true",
)
_NOT_KNOWN = (
    "data: COCO, Flickr8k or Flickr30k; assumed to be COCO (data=...)",
    "images: assumed to be squashed to 256 x 256 pixels, as in the tutorial (encoder.image_size)",
    "BLEU: the tutorial's is NLTK's on lower-case tokens, without COCO's tokenizer",
)

SYSTEM = System(
    "sgrvinod",
    "Show, Attend and Tell of the tutorial (sgrvinod)",
    "BEST_checkpoint_NAME.pth.tar WORDMAP_NAME.json",
    recognise,
    read,
)

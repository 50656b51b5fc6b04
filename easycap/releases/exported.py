"""Our captioners as files of released code, where the net is the same: the way back from an import."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from easycap.errors import UserError
from easycap.releases import clipcap, meshed_memory
from easycap.releases.release import Weights
from easycap.tasks.base import Task
from easycap.tasks.captioning import CaptioningTask


def export_release(task: Task, system: str, path: Path) -> tuple[list[Path], list[str]]:
    """Write a captioner as the file `path` with the keys of a `system`; return the files and sentences on what differs
    there.

    `clipcap`: the state dict of rmokady/CLIP_prefix_caption. `m2`: the checkpoint of aimagelab's Meshed-Memory, and
    beside it vocab.pkl. Raises `UserError` for a captioner that is another net than theirs, and for a file that is
    there already.
    """
    if path.exists():
        raise UserError(f"{path} exists already: name a new file")
    if not isinstance(task, CaptioningTask) or task.is_ensemble or task.conditions:
        raise UserError(
            f"only a captioner without text conditions can be exported as {system}'s, and no ensemble"
        )
    weights = {name: tensor.detach().float() for name, tensor in task.model.state_dict().items()}
    content, notes, beside = _EXPORTERS[system](task, weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in beside:
        if (path.parent / name).exists():
            raise UserError(f"{path.parent / name} exists already: name a file in another folder")
    torch.save(content, path)
    for name, data in beside.items():
        (path.parent / name).write_bytes(data)
    return [path, *(path.parent / name for name in beside)], notes


def renamed_back(weights: Mapping[str, torch.Tensor], names: Sequence[tuple[str, str]]) -> Weights:
    """Return the weights that patterns of an import give our names to, under the names there."""
    patterns = [_inverted(theirs, ours) for theirs, ours in names if ours]
    found: Weights = {}
    for name, tensor in weights.items():
        for pattern, theirs in patterns:
            if match := re.fullmatch(pattern, name):
                found[match.expand(theirs)] = tensor
                break
    return found


def _inverted(theirs: str, ours: str) -> tuple[str, str]:
    """(pattern of their names, template of ours) -> (pattern of ours, template of theirs)."""
    pattern, template = re.escape(ours), theirs
    for number, group in enumerate(re.findall(r"\([^()]*\)", theirs), 1):
        template = template.replace(group, rf"\{number}", 1)
        pattern = pattern.replace(re.escape(rf"\{number}"), group)
    return pattern, template.replace(r"\.", ".")


def _need(fits: bool, what: str) -> None:
    if not fits:
        raise UserError(f"this captioner is another net than the release's: {what}")


def _clipcap(task: Any, weights: Weights) -> tuple[Weights, list[str], dict[str, bytes]]:
    """ClipCap's state dict: a mapper and GPT-2 with its own words alone."""
    tokens, decoder = task.config["image_tokens"], task.config["decoder"]
    _need(
        tokens["name"] in ("mlp", "mapper", "split"),
        f"image_tokens={tokens['name']} and not mlp, mapper or split",
    )
    _need(task.config["vocab"]["name"] == "gpt2", "its vocabulary is not GPT-2's (vocab=gpt2)")
    _need(
        decoder["name"] == "causal_lm" and getattr(task.model.decoder.lm.config, "model_type", "") == "gpt2",
        "its decoder is not a GPT-2 (decoder=causal_lm)",
    )
    _need(
        "decoder.lm.transformer.h.0.attn.c_attn.weight" in weights, "decoder.tune=lora changes GPT-2's layers"
    )
    _need(not decoder["bos"], "a bos stands between image tokens and words (decoder.bos=true)")
    joined: Weights = {}
    if tokens["name"] == "mapper":
        _need(tokens["num_heads"] == 8, "its mapper has not 8 heads (image_tokens.num_heads)")
        joined = _join_keys_and_values(weights)
    own = task.vocabulary.tokenizer.get_vocab_size()
    for name in ("decoder.lm.transformer.wte.weight", "decoder.lm.lm_head.weight"):
        weights[name] = weights[name][:own]
    notes = []
    if decoder["predict_special"]:
        notes.append(
            "bos and pad, which have probabilities here, have none there: all others grow by the same factor"
        )
    if task.vocabulary.end != ".":
        notes.append("their code ends a caption at its first '.', ours at the end token")
    return renamed_back(weights, clipcap.NAMES) | joined, notes, {}


def _join_keys_and_values(weights: Weights) -> Weights:
    """Return their matrices for keys and values together; a bias of keys cancels, one of values is added to `out`'s."""
    found: Weights = {}
    for name in [
        name for name in weights if re.fullmatch(r"image_tokens\.layers\.\d+\.attention\.key\.weight", name)
    ]:
        place = name.removesuffix("key.weight")
        _need(
            not weights.pop(f"{place}query.bias").any(),
            "its mapper's queries have biases, which theirs have not (only imported mappers are without)",
        )
        weights[f"{place}out.bias"] = weights[f"{place}out.bias"] + (
            weights[f"{place}out.weight"] @ weights[f"{place}value.bias"]
        )
        both = torch.cat([weights[name], weights[f"{place}value.weight"]])
        layer = name.split(".")[2]
        found[f"clip_project.transformer.layers.{layer}.attn.to_keys_values.weight"] = both
    return found


def _m2(task: Any, weights: Weights) -> tuple[dict[str, Any], list[str], dict[str, bytes]]:
    """The checkpoint of Meshed-Memory's train.py, and its vocabulary."""
    decoder = task.config["decoder"]
    _need(decoder["name"] == "m2", f"decoder={decoder['name']} and not m2")
    _need(
        getattr(decoder["mesh"], "name", decoder["mesh"]) == "release",
        "decoder.mesh=paper, and theirs is release",
    )
    _need(
        decoder["raw_features"], "it does not read the encoder's features as they are (decoder.raw_features)"
    )
    _need(not decoder["segments"], "its image tokens have type embeddings (decoder.segments)")
    _need(
        decoder["num_heads"] == max(1, decoder["width"] // meshed_memory.HEAD),
        f"its heads are not {meshed_memory.HEAD} wide, as all of theirs (decoder.num_heads)",
    )
    _need(task.config["vocab"]["name"] == "word", "its vocabulary is not of words (vocab=word)")
    words = task.vocabulary.words
    itos = ["<unk>", "<pad>", "<bos>", "<eos>", *words[4:]]
    rows = torch.tensor([3, 0, 1, 2, *range(4, len(words))])
    width, positions = decoder["width"], task.model.decoder.words.positions.float()
    weights["decoder.words.table.weight"] = weights["decoder.words.table.weight"][rows] * width**0.5
    weights["decoder.output.weight"] = weights["decoder.output.weight"][rows]
    weights["decoder.words.positions"] = torch.cat([positions.new_zeros(1, width), positions])
    for name in [name for name in weights if ".memory_" in name]:
        weights[name] = weights[name].unsqueeze(0)
    theirs = renamed_back(weights, meshed_memory.NAMES)
    for layer in range(decoder["num_layers"]):  # what their decoding starts with
        for part in ("keys", "values"):
            theirs[f"decoder.layers.{layer}.self_att.running_{part}"] = torch.zeros(0, width)
    theirs["decoder.running_mask_self_attention"] = torch.zeros(1, 1, 0, dtype=torch.uint8)
    theirs["decoder.running_seq"] = torch.zeros(1, dtype=torch.long)
    notes = ["their code reads 50 regions per image, with zeros for missing ones"]
    return {"state_dict": theirs, "epoch": 0}, notes, {"vocab.pkl": _pickled_vocabulary(itos)}


def _pickled_vocabulary(itos: Sequence[str]) -> bytes:
    """A pickle of their class data.vocab.Vocab, which is not here: written as pickle protocol 2 has it."""
    state = {"freqs": {}, "itos": list(itos), "stoi": {word: index for index, word in enumerate(itos)}}
    body = pickle.dumps(state, protocol=2)[2:-1]  # without the protocol's number and the end
    return b"\x80\x02cdata.vocab\nVocab\n)\x81" + body + b"b."


_EXPORTERS: dict[str, Callable[[Any, Weights], tuple[Any, list[str], dict[str, bytes]]]] = {
    "clipcap": _clipcap,
    "m2": _m2,
}

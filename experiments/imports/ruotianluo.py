"""ImageCaptioning.pytorch: weights drawn by ruotianluo's code, saved as it saves, imported, compared.

usage: python experiments/imports/ruotianluo.py CHECKOUT [newfc updown att2in2 transformer]
"""

from __future__ import annotations

import argparse
import pickle
import sys
import tempfile
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare import WORDS, imported, randomise, report, write_data

DIM = 32
checkout = Path(sys.argv[1])
sys.path.insert(0, str(checkout))
package = types.ModuleType("captioning.models")  # their __init__.py imports models that need other packages
package.__path__ = [str(checkout / "captioning" / "models")]
sys.modules["captioning.models"] = package

from captioning.models import AttEnsemble, AttModel, TransformerModel, utils  # noqa: E402

AttModel.AttModel.repeat_tensor = staticmethod(
    utils.repeat_tensors
)  # their diverse beam search calls it by this name
CLASSES = {
    "newfc": AttModel.NewFCModel,
    "updown": AttModel.UpDownModel,
    "att2in2": AttModel.Att2in2Model,
    "transformer": TransformerModel.TransformerModel,
}
ENSEMBLE = AttEnsemble.AttEnsemble

# How much the image's vectors, the words' logits, and the logit of the end are raised.
SCALES = {"newfc": (40, 12, 3), "updown": (8, 12, 2), "att2in2": (8, 12, 3), "transformer": (8, 4, 3)}


def spread(model: torch.nn.Module, output: torch.nn.Linear, image: float, words: float, end: float) -> None:
    """Scale weights so that captions differ and end; round biases, so that sums of two are exact in fp32."""
    for part, weight in model.named_parameters():
        if "bias" in part:
            weight.data = weight.data.bfloat16().float()
        elif part.startswith(("fc_embed", "att_embed")):
            weight.data.mul_(image)
        elif part.startswith(("_core", "core", "embed")):
            weight.data.mul_(6)
    output.weight.data.mul_(words)
    output.bias.data[0] += end


@dataclass
class Drawn:
    """A model of their code with random weights, in fp64, and what easycap imported of it."""

    model: torch.nn.Module
    words: dict[str, str]
    task: Any
    arrays: list[np.ndarray]

    def image(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What their models read of an image: the mean of its regions, and the regions."""
        regions = torch.from_numpy(self.arrays[number]).double()
        return regions.mean(0, keepdim=True), regions.unsqueeze(0)

    def caption(self, ids: list[int]) -> str:
        """Their ids, up to the end, as our caption."""
        caption = " ".join(self.words[str(word)] for word in (ids[: ids.index(0)] if 0 in ids else ids))
        return caption.replace("UNK", "<unk>")


def draw(name: str, folder: Path, seed: int = 0, *, endless: bool = False) -> Drawn:
    """Draw, save and import one model; if `endless`, one whose captions have the maximum length."""
    words = {str(index): word for index, word in enumerate([*WORDS, "UNK"], 1)}
    opt = argparse.Namespace(
        caption_model=name,
        vocab_size=len(words),
        input_encoding_size=24,
        rnn_size=24,
        num_layers=2 if name == "transformer" else 1,
        num_att_heads=4,
        drop_prob_lm=0.5,
        seq_length=16,
        max_length=20,
        fc_feat_size=DIM,
        att_feat_size=DIM,
        att_hid_size=16,
        vocab=words,
    )
    torch.manual_seed(seed)
    model = randomise(CLASSES[name](opt), seed)
    image_scale, word_scale, end = SCALES[name]
    output = model.model.generator.proj if name == "transformer" else model.logit
    spread(model, output, image_scale, word_scale, -1000 if endless else end)
    root, features, arrays = write_data(folder, DIM, (10, 60))
    files = [folder / "model-best.pth", folder / "infos_x-best.pkl"]
    torch.save(model.state_dict(), files[0])
    with files[1].open("wb") as file:
        pickle.dump({"opt": opt, "vocab": words, "iter": 100, "best_val_score": 1.0}, file, protocol=2)
    task = imported("ruotianluo", files, folder, [f"data.root={root}", f"encoder.features={features}"])
    return Drawn(model.double(), words, task, arrays)


def compare(name: str, folder: Path) -> None:
    """Compare one model, word by word and by its captions."""
    drawn = draw(name, folder)
    index = {word: int(number) for number, word in drawn.words.items()}

    def theirs(number: int, caption: list[str]) -> list[float]:
        ids = [0, *(index[word] for word in caption), 0]
        found = drawn.model(*drawn.image(number), torch.tensor([ids[:-1]]), None)[0]
        return [float(row[word]) for row, word in zip(found, ids[1:], strict=True)]

    def generated(number: int, **options: int) -> str:
        options = {"suppress_UNK": 1, **options}
        sequence, _ = drawn.model(*drawn.image(number), None, opt=options, mode="sample")
        return drawn.caption(sequence[0].tolist())

    report(
        name,
        drawn.task,
        theirs,
        lambda number: generated(number, beam_size=1),
        lambda number: generated(number, beam_size=5, sample_n=1),
        greedy_settings=",min_length=0,allow_unk=true",  # their beam search writes no unknown word
    )


if __name__ == "__main__":
    for one in sys.argv[2:] or CLASSES:
        with tempfile.TemporaryDirectory() as path:
            compare(one, Path(path))

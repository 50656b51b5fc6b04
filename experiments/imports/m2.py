"""Meshed-Memory: weights drawn by the authors' code, saved as it saves, imported, compared.

usage: python experiments/imports/m2.py CHECKOUT   (of aimagelab/meshed-memory-transformer)
"""

from __future__ import annotations

import collections
import pickle
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
from compare import WORDS, imported, randomise, report, write_data

DIM = 32
checkout = Path(sys.argv[1])
sys.path.insert(0, str(checkout))
package = types.ModuleType("data")  # their data/__init__.py needs spacy, the vocabulary does not
package.__path__ = [str(checkout / "data")]
sys.modules["data"] = package
divide = torch.Tensor.__truediv__
# Integers divided by / in the torch of their time gave integers: their beam search needs that.
torch.Tensor.__truediv__ = lambda a, b: a // b if a.dtype == torch.long else divide(a, b)

fill = torch.Tensor.masked_fill
torch.Tensor.masked_fill = lambda a, mask, value: fill(a, mask.bool(), value)  # masks were bytes then

from data.vocab import Vocab  # noqa: E402
from models.transformer import (  # noqa: E402
    MemoryAugmentedEncoder,
    MeshedDecoder,
    ScaledDotProductAttentionMemory,
    Transformer,
)

torch.manual_seed(0)
vocabulary = Vocab(collections.Counter(WORDS), specials=["<unk>", "<pad>", "<bos>", "<eos>"])
stoi, itos = vocabulary.stoi, vocabulary.itos
sizes = {"d_model": 64, "d_k": 64, "d_v": 64, "h": 1, "d_ff": 128}  # the release's are eight times these
encoder = MemoryAugmentedEncoder(
    3,
    0,
    d_in=DIM,
    attention_module=ScaledDotProductAttentionMemory,
    attention_module_kwargs={"m": 8},
    **sizes,
)
decoder = MeshedDecoder(len(vocabulary), 54, 3, stoi["<pad>"], **sizes)
model = randomise(Transformer(stoi["<bos>"], encoder, decoder))
model.decoder.fc.weight.data.mul_(3)  # some words likelier than others
end = model.decoder.fc.weight.data[stoi["<eos>"]]
model.decoder.layers[-1].pwff.layer_norm.bias.data.add_(4 * end / end.square().sum())  # and captions end

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    root, features, arrays = write_data(folder, DIM, (10, 60))
    files = [folder / "meshed_memory_transformer.pth", folder / "vocab.pkl"]
    rng = {"torch_rng_state": torch.get_rng_state(), "numpy_rng_state": np.random.get_state()}
    torch.save({"state_dict": model.state_dict(), "epoch": 3, **rng}, files[0])
    files[1].write_bytes(pickle.dumps(vocabulary))
    model.double()
    task = imported("m2", files, folder, [f"data.root={root}", f"encoder.features={features}"])

    def padded(number: int) -> torch.Tensor:
        """As their field pads."""
        first = arrays[number][:50]
        return torch.from_numpy(np.concatenate([first, np.zeros((50 - len(first), DIM), np.float32)]))[
            None
        ].double()

    def theirs(number: int, words: list[str]) -> list[float]:
        ids = [stoi["<bos>"], *(stoi[word] for word in words), stoi["<eos>"]]
        found = model(padded(number), torch.tensor([ids[:-1]]))[0]
        return [float(row[index]) for row, index in zip(found, ids[1:], strict=True)]

    def caption(ids: torch.Tensor) -> str:
        words = [itos[int(index)] for index in ids]
        return " ".join(words[: words.index("<eos>")] if "<eos>" in words else words)

    def greedy(number: int) -> str:
        return caption(model.test(padded(number), 20, stoi["<eos>"])[0][0])

    def beam(number: int) -> str:
        return caption(model.beam_search(padded(number), 20, stoi["<eos>"], 5, out_size=1)[0][0])

    report("m2", task, theirs, greedy, beam, greedy_settings=",min_length=0,allow_unk=true")

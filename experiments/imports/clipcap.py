"""ClipCap: weights drawn by the authors' code, saved as it saves, imported, compared.

usage: python experiments/imports/clipcap.py CHECKOUT   (of rmokady/CLIP_prefix_caption)
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from unittest.mock import MagicMock

import torch
import transformers
from compare import WORDS, imported, randomise, report, write_data
from tokenizers import ByteLevelBPETokenizer

DIM, LONGEST = 32, 20
checkout = Path(sys.argv[1])
sys.path.insert(0, str(checkout))
for lazy in ("GPT2LMHeadModel", "GPT2Tokenizer"):  # loaded before the name that follows, which loading drops
    getattr(transformers, lazy)
sys.modules["transformers"].AdamW = torch.optim.AdamW  # later versions lack it; only their training uses it
for name in ("clip", "cog", "skimage", "skimage.io"):  # for photos and for a web service
    sys.modules[name] = MagicMock()
sys.modules["cog"].Predictor = object
sys.modules["cog"].input = lambda *args, **options: lambda function: function

import predict  # noqa: E402
from train import ClipCaptionModel, ClipCaptionPrefix, MappingType  # noqa: E402


def save_tokenizer(folder: Path) -> None:
    """Write vocab.json and merges.txt of byte-level BPE on the captions' words, with GPT-2's end of text."""
    made = ByteLevelBPETokenizer()
    made.train_from_iterator(
        [" ".join(WORDS) + "."] * 2, vocab_size=400, min_frequency=2, show_progress=False
    )
    folder.mkdir()
    made.save_model(str(folder))
    ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    ids["<|endoftext|>"] = len(ids)
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")


def compare(kind: str, folder: Path) -> None:
    """Draw, save, import and compare a model with one kind of mapper, whose GPT-2 is in the file or apart."""
    save_tokenizer(folder / "gpt2")
    tokenizer = transformers.GPT2Tokenizer.from_pretrained(folder / "gpt2")
    size = len(tokenizer)
    (dot,) = tokenizer.encode(".")
    sizes = {"vocab_size": size, "n_embd": 64, "n_layer": 2, "n_head": 1, "n_positions": 120}
    ends = {"bos_token_id": size - 1, "eos_token_id": size - 1}
    torch.manual_seed(0)
    lm = randomise(transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **ends)))
    table = lm.transformer.wte.weight.data.mul_(4)  # some tokens likelier than others
    lm.transformer.wpe.weight.data.mul_(20)  # and others at other positions
    lm.transformer.ln_f.bias.data.add_(1.5 * table[dot] / table[dot].square().sum())  # and captions end
    lm.save_pretrained(folder / "gpt2")
    own = transformers.GPT2LMHeadModel.from_pretrained
    predict.GPT2LMHeadModel.from_pretrained = lambda name: lm  # their constructor loads GPT-2 by its name
    mapping = {"mlp": MappingType.MLP, "linear": MappingType.MLP}.get(kind, MappingType.Transformer)
    frozen = kind.endswith("frozen")
    count = 12 if kind == "linear" else 10
    if kind == "linear":  # where predict.py has more than 10 tokens
        model = predict.ClipCaptionModel(count, prefix_size=DIM)
    else:
        options = {"clip_length": 10, "prefix_size": DIM, "num_layers": 3, "mapping_type": mapping}
        model = (ClipCaptionPrefix if frozen else ClipCaptionModel)(count, **options)
    predict.GPT2LMHeadModel.from_pretrained = own
    randomise(model.clip_project, seed=1)
    for name, weight in model.clip_project.named_parameters():
        if name in ("linear.weight", "model.0.weight", "weight"):
            weight.data.mul_(10)  # images differ more
    weights = model.state_dict()
    if frozen:  # as files of the mapper alone
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("gpt.")}
    torch.save(weights, folder / "coco_weights.pt")
    root, features, arrays = write_data(folder, DIM, (1, 2))
    settings = [f"data.root={root}", f"encoder.features={features}", f"vocab.path={folder / 'gpt2'}"]
    settings.append(f"decoding.max_length={LONGEST}")
    if frozen:
        settings.append(f"decoder.pretrained={folder / 'gpt2'}")
    task = imported("clipcap", [folder / "coco_weights.pt"], folder, settings)
    model.double().eval()

    def prefix(number: int) -> torch.Tensor:
        vector = torch.from_numpy(arrays[number]).double()
        return vector / vector.norm(2, -1) if mapping is MappingType.Transformer else vector

    def theirs(number: int, words: list[str]) -> list[float]:
        ids = [*tokenizer.encode(" ".join(words)), dot]
        logits = model(torch.tensor([ids]), prefix(number)).logits[0, count - 1 : -1]
        return logits.log_softmax(-1)[range(len(ids)), ids].tolist()

    def embedded(number: int) -> torch.Tensor:
        return model.clip_project(prefix(number)).reshape(1, count, -1)

    def text(caption: str) -> str:
        return " ".join(caption.split())

    def greedy(number: int) -> str:
        try:
            return text(predict.generate2(model, tokenizer, embed=embedded(number), entry_length=LONGEST))
        except TypeError:  # their function fails for a caption of one token
            return "."

    report(
        f"clipcap {kind}",
        task,
        theirs,
        greedy,
        lambda number: text(
            predict.generate_beam(model, tokenizer, embed=embedded(number), entry_length=LONGEST)[0]
        ),
        greedy_settings=",min_length=0",
    )


for one in ("mlp", "transformer", "transformer, frozen", "linear"):
    with tempfile.TemporaryDirectory() as path:
        compare(one, Path(path))

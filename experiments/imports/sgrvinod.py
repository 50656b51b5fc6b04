"""sgrvinod's tutorial: weights drawn by its code, saved as it saves, imported, compared.

usage: python experiments/imports/sgrvinod.py CHECKOUT   (of sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning)

The trunk is a ResNet-18 in the place of the ResNet-101, and images have 64 x 64 pixels, to take minutes on a CPU.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import types
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch
import torchvision
from compare import IMAGES, WORDS, imported, randomise, report, write_data
from PIL import Image

SIDE = 64
checkout = Path(sys.argv[1])
sys.path.insert(0, str(checkout))
divide = torch.Tensor.__truediv__
# Integers divided by / in the torch of their time gave integers: their beam search needs that.
torch.Tensor.__truediv__ = lambda a, b: (
    a // b if a.dtype == torch.long and isinstance(b, int) else divide(a, b)
)
torch.FloatTensor = torch.DoubleTensor  # both compute in fp64 here
torchvision.models.resnet101 = lambda pretrained: torchvision.models.resnet18(weights=None)
images: dict[str, np.ndarray] = {}
scipy = types.ModuleType("scipy.misc")  # has lost both functions; images are of the right size already
scipy.imread, scipy.imresize = lambda path: images[path], lambda image, size: image
sys.modules["scipy.misc"] = scipy
for name in ("matplotlib", "matplotlib.pyplot", "matplotlib.cm", "skimage", "skimage.transform"):
    sys.modules.setdefault(name, MagicMock())

from caption import caption_image_beam_search  # noqa: E402
from models import DecoderWithAttention, Encoder  # noqa: E402
from utils import save_checkpoint  # noqa: E402

word_map = {word: index for index, word in enumerate((*WORDS, "<unk>", "<start>", "<end>"), 1)} | {"<pad>": 0}
by_number = {index: word for word, index in word_map.items()}
torch.manual_seed(0)
encoder = Encoder()
decoder = randomise(DecoderWithAttention(32, 24, 48, len(word_map), encoder_dim=512))
decoder.fc.weight.data.mul_(4)  # some words likelier than others
decoder.fc.bias.data[word_map["<end>"]] += 3  # and captions end
for linear in (decoder.init_h, decoder.init_c, decoder.decode_step):
    for name, weight in linear.named_parameters():
        weight.data.mul_(8 if "init" not in name and weight.ndim == 2 else 1)  # images differ more
for module in encoder.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        torch.nn.init.normal_(module.running_mean, std=0.1)
        torch.nn.init.uniform_(module.running_var, 0.5, 2)
encoder.eval()

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    root, _, _ = write_data(folder, 8, (1, 2))
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIDE, SIDE)).save(root / "val2014" / f"{number}.jpg", quality=95)
    files = [folder / "BEST_checkpoint_coco.pth.tar", folder / "WORDMAP_coco.json"]
    optimizer = torch.optim.Adam(decoder.parameters())
    os.chdir(folder)
    save_checkpoint("coco", 3, 0, encoder, decoder, None, optimizer, 0.2, True)
    files[1].write_text(json.dumps(word_map))
    settings = [f"data.root={root}", f"encoder.image_size={SIDE}"]
    task = imported("sgrvinod", files, folder, settings)
    encoder.double(), decoder.double()
    examples = {int(one.id): one for split in task.data.splits.values() for one in split}
    for number, example in examples.items():
        images[str(number)] = task.pipeline.inputs([example]).images[0].permute(1, 2, 0).numpy()

    def theirs(number: int, words: list[str]) -> list[float]:
        ids = [word_map[word] for word in ("<start>", *words, "<end>")]
        pixels = torch.from_numpy(images[str(number)]).permute(2, 0, 1)[None].double() / 255
        mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).double()[:, :, None, None]
        seen = encoder((pixels - mean) / std)
        found = decoder(seen, torch.tensor([ids]), torch.tensor([[len(ids)]]))[0][0]
        return found.log_softmax(-1)[range(len(ids) - 1), ids[1:]].tolist()

    def caption(number: int, beams: int) -> str:
        ids, _ = caption_image_beam_search(encoder, decoder, str(number), word_map, beams)
        return " ".join(
            by_number[index] for index in ids if index not in (word_map["<start>"], word_map["<end>"])
        )

    report(
        "sgrvinod",
        task,
        theirs,
        lambda number: caption(number, 1),
        lambda number: caption(number, 5),
        greedy_settings=",min_length=0",
    )

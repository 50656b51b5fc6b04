"""`encoder=regions`: torchvision's own detector, which regions are taken of it, and what stays frozen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_config import TINY
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from easycap.config.compose import compose
from easycap.config.schema import check, to_plain
from easycap.data.loader import collate
from easycap.models.encoders.regions import Regions
from easycap.predict import load
from easycap.tasks.feature_caching import cached_view
from easycap.train import create_task
from easycap.training.checkpoint_files import save_checkpoint

SIZE = 64
SETTINGS = {"image_size": SIZE, "min_regions": 2, "max_regions": 5, "confidence": 0.2}


def untrained(**settings: object) -> Regions:
    return Regions(**({"pretrained": False, "weights": None} | SETTINGS | settings))


@pytest.fixture(scope="module")
def encoder() -> Regions:
    torch.manual_seed(0)
    return untrained()


@pytest.fixture(scope="module")
def torchvisions() -> nn.Module:
    """torchvision's detector as its own function builds it, with statistics in BatchNorm as training leaves them."""
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    torch.manual_seed(1)
    model = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=SIZE, max_size=SIZE, rpn_post_nms_top_n_test=300
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
            module.running_var.uniform_(0.5, 2)
            module.running_mean.normal_(std=0.1)
    return model.eval()


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
@torch.no_grad()
def test_regions_are_those_torchvision_classifies(name: str, torchvisions: nn.Module, tmp_path: Path) -> None:
    """Boxes and vectors of each region: one of torchvision's proposals and what its box head makes of that."""
    file = tmp_path / name
    (torch.save if name.endswith("pth") else save_file)(torchvisions.state_dict(), file)
    encoder = untrained(pretrained=True, weights=str(file), min_regions=5)
    image = torch.rand(3, SIZE, SIZE, generator=torch.manual_seed(2))
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        torchvisions.roi_heads.box_head.register_forward_hook(lambda m, i, out: seen.update(vectors=out)),
        torchvisions.rpn.register_forward_hook(lambda m, i, out: seen.update(boxes=out[0][0])),
    ]
    torchvisions([image])
    for hook in hooks:
        hook.remove()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in encoder.preprocessing[1:3])
    (found,) = encoder.find(((image - mean) / std).unsqueeze(0))
    assert len(found.boxes) == 5
    whole = torch.tensor([0.0, 0, SIZE, SIZE])
    matched = 0
    for box, vector in zip(found.boxes, found.vectors, strict=True):
        row = (seen["boxes"] - box).abs().amax(1).argmin()
        if not torch.equal(box, whole):
            torch.testing.assert_close(box, seen["boxes"][row], rtol=1e-3, atol=1e-2)
            torch.testing.assert_close(vector, seen["vectors"][row], rtol=1e-3, atol=1e-3)
            matched += 1
    assert matched >= 4


def taken(encoder: Regions, boxes: list, probabilities: list) -> list[int]:
    """The rows that are taken; the vectors are the rows' numbers."""
    rows = torch.arange(len(boxes), dtype=torch.float32).unsqueeze(1)
    found = encoder._surest(torch.tensor(boxes).float(), torch.tensor(probabilities), rows)
    return found.vectors.squeeze(1).int().tolist()


def test_the_surest_regions_are_taken(encoder: Regions, monkeypatch: pytest.MonkeyPatch) -> None:
    apart = [[20 * n, 0, 20 * n + 10, 10] for n in range(7)]
    same = [[0, 0, 10, 10]] * 7

    def sure(*values: float) -> list:
        return [[value, 0.01] for value in values]

    assert taken(encoder, apart, sure(0.3, 0.1, 0.9, 0.5, 0.1, 0.1, 0.1)) == [2, 3, 0]
    assert taken(encoder, apart, sure(0.1, 0.15, 0.12, 0.1, 0.1, 0.1, 0.1)) == [1, 2], "never fewer than min"
    assert taken(encoder, apart, sure(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)) == [0, 1, 2, 3, 4], (
        "nor more than max"
    )
    assert taken(encoder, same, sure(0.4, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3))[0] == 1
    other_class = [[0.4, 0.0], [0.9, 0.0], [0.0, 0.3], *sure(0.8, 0.7, 0.6, 0.5)]
    assert taken(encoder, same, other_class) == [1, 2], "one place may show two things"
    monkeypatch.setattr(encoder, "confidence", 0.0)
    assert len(taken(encoder, apart[:3], sure(0.1, 0.1, 0.1))) == 3


@torch.no_grad()
def test_patches_are_padded_to_the_same_number(encoder: Regions, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.manual_seed(3))
    first, _second = (one.confidences for one in encoder.find(images))
    between = float(first[2] + first[3]) / 2  # three regions of the first image are surer
    monkeypatch.setattr(encoder, "confidence", between)
    features = encoder(images)
    assert features.patches.shape == (2, 5, encoder.channels) and features.grid is None
    assert features.mask[0].tolist() == [True, True, True, False, False]
    assert not features.patches[~features.mask].any() and features.patches[features.mask].any(1).all()
    alone = encoder(images[:1])
    # Kernels depend on the batch's size, and coordinates of boxes amplify rounding.
    torch.testing.assert_close(alone.patches, features.patches[:1], rtol=1e-3, atol=1e-3)
    assert torch.equal(alone.mask, features.mask[:1])


def test_training_moves_what_sees_and_no_statistics(encoder: Regions) -> None:
    statistics = {n: b.clone() for n, b in encoder.named_buffers() if "running" in n}
    assert statistics and not any(isinstance(m, nn.BatchNorm2d) for m in encoder.modules())
    encoder.train()
    encoder(torch.randn(1, 3, SIZE, SIZE)).patches.sum().backward()
    moved = {
        name.split(".")[1] for name, p in encoder.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert moved == {"backbone", "roi_heads"}
    trained = {name for name, p in encoder.requires_grad_().named_parameters() if p.requires_grad}
    assert trained == {name for name, p in encoder.named_parameters() if p.grad is not None}
    assert all(torch.equal(b, statistics[n]) for n, b in encoder.named_buffers() if n in statistics)
    encoder.zero_grad()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_size": 60}, "image_size=60 must be a positive multiple of 32"),
        ({"min_regions": 6}, "min_regions=6 .*max_regions=5"),
        ({"max_regions": 301}, "max_regions=301 must be at most 300"),
        ({"confidence": 2.0}, "confidence=2.0"),
        ({"weights": "x.pth"}, "encoder.pretrained=false: set it to true"),
        (
            {"weights": "x.pth", "pretrained": True},
            "cannot be loaded from encoder.weights=x.pth .*No such file",
        ),
    ],
)
def test_wrong_settings_are_named(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        untrained(**settings)


def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="x.safetensors .*encoder.pretrained=false") as error:
        untrained(pretrained=True, weights=str(tmp_path / "x.safetensors"))
    assert "\n" not in str(error.value)


RUN = [
    *(o for o in TINY if not o.startswith(("encoder.", "image_tokens.", "data."))),
    f"data.size={SIZE}",
    "data.train_images=4",
    "data.val_images=2",
    "data.test_images=2",
    "data.workers=1",
    "encoder=regions",
    "encoder.pretrained=false",
    f"encoder.image_size={SIZE}",
    "encoder.min_regions=2",
    "encoder.max_regions=5",
    "image_tokens=all",
    "trainer.unfreeze_encoder_at_epoch=null",
    "trainer.cache_features=true",
]


@pytest.fixture(scope="module")
def config() -> dict:
    return check(compose(RUN)[0])


def test_a_cache_knows_which_patches_are_padding(
    config: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path / "cache"))
    task = create_task(config)
    examples, captioner = task.examples("train"), task.model.eval()
    images = torch.stack([task.pipeline.view.of(example) for example in examples])
    with torch.no_grad():
        found = captioner.encoder.find((images - captioner.mean) / captioner.std)
        captioner.encoder.confidence = float(torch.cat([one.confidences for one in found]).median())
        live = captioner.encode(images)
    features = cached_view(task, None, more_runs=False)
    cached = captioner.encode(collate([features.of(example) for example in examples]))
    assert not live.mask.all(), "some image should have fewer regions"
    assert torch.equal(cached.mask, live.mask)
    torch.testing.assert_close(cached.patches, live.patches, rtol=1e-2, atol=1e-2)


def test_a_checkpoint_captions_a_photo(config: dict, tmp_path: Path) -> None:
    task = create_task(config)
    save_checkpoint(tmp_path / "best", task.model, task.vocabulary, to_plain(config), progress={})
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    assert isinstance(load(tmp_path / "best", device="cpu").caption(tmp_path / "photo.jpg"), str)

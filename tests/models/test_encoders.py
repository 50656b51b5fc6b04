"""Encoders: the grid they promise, weights from local files, freezing without drift."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from easycap.hub import hub
from easycap.models.captioner import Captioner
from easycap.models.encoders.small import SmallEncoder
from easycap.models.encoders.timm import TimmEncoder

UNTRAINED = {"pretrained": False, "weights": None}


def small() -> SmallEncoder:
    return SmallEncoder(image_size=32, widths=(8, 16), blocks_per_stage=2)


@pytest.mark.parametrize(
    ("model", "size", "grid"),
    [
        ("resnet10t", 64, (2, 2)),
        ("test_vit", 64, (4, 4)),
        ("test_convnext", 64, (4, 4)),
        ("swin_tiny_patch4_window7_224", 224, (7, 7)),
    ],
)
def test_timm_models_give_the_grid_they_promise(model: str, size: int, grid: tuple[int, int]) -> None:
    encoder = TimmEncoder(model=model, image_size=size, **UNTRAINED).eval()
    assert encoder.preprocessing.size == size
    with torch.no_grad():
        features = encoder(torch.randn(1, 3, size, size))
    height, width = encoder.grid
    assert features.grid == encoder.grid
    assert features.cells.shape == (1, height * width, encoder.channels)
    assert features.mask.all()
    if model != "test_convnext":
        assert encoder.grid == grid


def test_channels_last_models_keep_their_cells_in_place() -> None:
    """Swin's maps are (N,h,w,C): a cell must be one position's channels, not one channel's positions."""
    encoder = TimmEncoder(model="swin_tiny_patch4_window7_224", image_size=224, **UNTRAINED).eval()
    with torch.no_grad():
        images = torch.randn(1, 3, 224, 224)
        maps = encoder.network.forward_features(images)
        assert torch.allclose(encoder(images).cells[0, 9], maps[0, 1, 2])


def test_small_gives_the_grid_it_promises() -> None:
    features = small()(torch.randn(2, 3, 32, 32))
    assert features.grid == small().grid == (8, 8)
    assert features.cells.shape == (2, 64, 16)


def test_normalisation_follows_the_weights() -> None:
    encoder = TimmEncoder(model="vit_tiny_patch16_224.augreg_in21k", image_size=None, **UNTRAINED)
    assert encoder.preprocessing.mean == (0.5, 0.5, 0.5) and encoder.preprocessing.size == 224
    resnet = TimmEncoder(model="resnet10t", image_size=None, **UNTRAINED)
    assert resnet.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))


def test_weights_from_a_local_file(tmp_path: Path) -> None:
    source = timm.create_model("test_vit", pretrained=False)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    encoder = TimmEncoder(
        model="test_vit", pretrained=True, weights=str(tmp_path / "model.safetensors"), image_size=None
    )
    assert torch.equal(encoder.network.cls_token, source.cls_token)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "resnt18"}, "did you mean resnet18"),
        ({"model": "test_vit", "weights": "x.safetensors"}, "encoder.pretrained=false"),
        ({"model": "test_vit", "pretrained": True, "weights": "x.bin"}, "must be a .safetensors"),
        ({"model": "test_vit", "pretrained": True, "weights": "x.safetensors"}, "does not exist"),
        ({"model": "resnet10t", "image_size": 0}, "image_size=0"),
        ({"model": "test_vit", "image_size": 63}, "image_size=63 does not fit"),
    ],
)
def test_wrong_settings_are_named(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TimmEncoder(**({"image_size": None} | UNTRAINED | settings))


def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="are not of test_vit: 78 tensors are missing"):
        TimmEncoder(
            model="test_vit", pretrained=True, weights=str(tmp_path / "model.safetensors"), image_size=None
        )


def test_without_network_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("easycap.hub._reachable", lambda: False)
    with pytest.raises(
        ValueError, match=r"encoder.weights=FILE, or train from scratch with encoder.pretrained=false"
    ):
        TimmEncoder(model="resnet18.tv_in1k", pretrained=True, weights=None, image_size=None)


def test_offline_mode_ends_with_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr("easycap.hub._reachable", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


class _Tokens(torch.nn.Module):
    def forward(self, features):
        return features.cells, features.mask


def test_a_frozen_encoder_gets_no_gradient_and_does_not_drift() -> None:
    encoder = TimmEncoder(model="resnet10t", image_size=32, **UNTRAINED)
    captioner = Captioner(encoder=encoder, image_tokens=_Tokens(), decoder=torch.nn.Linear(1, 1))
    captioner.freeze_encoder(True)
    captioner.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    memory = captioner.remember(torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8))
    assert not memory.tokens.requires_grad
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    captioner.freeze_encoder(False)
    assert captioner.remember(torch.zeros(4, 3, 32, 32, dtype=torch.uint8)).tokens.requires_grad
    assert any(not torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_normalisation_is_done_once_on_the_device() -> None:
    encoder = small()
    captioner = Captioner(encoder=encoder, image_tokens=_Tokens(), decoder=torch.nn.Linear(1, 1))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in encoder.preprocessing[1:3])
    expected = encoder((images / 255 - mean) / std).cells
    assert torch.allclose(captioner.remember(images).tokens, expected, atol=1e-5)

"""BatchNorm folded into convolutions: the same features from an encoder that is only looked at, no more."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from easycap.models import image_model
from easycap.models.encoders.small import SmallEncoder
from easycap.models.encoders.timm import TimmEncoder
from easycap.models.folding import fold_batchnorm
from easycap.models.image_model import ImageModel
from easycap.training.muon import MuonOptimizer
from easycap.types import Encoder

NORM_NAMES = {"BatchNorm2d", "BatchNormAct2d"}
# efficientnet: norms with activations, depthwise convolutions, padding of its own; resnet: norms and activations
# apart; mobilenet: squeeze-and-excitation
MODELS = [pytest.param("tf_efficientnet_lite0", marks=pytest.mark.slow), "resnet10t", "mobilenetv3_small_050"]


def with_statistics(encoder: Encoder) -> Encoder:
    """The encoder as if trained: BatchNorm that shifts and scales each channel in its own way."""
    torch.manual_seed(0)
    for part in norms_of(encoder):
        for tensor, low, high in (
            (part.running_mean, -0.1, 0.1),
            (part.running_var, 0.8, 1.2),
            (part.weight, 0.8, 1.2),
            (part.bias, -0.1, 0.1),
        ):
            with torch.no_grad():
                tensor.uniform_(low, high)
    return encoder.eval()


def norms_of(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if type(part).__name__ in NORM_NAMES]


def timm_encoder(model: str) -> TimmEncoder:
    return with_statistics(
        TimmEncoder(
            model=model,
            pretrained=False,
            weights=None,
            image_size=64,
            crop_pct=None,
            pooled=False,
            pool=None,
            squash=False,
        )
    )


def images(count: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model", MODELS)
def test_folded_features_are_the_same(model: str) -> None:
    encoder = timm_encoder(model)
    weights = copy.deepcopy(encoder.state_dict())
    folded = fold_batchnorm(encoder, images(1))
    assert norms_of(encoder) and not norms_of(folded)
    with torch.no_grad():
        exact = copy.deepcopy(encoder).double()(images().double()).patches
        for layout in (torch.contiguous_format, torch.channels_last):
            off = (folded(images().contiguous(memory_format=layout)).patches - exact).abs().max()
            assert off < 1e-5 * exact.abs().max()
    assert all(torch.equal(encoder.state_dict()[name], weights[name]) for name in weights)


def test_an_encoder_without_batchnorm_is_left_as_it_is() -> None:
    encoder = timm_encoder("test_convnext")
    assert fold_batchnorm(encoder, images(1)) is encoder


def test_weights_that_are_not_folded_are_shared() -> None:
    encoder = timm_encoder("mobilenetv3_small_050")
    own = {tensor.data_ptr() for tensor in encoder.parameters()}
    folded = fold_batchnorm(encoder, images(1))
    squeezes = [p for name, p in folded.named_parameters() if ".se." in name]
    assert squeezes and all(p.data_ptr() in own for p in squeezes)


class SideBySide(nn.Module):
    """A convolution whose output is used twice: its norm cannot be folded into it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        found = self.convolution(pixels)
        return found + self.norm(found)


class Twice(nn.Module):
    """A convolution that is called twice, each time with another norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.first, self.second = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.second(self.convolution(self.first(self.convolution(pixels))))


@pytest.mark.parametrize("kind", [SideBySide, Twice])
def test_what_cannot_be_folded_is_not(kind: type[nn.Module]) -> None:
    module = with_statistics(kind())
    assert fold_batchnorm(module, images(1)) is module


# ------------------------------------------------------------------------------------- in a model of images


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageModel]:
    monkeypatch.setattr(image_model, "_WORTH_FOLDING", 2)
    model = ImageModel(timm_encoder("resnet10t"))
    model.freeze_encoder(True)
    return model.eval()


def pixels(count: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 64, 64), generator=torch.Generator().manual_seed(1)).byte()


def encoded_by(model: ImageModel) -> str:
    """Whether the encoder itself or a folded copy saw the images."""
    calls = []
    hook = model.encoder.register_forward_hook(lambda *_: calls.append(1))
    model.encode(pixels())
    hook.remove()
    return "itself" if calls else "folded"


def test_a_frozen_encoder_is_folded_for_many_images_alone(model: ImageModel) -> None:
    plain = model.encode(pixels()).patches
    model.fold_encoder(1)
    assert encoded_by(model) == "itself"
    model.fold_encoder(2)
    torch.testing.assert_close(model.encode(pixels()).patches, plain, rtol=1e-4, atol=1e-5)
    model.train()
    assert encoded_by(model) == "folded"
    model.freeze_encoder(False)
    assert encoded_by(model) == "itself"


def test_other_weights_are_folded_anew(model: ImageModel) -> None:
    model.fold_encoder(2)
    before = model.encode(pixels()).patches
    with torch.no_grad():
        changed = {name: tensor * 1.1 for name, tensor in model.state_dict().items()}
    model.load_state_dict(changed)
    expected = model.encoder(model_pixels(model)).patches
    assert not torch.allclose(before, expected, rtol=1e-2)
    torch.testing.assert_close(model.encode(pixels()).patches, expected, rtol=1e-4, atol=1e-5)


def model_pixels(model: ImageModel) -> torch.Tensor:
    return (pixels() - model.mean) / model.std


def test_the_copy_is_no_part_of_the_model(model: ImageModel) -> None:
    names, weights = list(model.state_dict()), [p.stride() for p in model.parameters()]
    model.fold_encoder(2)
    model.encode(pixels())
    assert list(model.state_dict()) == names
    assert [p.stride() for p in model.parameters()] == weights


def test_an_encoder_in_training_is_not_folded(model: ImageModel) -> None:
    model.freeze_encoder(False)
    with pytest.raises(AssertionError):
        model.fold_encoder(2)


def test_images_are_in_channels_last_and_weights_stay_as_muon_wants_them() -> None:
    model = ImageModel(SmallEncoder(image_size=64, widths=(8, 16), blocks_per_stage=1))
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    muon = MuonOptimizer(
        [p for p in model.parameters() if p.ndim == 4], lr=0.1, momentum=0.9, weight_decay=0.0
    )
    before = model.state_dict()["encoder.stages.1.0.weight"].clone()
    model.encode(pixels()).patches.square().mean().backward()
    muon.step()
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert all(p.is_contiguous() for p in model.parameters())
    assert not torch.equal(model.state_dict()["encoder.stages.1.0.weight"], before)

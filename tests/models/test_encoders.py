"""Encoders: the grid they promise, weights from local files, freezing without drift."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import timm
import torch
from helpers.tiny_config import TINY
from safetensors.torch import save_file

from easycap.config.compose import compose
from easycap.config.schema import check, to_plain
from easycap.models.captioner import Captioner
from easycap.models.encoders.small import SmallEncoder
from easycap.models.encoders.timm import TimmEncoder
from easycap.tasks.create import load_task
from easycap.train import create_task
from easycap.training.checkpoint_files import save_checkpoint
from easycap.types import Inputs, Preprocessing
from easycap.utils.hub import hub

UNTRAINED = {
    "pretrained": False,
    "weights": None,
    "crop_pct": None,
    "pooled": False,
    "pool": None,
    "squash": False,
}


@pytest.mark.parametrize(
    ("model", "channels"),
    [
        ("vit_base_patch32_clip_quickgelu_224.openai", 512),
        ("resnet50x4_clip.openai", 640),
        ("resnet10t", 512),
    ],
)
def test_pooled_is_one_patch_and_clips_own_embedding(model: str, channels: int) -> None:
    with torch.device("meta"):
        encoder = TimmEncoder(model=model, image_size=None, **(UNTRAINED | {"pooled": True}))
        size = encoder.preprocessing.size
        features = encoder(torch.zeros(2, 3, size, size))
    assert features.patches.shape == (2, 1, channels) and features.mask.shape == (2, 1)
    assert (encoder.channels, encoder.grid) == (channels, None)


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
    assert features.patches.shape == (1, height * width, encoder.channels)
    assert features.mask.all()
    if model != "test_convnext":
        assert encoder.grid == grid


def test_channels_last_models_keep_their_patches_in_place() -> None:
    """Swin's maps are (N,h,w,C): a patch must be one position's channels, not one channel's positions."""
    encoder = TimmEncoder(model="swin_tiny_patch4_window7_224", image_size=224, **UNTRAINED).eval()
    with torch.no_grad():
        images = torch.randn(1, 3, 224, 224)
        maps = encoder.network.forward_features(images)
        assert torch.allclose(encoder(images).patches[0, 9], maps[0, 1, 2])


def test_small_gives_the_grid_it_promises() -> None:
    features = small()(torch.randn(2, 3, 32, 32))
    assert features.grid == small().grid == (8, 8)
    assert features.patches.shape == (2, 64, 16)


def test_normalisation_follows_the_weights() -> None:
    encoder = TimmEncoder(model="vit_tiny_patch16_224.augreg_in21k", image_size=None, **UNTRAINED)
    assert encoder.preprocessing.mean == (0.5, 0.5, 0.5) and encoder.preprocessing.size == 224
    resnet = TimmEncoder(model="resnet10t", image_size=None, **UNTRAINED)
    assert resnet.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))


@pytest.mark.parametrize(("crop_pct", "wanted"), [(None, 0.95), (1.0, 1.0)])
def test_how_much_of_the_square_is_seen_can_be_set(crop_pct: float | None, wanted: float) -> None:
    encoder = TimmEncoder(model="test_vit", image_size=None, **(UNTRAINED | {"crop_pct": crop_pct}))
    assert encoder.preprocessing.crop == wanted


def loaded(model: str, weights: Path, image_size: int | None = None) -> TimmEncoder:
    given = {"model": model, "pretrained": True, "weights": str(weights), "image_size": image_size}
    return TimmEncoder(**UNTRAINED | given)


@pytest.fixture(scope="module")
def resnet() -> torch.nn.Module:
    return timm.create_model("resnet18", pretrained=False)


def test_weights_from_a_local_file(tmp_path: Path) -> None:
    source = timm.create_model("test_vit", pretrained=False)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    encoder = loaded("test_vit", tmp_path / "model.safetensors")
    assert torch.equal(encoder.network.cls_token, source.cls_token)


def test_weights_as_torchvision_gives_them(resnet: torch.nn.Module, tmp_path: Path) -> None:
    """A pickled state_dict, in old files without the counters of BatchNorm."""
    from torchvision.models import resnet18

    assert resnet18().state_dict().keys() == resnet.state_dict().keys()  # timm keeps torchvision's names
    old = {name: value for name, value in resnet.state_dict().items() if "num_batches" not in name}
    torch.save(old, tmp_path / "resnet18-5c106cde.pth")
    encoder = loaded("resnet18.tv_in1k", tmp_path / "resnet18-5c106cde.pth", 32)
    assert torch.equal(encoder.network.layer4[1].conv2.weight, resnet.layer4[1].conv2.weight)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self):
            return (tmp_path.joinpath("harm").touch, ())

    torch.save({"x": Harmful()}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="could run any code"):
        loaded("resnet18", tmp_path / "model.pth", 32)
    assert not (tmp_path / "harm").exists()


@pytest.fixture
def own_config(tmp_path: Path) -> Path:
    """A folder as timm saves models, with an input size and normalisation of its own."""
    from timm.models import save_for_hf

    network = timm.create_model("test_vit", pretrained=False, img_size=96)
    own = {"input_size": (3, 96, 96), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_pct": 0.8}
    network.pretrained_cfg |= own | {"interpolation": "nearest"}
    save_for_hf(network, tmp_path / "vit", safe_serialization=True)
    return tmp_path / "vit"


def test_a_folder_brings_its_own_input_size_and_normalisation(own_config: Path) -> None:
    expected = Preprocessing(96, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.8, "nearest")
    encoder = loaded("test_vit", own_config)
    assert encoder.preprocessing == expected
    with torch.no_grad():
        assert encoder(torch.randn(1, 3, 96, 96)).grid == encoder.grid == (6, 6)
    assert loaded("test_vit", own_config, 64).preprocessing == expected._replace(size=64)


def test_a_checkpoint_remembers_what_its_weights_expect(own_config: Path, tmp_path: Path) -> None:
    weights = ["encoder=timm", "encoder.model=test_vit", f"encoder.weights={own_config}"]
    tiny = [setting for setting in TINY if not setting.startswith("encoder.")]
    config = check(compose([*tiny, *weights])[0])
    task = create_task(config)
    save_checkpoint(tmp_path / "best", task.model, task.vocabulary, to_plain(config), progress={})
    shutil.rmtree(own_config)
    again = load_task(tmp_path / "best", device="cpu")
    assert again.model.encoder.preprocessing == task.model.encoder.preprocessing
    images = torch.randint(0, 255, (2, 3, 96, 96), dtype=torch.uint8)
    before, after = (e.model.eval().build_memory(Inputs(images)).tokens for e in (task, again))
    assert torch.equal(before, after)
    assert vars(again.pipeline.transform) == vars(task.pipeline.transform)


def test_a_folder_of_another_architecture_is_named(own_config: Path) -> None:
    with pytest.raises(ValueError, match="resnet18 cannot be loaded .*they are of test_vit"):
        loaded("resnet18", own_config)


def test_a_file_of_a_larger_or_a_smaller_model_is_refused(resnet: torch.nn.Module, tmp_path: Path) -> None:
    larger = timm.create_model("resnet34", pretrained=False)
    save_file(larger.state_dict(), tmp_path / "34.safetensors")
    with pytest.raises(ValueError, match="of another model, e.g. layer1.2"):
        loaded("resnet18", tmp_path / "34.safetensors", 32)
    save_file(resnet.state_dict(), tmp_path / "18.safetensors")
    with pytest.raises(ValueError, match="tensors are missing, e.g. layer1.2"):
        loaded("resnet34", tmp_path / "18.safetensors", 32)
    with pytest.raises(ValueError, match="resnet50 cannot be loaded .*size mismatch"):
        loaded("resnet50", tmp_path / "18.safetensors", 32)


class Attack:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["model.pth", "model.bin", "model.pth.tar", "model.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_before_timm_sees_it(
    tmp_path: Path, monkeypatch, name: str, zipped: bool
) -> None:
    torch.save(
        {"state_dict": Attack(tmp_path / "attacked")}, tmp_path / name, _use_new_zipfile_serialization=zipped
    )
    if not name.endswith("safetensors"):
        monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("timm got it"))
    with pytest.raises(ValueError, match=f"cannot be loaded from encoder.weights={tmp_path / name}"):
        loaded("resnet18", tmp_path / name, 32)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_a_truncated_file_is_named(name: str, resnet: torch.nn.Module, tmp_path: Path) -> None:
    file = tmp_path / name
    (torch.save if name.endswith("pth") else save_file)(resnet.state_dict(), file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"cannot be loaded from encoder.weights={file}") as error:
        loaded("resnet18", file, 32)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "resnt18"}, "did you mean resnet18"),
        ({"model": "test_vit", "weights": "x.safetensors"}, "encoder.pretrained=false"),
        (
            {"model": "test_vit", "pretrained": True, "weights": "x.bin"},
            "weights=x.bin .*there is no such file",
        ),
        ({"model": "test_vit", "pretrained": True, "weights": "x.safetensors"}, "there is no such file"),
        ({"model": "resnet10t", "image_size": 0}, "image_size=0"),
        ({"model": "test_vit", "image_size": 63}, "image_size=63 does not fit"),
        ({"model": "test_vit", "pool": 3}, "encoder.pool=3 is for networks that make a map"),
        ({"model": "resnet10t", "pool": 0}, "encoder.pool=0 must be a side of at least 1"),
        ({"model": "resnet10t", "squash": True, "crop_pct": 0.9}, "encoder.squash=true crops nothing"),
        ({"model": "resnet10t", "crop_pct": 1.5}, "crop_pct=1.5 must be above 0 and at most 1"),
    ],
)
def test_wrong_settings_are_named(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TimmEncoder(**({"image_size": None} | UNTRAINED | settings))


def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="are not of test_vit: 78 tensors are missing"):
        TimmEncoder(
            model="test_vit",
            pretrained=True,
            weights=str(tmp_path / "model.safetensors"),
            image_size=None,
            crop_pct=None,
            pooled=False,
            pool=None,
            squash=False,
        )


def test_without_network_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("easycap.utils.hub._reachable", lambda: False)
    with pytest.raises(
        ValueError, match=r"encoder.weights=FOLDER, or train from scratch with encoder.pretrained=false"
    ):
        TimmEncoder(
            model="resnet18.tv_in1k",
            pretrained=True,
            weights=None,
            image_size=None,
            crop_pct=None,
            pooled=False,
            pool=None,
            squash=False,
        )


def test_offline_mode_ends_with_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr("easycap.utils.hub._reachable", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


class _Tokens(torch.nn.Module):
    def forward(self, features):
        return features.patches, features.mask


def test_a_frozen_encoder_gets_no_gradient_and_does_not_drift() -> None:
    encoder = TimmEncoder(model="resnet10t", image_size=32, **UNTRAINED)
    captioner = Captioner(encoder=encoder, image_tokens=_Tokens(), decoder=torch.nn.Linear(1, 1))
    captioner.freeze_encoder(True)
    captioner.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    memory = captioner.build_memory(Inputs(torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)))
    assert not memory.tokens.requires_grad
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    captioner.freeze_encoder(False)
    assert captioner.build_memory(Inputs(torch.zeros(4, 3, 32, 32, dtype=torch.uint8))).tokens.requires_grad
    assert any(not torch.equal(before[name], value) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize("kept", [True, False])
def test_a_trained_encoder_may_keep_its_batchnorm_statistics(kept: bool) -> None:
    encoder = TimmEncoder(model="resnet10t", image_size=32, **UNTRAINED)
    captioner = Captioner(encoder=encoder, image_tokens=_Tokens(), decoder=torch.nn.Linear(1, 1))
    captioner.freeze_batchnorm = kept
    captioner.freeze_encoder(False)
    captioner.train()
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    tokens = captioner.build_memory(Inputs(torch.zeros(4, 3, 32, 32, dtype=torch.uint8))).tokens
    assert tokens.requires_grad
    assert all(torch.equal(before[name], value) for name, value in encoder.named_buffers()) == kept
    tokens.sum().backward()
    norms = [module for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms and all(norm.weight.grad is not None for norm in norms)


def test_normalisation_is_done_once_on_the_device() -> None:
    encoder = small()
    captioner = Captioner(encoder=encoder, image_tokens=_Tokens(), decoder=torch.nn.Linear(1, 1))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in encoder.preprocessing[1:3])
    expected = encoder((images / 255 - mean) / std).patches
    assert torch.allclose(captioner.build_memory(Inputs(images)).tokens, expected, atol=1e-5)


def test_a_map_is_averaged_or_enlarged_to_a_grid_of_another_side() -> None:
    """As sgrvinod's tutorial makes 14 x 14 of a ResNet's 8 x 8."""
    encoder, plain = (
        TimmEncoder(**UNTRAINED | {"model": "resnet10t", "image_size": 64, "pool": side}).eval()
        for side in (3, None)
    )
    plain.load_state_dict(encoder.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found, whole = encoder(images), plain(images)
    a, b, c, d = whole.patches.unbind(1)  # 2 x 2
    assert encoder.grid == found.grid == (3, 3)
    middle = torch.stack(
        [a, (a + b) / 2, b, (a + c) / 2, (a + b + c + d) / 4, (b + d) / 2, c, (c + d) / 2, d], 1
    )
    torch.testing.assert_close(found.patches, middle)

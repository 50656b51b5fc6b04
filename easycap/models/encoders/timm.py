"""Any timm model as an encoder: the grid of features before its pooling."""

from __future__ import annotations

import difflib
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from easycap.hub import first_line, hub
from easycap.registry import register
from easycap.types import Features, Preprocessing


@register("encoder", "timm")
class TimmEncoder(nn.Module):
    """images (N,3,H,W) -> Features of timm's `model` before pooling; a ViT's class token is left out.

    `pretrained` loads timm's weights from the hub, or from `weights`, a local .safetensors file of the same model.
    `image_size` overrides the size the weights were trained at; normalisation follows the weights' own config.
    Raises `ValueError` for an unknown model, an impossible size, or weights that cannot be had.
    """

    def __init__(self, *, model: str, pretrained: bool, weights: str | None, image_size: int | None) -> None:
        super().__init__()
        if image_size is not None and image_size <= 0:
            raise ValueError(f"encoder.image_size={image_size} must be positive, or null for the model's own")
        from timm.data import resolve_model_data_config  # timm costs seconds to import: who uses it pays

        self.network = _create(model, pretrained=pretrained, weights=weights)
        settings = resolve_model_data_config(self.network)
        size = image_size or settings["input_size"][-1]
        _set_input_size(self.network, size)
        self.preprocessing = Preprocessing(
            size=size,
            mean=tuple(settings["mean"]),
            std=tuple(settings["std"]),
            crop=settings["crop_pct"],
            interpolation=settings["interpolation"],
        )
        self.channels, self.grid, self._channels_last = _probe(model, size)

    def forward(self, images: torch.Tensor) -> Features:
        maps = self.network.forward_features(images)
        if maps.ndim == 4:
            maps = maps.permute(0, 3, 1, 2) if self._channels_last else maps
            grid, cells = tuple(maps.shape[-2:]), maps.flatten(2).transpose(1, 2)
        else:
            grid, cells = self.grid, maps[:, _prefix_tokens(self.network) :]
        return Features(cells, cells.new_ones(cells.shape[:2], dtype=torch.bool), grid)


def _create(model: str, *, pretrained: bool, weights: str | None) -> nn.Module:
    import timm

    if not timm.is_model(model):
        raise ValueError(f"encoder.model={model!r} is no timm model; {_near(model)}")
    if not pretrained:
        if weights is not None:
            raise ValueError(f"encoder.weights={weights} is set but encoder.pretrained=false: set it to true")
        return timm.create_model(model, pretrained=False, num_classes=0)
    overlay = {"file": str(_weights_file(weights))} if weights else None
    try:
        with hub():
            network = timm.create_model(model, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    except (
        Exception
    ) as error:  # the hub client has no common base class for 'offline', 'missing' and 'refused'
        source = f"from {weights}" if weights else f"from the hub (timm/{model})"
        raise ValueError(
            f"the pretrained weights of {model} cannot be loaded {source} ({first_line(error)}): download the "
            f"model.safetensors of huggingface.co/timm/{model} and pass encoder.weights=FILE, or train from "
            "scratch with encoder.pretrained=false"
        ) from error
    if weights is not None:
        _check_belongs(network, model, weights)
    return network


def _check_belongs(network: nn.Module, model: str, weights: str) -> None:
    # timm only logs what a file lacks and leaves it random
    with safe_open(weights, framework="pt") as file:
        missing = sorted(network.state_dict().keys() - set(file.keys()))
    if missing:
        raise ValueError(
            f"encoder.weights={weights} are not of {model}: {len(missing)} tensors are missing, e.g. {missing[0]}"
        )


def _weights_file(weights: str) -> Path:
    path = Path(weights).expanduser()
    if path.suffix != ".safetensors":
        raise ValueError(f"encoder.weights={weights} must be a .safetensors file: other formats can run code")
    if not path.is_file():
        raise ValueError(f"encoder.weights={weights} does not exist")
    return path


def _set_input_size(network: nn.Module, size: int) -> None:
    if hasattr(network, "set_input_size"):  # transformers size their position table by the image
        network.set_input_size(img_size=size)


def _probe(model: str, size: int) -> tuple[int, tuple[int, int] | None, bool]:
    """Channels, grid and channel order at this input size, from a twin on the meta device: no arithmetic is done."""
    import timm

    with torch.device("meta"), torch.no_grad():
        twin = timm.create_model(model, pretrained=False, num_classes=0).eval()
        try:
            _set_input_size(twin, size)
            maps = twin.forward_features(torch.zeros(1, 3, size, size))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"encoder.image_size={size} does not fit {model} ({first_line(error)})"
            ) from error
    channels = twin.num_features
    if maps.ndim == 4:
        last = maps.shape[1] != channels and maps.shape[-1] == channels
        height, width = maps.shape[1:3] if last else maps.shape[2:]
        return channels, (int(height), int(width)), last
    cells = maps.shape[1] - _prefix_tokens(twin)
    side = round(cells**0.5)
    return channels, (side, side) if side * side == cells else None, False


def _prefix_tokens(network: nn.Module) -> int:
    return getattr(network, "num_prefix_tokens", 0)


def _near(model: str) -> str:
    import timm

    names = timm.list_models() + timm.list_pretrained()
    near = difflib.get_close_matches(model, names, n=3, cutoff=0.7)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    return f"{hint}python -c 'import timm; print(timm.list_models())' lists them"

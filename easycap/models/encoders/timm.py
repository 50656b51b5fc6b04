"""Any timm model as an encoder: the grid of features before its pooling."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from easycap.errors import UserError
from easycap.registry import register
from easycap.types import Features, Preprocessing
from easycap.utils.hub import fetch, hub, in_one_line
from easycap.utils.paths import expanded

_FILES = {".safetensors", ".pth", ".pt", ".bin"}
_OF_IMAGES = ("input_size", "mean", "std", "crop_pct", "interpolation")


@register("encoder", "timm")
class TimmEncoder(nn.Module):
    """images (N,3,H,W) -> Features of timm's `model` before pooling; a ViT's class token is left out.

    `pretrained` loads timm's weights of `model` from the hub, or other weights of it from `weights`: a file
    (.safetensors; torchvision's .pth and other pickles, of which only tensors are read), or a folder or hub name with
    config.json and model.safetensors, as timm saves models. Input size and normalisation are those of config.json, else
    of timm's weights of that name; `image_size` overrides the size, and `crop_pct` the share of the resized image's
    side that is cut out of its centre (1: all). Raises `UserError` for an unknown model, an impossible size or share,
    or weights that cannot be had or belong to another model.

    With `pooled` there is one patch, what the model itself pools the image to; of a CLIP model the embedding in the
    space it shares with text. With `pool` the patches are averaged, or repeated, to a grid of that side (adaptive
    average pooling). With `squash` an image is resized to the square whatever its ratio, and nothing is cut off.
    """

    def __init__(
        self,
        *,
        model: str,
        pretrained: bool,
        weights: str | None,
        image_size: int | None,
        crop_pct: float | None,
        pooled: bool,
        pool: int | None,
        squash: bool,
    ) -> None:
        super().__init__()
        if pool is not None and (pool < 1 or pooled):
            raise UserError(
                f"encoder.pool={pool} must be a side of at least 1, and null with encoder.pooled=true"
            )
        if squash and crop_pct not in (None, 1):
            raise UserError("encoder.squash=true crops nothing: leave out encoder.crop_pct")
        if crop_pct is not None and not 0 < crop_pct <= 1:
            raise UserError(
                f"encoder.crop_pct={crop_pct} must be above 0 and at most 1, or null for the model's own"
            )
        if image_size is not None and image_size <= 0:
            raise UserError(f"encoder.image_size={image_size} must be positive, or null for the model's own")
        from timm.data import resolve_model_data_config  # timm costs seconds to import: who uses it pays

        self.network: Any = _create(  # timm's models have no common interface
            model, pretrained=pretrained, weights=weights, **_head(model, pooled)
        )
        settings = resolve_model_data_config(self.network)
        size = image_size or settings["input_size"][-1]
        _set_input_size(self.network, size)
        self.preprocessing = Preprocessing(
            size=size,
            mean=tuple(settings["mean"]),
            std=tuple(settings["std"]),
            crop=1.0 if squash else crop_pct or settings["crop_pct"],
            interpolation=settings["interpolation"],
            squash=squash,
        )
        self.pooled, self.pool = pooled, pool
        self.channels, self.grid, self._channels_last = _probe(model, size)
        if pooled:
            self.channels, self.grid = self.network.num_classes or self.channels, None
        if pool is not None:
            if self.grid is None or hasattr(self.network, "num_prefix_tokens"):
                raise UserError(
                    f"encoder.pool={pool} is for networks that make a map, as ResNets do, and {model} does not"
                )
            self.grid = (pool, pool)

    def checkpoint_gradients(self) -> None:
        """Compute activations again in the backward pass; `UserError` if timm's model cannot.

        BatchNorm statistics of a trained encoder then move twice per step.
        """
        try:
            self.network.set_grad_checkpointing(True)
        except (AttributeError, AssertionError):
            raise UserError(
                "trainer.gradient_checkpointing=true is not known to this timm model: set it to false"
            ) from None

    def forward(self, images: torch.Tensor) -> Features:
        if self.pooled:
            patches = self.network(images).unsqueeze(1)
            return Features(patches, patches.new_ones(patches.shape[:2], dtype=torch.bool), None)
        maps = self.network.forward_features(images)
        grid: tuple[int, int] | None
        if maps.ndim == 4:
            maps = maps.permute(0, 3, 1, 2) if self._channels_last else maps
            grid = (maps.shape[-2], maps.shape[-1])
            if self.pool is not None:
                maps, grid = nn.functional.adaptive_avg_pool2d(maps, self.pool), self.grid
            patches = maps.flatten(2).transpose(1, 2)
        else:
            grid, patches = self.grid, maps[:, _prefix_tokens(self.network) :]
        return Features(patches, patches.new_ones(patches.shape[:2], dtype=torch.bool), grid)


def _head(model: str, pooled: bool) -> dict[str, Any]:
    """The last layer that timm is asked for: none; but CLIP's, unless fine-tuned since, is its projection."""
    return {} if pooled and "_clip" in model and "_ft_" not in model else {"num_classes": 0}


def _create(model: str, *, pretrained: bool, weights: str | None, **head: Any) -> Any:
    import timm

    if not timm.is_model(model):
        raise UserError(f"encoder.model={model!r} is not a timm model; {_near(model)}")
    if not pretrained:
        if weights is not None:
            raise UserError(f"encoder.weights={weights} is set but encoder.pretrained=false: set it to true")
        return timm.create_model(model, pretrained=False, **head)
    try:
        overlay = _local_weights(model, weights) if weights else None
        with hub():
            network = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay, **head)
    except (
        Exception
    ) as error:  # neither the hub's client nor torch.load has one class for 'offline', 'missing', 'damaged'
        where = f"encoder.weights={weights}" if weights else f"the hub (timm/{model})"
        raise UserError(
            f"the weights of {model} cannot be loaded from {where} ({in_one_line(error)}): download model.safetensors "
            f"and config.json of huggingface.co/timm/{model} into a folder and pass encoder.weights=FOLDER, or train "
            "from scratch with encoder.pretrained=false"
        ) from error
    if overlay is not None:
        _check_belongs(network, model, overlay["file"])
    return network


def _local_weights(model: str, weights: str) -> dict[str, Any]:
    """What timm should take from elsewhere than its own config of `model`: the file, and what its images are like."""
    path = expanded(weights)
    if path.is_file():
        if path.suffix != ".safetensors":
            _refuse_code(path)
        return {"file": str(path)}
    if path.suffix in _FILES:
        raise UserError("there is no such file")
    described, file = fetch(weights, "config.json", "model.safetensors")
    config = json.loads(described.read_text(encoding="utf-8"))
    if config["architecture"] != model.partition(".")[0]:
        raise UserError(f"they are of {config['architecture']}")
    own = config.get("pretrained_cfg", config)
    return {"file": str(file)} | {name: own[name] for name in _OF_IMAGES if name in own}


def _refuse_code(path: Path) -> None:
    """Raise `UserError` for a pickle that holds more than tensors: older versions of timm would execute it."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise UserError(
            "the file holds Python objects other than tensors, which could run any code when they are loaded; if you "
            "trust it, save its tensors as safetensors"
        ) from None


def _check_belongs(network: nn.Module, model: str, file: str) -> None:
    # timm only logs what a file lacks or has too much; a smaller model finds all it needs in a larger one's file
    import timm

    with torch.device("meta"):
        whole = timm.create_model(model, pretrained=False)  # with its classifier
    found = _names(file)
    # old files of torchvision count no batches
    missing = sorted(n for n in network.state_dict().keys() - found if "num_batches_tracked" not in n)
    foreign = sorted(n for n in found - whole.state_dict().keys() if n.endswith(".weight"))
    for names, what in ((missing, "missing"), (foreign, "of another model")):
        if names:
            raise UserError(
                f"encoder.weights={file} are not of {model}: {len(names)} tensors are {what}, e.g. {names[0]}"
            )


def _names(file: str) -> set[str]:
    from timm.models import load_state_dict

    if file.endswith(".safetensors"):
        with safe_open(file, framework="pt") as opened:
            return set(opened.keys())
    return set(load_state_dict(file, weights_only=True))


def _set_input_size(network: Any, size: int) -> None:
    if hasattr(network, "set_input_size"):  # transformers size their position table by the image
        network.set_input_size(img_size=size)


def _probe(model: str, size: int) -> tuple[int, tuple[int, int] | None, bool]:
    """Channels, grid and channel order at this input size, from a twin on the meta device: no arithmetic is done."""
    import timm

    with torch.device("meta"), torch.no_grad():
        twin: Any = timm.create_model(model, pretrained=False, num_classes=0).eval()
        try:
            _set_input_size(twin, size)
            maps = twin.forward_features(torch.zeros(1, 3, size, size))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"encoder.image_size={size} does not fit {model} ({in_one_line(error)})"
            ) from error
    channels = twin.num_features
    if maps.ndim == 4:
        last = maps.shape[1] != channels and maps.shape[-1] == channels
        height, width = maps.shape[1:3] if last else maps.shape[2:]
        return channels, (int(height), int(width)), last
    patches = maps.shape[1] - _prefix_tokens(twin)
    side = round(patches**0.5)
    return channels, (side, side) if side * side == patches else None, False


def _prefix_tokens(network: nn.Module) -> int:
    return getattr(network, "num_prefix_tokens", 0)


def _near(model: str) -> str:
    import timm

    names = timm.list_models() + timm.list_pretrained()
    near = difflib.get_close_matches(model, names, n=3, cutoff=0.7)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    return f"{hint}python -c 'import timm; print(timm.list_models())' lists them"

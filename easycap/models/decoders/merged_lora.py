"""LoRA merged into the weights it adds to, for a while: one matrix product per layer instead of three."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from easycap.utils.transformers_adapter import LanguageModel

# Merging takes the time that it saves on about so many captions.
_FEW_IMAGES = 32


def merged_where_it_pays(lm: LanguageModel, num_images: int) -> AbstractContextManager[None]:
    """Return the context of `merged_lora` for captions of many images, else one that does nothing.

    On a CPU only, as merged layers take memory, and not where ranks have a part of the weights each.
    """
    weight = next(lm.parameters())
    whole_on_cpu = weight.device.type == "cpu" and not hasattr(weight, "to_local")
    return merged_lora(lm) if whole_on_cpu and num_images >= _FEW_IMAGES else nullcontext()


@contextmanager
@torch.no_grad()
def merged_lora(lm: LanguageModel) -> Iterator[None]:
    """Replace each layer with LoRA by W + (alpha / rank) B A inside this context, in which nothing can be trained.

    The model's own weights are left as they are, bit for bit. It takes as much memory as the layers, and the time of
    some tens of captions.
    """
    layers = [
        (parent, name, layer)
        for parent in lm.modules()
        for name, layer in parent.named_children()
        if hasattr(layer, "lora_A")
    ]
    try:
        for parent, name, layer in layers:
            setattr(parent, name, _merged(layer))
        yield
    finally:
        for parent, name, layer in layers:
            setattr(parent, name, layer)


def _merged(layer: nn.Module) -> nn.Module:
    base = layer.get_submodule("base_layer")
    weight = base.get_parameter("weight").detach().clone()
    for adapter in layer.lora_A:  # type: ignore[union-attr]  # a ModuleDict of peft
        weight += layer.get_delta_weight(adapter)  # type: ignore[operator]  # of peft
    merged = copy.copy(base)
    merged._parameters = base._parameters | {"weight": nn.Parameter(weight, requires_grad=False)}
    return merged

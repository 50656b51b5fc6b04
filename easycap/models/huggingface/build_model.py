"""From the checked settings of captioner=huggingface to the model: pretrained, or as its checkpoint needs it."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from easycap.config.instantiate import build
from easycap.models.decoders.language_models import Tune
from easycap.models.huggingface.image_text_model import ImageTextModel
from easycap.models.huggingface.model_tokens import ModelTokens
from easycap.models.huggingface.whole_captioner import HuggingFaceSettings
from easycap.types import Preprocessing
from easycap.utils.extras import check_extra
from easycap.utils.image_text_adapter import build_model, load_model, tower_of
from easycap.utils.native_parts import is_transposed_linear


def settings_of(config: dict[str, Any]) -> HuggingFaceSettings:
    """Return the settings of a checked config; `UserError` for those out of range."""
    found: HuggingFaceSettings = build("captioner", config["captioner"])
    return found


def build_image_text_model(
    config: dict[str, Any], vocabulary: ModelTokens, _: Preprocessing | None = None
) -> ImageTextModel:
    """Return the captioner of a config, with its pretrained weights, or random ones if captioner.model is empty.

    Images are prepared by the model's own processor. Raises `UserError` if the weights cannot be loaded.
    """
    settings = settings_of(config)
    dtype = settings.dtype.of_torch
    if settings.model:
        model = load_model(settings.model, vocabulary.config, dtype=dtype)
    else:
        model = build_model(vocabulary.config, dtype=dtype)
    if settings.tune is not Tune.all:
        model.requires_grad_(False)
    if settings.tune is Tune.lora:
        _add_lora(model, settings.lora_rank, settings.lora_alpha)
    return ImageTextModel(
        model,
        vocabulary,
        max_length=settings.max_length,
        tune_tower=settings.tune is Tune.all,
        keep_prompt=not settings.remove_prompt,
    )


def _add_lora(model: Any, rank: int, alpha: float) -> None:
    """Add W x + (alpha / rank) B A x to each linear layer but those of the vision tower and the output layer.

    Hu et al. 2021, arXiv 2106.09685; B starts at zero.
    """
    check_extra("lora", "captioner.tune=lora")
    from peft import LoraConfig, inject_adapter_in_model

    path, _ = tower_of(model)
    last = model.get_output_embeddings()
    names = [
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or is_transposed_linear(module))
        and module is not last
        and not f"{name}.".startswith(f"{path}.")
    ]
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # any number; typed as a whole one
        target_modules=names,
        fan_in_fan_out=any(map(is_transposed_linear, model.modules())),  # GPT-2's linear layers
    )
    with warnings.catch_warnings():  # that it found the right layout of each layer by itself
        warnings.simplefilter("ignore")
        inject_adapter_in_model(settings, model)

"""A fine-tuned captioner of transformers as a folder that transformers loads, LoRA merged into its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from easycap.data.image_inputs import LoadedImage
from easycap.errors import UserError
from easycap.models.decoders.merged_lora import merged_lora
from easycap.models.huggingface.image_text_model import ImageTextModel
from easycap.models.huggingface.model_input import ModelInput
from easycap.models.huggingface.model_tokens import ModelTokens
from easycap.tasks.image_text_task import ImageTextTask
from easycap.types import Inputs
from easycap.utils.image_text_adapter import load_model, save_model
from easycap.utils.processed_images import ProcessedImages

_TEXT = "a photo of a dog and a cat on the grass"
_IMAGES = 2


def save_whole_model(task: ImageTextTask, folder: Path) -> float:
    """Write a captioner on the CPU into the empty `folder`, in fp32, with processor, tokenizer and generation config.

    Returns the largest difference of a log-probability between it and the captioner, found by loading the folder: of
    the words of a sentence about random images.
    """
    tokens, model = task.vocabulary, task.model.model.float()
    with merged_lora(model):
        save_model(folder, model, tokens.generation, tokens.processor)
    saved = ModelTokens(str(folder), tokens.prompt)
    loaded = ImageTextModel(
        load_model(str(folder), saved.config, dtype=torch.float32),
        saved,
        max_length=task.model.max_length,
        tune_tower=False,
    )
    before, after = (
        _log_probabilities(one, of) for one, of in ((task.model, tokens), (loaded.eval(), saved))
    )
    if before.shape != after.shape:
        raise UserError("the tokenizer that transformers saved reads text otherwise: nothing was saved")
    return float((before - after).abs().max())


def _log_probabilities(captioner: ImageTextModel, tokens: ModelTokens) -> torch.Tensor:
    """Those of each word after each of a sentence (N,T,V)."""
    view = ModelInput(tokens)
    draw = np.random.default_rng(0)
    photos = [
        Image.fromarray(draw.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize((240, 180))
        for _ in range(_IMAGES)
    ]
    images: Any = ProcessedImages.joined([view(LoadedImage(photo)) for photo in photos])
    words = torch.tensor([[tokens.bos_id, *tokens.encode(_TEXT)][: captioner.max_length]] * _IMAGES)
    logits = captioner(Inputs(images), words, torch.arange(_IMAGES)).logits
    return logits[..., : tokens.num_own].log_softmax(-1)

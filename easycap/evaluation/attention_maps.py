"""Pictures of where a run's decoder looked at its images, word by word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from easycap.evaluation.ensemble_pipeline import EnsemblePipeline
from easycap.evaluation.pipeline import Pipeline
from easycap.generation.attention_weights import CaptionDetails, by_words, caption_details
from easycap.models.image_model import ImageModel
from easycap.report.attention_figure import attention_picture
from easycap.types import Example, Inputs


def why_no_attention(pipeline: Pipeline, config: Mapping[str, Any]) -> str:
    """Return why a captioner's attention cannot be drawn, in a sentence that says what to choose; empty if it can."""
    if isinstance(pipeline, EnsemblePipeline):
        return "an ensemble has no attention maps of its own: draw those of one of its runs"
    if hasattr(pipeline.model, "no_attention"):
        return pipeline.model.no_attention
    no_words = {name: torch.zeros(1, 0, dtype=torch.long) for name in pipeline.conditions}
    nothing = Inputs(_empty_image(pipeline.model), no_words)
    (details,) = _details(pipeline, nothing.to(pipeline.device), [[pipeline.vocabulary.eos_id]])
    if details.attention is None:
        return (
            f"decoder={config['decoder']['name']} does not attend over the image word by word: train with one that "
            "does, e.g. decoder=attention_lstm image_tokens=all"
        )
    if pipeline.model.image_tokens.grid is None:
        return (
            f"image_tokens={config['image_tokens']['name']} makes tokens that do not stand for places in the "
            "image: train with image_tokens=all or image_tokens=grid and an encoder whose features form a grid"
        )
    return ""


def _empty_image(model: ImageModel) -> torch.Tensor:
    """An image as the model takes them: black, or of one region."""
    pixels = model.encoder.preprocessing
    if pixels is None:
        return torch.zeros(1, 1, model.encoder.channels)
    return torch.zeros(1, 3, pixels.size, pixels.size, dtype=torch.uint8)


def pictures(
    pipeline: Pipeline,
    examples: Sequence[Example],
    captions: Sequence[str],
    *,
    given: Mapping[str, Sequence[str]] | None = None,
    side: int = 160,
) -> list[Image.Image]:
    """Return where the decoder looked for each word of each example's caption; panels have `side` pixels.

    `given` replaces texts of conditions, as in `Pipeline.inputs`. Only where
    `why_no_attention` finds nothing against it.
    """
    ids = [pipeline.vocabulary.encode(caption)[: pipeline.max_length] for caption in captions]
    drawn = []
    details = _details(pipeline, pipeline.inputs(examples, given=given), ids)
    for example, one in zip(examples, details, strict=True):
        assert one.attention is not None
        photo = example.image.load(2 * side)
        words, maps = by_words(one.ids, one.attention, pipeline.vocabulary)
        maps = maps.reshape(len(words), *pipeline.model.image_tokens.grid)
        window = pipeline.transform.window(photo.size)
        drawn.append(attention_picture(photo, window, words, maps, side=side))
    return drawn


def _details(pipeline: Pipeline, inputs: Inputs, captions: Sequence[Sequence[int]]) -> list[CaptionDetails]:
    return caption_details(pipeline.model, inputs, captions, pipeline.vocabulary, pipeline.autocast)

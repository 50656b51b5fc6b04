"""Pictures of where a run's decoder looked at its images, word by word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from PIL import Image
from torch import nn

from easycap.experiment import Experiment
from easycap.generation.attention import attention_over_image, by_words
from easycap.report.attention import attention_picture
from easycap.training.hardware import Precision, autocast
from easycap.types import Example, Inputs


def why_no_attention(experiment: Experiment) -> str:
    """Return why a run's attention cannot be drawn, in a sentence that says what to choose; empty if it can."""
    config, captioner = experiment.config, experiment.captioner
    no_words = {name: torch.zeros(1, 0, dtype=torch.long) for name in experiment.beside.segments}
    nothing = Inputs(_nothing(captioner), no_words)
    if _attention(experiment, nothing.to(experiment.device), [[experiment.vocabulary.eos_id]]) is None:
        return (
            f"decoder={config['decoder']['name']} does not attend over the image word by word: train with one that "
            "does, e.g. decoder=attention_lstm image_tokens=all"
        )
    if captioner.image_tokens.grid is None:
        return (
            f"image_tokens={config['image_tokens']['name']} makes tokens that are no places in the image: train with "
            "image_tokens=all or image_tokens=grid and an encoder whose features form a grid"
        )
    return ""


def _nothing(captioner: nn.Module) -> torch.Tensor:
    """An image as the captioner takes them: black, or of one region."""
    pixels = captioner.encoder.preprocessing
    if pixels is None:
        return torch.zeros(1, 1, captioner.encoder.channels)
    return torch.zeros(1, 3, pixels.size, pixels.size, dtype=torch.uint8)


def pictures(
    experiment: Experiment,
    examples: Sequence[Example],
    captions: Sequence[str],
    *,
    given: Mapping[str, Sequence[str]] | None = None,
    side: int = 160,
) -> list[Image.Image]:
    """Return where the decoder looked for each word of each example's caption; panels have `side` pixels.

    `given` are words beside the images that are not their own; see Experiment.inputs.
    Only for an experiment that `why_no_attention` says nothing against.
    """
    longest = experiment.captioner.decoder.max_words
    ids = [experiment.vocabulary.encode(caption)[:longest] for caption in captions]
    attention = _attention(experiment, experiment.inputs(examples, given=given), ids)
    assert attention is not None
    drawn = []
    for example, said, weights in zip(examples, ids, attention, strict=True):
        photo = example.image.load(2 * side)
        words, maps = by_words(said, weights, experiment.vocabulary)
        maps = maps.reshape(len(words), *experiment.captioner.image_tokens.grid)
        window = experiment.transform.window(photo.size)
        drawn.append(attention_picture(photo, window, words, maps, side=side))
    return drawn


def _attention(experiment: Experiment, inputs: Inputs, captions: Sequence[Sequence[int]]):
    precision = Precision(experiment.config["trainer"]["precision"])
    context = partial(autocast, experiment.device, precision)
    return attention_over_image(experiment.captioner, inputs, captions, experiment.vocabulary, context)

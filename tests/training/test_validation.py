"""The loss of validation, with the right and the wrong images."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn

from easycap.training.distributed import Ranks
from easycap.training.validation import ValidationConfig, Validator
from easycap.types import Batch, Inputs


def batch(images: list[float], hardness: float) -> Batch:
    words = torch.full((len(images), 1), hardness)
    return Batch(
        [f"{hardness} {i}" for i in images],
        Inputs(torch.tensor(images)),
        words,
        words.long() + 1,
        torch.arange(len(images)),
    )


def validator(batches: list[Batch], *, sees: bool) -> Validator:
    def loss(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        right = torch.arange(len(batch.image_ids), dtype=torch.float)
        wrong = (batch.inputs.images - right).abs().mean() if sees else torch.tensor(0.0)
        return batch.input_ids.mean() + wrong, {}

    settings = ValidationConfig(images=None, batch_size=2, every_epochs=1, samples=0, metric=None)
    return Validator(
        settings,
        examples=[],
        make_batches=lambda examples, size: batches,
        model=nn.Identity(),
        objective=loss,
        pad_id=0,
        predict=lambda batches: {},
        score=lambda examples, predictions: ({}, {}),
        as_text=str,
        default_metric="",
        doing="",
        device=torch.device("cpu"),
        autocast=nullcontext,
        ranks=Ranks(0, 1),
    )


def test_wrong_images_are_compared_with_the_right_ones_of_the_same_captions() -> None:
    batches = [batch([0.0, 1.0], 2.0), batch([0.0, 1.0], 6.0)]
    assert validator(batches, sees=False)._loss(batches) == (4.0, 4.0)
    assert validator(batches, sees=True)._loss(batches) == (4.0, 5.0)

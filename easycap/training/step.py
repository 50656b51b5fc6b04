"""One step of training: forward, backward, exchange between ranks, clip, move."""

from __future__ import annotations

import math

import torch
from torch import nn

from easycap.training.average import AverageWeights
from easycap.training.hardware import autocast
from easycap.training.memory import free_cache, images_that_fit, is_out_of_memory
from easycap.training.optim import Optimization
from easycap.training.ranks import Ranks
from easycap.training.scaling import ScaledOptimization
from easycap.training.trainer import Trainer
from easycap.types import Batch, Objective


class TrainStep:
    """Moves the weights of a captioner once per call; `average` are their moving averages."""

    def __init__(
        self,
        trainer: Trainer,
        *,
        captioner: nn.Module,
        objective: Objective,
        optimization: Optimization,
        pad_id: int,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.trainer, self.captioner, self.objective = trainer, captioner, objective
        self.pad_id, self.device, self.ranks = pad_id, device, ranks
        self.optimization = ScaledOptimization(
            optimization, captioner, device=device, precision=trainer.precision
        )
        self.average = AverageWeights(captioner, trainer.ema)

    def __call__(self, batches: list[Batch], step: int) -> dict[str, float]:
        """Take step number `step` (from 0) on some batches and return what to log.

        Raises `ValueError` if the loss is not finite, or, with what would fit, if the memory does not suffice.
        """
        try:
            return self.take(batches, step)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Only here, as the error held on to what the step had computed.
        raise ValueError(self.what_fits(max(batches, key=lambda batch: len(batch.ids))))

    def take(self, batches: list[Batch], step: int) -> dict[str, float]:
        """Each batch counts by its number of words, as if those of all ranks were one batch."""
        words = [int((batch.targets != self.pad_id).sum()) for batch in batches]
        all_words = self.ranks.add({"words": sum(words)})["words"]
        values: dict[str, float] = {}
        for batch, count in zip(batches, words, strict=True):
            for name, value in self.accumulate(batch, count / all_words).items():
                values[name] = values.get(name, 0.0) + value
        values = self.ranks.add(values)
        self.check_finite(values["loss"], batches, step)
        self.ranks.add_gradients(self.captioner.parameters())
        self.ranks.average_statistics(self.captioner)
        self.optimization.unscale()
        values |= self.clip_gradients(with_parts=(step + 1) % self.trainer.log_every_steps == 0)
        values |= self.optimization.apply(step)
        self.average.update(step)
        return values

    def accumulate(self, batch: Batch, share: float) -> dict[str, float]:
        """Add the gradients of `share` of a batch's loss; return that share of what the objective logs."""
        with autocast(self.device, self.trainer.precision):
            loss, parts = self.objective(self.captioner, batch.to(self.device))
        self.optimization.backward(loss * share)
        return {name: float(value) * share for name, value in parts.items()}

    def check_finite(self, loss: float, batches: list[Batch], step: int) -> None:
        if not math.isfinite(loss):
            ids = [image_id for batch in batches for image_id in batch.ids]
            shown = ", ".join(ids[:8]) + ", ..." * (len(ids) > 8)
            raise ValueError(
                f"the loss is {loss} at step {step + 1}; images {shown}. Lower optim.lr, raise schedule.warmup_steps, "
                "or set trainer.clip_norm"
            )

    def clip_gradients(self, *, with_parts: bool) -> dict[str, float]:
        """Clip to `clip_norm`; return the norm before, and with `with_parts` that of each part."""
        values = {}
        if with_parts:
            for name, part in self.captioner.named_children():
                grads = [p.grad for p in part.parameters() if p.grad is not None]
                values[f"grad_norm/{name}"] = float(torch.nn.utils.get_total_norm(grads)) if grads else 0.0
        limit = self.trainer.clip_norm or math.inf
        values["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(self.captioner.parameters(), limit))
        return values

    def what_fits(self, batch: Batch) -> str:
        """Say, after trying, which batch size the memory would take."""
        images = len(batch.ids)
        fits = images_that_fit(self.attempt, batch)
        self.optimization.optimization.zero_grad()
        free_cache()
        start = f"a batch of {images} images does not fit into the memory of {self.device}"
        own = self.objective.less_memory() if hasattr(self.objective, "less_memory") else None
        if fits is None:
            advice = own or "set trainer.gradient_checkpointing=true"
            return f"{start}, nor does one image: {advice}, or choose a smaller model"
        accumulate = self.trainer.accumulate * -(-images // fits)
        return (
            f"{start}; {fits} do, tried just now: trainer.batch_size={fits * self.ranks.count} "
            f"trainer.accumulate={accumulate} takes as large a step" + (f"; or {own}" if own else "")
        )

    def attempt(self, batch: Batch) -> None:
        """All that a step of this batch needs of the memory, before the first step also the optimiser's moments."""
        trained = sum(p.numel() * p.element_size() for p in self.captioner.parameters() if p.requires_grad)
        moments = 0 if self.optimization.optimization.has_state else 2 * trained
        reserved = torch.empty(moments, dtype=torch.uint8, device=self.device)
        self.optimization.optimization.zero_grad()
        self.accumulate(batch, 1.0)
        del reserved

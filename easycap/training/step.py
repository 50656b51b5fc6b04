"""One step of training: forward, backward, exchange between ranks, clip, move."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from easycap.errors import UserError
from easycap.training.average import AverageWeights
from easycap.training.distributed import Ranks
from easycap.training.gradients import Gradients, ObjectiveModule, gradients_of
from easycap.training.hardware import autocast
from easycap.training.memory import first_images, free_cache, images_that_fit, is_out_of_memory
from easycap.training.optim import Optimization
from easycap.training.parts import all_of_scalar
from easycap.training.scaling import ScaledOptimization
from easycap.training.stop import Stop
from easycap.training.trainer_config import TrainerConfig
from easycap.types import Batch, Objective
from easycap.utils.allocator import trim_if_needed
from easycap.utils.cpu_threads import Trial, try_threads


class StepResult(NamedTuple):
    """Result of a step: `values` to log, which are means over `words` words of all ranks.

    `asked` is the most urgent value of `Stop.asked` on any rank during the step.
    """

    values: dict[str, float]
    words: float
    asked: int


_ONE_VALUE = "Expected more than 1 value per channel"  # as torch's BatchNorm puts it


def as_numbers(values: Sequence[Mapping[str, torch.Tensor]], device: torch.device) -> list[dict[str, float]]:
    """Return scalar tensors, on `device` or the CPU, as numbers, all in one copy.

    Each wait for a GPU lets its queue of work run empty, so a step has one.
    """
    tensors = [tensor.to(device, non_blocking=True) for some in values for tensor in some.values()]
    numbers = iter(torch.stack(tensors).tolist())
    return [{name: next(numbers) for name in some} for some in values]


def total_norm(module: nn.Module) -> torch.Tensor:
    """Return the norm of all gradients of a module, 0 without any."""
    return all_of_scalar(nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None]))


class TrainStep:
    """Updates the weights of a model once per call; `average` are their moving averages.

    `asked` says whether this rank was asked to stop. Gradients come from `gradients`, by default of `model`.
    """

    def __init__(
        self,
        settings: TrainerConfig,
        *,
        model: nn.Module,
        objective: Objective,
        optimization: Optimization,
        pad_id: int,
        device: torch.device,
        ranks: Ranks,
        asked: Callable[[], int] = lambda: 0,
        gradients: Gradients | None = None,
    ) -> None:
        self.settings, self.model, self.objective, self.asked = settings, model, objective, asked
        self.gradients = gradients or gradients_of(ObjectiveModule(model, objective), ranks)
        self.pad_id, self.device, self.ranks = pad_id, device, ranks
        if ranks.world_size > 1:
            optimization.share_work()
        self.optimization = ScaledOptimization(
            optimization, model, device=device, precision=settings.precision
        )
        self.average = AverageWeights(model, settings.ema)

    def __call__(self, batches: list[Batch], step: int) -> StepResult:
        """Take step number `step` (from 0) on some batches.

        Raises `UserError` if the loss is not finite, or if memory runs out; then it says what would fit.
        """
        try:
            return self.run(batches, step)
        except ValueError as error:
            if _ONE_VALUE not in str(error):
                raise
            raise UserError(
                f"this encoder uses BatchNorm, which cannot train on a batch of {len(batches[0].image_ids)} image: "
                "choose trainer.batch_size so that every batch, also the last of an epoch, has at least 2 images"
            ) from error
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Only here: the error keeps the step's tensors in memory as long as it is being handled.
        raise UserError(self.what_fits(max(batches, key=lambda batch: len(batch.image_ids))))

    def run(self, batches: list[Batch], step: int) -> StepResult:
        """Weight each batch by its number of words, as if the batches of all ranks were one."""
        words = [int((batch.targets != self.pad_id).sum()) for batch in batches]
        all_words = self.ranks.all_reduce_sum_later(sum(words))
        found = [
            self.accumulate(batch, count, all_words, last=number == len(batches))
            for number, (batch, count) in enumerate(zip(batches, words, strict=True), 1)
        ]
        self.ranks.average_buffers(self.model)
        self.optimization.unscale()
        norms = self.clip_gradients(with_parts=(step + 1) % self.settings.log_every_steps == 0)
        *found_numbers, norm_numbers = as_numbers([*found, norms], self.device)
        values: dict[str, float] = {}
        for numbers, count in zip(found_numbers, words, strict=True):
            for name, value in numbers.items():
                values[name] = values.get(name, 0.0) + value * (count / all_words())
        values, asked = self.exchange(values)
        self.check_finite(values["loss"], batches, step)
        values |= norm_numbers
        with self.ranks.together_in_passes():
            values |= self.optimization.apply(step)
        self.average.update(step)
        trim_if_needed()
        return StepResult(values, all_words(), asked)

    def exchange(self, values: dict[str, float]) -> tuple[dict[str, float], int]:
        """Return the sums of `values` over ranks, and the most urgent of what they were `asked`."""
        asked = self.asked()
        wishes = {f"asked {kind}": float(asked == kind) for kind in Stop.KINDS}
        sums = self.ranks.all_reduce_sum(values | wishes)
        found = max((kind for kind in Stop.KINDS if sums.pop(f"asked {kind}")), default=0)
        return sums, found

    def accumulate(
        self, batch: Batch, words: int, all_words: Callable[[], float], *, last: bool
    ) -> dict[str, torch.Tensor]:
        """Add the gradients of a batch's share of the step's loss, its `words` of `all_words()`; return what the
        objective logs of the whole batch.

        With the `last` batch of a step the gradients of all ranks are added up.
        """
        with self.gradients.accumulate(last=last):
            with autocast(self.device, self.settings.precision):
                loss, parts = self.gradients.loss(batch.to(self.device))
            share = words / all_words()
            # times the number of ranks, because gradients are averaged over ranks
            self.optimization.backward(loss * (share * self.ranks.world_size))
        return parts

    def try_pass(self, batch: Batch) -> None:
        """Compute the gradients of a batch on this rank alone."""
        with autocast(self.device, self.settings.precision):
            loss, _ = self.gradients.local_loss(batch.to(self.device))
        self.optimization.backward(loss)

    @contextmanager
    def without_effect(self) -> Iterator[None]:
        """Undo the effects of passes inside, on a CPU: gradients, buffers (BatchNorm statistics), random state."""
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        was_training = self.model.training
        self.model.train()
        try:
            with torch.random.fork_rng([]):
                yield
        finally:
            self.optimization.optimization.zero_grad()
            with torch.no_grad():
                for name, before in buffers.items():
                    self.model.get_buffer(name).copy_(before)
            self.model.train(was_training)

    def try_threads(self, batch: Batch, candidates: Sequence[int], *, ahead: int) -> Trial:
        """Time passes over images of `batch` with each number of threads, if that pays for `ahead` images."""
        try:
            with self.without_effect():
                return try_threads(
                    lambda count: self.try_pass(first_images(batch, count)),
                    candidates,
                    images=len(batch.image_ids),
                    ahead=ahead,
                )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return Trial({})  # the first step says what fits

    def check_finite(self, loss: float, batches: list[Batch], step: int) -> None:
        """Raise `UserError` with the images of the step (from 0) if its loss is not a
        finite number.
        """
        if not math.isfinite(loss):
            ids = [image_id for batch in batches for image_id in batch.image_ids]
            shown = ", ".join(ids[:8]) + ", ..." * (len(ids) > 8)
            raise UserError(
                f"the loss is {loss} at step {step + 1}; images {shown}. Lower optim.lr, raise schedule.warmup_steps, "
                "or set trainer.clip_norm"
            )

    def clip_gradients(self, *, with_parts: bool) -> dict[str, torch.Tensor]:
        """Clip to `clip_norm`; return the norm before, and with `with_parts` that of each part."""
        values = {}
        if with_parts:
            for name, part in self.model.named_children():
                values[f"grad_norm/{name}"] = total_norm(part)
        values["grad_norm"] = total_norm(self.model)
        if self.settings.clip_norm:
            nn.utils.clip_grads_with_norm_(
                self.model.parameters(), self.settings.clip_norm, values["grad_norm"]
            )
        return values

    def what_fits(self, batch: Batch) -> str:
        """Say, after trying, which batch size the memory would take."""
        images = len(batch.image_ids)
        start = f"a batch of {images} images does not fit into the memory of {self.device}"
        if self.gradients.is_sharded:  # the other ranks would have to try as well
            return f"{start}: lower trainer.batch_size, or start more ranks"
        self.gradients.reset()
        fits = images_that_fit(self.attempt, batch)
        self.optimization.optimization.zero_grad()
        free_cache()
        own = self.objective.less_memory() if hasattr(self.objective, "less_memory") else None
        if fits is None:
            advice = own or "set trainer.gradient_checkpointing=true"
            return f"{start}, nor does one image: {advice}, or choose a smaller model"
        accumulate = self.settings.accumulate * -(-images // fits)
        return (
            f"{start}; {fits} do, tried just now: trainer.batch_size={fits * self.ranks.world_size} "
            f"trainer.accumulate={accumulate} takes as large a step" + (f"; or {own}" if own else "")
        )

    def attempt(self, batch: Batch) -> None:
        """Allocate all memory that a step on this batch needs, before the first step also the optimiser's moments."""
        trained = sum(p.numel() * p.element_size() for p in self.model.parameters() if p.requires_grad)
        moments = 0 if self.optimization.optimization.has_state else 2 * trained
        reserved = torch.empty(moments, dtype=torch.uint8, device=self.device)
        self.optimization.optimization.zero_grad()
        self.try_pass(batch)
        del reserved

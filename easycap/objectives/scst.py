"""Self-critical training: the model's own captions, rewarded against what it earns otherwise (1612.00563).

Shape legend: N images, k samples of each, B = N x k rows, T words of the longest sample, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from easycap.errors import UserError
from easycap.generation.beam import Beam, OnEnd
from easycap.generation.logits_processors import DecodingSettings, suppress_tokens
from easycap.generation.rollout import draw, most_likely, roll_out
from easycap.metrics.rewards import Rewards
from easycap.objectives.xe import CrossEntropy
from easycap.registry import register
from easycap.types import Batch, Decoder, State, Vocabulary


class Baseline(Enum):
    """What a sample's reward is compared with.

    others: the mean reward of the image's other samples. greedy: the reward of its most likely words (the paper).
    beam: the samples are the captions that beam search of that width finds, against their mean (Meshed-Memory).
    """

    others = "others"
    greedy = "greedy"
    beam = "beam"


@register("objective", "scst")
class SelfCritical:
    """Minus (reward - baseline) x log-probability of sampled captions, per sampled word (1612.00563, equations 3-7).

    While training, `num_samples` captions per image are drawn, word by word, from the model's own distribution without
    pad, bos and unk, of at most `max_length` tokens, eos included (None: the decoder's limit). `temperature` divides
    the logits of the draw and of the log-probabilities that are trained. Each is decoded to text and
    earns the weighted sum of `rewards`, {metric: weight}, of that text; with `eos_in_reward` CIDEr-D counts one end
    token in every reference, and in a caption exactly when the model generated eos. All words up to and including eos
    share the caption's reward; the sum over all samples is divided by their number of words. With `cross_entropy`
    above 0 that share of the loss is cross entropy on the batch's references. In validation the loss is cross entropy
    alone.

    Samples are drawn without gradient, with the decoder's memory of its words; one further pass over them gives the
    log-probabilities. Both read one and the same state of the image, and the decoder is in eval mode for both: no
    dropout there, while encoder and image tokens stay as the trainer set them. The extra losses of a decoder have no
    part. `rows_per_pass` bounds the memory: the pass takes so many rows at a time, and again in the backward pass.

    With `xe_first` it all begins with cross entropy, until trainer.patience is at its end; then rewards begin from the
    best weights, with fresh optimisers at a constant `lr_factor` of their learning rates.
    Raises `UserError` for settings out of range.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        make_rewards: Callable[[Mapping[str, float], bool], Rewards],
        *,
        rewards: dict[str, float],
        eos_in_reward: bool,
        baseline: Baseline,
        num_samples: int,
        temperature: float,
        max_length: int | None,
        rows_per_pass: int | None,
        cross_entropy: float,
        label_smoothing: float,
        ignore_unk: bool,
        xe_first: bool,
        lr_factor: float,
    ) -> None:
        fewest = 1 if baseline is Baseline.greedy else 2
        if num_samples < fewest:
            raise UserError(
                f"objective.num_samples={num_samples} must be at least {fewest} with objective.baseline={baseline.name}"
            )
        if not 0 < temperature < math.inf:
            raise UserError(f"objective.temperature={temperature} must be above 0, e.g. 1")
        if temperature != 1 and baseline is Baseline.beam:
            raise UserError(
                f"objective.temperature={temperature} does nothing with baseline=beam: set it to 1"
            )
        for name, value in (("max_length", max_length), ("rows_per_pass", rows_per_pass)):
            if value is not None and value < 1:
                raise UserError(f"objective.{name}={value} must be at least 1, or null for no limit")
        if not 0 <= cross_entropy < 1:
            raise UserError(
                f"objective.cross_entropy={cross_entropy} must be in [0, 1); objective=xe is nothing but that"
            )
        if lr_factor <= 0:
            raise UserError(f"objective.lr_factor={lr_factor} must be positive, e.g. 0.1")
        self.rewarding, self.lr_factor = not xe_first, lr_factor
        self.baseline, self.num_samples, self.temperature = baseline, num_samples, temperature
        self.max_length, self.rows_per_pass = max_length, rows_per_pass
        self.vocabulary, self.pad_id, self.eos_id = vocabulary, vocabulary.pad_id, vocabulary.eos_id
        self.share = cross_entropy
        self.cross_entropy = CrossEntropy(
            label_smoothing=label_smoothing,
            ignore_unk=ignore_unk,
            pad_id=vocabulary.pad_id,
            unk_id=vocabulary.unk_id,
        )
        unknown = () if vocabulary.unk_id is None else (vocabulary.unk_id,)
        self.forbidden = (vocabulary.pad_id, vocabulary.bos_id, *unknown)
        self.rewards = make_rewards(rewards, eos_in_reward)

    @property
    def signature(self) -> str:
        """What is minimised, in one line; cross entropy as long as rewards have not begun."""
        if not self.rewarding:
            return self.cross_entropy.signature
        text = f"scst|samples:{self.num_samples}|baseline:{self.baseline.name}|xe:{self.share:g}"
        if self.temperature != 1:
            text += f"|temperature:{self.temperature:g}"
        return f"{text}|rewards:{self.rewards.signature}"

    def begin_epoch(self, epoch: int) -> None:
        """The same in every epoch."""

    def next_stage(self) -> float | None:
        """From cross entropy to rewards."""
        if self.rewarding:
            return None
        self.rewarding = True
        return self.lr_factor

    @property
    def one_pass(self) -> bool:
        """Whether nothing is sampled yet; see `Objective`."""
        return not self.rewarding

    def less_memory(self) -> str | None:
        """What lowers the memory of a step, in words; cross entropy has nothing of the kind."""
        if not self.rewarding:
            return None
        now = "null" if self.rows_per_pass is None else self.rows_per_pass
        return f"lower objective.rows_per_pass={now}, the samples whose gradients are computed together"

    def __call__(self, captioner: Any, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if not (captioner.training and self.rewarding):
            return self.cross_entropy(captioner, batch)
        decoder = captioner.decoder
        with without_dropout(decoder):
            state = decoder.start(captioner.build_memory(batch.inputs))
            started = perf_counter()
            words, plain = self._sample(decoder, state, batch)
            sampled = perf_counter()
            advantages, parts = self._advantages(batch.image_ids, words, plain)
            parts |= {"seconds_sampling": sampled - started, "seconds_reward": perf_counter() - sampled}
            rows = torch.arange(len(words), device=words.device) // self.num_samples
            log_probs = self._log_probs(decoder, state, rows, words)
            loss = -(advantages.to(log_probs).unsqueeze(1) * log_probs).sum() / (words != self.pad_id).sum()
            if self.share:
                output = decoder(batch.input_ids, state.select(batch.rows))
                likelihood, _ = self.cross_entropy.loss_of_output(output, batch.targets)
                loss = (1 - self.share) * loss + self.share * likelihood
                parts["cross_entropy"] = likelihood.detach()
        return loss, {"loss": loss.detach()} | {name: torch.as_tensor(v) for name, v in parts.items()}

    # -------------------------------------------------------------------------------------- samples

    def _sample(
        self, decoder: Decoder, state: State, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return words (B,T), image by image, padded after eos, and those (N,T') of the greedy baseline."""
        images = torch.arange(len(batch.image_ids), device=batch.rows.device)
        first = torch.full_like(images, self.vocabulary.bos_id)
        if self.baseline is Baseline.beam:
            found = self._beam().search(decoder, state.select(images), first)
            return found.words.flatten(0, 1), None
        rows = images.repeat_interleave(self.num_samples)
        words = self._roll_out(decoder, state.select(rows), first[rows], draw)
        if self.baseline is Baseline.others:
            return words, None
        return words, self._roll_out(decoder, state.select(images), first, most_likely)

    def _roll_out(
        self, decoder: Decoder, state: State, first: torch.Tensor, choose: Callable
    ) -> torch.Tensor:
        generated = roll_out(
            decoder,
            state,
            first=first,
            max_length=self._length_limit(decoder),
            logits_processor=lambda scores, words: suppress_tokens(scores / self.temperature, self.forbidden),
            choose=choose,
            pad_id=self.pad_id,
            eos_id=self.eos_id,
        )
        return generated.words

    def _beam(self) -> Beam:
        """Beams ranked by their probability, of any length: the released Meshed-Memory's."""
        shared = DecodingSettings(
            max_length=self.max_length, min_length=0, no_repeat_ngram=0, may_repeat=(), allow_unk=False
        )
        rules: dict[str, Any] = {"length_penalty": 0.0, "early_stopping": False, "on_end": OnEnd.refill}
        return Beam(self.vocabulary, shared=shared, num_beams=self.num_samples, **rules)

    def _length_limit(self, decoder: Decoder) -> int:
        if self.max_length is not None and self.max_length > decoder.max_length:
            raise UserError(
                f"objective.max_length={self.max_length} is more than the decoder can take: lower it to at most "
                f"decoder.max_length={decoder.max_length}, or set it to null"
            )
        return self.max_length or decoder.max_length

    # ----------------------------------------------------------------------------------- what it is worth

    def _advantages(
        self, ids: Sequence[str], words: torch.Tensor, plain: torch.Tensor | None
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return reward less baseline (B,) of samples (B,T), `plain` (N,T') being the greedy captions, and a log."""
        rewards, parts = self._rewards(ids, words)
        rewards = rewards.view(len(ids), self.num_samples)
        if self.baseline is Baseline.greedy:
            assert plain is not None
            baseline = self._rewards(ids, plain)[0].unsqueeze(1)
            parts["reward_of_greedy"] = float(baseline.mean())
        elif self.baseline is Baseline.beam:
            baseline = rewards.mean(1, keepdim=True)
        else:
            baseline = (rewards.sum(1, keepdim=True) - rewards) / (self.num_samples - 1)
        return (rewards - baseline).flatten(), parts

    def _rewards(self, ids: Sequence[str], words: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return the reward (B,) of words (B,T), as many rows for each image, and what to log of them."""
        images = [image_id for image_id in ids for _ in range(len(words) // len(ids))]
        ended = (words == self.eos_id).any(1)
        texts = [self.vocabulary.decode(row) for row in words.tolist()]
        found = self.rewards(images, texts, ended.tolist())
        total = torch.from_numpy(self.rewards.total(found)).to(words.device)
        parts = {"reward": float(total.mean()), "samples_ended": float(ended.float().mean())}
        parts["words_per_sample"] = float((words != self.pad_id).sum()) / len(words)
        if len(found) > 1:
            parts |= {f"reward/{name}": float(values.mean()) for name, values in found.items()}
        return total, parts

    # ------------------------------------------------------------------------------------ how likely it was

    def _log_probs(
        self, decoder: nn.Module, state: State, rows: torch.Tensor, words: torch.Tensor
    ) -> torch.Tensor:
        """Return the log-probability (B,T) of each sampled word, 0 for padding, with gradient.

        rows (B,) says which image of `state` a sample is of.
        """
        size = self.rows_per_pass or len(rows)
        one_pass = partial(self._log_probs_of_pass, decoder, state)
        if size < len(rows):
            one_pass = partial(checkpoint, one_pass, use_reentrant=False, preserve_rng_state=False)
        passes = zip(rows.split(size), words.split(size), strict=True)
        return torch.cat([one_pass(*one) for one in passes])

    def _log_probs_of_pass(
        self, decoder: nn.Module, state: State, rows: torch.Tensor, words: torch.Tensor
    ) -> torch.Tensor:
        first = torch.full_like(words[:, :1], self.vocabulary.bos_id)
        read = torch.cat([first, words[:, :-1].masked_fill(words[:, :-1] == self.eos_id, self.pad_id)], 1)
        with without_dropout(decoder):  # the backward pass comes here too
            logits = decoder(read, state.select(rows)).logits.flatten(0, 1).float() / self.temperature
        losses = nn.functional.cross_entropy(
            suppress_tokens(logits, self.forbidden),
            words.flatten(),
            ignore_index=self.pad_id,
            reduction="none",
        )
        return -losses.view_as(words)


@contextmanager
def without_dropout(decoder: nn.Module) -> Iterator[None]:
    """Put a decoder into eval mode for a while."""
    modes = {module: module.training for module in decoder.modules()}
    decoder.eval()
    for module in modes:
        # cuDNN has no backward pass in eval mode; such a layer here has no dropout of its own
        if isinstance(module, nn.RNNBase):
            module.training = True
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode

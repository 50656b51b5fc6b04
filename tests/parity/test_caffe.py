"""The recipes updown/* take the steps of Caffe's solver in the authors' release, formula by formula.

peteanderson80/Up-Down-Captioner at 0b4e8e5. scripts/create_caption_lstm.py: the loss's weight of 20 and its label that
is ignored, padding and the unknown word (610-624, 792); the output's bias at lr_mult 2 and decay_mult 0 (536-546), all
others at 1 and 1; experiments/caption_lstm/solver.prototxt and scst_solver.prototxt (lr, decay, clipping, iter_size).
BVLC/caffe, src/caffe/solvers/sgd_solver.cpp: ApplyUpdate clips the sum over iter_size, then divides by it, then decays,
then v = momentum * v + lr * g, w = w - v.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.attention_decoders import VOCAB, WIDTH, build_updown
from helpers.memories import random_memory, random_words, spread_weights
from torch import nn

from easycap.config.compose import compose
from easycap.config.instantiate import build as build_part
from easycap.config.schema import check
from easycap.training.distributed import SINGLE_PROCESS
from easycap.training.step import TrainStep
from easycap.types import Batch, Memory, Output

PAD, EOS, UNK = 0, 2, 3
LOSS_WEIGHT, MOMENTUM, DECAY, CLIP = 20, 0.9, 5e-4, 10.0


class Captioner(nn.Module):
    """Up-Down on memories by the name of a batch."""

    def __init__(self, memories: dict[str, Memory]) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Identity(), spread_weights(build_updown())
        self.memories = memories
        with torch.no_grad():
            self.decoder.output.weight.mul_(4)  # gradients that are clipped

    def forward(
        self, inputs: SimpleNamespace, words: torch.Tensor, rows: torch.Tensor, real: object = None
    ) -> Output:
        return self.decoder(words, self.decoder.start(self.memories[inputs.name]))


def batch(number: int) -> Batch:
    """Three captions with unknown words among them; the same words in each batch, so that all count alike."""
    words = random_words(VOCAB)
    words[0, 2] = words[1, 1] = UNK
    ends = words.roll(-1, 1)
    ends[:, -1] = PAD
    targets = torch.where((words != PAD) & (ends == PAD), EOS, ends)
    inputs = SimpleNamespace(name=str(number))
    inputs.to = lambda device: inputs
    return Batch([str(number)], inputs, words, targets, torch.arange(3))


def memories(count: int) -> dict[str, Memory]:
    whole = random_memory(WIDTH)
    return {str(n): whole._replace(tokens=whole.tokens * (3 + n)) for n in range(count)}


def caffe_step(
    captioner: Captioner, batches: list[Batch], lr: float, history: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the weights after one iteration of the solver; `history` is moved."""
    names, weights = zip(*captioner.named_parameters(), strict=True)
    sums = [torch.zeros_like(w) for w in weights]
    for one in batches:
        logits = captioner(one.inputs, one.input_ids, one.rows).logits.log_softmax(2)
        losses = [
            -logits[b, t, target]
            for b, row in enumerate(one.targets.tolist())
            for t, target in enumerate(row)
            if target not in (PAD, UNK)
        ]
        loss = LOSS_WEIGHT * sum(losses) / len(losses)
        sums = [s + g for s, g in zip(sums, torch.autograd.grad(loss, weights), strict=True)]
    norm = sum(float(s.square().sum()) for s in sums) ** 0.5
    assert norm > CLIP, "the test must reach the clipping"
    after = {}
    for name, w, total in zip(names, weights, sums, strict=True):
        w = w.detach()
        is_output_bias = name == "decoder.output.bias"
        gradient = total * CLIP / norm / len(batches)
        gradient = gradient + DECAY * (0 if is_output_bias else 1) * w
        history[name] = MOMENTUM * history.get(name, 0) + lr * (2 if is_output_bias else 1) * gradient
        after[name] = w - history[name]
    return after


@pytest.mark.parametrize(
    ("recipe", "iter_size", "lr"), [("bottom_up", 1, 0.01), ("bottom_up_cider", 4, 0.001)]
)
def test_steps_are_those_of_the_solver(recipe: str, iter_size: int, lr: float) -> None:
    """Two of them, with momentum; the rate is constant and the loss cross entropy in both."""
    config = checked(recipe)
    trainer = build_part("trainer", config["trainer"])
    assert trainer.accumulate == iter_size
    settings = checked("bottom_up")["objective"]
    objective = build_part("objective", settings, pad_id=PAD, unk_id=UNK)
    captioner = Captioner(memories(iter_size)).train()
    optimization = build_part("optim", config["optim"])(captioner, lambda step: 1.0)
    step = TrainStep(
        trainer,
        model=captioner,
        objective=objective,
        optimization=optimization,
        pad_id=PAD,
        device=torch.device("cpu"),
        ranks=SINGLE_PROCESS,
    )
    history: dict[str, torch.Tensor] = {}
    for number in range(2):
        batches = [batch(n) for n in range(iter_size)]
        expected = caffe_step(captioner, batches, lr, history)
        step.run(batches, number)
        for name, parameter in captioner.named_parameters():
            torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-5, atol=1e-5, msg=name)


def checked(recipe: str) -> dict[str, Any]:
    return check(
        compose([f"experiment=updown/{recipe}", "data.root=somewhere", "encoder.features=somewhere"])[0]
    )

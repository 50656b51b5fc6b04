"""Training steps of a tiny model on one rank or on several: no data, no validation, no run's folder."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from helpers.rank_processes import together
from helpers.tiny_decoders import TINY
from torch import nn

import easycap
from easycap.config.instantiate import build
from easycap.models.captioner import Captioner
from easycap.models.encoders.small import SmallEncoder
from easycap.models.tag_model import TagModel
from easycap.objectives.scst import Baseline, SelfCritical
from easycap.objectives.tag_loss import TagLoss
from easycap.objectives.xe import CrossEntropy
from easycap.training.distributed import Ranks, init_distributed
from easycap.training.gradients import ObjectiveModule, gradients_of
from easycap.training.hardware import Precision, checkpoint_gradients
from easycap.training.parts import gathered
from easycap.training.step import TrainStep
from easycap.types import Batch, Features, Inputs, Memory

PAD, BOS, EOS, UNK = range(4)
SIZE = 12
OPTIMS = {
    "muon": {
        "name": "muon",
        **{"matrix_lr": 0.02, "encoder_matrix_lr": 0.02, "momentum": 0.9, "lr": 0.01, "encoder_lr": 0.01},
        **{"weight_decay": 0.1, "betas": (0.9, 0.98), "eps": 1e-8},
    },
    "sgd": {
        "name": "sgd",
        **{"lr": 0.1, "encoder_lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
        **{"decay_lstm_biases": False, "output_bias_factor": 1.0},
    },
}


class Words:
    """Four special ids and some letters."""

    pad_id, bos_id, eos_id, unk_id = PAD, BOS, EOS, UNK

    def __len__(self) -> int:
        return SIZE

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(chr(93 + i) for i in ids if i > UNK)


class Length:
    """Rewards long captions of early letters."""

    signature = "length"

    def __call__(self, ids: Sequence[str], captions: Sequence[str], ended: Sequence[bool]) -> dict:
        return {"length": np.array([sum(110 - ord(c) for c in text if c != " ") for text in captions], float)}

    def total(self, found: Mapping[str, np.ndarray]) -> np.ndarray:
        return found["length"]


class Patches(nn.Module):
    """The first patches, projected."""

    grid = None

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, width)

    def forward(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        return self.linear(features.patches[:, :3]), features.mask[:, :3]


class Model(Captioner):
    """With parameters that only some batches use, those of a bright first pixel, and one that none uses."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.sometimes = nn.Linear(self.decoder.memory_dim, self.decoder.memory_dim)
        self.never = nn.Linear(3, 3)

    def build_memory(self, inputs: Inputs, features: Features | None = None) -> Memory:
        memory = super().build_memory(inputs, features)
        if inputs.images[0, 0, 0, 0] < 128:
            return memory
        return memory._replace(tokens=memory.tokens + self.sometimes(memory.tokens))


@dataclass
class Case:
    """What is trained, how; `released_at` is the step from which the encoder is trained, too."""

    objective: str = "xe"
    decoder: str = "causal_lm"
    optim: str = "muon"
    steps: int = 3
    accumulate: int = 1
    released_at: int = 0
    irregular: bool = True
    shard: bool = False
    trainer: dict[str, Any] = field(default_factory=dict)


def model_of(case: Case) -> nn.Module:
    torch.manual_seed(0)
    encoder = SmallEncoder(image_size=8, widths=(8,), blocks_per_stage=1)
    if case.objective == "tags":
        settings = {"name": "cnn", "width": 8, "dropout": 0.0, "gamma_positive": 0.0, "gamma_negative": 4.0}
        ids = {"pad_id": PAD, "bos_id": BOS, "eos_id": EOS}
        tagger = build(
            "tagger", settings | {"margin": 0.05}, channels=8, vocab_size=SIZE, num_tags=SIZE - 3, **ids
        )
        return TagModel(encoder=encoder, tagger=tagger).train()
    ids = {"pad_id": PAD, "bos_id": BOS, "eos_id": EOS, "unk_id": UNK}
    settings = {"name": case.decoder, **TINY[case.decoder]}
    decoder = build("decoder", settings, channels=8, vocab_size=SIZE, subword_ids=None, **ids)
    kind = Model if case.irregular else Captioner
    tokens = Patches(8, decoder.memory_dim)
    return kind(encoder=encoder, image_tokens=tokens, decoder=decoder).train()


def objective_of(case: Case) -> Any:
    smoothing = {"label_smoothing": 0.1, "ignore_unk": False}
    if case.objective == "tags":
        return TagLoss()
    if case.objective == "scst":  # beams are found without chance
        return SelfCritical(
            Words(),
            lambda weights, eos: Length(),
            rewards={"length": 1.0},
            eos_in_reward=False,
            baseline=Baseline.beam,
            num_samples=2,
            temperature=1.0,
            max_length=5,
            rows_per_pass=3,
            cross_entropy=0.2,
            xe_first=False,
            lr_factor=1.0,
            **smoothing,
        )
    return CrossEntropy(PAD, UNK, **smoothing)


def batch_of(case: Case, number: int) -> Batch:
    """Two images, and of each one or two captions of different lengths."""
    drawn = torch.Generator().manual_seed(number)
    count = 2 if case.objective == "tags" else 3
    words = torch.randint(4, SIZE, (count, 6), generator=drawn)
    words[:, 0] = BOS
    targets = words.roll(-1, 1)
    for row, length in enumerate(torch.randint(3, 7, (count,), generator=drawn).tolist()):
        targets[row, length - 1 :], words[row, length:] = PAD, PAD
        targets[row, length - 1] = EOS
    pixels = torch.randint(0, 256, (2, 3, 8, 8), generator=drawn, dtype=torch.uint8)
    pixels[0, 0, 0, 0] = 255 * (number % 2)  # on one of two ranks
    rows = torch.tensor([0, 1] if count == 2 else [0, 0, 1])
    return Batch([f"{number}a", f"{number}b"], Inputs(pixels), words, targets, rows)


def trainer_config(**changes: Any) -> Any:
    file = Path(easycap.__file__).parents[1] / "conf" / "trainer" / "default.yaml"
    return build("trainer", yaml.safe_load(file.read_text()) | {"precision": Precision.fp32} | changes)


def train(
    ranks: Ranks, case: Case, *, first: int = 0, begin: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what training leaves behind, from step `first` on with what another has left; None where only the main
    rank has it.
    """
    model, objective = model_of(case), objective_of(case)
    if begin is not None:
        model.load_state_dict(begin["weights"])
    config = trainer_config(log_every_steps=1, **case.trainer)
    gradients = gradients_of(ObjectiveModule(model, objective), ranks, shard=case.shard)
    if config.gradient_checkpointing:
        checkpoint_gradients(model)
    step = TrainStep(
        config,
        model=model,
        objective=objective,
        optimization=build("optim", OPTIMS[case.optim])(model, lambda step: 1.0),
        pad_id=PAD,
        device=torch.device("cpu"),
        ranks=ranks,
        gradients=gradients,
    )
    optimization = step.optimization.optimization
    if begin is not None:
        optimization.load_state_dict(begin["moments"])
        step.average.load_state_dict(begin["averages"])
    logged, loss, cross_entropy = [], None, CrossEntropy(PAD, UNK, label_smoothing=0.0, ignore_unk=False)
    each = case.accumulate * ranks.world_size
    for number in range(first, case.steps):
        model.freeze_encoder(number < case.released_at)
        own = range(number * each + ranks.rank, (number + 1) * each, ranks.world_size)
        logged.append(step([batch_of(case, n) for n in own], number).values)
    with gradients.whole_model(), torch.inference_mode():
        for _ in range(1 + ranks.rank):  # in validation ranks do not work in step
            if case.objective != "tags":
                loss = float(cross_entropy(model, batch_of(case, 0))[0])
    weights = gradients.weights() if case.shard else copy.deepcopy(model.state_dict())
    kept = {"moments": optimization.state_dict(), "averages": step.average.state_dict()}
    return {"weights": weights, "logged": logged, "loss": loss, **gathered(kept, keep=True)}


def on_two_ranks(
    path: Path, cases: Mapping[str, Case], begin: Mapping[str, Any] | None = None, first: int = 0
) -> list[dict[str, Any]]:
    """Return what each of two ranks has of each case."""

    def work() -> None:
        torch.set_num_threads(1)
        with init_distributed() as ranks:
            found = {name: train(ranks, case, first=first, begin=begin) for name, case in cases.items()}
            torch.save(found, path / f"rank{ranks.rank}.pt")

    assert together(work, work) == [0, 0]
    return [torch.load(path / f"rank{rank}.pt") for rank in range(2)]


def on_one_rank(case: Case, **begun: Any) -> dict[str, Any]:
    """What one rank has that takes the batches of two."""
    return train(Ranks(0, 1), replace(case, accumulate=2 * case.accumulate), **begun)

"""Decoders with additive attention, at toy size."""

from __future__ import annotations

import torch

from easycap.models.decoders.attention_lstm import (
    Attention,
    AttentionLSTM,
    Reduction,
    Variant,
)
from easycap.models.decoders.reinforce import Cost
from easycap.models.decoders.updown import UpDown
from easycap.models.decoders.updown import Variant as UpDownVariant

EMBED, HIDDEN, WIDTH, VOCAB = 4, 5, 6, 11


def build_updown(**changes: object) -> UpDown:
    torch.manual_seed(0)
    sizes = {
        "embed_dim": EMBED,
        "hidden_dim": HIDDEN,
        "attention_dim": 3,
        "memory_width": None,
        "segments": (),
    }
    rest = {"max_length": 6, "dropout": 0.0, "channels": WIDTH, "vocab_size": VOCAB}
    rest["variant"] = UpDownVariant.paper
    return UpDown(**(sizes | rest | changes))


def build_attention_lstm(**changes: object) -> AttentionLSTM:
    torch.manual_seed(0)
    settings = {
        "embed_dim": EMBED,
        "hidden_dim": HIDDEN,
        "attention_dim": 3,
        "memory_width": None,
        "segments": (),
        "attention": Attention.soft,
        "alpha_weight": 1.0,
        "alpha_reduction": Reduction.paper,
        "reinforce_weight": 0.1,
        "entropy_weight": 0.0,
        "reinforce_cost": Cost.caption,
        "variant": Variant.release,
        "max_length": 8,
        "dropout": 0.0,
        "channels": WIDTH,
        "vocab_size": VOCAB,
        "pad_id": 0,
        "eos_id": 2,
    }
    return AttentionLSTM(**(settings | changes))

"""Every registered decoder at toy size: a new one needs a row in TINY."""

from __future__ import annotations

import importlib
import pkgutil

import easycap.models.decoders
from easycap.models.decoders.attention_lstm import Attention, Reduction, Variant
from easycap.models.decoders.language_models import Tune
from easycap.models.decoders.lstm import Cell, Init
from easycap.models.decoders.m2 import Mesh
from easycap.models.decoders.reinforce import Cost
from easycap.models.decoders.transformer_blocks import LayerNormKind, Norm
from easycap.models.decoders.updown import Variant as UpDownVariant

for _module in pkgutil.iter_modules(easycap.models.decoders.__path__):
    importlib.import_module(f"easycap.models.decoders.{_module.name}")

# The constructor arguments that YAML states, at toy size; dropout is 0 where there is one.
TINY = {
    "causal_lm": {
        "width": 16,
        "num_layers": 2,
        "num_heads": 2,
        "max_positions": 40,
        "max_length": 6,
        "dropout": 0.0,
        "pretrained": None,
        "architecture": None,
        "embedding": "random",
        "tune": Tune.all,
        "lora_rank": 2,
        "lora_alpha": 4.0,
        "bos": True,
        "predict_special": True,
    },
    "attention_lstm": {
        "embed_dim": 8,
        "hidden_dim": 16,
        "attention_dim": 8,
        "memory_width": None,
        "segments": ("tags", "image"),
        "attention": Attention.hard,
        "alpha_weight": 1.0,
        "alpha_reduction": Reduction.paper,
        "reinforce_weight": 0.1,
        "reinforce_cost": Cost.caption,
        "variant": Variant.release,
        "entropy_weight": 0.002,
        "max_length": 6,
        "dropout": 0.0,
    },
    "updown": {
        "embed_dim": 8,
        "hidden_dim": 16,
        "attention_dim": 8,
        "memory_width": None,
        "segments": ("tags", "image"),
        "max_length": 6,
        "dropout": 0.0,
        "variant": UpDownVariant.paper,
    },
    "att2in2": {
        "embed_dim": 8,
        "hidden_dim": 16,
        "attention_dim": 8,
        "segments": ("tags", "image"),
        "max_length": 6,
        "dropout": 0.0,
    },
    "lstm": {
        "embed_dim": 12,
        "hidden_dim": 16,
        "max_length": 6,
        "dropout": 0.0,
        "dropout_inputs": True,
        "cell": Cell.lstm,
        "init": Init.im2txt,
    },
    "transformer": {
        "width": 16,
        "num_layers": 2,
        "num_encoder_layers": 1,
        "num_heads": 2,
        "feed_forward_dim": 32,
        "max_length": 6,
        "dropout": 0.0,
        "dropout_words": True,
        "dropout_feed_forward": True,
        "layer_norm": LayerNormKind.torch,
        "norm": Norm.pre,
        "tied": False,
        "raw_features": True,
        "segments": ("tags", "image"),
        "project_norm": True,
        "output_bias": False,
    },
    "m2": {
        "width": 16,
        "num_layers": 2,
        "num_levels": 3,
        "num_heads": 2,
        "feed_forward_dim": 32,
        "num_memory_vectors": 3,
        "max_length": 6,
        "dropout": 0.0,
        "dropout_words": True,
        "dropout_feed_forward": True,
        "mesh": Mesh.paper,
        "raw_features": True,
        "segments": (),
        "stored_positions": False,
    },
}


# Settings that read words or the memory in another way.
VARIANTS = {
    "causal_lm without bos": ("causal_lm", {"bos": False}),
    "attention_lstm of the tutorial": ("attention_lstm", {"variant": Variant.sgrvinod}),
    "updown of ruotianluo": ("updown", {"variant": UpDownVariant.ruotianluo}),
    "m2 with stored positions": ("m2", {"stored_positions": True}),
    "transformer with unbiased norms": ("transformer", {"layer_norm": LayerNormKind.unbiased}),
    "transformer of ruotianluo": ("transformer", {"project_norm": False, "output_bias": True}),
    "lstm with maxout": ("lstm", {"cell": Cell.maxout, "init": Init.torch}),
}


PREFIX = {"causal_lm", "lstm"}


# What build.py supplies, as far as a decoder asks for it.
SUPPLIED = {
    "channels": 12,
    "vocab_size": 30,
    "pad_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "unk_id": 3,
    "subword_ids": None,
}

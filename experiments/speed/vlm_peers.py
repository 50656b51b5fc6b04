"""Hugging Face's and nanoVLM's captioners at one size, untrained, behind one interface: a step, generation, features.

The size is ViT-B/16 at 224 pixels, 49 image tokens and SmolLM2-135M's (Ben Allal et al. 2025) layers and vocabulary.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTModel,
)

from easycap.types import Batch

PAD, BOS, EOS, UNK = range(4)


class Sizes(NamedTuple):
    image: int = 224
    patch: int = 16
    vit_width: int = 768
    vit_layers: int = 12
    vit_heads: int = 12
    width: int = 576
    hidden: int = 1536
    layers: int = 30
    heads: int = 9
    kv_heads: int = 3
    words: int = 49_152

    @property
    def tokens(self) -> int:
        """Image tokens: 2 x 2 patches make one."""
        return (self.image // self.patch // 2) ** 2


FULL = Sizes()
TINY = Sizes(64, 16, 64, 2, 2, 48, 96, 2, 3, 3, 500)


def pixels_of(images: torch.Tensor) -> torch.Tensor:
    return (images - 127.5) / 63.75


class HuggingFace:
    """VisionEncoderDecoderModel: its GPT-2 looks at all patches by cross-attention, as it has no image tokens."""

    name = "VisionEncoderDecoder"
    beams = True

    def __init__(self, sizes: Sizes) -> None:
        encoder = ViTConfig(
            hidden_size=sizes.vit_width,
            num_hidden_layers=sizes.vit_layers,
            num_attention_heads=sizes.vit_heads,
            intermediate_size=4 * sizes.vit_width,
            image_size=sizes.image,
            patch_size=sizes.patch,
        )
        decoder = GPT2Config(
            vocab_size=sizes.words,
            n_embd=sizes.width,
            n_inner=sizes.hidden,
            n_layer=sizes.layers,
            n_head=sizes.heads,
            n_positions=64,
            add_cross_attention=True,
            is_decoder=True,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
        self.model = VisionEncoderDecoderModel(
            encoder=ViTModel(encoder, add_pooling_layer=False), decoder=GPT2LMHeadModel(decoder)
        )
        self.model.config.decoder_start_token_id, self.model.config.pad_token_id = BOS, PAD

    def loss(self, batch: Batch) -> torch.Tensor:
        pixels = pixels_of(batch.inputs.images)[batch.rows]
        labels = batch.targets.masked_fill(batch.targets == PAD, -100)
        return self.model(
            pixel_values=pixels, decoder_input_ids=batch.input_ids, labels=labels, use_cache=False
        ).loss

    def generate(self, images: torch.Tensor, num_beams: int, num_words: int) -> torch.Tensor:
        return self.model.generate(
            pixel_values=pixels_of(images),
            num_beams=num_beams,
            do_sample=False,
            max_new_tokens=num_words,
            min_new_tokens=num_words,
        )

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.model.encoder(pixels_of(images)).last_hidden_state


class NanoVLM:
    """The model code of a checkout of huggingface/nanoVLM, which is not part of this project."""

    name = "nanoVLM"
    beams = False

    def __init__(self, sizes: Sizes, checkout: Path) -> None:
        module, config = _import_nanovlm(checkout)
        self.image_id, self.sizes = sizes.words - 1, sizes  # a word that no caption has
        known = SimpleNamespace(image_token_id=self.image_id, eos_token_id=None)
        module.get_tokenizer = lambda *_: known
        self.model = module.VisionLanguageModel(
            config.VLMConfig(
                vit_hidden_dim=sizes.vit_width,
                vit_inter_dim=4 * sizes.vit_width,
                vit_patch_size=sizes.patch,
                vit_img_size=sizes.image,
                vit_n_heads=sizes.vit_heads,
                vit_n_blocks=sizes.vit_layers,
                lm_hidden_dim=sizes.width,
                lm_inter_dim=sizes.hidden,
                lm_base_vocab_size=sizes.words,
                extra_token_amount=0,
                lm_vocab_size=sizes.words,
                lm_n_heads=sizes.heads,
                lm_n_kv_heads=sizes.kv_heads,
                lm_n_blocks=sizes.layers,
                mp_pixel_shuffle_factor=2,
                mp_image_token_length=sizes.tokens,
            ),
            load_backbone=False,
        )

    def _with_image(self, words: torch.Tensor) -> torch.Tensor:
        return torch.cat([words.new_full((len(words), self.sizes.tokens), self.image_id), words], 1)

    def loss(self, batch: Batch) -> torch.Tensor:
        targets = batch.targets.masked_fill(batch.targets == PAD, -100)
        before = targets.new_full((len(targets), self.sizes.tokens), -100)
        ids = self._with_image(batch.input_ids)
        pixels = pixels_of(batch.inputs.images)[batch.rows]
        # No mask: padding comes last, where a causal model does not see it, and torch takes no mask next to is_causal.
        return self.model(ids, pixels, targets=torch.cat([before, targets], 1))[1]

    def generate(self, images: torch.Tensor, num_beams: int, num_words: int) -> torch.Tensor:
        ids = self._with_image(torch.full((len(images), 1), BOS, device=images.device))
        return self.model.generate(ids, pixels_of(images), max_new_tokens=num_words, greedy=True)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.model.vision_encoder(pixels_of(images))


def _import_nanovlm(checkout: Path) -> tuple[ModuleType, ModuleType]:
    if not (checkout / "models" / "vision_language_model.py").is_file():
        raise SystemExit(f"--nanovlm {checkout} is not a checkout of github.com/huggingface/nanoVLM")
    # Its package of data loaders wants tokenizers from the hub; only its model is measured.
    data = ModuleType("data")
    data.processors = ModuleType("data.processors")
    data.processors.get_tokenizer = None
    sys.modules |= {"data": data, "data.processors": data.processors}
    sys.path.insert(0, str(checkout))
    from models import config, vision_language_model

    return vision_language_model, config


def step_of(model: nn.Module, loss: Callable[[Batch], torch.Tensor], batch: Batch, autocast: Any) -> Callable:
    """Return a training step of a peer: forward, backward, clipping, AdamW in one kernel."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    device = next(model.parameters()).device

    def step() -> None:
        model.train()
        with autocast():
            value = loss(batch.to(device))
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        value.item()  # a step ends when its loss is known

    return step

"""Hugging Face's captioner at the size of ours: VisionEncoderDecoderModel, built from configs, untrained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    ResNetConfig,
    ResNetModel,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTModel,
)
from transformers.modeling_outputs import BaseModelOutput

from easycap.training.hardware import Precision, autocast
from easycap.types import Batch


class ResNetPatches(ResNetModel):
    """transformers' ResNet with its last feature map as a sequence of patches, as the decoder wants it."""

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutput:
        maps = super().forward(pixel_values).last_hidden_state
        return BaseModelOutput(last_hidden_state=maps.flatten(2).transpose(1, 2))


class Peer:
    """The peer of a checked config of ours: the same decoder size, image size, optimiser and clipping."""

    def __init__(self, config: dict[str, Any], vocab_size: int, *, encoder: str, **ids: int) -> None:
        self.config, self.vocab_size, self.encoder = config, vocab_size, encoder
        self.ids = {name.replace("_id", "_token_id"): value for name, value in ids.items()}
        self.image_size = config["encoder"]["image_size"] or 224
        torch.manual_seed(0)
        self.model = self._build()

    def _build(self) -> VisionEncoderDecoderModel:
        ours = self.config["decoder"]
        decoder = GPT2Config(
            vocab_size=self.vocab_size,
            n_embd=ours["width"] or 768,
            n_layer=ours["num_layers"] or 12,
            n_head=ours["num_heads"] or 12,
            n_positions=ours["max_positions"] or 1024,
            add_cross_attention=True,
            is_decoder=True,
            use_cache=False,
            **self.ids,
        )
        model = VisionEncoderDecoderModel(encoder=self._build_encoder(), decoder=GPT2LMHeadModel(decoder))
        model.config.decoder_start_token_id = self.ids["bos_token_id"]
        model.config.pad_token_id = self.ids["pad_token_id"]
        return model

    def _build_encoder(self) -> nn.Module:
        full = self.config["encoder"]["model"].startswith("resnet101")
        if self.encoder == "resnet":
            tiny = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}
            config = ResNetConfig(**({"depths": [3, 4, 23, 3]} if full else tiny))
            config.hidden_size = config.hidden_sizes[-1]
            return ResNetPatches(config)
        width = 512 if full else 64  # at 512 its 12 layers cost what ResNet-101 costs
        config = ViTConfig(
            hidden_size=width,
            num_hidden_layers=12 if full else 2,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
            image_size=self.image_size,
        )
        return ViTModel(config, add_pooling_layer=False)

    def step_on(self, batch: Batch, precision: str) -> Callable[[], None]:
        """Return a training step on our batch; this model encodes an image once per caption."""
        model, settings = self.model.train(), self.config["optim"]
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=settings["lr"],
            betas=settings["betas"],
            weight_decay=settings["weight_decay"],
            fused=True,  # as transformers' own Trainer does
        )

        device = model.device

        def step() -> None:
            moved = batch.to(device)
            pixels = (moved.inputs.images[moved.rows] - 127.5) / 63.75
            labels = moved.targets.masked_fill(moved.targets == self.ids["pad_token_id"], -100)
            with autocast(device, Precision(precision)):
                loss = model(pixel_values=pixels, decoder_input_ids=moved.input_ids, labels=labels).loss
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), self.config["trainer"]["clip_norm"])
            optimizer.step()
            optimizer.zero_grad()
            loss.item()  # a step ends when its loss is known

        return step

    def flops(self) -> dict[str, int]:
        model = self.model.eval()
        image = torch.zeros(1, 3, self.image_size, self.image_size)
        words = torch.zeros(1, self.config["decoder"]["max_length"], dtype=torch.long)
        return {
            "encoder": count_flops(lambda: model.encoder(image)),
            "all": count_flops(lambda: model(pixel_values=image, decoder_input_ids=words)),
        }


def count_flops(run: Callable[[], Any]) -> int:
    """Return the operations of `run`, 2 per multiply-add."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()

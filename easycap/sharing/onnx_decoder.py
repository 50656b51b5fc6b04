"""Exported graphs as a decoder, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from easycap.types import Memory

ENCODER, STEP = "encoder.onnx", "decoder_step.onnx"


@dataclass(frozen=True)
class OnnxState:
    """The tensors of a decoder's state for B rows, each (B,...)."""

    tensors: list[np.ndarray]

    def select(self, rows: torch.Tensor) -> OnnxState:
        """Return a new state of the rows (B',)."""
        return OnnxState([tensor[rows.numpy()] for tensor in self.tensors])


class OnnxDecoder:
    """The graphs in `folder` as a decoder for easycap's generators, whose memory holds images (N,3,S,S) as its tokens.

    `kept`: for each tensor of a state its place among the outputs of a step, None where it stays.
    """

    prefix, memory_dim = False, 0

    def __init__(self, folder: Path, kept: Sequence[int | None], max_length: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.encoder, self.decoder_step = (
            onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in (ENCODER, STEP)
        )
        self.kept, self.max_length = kept, max_length

    def start(self, memory: Memory) -> OnnxState:
        """Return the state of N images before the first word."""
        return OnnxState(self.encoder.run(None, {"images": memory.tokens.numpy()}))

    def step(self, words: torch.Tensor, state: OnnxState) -> tuple[torch.Tensor, OnnxState]:
        """words (B,) -> logits (B,V) and the next state."""
        given = {f"state_{number}": tensor for number, tensor in enumerate(state.tensors)}
        # a graph has no input for what it does not read
        asked = {one.name for one in self.decoder_step.get_inputs()}
        given = {name: tensor for name, tensor in given.items() if name in asked}
        logits, *new = self.decoder_step.run(None, {"words": words.numpy()} | given)
        pairs = zip(self.kept, state.tensors, strict=True)
        return torch.from_numpy(logits), OnnxState([old if at is None else new[at] for at, old in pairs])

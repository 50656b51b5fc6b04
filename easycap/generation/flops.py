"""What a caption costs in floating point operations, whatever the model generates."""

from __future__ import annotations

from typing import cast

import torch

from easycap.generation.generate import generate
from easycap.types import CaptionModel, Decoder, Generator, Inputs, Memory, State

# Finite: where every other word is suppressed, eos is still there to be chosen.
_UNLIKELY = -1e9


class _Endless:
    """A decoder that never generates eos: its captions are as long as the generator lets them be."""

    training = False

    def __init__(self, decoder: Decoder, eos_id: int) -> None:
        self.decoder, self.eos_id = decoder, eos_id
        self.memory_dim, self.max_length = decoder.memory_dim, decoder.max_length

    def start(self, memory: Memory) -> State:
        return self.decoder.start(memory)

    def step(self, words: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        logits, state = self.decoder.step(words, state)
        logits = logits.float().clone()
        logits[:, self.eos_id] = _UNLIKELY
        return logits, state


@torch.no_grad()
def flops_per_caption(
    captioner: CaptionModel, inputs: Inputs, generator: Generator, *, eos_id: int, rounds: int = 0
) -> float:
    """Return the operations of encoding one image (N = 1) and decoding one caption of the greatest length.

    A multiply and an add count as two. Matrix products, convolutions and attention are counted, as torch's counter
    does, which sees nothing of an nn.LSTM: decoders step by cells. The length is fixed so that a model does not get
    cheaper by saying less. In each of further `rounds` the image is not encoded again, and a draft counts as it is in
    `inputs`.
    """
    from torch.utils.flop_counter import FlopCounterMode  # loads triton, where that is installed

    was_training = captioner.training
    captioner.eval()
    with FlopCounterMode(display=False) as counter:
        features = captioner.features_of(inputs)
        for _ in range(rounds + 1):
            memory = captioner.build_memory(inputs, features)
            if hasattr(
                generator, "endless"
            ):  # the code of another library, which knows how to suppress an end
                words = generator.endless()(captioner.decoder, memory).words
            else:
                endless = cast(Decoder, _Endless(captioner.decoder, eos_id))  # generators start it and step
                words = generate(generator, endless, memory, features).words
    captioner.train(was_training)
    return counter.get_total_flops() / len(words)

"""Any decoder takes any vocabulary: at toy size, every pair learns captions and says words of that vocabulary."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_decoders import TINY as DECODERS
from helpers.tiny_vocabularies import tiny_vocabulary

from easycap.config.instantiate import build
from easycap.config.schema import option_from_text
from easycap.data.loader import Collate
from easycap.registry import names
from easycap.types import Batch, Decoder, Example, Memory, Vocabulary

CAPTIONS = ("a dog and a cat", "the cat's ball")


def ids_of(words: Vocabulary) -> dict[str, int | None]:
    return {name: getattr(words, name) for name in ("pad_id", "bos_id", "eos_id", "unk_id")}


def batch_of(words: Vocabulary, max_length: int) -> Batch:
    collate = Collate(words, {}, max_length=max_length, captions_per_image=None, seed=0)
    return collate([(Example("x", None, CAPTIONS), torch.zeros(3, 2, 2, dtype=torch.uint8))])


def memory_for(decoder: Decoder) -> Memory:
    tokens = torch.randn(1, 3, decoder.memory_dim, generator=torch.manual_seed(1))
    return Memory(tokens, torch.ones(1, 3, dtype=torch.bool), {"tags": slice(0, 1), "image": slice(1, 3)})


def cross_entropy(decoder: Decoder, batch: Batch, words: Vocabulary) -> torch.Tensor:
    output = decoder(batch.input_ids, decoder.start(memory_for(decoder)).select(batch.rows))
    return torch.nn.functional.cross_entropy(
        output.logits.flatten(0, 1), batch.targets.flatten(), ignore_index=words.pad_id
    )


@pytest.mark.parametrize("vocabulary", names("vocab"))
@pytest.mark.parametrize("name", names("decoder"))
def test_every_pair_learns_and_speaks(name: str, vocabulary: str) -> None:
    words = tiny_vocabulary(vocabulary)
    torch.manual_seed(0)
    settings = {"name": name, **DECODERS[name]}
    decoder = build(
        "decoder", settings, channels=12, vocab_size=len(words), subword_ids=None, **ids_of(words)
    )
    batch = batch_of(words, decoder.max_length)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.05)
    losses = []
    for _ in range(15):
        loss = cross_entropy(decoder, batch, words)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
    greedy = build("decoding", option_from_text("decoding", "greedy"), vocabulary=words)
    with torch.no_grad():
        generated = greedy(decoder.eval(), memory_for(decoder)).words[0].tolist()
    learnt = {index for caption in CAPTIONS for index in words.encode(caption)}
    assert set(generated) <= learnt | {words.eos_id, words.pad_id}
    assert words.decode(generated)

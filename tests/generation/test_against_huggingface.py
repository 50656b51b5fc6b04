"""The same token ids as Hugging Face's `generate`, with the same random GPT-2."""

from __future__ import annotations

import warnings

import pytest
import torch
from helpers.gpt2_of_transformers import gpt2_of_transformers
from helpers.toy_decoder import ToyVocabulary, made
from torch.nn.functional import pad

from easycap.generation.beam import Beam, OnEnd
from easycap.generation.greedy import Greedy
from easycap.models.decoders.causal_lm import CausalLM
from easycap.models.decoders.language_models import Tune
from easycap.types import Generated, Memory

# generate pads with eos where the pad id is 0, so pad is another one here.
UNK, BOS, EOS, PAD = 0, 1, 2, 3
IDS = {"pad_id": PAD, "bos_id": BOS, "eos_id": EOS}
VOCABULARY = ToyVocabulary(**IDS, unk_id=UNK)
MAX_LENGTH = 12
RULES = [(0, 0), (5, 0), (0, 2), (4, 1)]  # min_length, no_repeat_ngram


@pytest.fixture(scope="module")
def decoder() -> CausalLM:
    torch.manual_seed(4)
    decoder = CausalLM(
        width=32,
        num_layers=2,
        num_heads=4,
        max_positions=48,
        max_length=MAX_LENGTH,
        bos=True,
        predict_special=True,
        dropout=0.1,
        pretrained=None,
        architecture=None,
        embedding="random",
        tune=Tune.all,
        lora_rank=8,
        lora_alpha=16.0,
        subword_ids=None,
        vocab_size=40,
        **IDS,
    ).eval()
    with torch.no_grad():  # peaked logits: captions end at different lengths and no two scores are equal
        for parameter in decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
        decoder.lm.get_input_embeddings().weight.div_(3)[EOS].mul_(1.5)
    return decoder


@pytest.fixture(scope="module")
def memory() -> Memory:
    mask = torch.ones(8, 7, dtype=torch.bool)
    mask[1, :3] = mask[2, 4:] = mask[3, 2] = mask[4, [0, 6]] = False
    return Memory(torch.randn(8, 7, 32, generator=torch.manual_seed(10)), mask, {"image": slice(0, 7)})


def generate(decoder: CausalLM, memory: Memory, min_length: int, no_repeat_ngram: int, **settings):
    bos = decoder.lm.get_input_embeddings()(torch.full((len(memory.tokens), 1), BOS))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # n-grams of the prompt do not count: they do not here either
        return gpt2_of_transformers(decoder.lm).generate(
            inputs_embeds=torch.cat([memory.tokens, bos], 1),
            attention_mask=pad(memory.mask, (0, 1), value=True).long(),
            max_new_tokens=MAX_LENGTH,
            do_sample=False,
            min_new_tokens=min_length or None,
            no_repeat_ngram_size=no_repeat_ngram or None,
            suppress_tokens=[UNK, BOS, PAD],
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
            return_dict_in_generate=True,
            output_scores=True,
            **settings,
        )


def assert_same_words(ours: Generated, theirs: torch.Tensor) -> torch.Tensor:
    assert torch.equal(pad(ours.words, (0, theirs.shape[1] - ours.words.shape[1]), value=PAD), theirs)
    return (ours.words != PAD).sum(1)


@pytest.mark.parametrize(("min_length", "no_repeat_ngram"), RULES)
def test_greedy(decoder, memory, min_length, no_repeat_ngram):
    greedy = made(
        Greedy,
        VOCABULARY,
        min_length=min_length,
        no_repeat_ngram=no_repeat_ngram,
    )
    theirs = generate(decoder, memory, min_length, no_repeat_ngram)
    lengths = assert_same_words(greedy(decoder, memory), theirs.sequences)
    assert len(set(lengths.tolist())) > 1


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -1.0])
@pytest.mark.parametrize("num_beams", [2, 5])
@pytest.mark.parametrize(("min_length", "no_repeat_ngram"), RULES)
def test_beam(decoder, memory, min_length, no_repeat_ngram, num_beams, length_penalty, early_stopping):
    beam = made(
        Beam,
        VOCABULARY,
        min_length=min_length,
        no_repeat_ngram=no_repeat_ngram,
        num_beams=num_beams,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        on_end=OnEnd.refill,
    )
    search = {"num_beams": num_beams, "length_penalty": length_penalty, "early_stopping": early_stopping}
    theirs = generate(decoder, memory, min_length, no_repeat_ngram, **search)
    ours = beam(decoder, memory)
    lengths = assert_same_words(ours, theirs.sequences)
    torch.testing.assert_close(
        ours.scores / lengths**length_penalty, theirs.sequences_scores, rtol=1e-4, atol=1e-4
    )

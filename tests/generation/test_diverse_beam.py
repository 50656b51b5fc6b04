"""Diverse beam search against the paper's formula written out image by image, and against beam search."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from helpers.tiny_captioners import batch_of, captioner_of
from helpers.tiny_vocabularies import tiny_vocabulary
from helpers.toy_decoder import BOS, EOS, ToyDecoder, made, tables, without_padding

from easycap.config.instantiate import build
from easycap.config.schema import option_from_text
from easycap.generation.attention_weights import caption_details
from easycap.generation.beam import Beam, OnEnd
from easycap.generation.diverse_beam import DiverseBeam
from easycap.generation.generate import decode
from easycap.registry import names
from easycap.types import Inputs

USUAL = {"num_beams": 6, "num_groups": 3, "diversity_strength": 0.7, "length_penalty": 1.0}
ALLOWED_FROM = 4  # ids below are pad, bos, eos and unk


def diverse(**changes) -> DiverseBeam:
    return made(DiverseBeam, **{**USUAL, "early_stopping": False, "num_samples": 1, **changes})


def written_out(decoder: ToyDecoder, table: torch.Tensor, **settings) -> list[list[tuple]]:
    """The finished captions of each group of one image, (words, sum of log-probabilities), best first: equation 5 of
    the paper, each group looking at the words that earlier ones take now.
    """
    num_groups, strength = settings["num_groups"], settings["diversity_strength"]
    size, power = settings["num_beams"] // num_groups, settings["length_penalty"]
    running = [[((), 0.0, 0.0)] for _ in range(num_groups)]  # words, sum with penalties, without
    finished: list[list[tuple]] = [[] for _ in range(num_groups)]
    for length in range(1, decoder.max_length + 1):
        taken: list[int] = []  # the words that earlier groups have chosen at this step
        for group, beams in enumerate(running):
            if not beams:
                continue
            candidates = []
            for words, penalised, own in beams:
                logits = table[words[-1] if words else BOS] + decoder.drift[length - 1]
                log_probs = logits.log_softmax(0)
                lowered = log_probs - strength * torch.tensor(taken, dtype=torch.long).bincount(
                    minlength=len(log_probs)
                )
                for word in (EOS, *range(ALLOWED_FROM, len(log_probs))):
                    after = (*words, word), penalised + float(lowered[word]), own + float(log_probs[word])
                    candidates.append(after)
            candidates.sort(key=lambda one: -one[1])
            ends = [one for one in candidates[:size] if one[0][-1] == EOS or length == decoder.max_length]
            finished[group] = sorted(
                [*finished[group], *ends], key=lambda one: -one[1] / len(one[0]) ** power
            )[:size]
            running[group] = [one for one in candidates[: 2 * size] if one[0][-1] != EOS][:size]
            taken += [words[-1] for words, _, _ in running[group]]
            worst = finished[group][-1] if len(finished[group]) == size else None
            if worst is not None:
                enough = settings["early_stopping"]
                best = running[group][0][1] / length**power
                if enough or best <= worst[1] / len(worst[0]) ** power:
                    running[group] = []
    return [sorted(of, key=lambda one: -one[2] / len(one[0]) ** power) for of in finished]


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize(("num_beams", "num_groups"), [(6, 3), (4, 4), (6, 2)])
@pytest.mark.parametrize("diversity_strength", [0.3, 2.0])
def test_the_captions_are_those_of_the_formula(
    early_stopping, length_penalty, num_beams, num_groups, diversity_strength
):
    settings = {
        "num_beams": num_beams,
        "num_groups": num_groups,
        "diversity_strength": diversity_strength,
        "length_penalty": length_penalty,
        "early_stopping": early_stopping,
    }
    decoder, memory = ToyDecoder(vocab_size=14, max_length=6), tables(12, 14)
    found = diverse(**settings, num_samples=num_beams)(decoder, memory)
    captions, scores = without_padding(found.words), found.scores.tolist()
    changed = 0
    for image, table in enumerate(memory.tokens):
        groups = written_out(decoder, table, **settings)
        ours = list(zip(captions, scores, strict=True))[image * num_beams : (image + 1) * num_beams]
        expected = []
        for place in zip(*groups, strict=True):
            expected += sorted(place, key=lambda one: -one[2] / len(one[0]) ** length_penalty)
        assert [words for words, _ in ours] == [words for words, _, _ in expected]
        for (_, score), (words, _, own) in zip(ours, expected, strict=True):
            assert score == pytest.approx(own, abs=1e-4)
            assert score == pytest.approx(decoder.log_prob(table, words), abs=1e-4)
        changed += len({words[0] for words, _ in ours[:num_groups]}) > 1
    assert changed, "the groups begin alike: the penalty does nothing here"
    best = diverse(**settings)(decoder, memory)
    assert without_padding(best.words) == captions[::num_beams]


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -1.0])
def test_one_group_is_beam_search(early_stopping, length_penalty):
    decoder, memory = ToyDecoder(vocab_size=12, max_length=8), tables(20, 12)
    settings = {"num_beams": 4, "length_penalty": length_penalty, "early_stopping": early_stopping}
    beam = made(Beam, **settings, on_end=OnEnd.refill)
    one = diverse(**settings, num_groups=1)(decoder, memory)
    assert torch.equal(one.words, beam(decoder, memory).words)
    assert torch.equal(one.scores, beam(decoder, memory).scores)
    first = torch.full((20,), BOS)
    all_words, all_scores = beam.search(decoder, decoder.start(memory), first)
    several = diverse(**settings, num_groups=1, num_samples=4)(decoder, memory)
    assert torch.equal(several.words, all_words.flatten(0, 1))
    assert torch.equal(several.scores, all_scores.flatten())


def test_without_strength_all_groups_find_the_same():
    decoder, memory = ToyDecoder(vocab_size=12, max_length=8), tables(10, 12)
    found = diverse(diversity_strength=0.0, num_samples=3)(decoder, memory)
    captions = without_padding(found.words)
    assert all(len(set(captions[image : image + 3])) == 1 for image in range(0, 30, 3))
    two = without_padding(
        made(Beam, num_beams=2, length_penalty=1.0, early_stopping=False, on_end=OnEnd.refill)(
            decoder, memory
        ).words
    )
    assert captions[::3] == two


def test_a_stronger_penalty_makes_groups_more_different():
    decoder, memory = ToyDecoder(vocab_size=20, max_length=8), tables(30, 20, sharpness=1.0)
    shared = []
    for strength in (0.1, 1.0, 5.0):
        words = diverse(diversity_strength=strength, num_samples=3)(decoder, memory).words
        words = words.reshape(30, 3, -1)
        both = (words[:, 0] == words[:, 1]) & (words[:, 0] >= ALLOWED_FROM)
        shared.append(int(both.sum()))
    assert shared[0] > shared[1] > shared[2]


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_caption_does_not_depend_on_who_is_in_the_batch(early_stopping):
    decoder, memory = ToyDecoder(vocab_size=10, max_length=10), tables(12, 10)
    search = diverse(early_stopping=early_stopping, num_samples=6)
    captions = without_padding(search(decoder, memory).words)
    assert len({len(caption) for caption in captions}) > 3
    for i in range(12):
        alone = search(decoder, memory._replace(tokens=memory.tokens[i : i + 1], mask=memory.mask[i : i + 1]))
        assert without_padding(alone.words) == captions[6 * i : 6 * i + 6]


def test_an_image_is_read_once_and_leaves_when_all_groups_are_done():
    decoder, memory = ToyDecoder(vocab_size=10, max_length=10), tables(12, 10)
    diverse(early_stopping=True)(decoder, memory)
    assert decoder.num_starts == decoder.rows[0] == 12
    assert decoder.rows[1] == 12 * 6
    assert decoder.rows[1:] == sorted(decoder.rows[1:], reverse=True)
    assert decoder.rows[-1] < decoder.rows[1]


def test_fewer_words_than_beams_make_no_captions_up():
    decoder, memory = ToyDecoder(vocab_size=5, max_length=3), tables(4, 5)
    found = diverse(num_beams=9, num_groups=3, num_samples=3)(decoder, memory)
    tables_of_captions = memory.tokens.repeat_interleave(3, 0)
    for table, caption, score in zip(
        tables_of_captions, without_padding(found.words), found.scores.tolist(), strict=True
    ):
        assert caption in decoder.captions()
        assert score == pytest.approx(decoder.log_prob(table, caption), abs=1e-4)


@pytest.mark.parametrize("name", names("decoder"))
def test_every_decoder_keeps_the_state_of_each_beam(name: str) -> None:
    """The scores of all groups' captions are those of reading them: no beam continues from another's state."""
    words = tiny_vocabulary("word")
    model, inputs = captioner_of(name, words).eval(), batch_of(words).inputs
    text = "diverse_beam,num_beams=6,num_groups=3,num_samples=6"
    found = decode(model, inputs, build("decoding", option_from_text("decoding", text), vocabulary=words))
    ids = [[word for word in row if word != words.pad_id] for row in found.words.tolist()]
    assert len({tuple(one) for one in ids[:6]}) > 3
    each = Inputs(inputs.images.repeat_interleave(6, 0))
    read = [one.log_probabilities.sum() for one in caption_details(model, each, ids, words, nullcontext)]
    torch.testing.assert_close(found.scores, torch.tensor(read), rtol=1e-4, atol=1e-3)

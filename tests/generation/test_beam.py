"""Beam search against every caption there is, against greedy, and in what it costs."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers.toy_decoder import BOS, EOS, PAD, UNK, ToyDecoder, made, tables, without_padding

from easycap.generation.beam import Beam, OnEnd
from easycap.generation.greedy import Greedy


def beam(**changes) -> Beam:
    return made(
        Beam,
        **{"num_beams": 3, "length_penalty": 1.0, "early_stopping": False, "on_end": OnEnd.refill, **changes},
    )


def repeats(caption: tuple[int, ...], size: int) -> bool:
    ngrams = [caption[i : i + size] for i in range(len(caption) - size + 1)]
    return len(set(ngrams)) < len(ngrams)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.5, -1.0])
@pytest.mark.parametrize(("min_length", "no_repeat_ngram"), [(0, 0), (2, 0), (0, 1), (3, 2)])
def test_enough_beams_find_the_best_of_all_captions(length_penalty, min_length, no_repeat_ngram):
    decoder, memory = ToyDecoder(vocab_size=7, max_length=4), tables(5, 7)
    captions = [
        caption
        for caption in decoder.captions()
        if len([w for w in caption if w != EOS]) >= min_length
        and not (no_repeat_ngram and repeats(caption, no_repeat_ngram))
        # with no word left to use, a caption ends: it never runs out of words and goes on
    ]
    best = [
        max(captions, key=lambda c: decoder.log_prob(table, c) / len(c) ** length_penalty)
        for table in memory.tokens
    ]
    generated = beam(
        num_beams=len(decoder.captions()),
        length_penalty=length_penalty,
        min_length=min_length,
        no_repeat_ngram=no_repeat_ngram,
    )(decoder, memory)
    assert without_padding(generated.words) == best
    assert min_length or length_penalty or len({len(caption) for caption in best}) > 1
    expected = [decoder.log_prob(*pair) for pair in zip(memory.tokens, best, strict=True)]
    torch.testing.assert_close(generated.scores, torch.tensor(expected))


def test_one_beam_is_greedy():
    decoder, memory = ToyDecoder(vocab_size=12, max_length=9), tables(20, 12)
    one, greedy = beam(num_beams=1)(decoder, memory), made(Greedy)(decoder, memory)
    assert without_padding(one.words) == without_padding(greedy.words)
    torch.testing.assert_close(one.scores, greedy.scores)


def test_more_beams_find_likelier_captions():
    decoder, memory = ToyDecoder(vocab_size=30, max_length=8), tables(40, 30, sharpness=1.0)
    means = [
        beam(num_beams=k, length_penalty=0.0)(decoder, memory).scores.mean().item() for k in (1, 2, 4, 16)
    ]
    assert means == sorted(means)
    assert means[-1] > means[0] + 0.5


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_caption_does_not_depend_on_who_is_in_the_batch(early_stopping):
    decoder, memory = ToyDecoder(vocab_size=10, max_length=10), tables(12, 10)
    search = beam(early_stopping=early_stopping)
    together = search(decoder, memory)
    captions = without_padding(together.words)
    assert len({len(caption) for caption in captions}) > 3
    for i in range(len(captions)):
        alone = search(decoder, memory._replace(tokens=memory.tokens[i : i + 1], mask=memory.mask[i : i + 1]))
        assert without_padding(alone.words) == [captions[i]]
        torch.testing.assert_close(alone.scores[0], together.scores[i])


def test_an_image_is_read_once_and_leaves_when_done():
    decoder, memory = ToyDecoder(vocab_size=10, max_length=10), tables(12, 10)
    beam(early_stopping=True)(decoder, memory)
    assert decoder.num_starts == 12
    assert decoder.rows[0] == 12, "the first word is asked for once per image"
    assert decoder.rows[1] <= 12 * 3
    assert decoder.rows[1:] == sorted(decoder.rows[1:], reverse=True)
    assert decoder.rows[-1] < decoder.rows[1] / 2
    assert all(rows % 3 == 0 for rows in decoder.rows[1:])


def test_more_beams_than_words():
    """At first there are fewer continuations than beams: none is counted twice or made up."""
    decoder, memory = ToyDecoder(vocab_size=5, max_length=3), tables(4, 5)
    generated = beam(num_beams=9)(decoder, memory)
    for table, caption, score in zip(
        memory.tokens, without_padding(generated.words), generated.scores.tolist(), strict=True
    ):
        assert caption in decoder.captions()
        assert score == pytest.approx(decoder.log_prob(table, caption), abs=1e-4)


def test_a_search_that_runs_out_of_words_ends():
    decoder, memory = ToyDecoder(vocab_size=6, max_length=6), tables(4, 6)
    generated = beam(min_length=6, no_repeat_ngram=1)(decoder, memory)
    orders = [(*order, EOS) for order in itertools.permutations((4, 5))]
    assert set(without_padding(generated.words)) <= set(orders)
    assert generated.scores.isfinite().all()


def test_forbidden_words_never_appear():
    decoder, memory = ToyDecoder(vocab_size=8, max_length=6), tables(30, 8)
    memory.tokens[..., [0, BOS, 3]] += 20  # pad, bos and unk are by far the likeliest
    words = beam()(decoder, memory).words
    assert not {BOS, 3} & set(words.flatten().tolist())
    assert 3 in beam(allow_unk=True)(decoder, memory).words


def kept_in_the_beam(decoder, table, k: int, length_penalty: float) -> tuple[int, ...]:
    """As ClipCap and Meshed-Memory search: a finished caption stays among the k best until others rank above it."""
    beams = [((), 0.0)]
    for _ in range(decoder.max_length):
        found = [(caption, total) for caption, total in beams if caption[-1:] == (EOS,)]
        for caption, _ in beams:
            if caption[-1:] != (EOS,):
                found += [(more, decoder.log_prob(table, more)) for more in continued(decoder, caption)]
        beams = sorted(found, key=lambda one: one[1] / len(one[0]) ** length_penalty, reverse=True)[:k]
    return beams[0][0]


def dropped_from_the_beam(decoder, table, k: int, length_penalty: float) -> tuple[int, ...]:
    """As sgrvinod's tutorial searches: the beam has a place less for each finished caption."""
    beams, done = [()], []
    for step in range(1, decoder.max_length + 1):
        found = [more for caption in beams for more in continued(decoder, caption)]
        found = sorted(found, key=lambda more: decoder.log_prob(table, more), reverse=True)[: k - len(done)]
        done += [more for more in found if more[-1] == EOS or step == decoder.max_length]
        beams = [more for more in found if more not in done]
    return max(done, key=lambda one: decoder.log_prob(table, one) / len(one) ** length_penalty)


def continued(decoder, caption):
    return [(*caption, word) for word in range(decoder.vocab_size) if word not in (PAD, BOS, UNK)]


@pytest.mark.parametrize("length_penalty", [1.0, 2.0])
@pytest.mark.parametrize(
    ("on_end", "searched"), [(OnEnd.keep, kept_in_the_beam), (OnEnd.drop, dropped_from_the_beam)]
)
def test_places_of_finished_captions_as_in_released_code(on_end, searched, length_penalty):
    decoder, memory = ToyDecoder(vocab_size=7, max_length=8), tables(60, 7, sharpness=1.0)
    search = beam(num_beams=3, min_length=0, length_penalty=length_penalty, on_end=on_end)
    found = without_padding(search(decoder, memory).words)
    assert found == [searched(decoder, table, 3, length_penalty) for table in memory.tokens]
    refilled = beam(num_beams=3, min_length=0, length_penalty=length_penalty)(decoder, memory)
    assert without_padding(refilled.words) != found

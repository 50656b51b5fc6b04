"""Consensus decoding: the chosen caption is the one whose mean CIDEr-D against all candidates is highest."""

from __future__ import annotations

import pytest
import torch
from helpers.toy_decoder import (
    IDS,
    ToyDecoder,
    ToyVocabulary,
    document_frequencies,
    made,
    nearest_captions,
    tables,
)

from easycap.generation.beam import Beam, OnEnd
from easycap.generation.consensus import Consensus
from easycap.generation.sample import Sample
from easycap.metrics.cider import CiderD
from easycap.types import Generated, Memory

OWN = {
    "temperature": 0.8,
    "length_penalty": 1.0,
    "neighbours": 0,
    "whiten": None,
    "by_similarity": False,
    "likelihood": 0.0,
}
IMAGES = 4


def chosen(memory: Memory, **settings) -> Generated:
    return made(Consensus, **{**OWN, "seed": 3, **settings})(ToyDecoder(9, 6), memory)


def candidates(memory: Memory, num_draws: int, num_beams: int) -> list[list[list[int]]]:
    """The captions of beam search and of sampling by themselves, for each image."""
    found: list[list[list[int]]] = [[] for _ in range(IMAGES)]
    if num_beams:
        beam = made(Beam, num_beams=num_beams, length_penalty=1.0, early_stopping=False, on_end=OnEnd.refill)
        first = torch.full((IMAGES,), IDS["bos_id"])
        decoder = ToyDecoder(9, 6)
        for image, words in enumerate(beam.search(decoder, decoder.start(memory), first).words.tolist()):
            found[image] += words
    if num_draws:
        drawing = {"temperature": 0.8, "top_k": 0, "top_p": 1.0, "num_samples": num_draws, "seed": 3}
        drawn = made(Sample, **drawing)(ToyDecoder(9, 6), memory).words.tolist()
        for row, words in enumerate(drawn):
            found[row // num_draws].append(words)
    return found


@pytest.mark.parametrize(("num_draws", "num_beams"), [(12, 3), (12, 0), (0, 5)])
def test_it_has_the_highest_mean_cider_against_all(num_draws: int, num_beams: int) -> None:
    memory, score = tables(IMAGES, 9, sharpness=1.0), CiderD(df=document_frequencies())
    vocabulary, decoder = ToyVocabulary(), ToyDecoder(9, 6)
    generated = chosen(memory, num_draws=num_draws, num_beams=num_beams)
    not_first = 0
    for image, of_image in enumerate(candidates(memory, num_draws, num_beams)):
        texts = [vocabulary.decode(words) for words in of_image]
        gains = [score({"x": text}, {"x": texts})["CIDEr-D"].value for text in texts]
        words = generated.words[image].tolist()
        assert gains[texts.index(vocabulary.decode(words))] == pytest.approx(max(gains))
        real = tuple(word for word in words if word != IDS["pad_id"])
        assert float(generated.scores[image]) == pytest.approx(
            decoder.log_prob(memory.tokens[image], real), abs=1e-4
        )
        not_first += vocabulary.decode(words) != texts[0]
    assert not_first, "always the first candidate: nothing was chosen"


def test_equal_seeds_choose_alike_and_one_object_draws_on() -> None:
    memory = tables(IMAGES, 9, sharpness=0.1)
    decode = made(Consensus, **OWN, num_draws=5, num_beams=0, seed=3)
    first, second = decode(ToyDecoder(9, 6), memory), decode(ToyDecoder(9, 6), memory)
    again = chosen(memory, num_draws=5, num_beams=0)
    assert torch.equal(first.words, again.words)
    assert first.words.shape != second.words.shape or not torch.equal(first.words, second.words)


def test_one_candidate_is_no_choice() -> None:
    with pytest.raises(ValueError, match=r"num_draws=1 and decoding\.num_beams=0 .* at least 2 captions"):
        chosen(tables(1, 9), num_draws=1, num_beams=0)


@pytest.mark.parametrize("by_similarity", [False, True])
@pytest.mark.parametrize("likelihood", [0.0, 0.05])
def test_with_neighbours_it_is_compared_with_the_captions_of_similar_images(
    by_similarity: bool, likelihood: float
) -> None:
    memory, vocabulary, decoder = tables(IMAGES, 9, sharpness=0.1), ToyVocabulary(), ToyDecoder(9, 6)
    score = CiderD(df=document_frequencies())
    features = torch.tensor([[0], [1], [2], [3]])
    asked = {"neighbours": 3, "by_similarity": by_similarity, "likelihood": likelihood}
    decode = made(Consensus, **OWN | asked, num_draws=0, num_beams=9, seed=3)
    assert decode.reads_features
    generated = decode(ToyDecoder(9, 6), memory, features)
    of_beams = candidates(memory, 0, 9)
    for image, (similar, words) in enumerate(
        zip(nearest_captions(features, 3), generated.words, strict=True)
    ):
        gains = {}
        for caption in of_beams[image]:
            text = vocabulary.decode(caption)
            values = [score({"x": text}, {"x": [one]})["CIDEr-D"].value for one, _ in similar]
            weights = [cosine if by_similarity else 1.0 for _, cosine in similar]
            mean = sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights)
            real = tuple(word for word in caption if word != IDS["pad_id"])
            gains[text] = mean + likelihood * decoder.log_prob(memory.tokens[image], real)
        assert max(gains.values()) > min(gains.values())
        assert gains[vocabulary.decode(words.tolist())] == pytest.approx(max(gains.values()))


def test_captions_of_images_that_are_not_similar_count_the_same() -> None:
    features = torch.tensor([[0], [1], [2], [3]])
    memory = tables(IMAGES, 9, sharpness=0.1)

    def opposite(*asked) -> list[list[tuple[str, float]]]:
        return [[(text, -0.5) for text, _ in of] for of in nearest_captions(*asked)]

    words = []
    for by_similarity in (True, False):
        settings = OWN | {"neighbours": 3, "by_similarity": by_similarity}
        decode = made(Consensus, **settings, num_draws=0, num_beams=9, seed=3)
        decode._nearest = opposite
        words.append(decode(ToyDecoder(9, 6), memory, features).words)
    assert torch.equal(*words)

"""Ensembles of every registered decoder, with every way of decoding."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from helpers.tiny_captioners import REFERENCES, batch_of, captioner_of
from helpers.tiny_vocabularies import tiny_vocabulary
from helpers.toy_decoder import document_frequencies

from easycap.config.instantiate import build
from easycap.config.schema import option_from_text
from easycap.generation.attention_weights import caption_details
from easycap.generation.ensemble import Ensemble, EnsembleInputs
from easycap.generation.flops import flops_per_caption
from easycap.generation.generate import Refinement, captions_of_batch, decode
from easycap.registry import names
from easycap.types import Generated

DECODERS = names("decoder")
WORDS = tiny_vocabulary("word")
# Each decoder with itself, other weights, and with the next one.
TEAMS = [(name, other) for place, name in enumerate(DECODERS) for other in (name, DECODERS[place - 1])]


def captioner(name: str, seed: int):
    model = captioner_of(name, WORDS).eval()
    torch.manual_seed(seed)
    with torch.no_grad():  # other weights for each seed
        for parameter in model.decoder.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.5)
    return model


def generator(text: str):
    supplied = {"vocabulary": WORDS, "nearest_captions": same_captions}
    return build(
        "decoding",
        option_from_text("decoding", text, seed=1),
        document_frequencies=document_frequencies,
        **supplied,
    )


def same_captions(features, count: int, whiten: int | None) -> list[list[tuple[str, float]]]:
    """The captions of similar images, the same for each; the features are a captioner's, or a list of an ensemble's."""
    first = features[0] if isinstance(features, list) else features
    return [[("a dog on a mat", 0.5)] * count] * len(first.patches)


def both(inputs) -> EnsembleInputs:
    return EnsembleInputs.of([inputs, inputs])


@torch.no_grad()
def greedy_by_hand(members, inputs) -> tuple[list[list[int]], torch.Tensor]:
    """The likeliest word by the mean of the members' probabilities, one image at a time, from whole captions."""
    captions, scores = [], []
    for image in range(len(inputs.images)):
        one = type(inputs)(inputs.images[image : image + 1], {})
        words, score = [WORDS.bos_id], 0.0
        while len(words) <= 6:
            read = torch.tensor([words])
            probabilities = []
            for member in members:
                logits = member.decoder(read, member.decoder.start(member.build_memory(one))).logits
                probabilities.append(logits[0, -1].softmax(0))
            mean = sum(probabilities) / len(members)
            never = [WORDS.pad_id, WORDS.bos_id, WORDS.unk_id] + [WORDS.eos_id] * (len(words) == 1)
            word = int(mean.clone().index_fill(0, torch.tensor(never), 0).argmax())
            score += float(mean[word].log())
            words.append(word)
            if word == WORDS.eos_id:
                break
        captions.append(words[1:])
        scores.append(score)
    return captions, torch.tensor(scores)


def ids_of(generated: Generated) -> list[list[int]]:
    return [[word for word in row if word != WORDS.pad_id] for row in generated.words.tolist()]


@pytest.mark.parametrize("team", TEAMS, ids="+".join)
def test_the_next_word_is_chosen_by_the_mean_of_probabilities(team) -> None:
    members = [captioner(name, seed) for seed, name in enumerate(team)]
    inputs = batch_of(WORDS).inputs
    expected, scores = greedy_by_hand(members, inputs)
    found = decode(Ensemble(members), both(inputs), generator("greedy"))
    assert ids_of(found) == expected
    torch.testing.assert_close(found.scores, scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decoding", names("decoding"))
@pytest.mark.parametrize("name", DECODERS)
def test_an_ensemble_of_a_captioner_with_itself_is_that_captioner(name: str, decoding: str) -> None:
    alone, inputs = captioner(name, 0), batch_of(WORDS).inputs
    expected = decode(alone, inputs, generator(decoding))
    found = decode(Ensemble([alone, alone]), both(inputs), generator(decoding))
    assert torch.equal(found.words, expected.words)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("team", TEAMS, ids="+".join)
def test_reading_a_caption_agrees_with_writing_it(team) -> None:
    members = [captioner(name, seed) for seed, name in enumerate(team)]
    ensemble, inputs = Ensemble(members), both(batch_of(WORDS).inputs)
    found = decode(ensemble, inputs, generator("beam"))
    details = caption_details(ensemble, inputs, ids_of(found), WORDS, nullcontext)
    for one, score in zip(details, found.scores.tolist(), strict=True):
        assert one.attention is None
        assert float(one.log_probabilities.sum()) == pytest.approx(score, abs=1e-3)


def test_members_see_their_own_images_and_read_their_own_drafts() -> None:
    members, inputs = [captioner("lstm", 0), captioner("transformer", 1)], batch_of(WORDS).inputs
    turned = type(inputs)(inputs.images.flip(0), {})
    ensemble = Ensemble(members)
    of_each = EnsembleInputs.of([inputs, turned])
    mixed = decode(ensemble, of_each, generator("greedy")).scores
    encoded = decode(ensemble, of_each, generator("greedy"), ensemble.features_of(of_each)).scores
    assert torch.equal(encoded, mixed)
    assert not torch.allclose(mixed, decode(ensemble, both(inputs), generator("greedy")).scores)
    calls = [member.encoder.calls for member in members]
    given: list[EnsembleInputs] = []

    def with_draft(of, texts):
        given.append(of)
        assert len(texts) == len(REFERENCES)
        return of

    refinement = Refinement(2, with_draft)
    rounds = captions_of_batch(ensemble, both(inputs), generator("greedy"), WORDS, nullcontext, refinement)
    assert len(rounds) == 3 and len(given) == 2
    assert [member.encoder.calls for member in members] == [number + 1 for number in calls], "encoded once"


def test_it_costs_what_its_members_cost() -> None:
    members, inputs = [captioner("lstm", 0), captioner("transformer", 1)], batch_of(WORDS).inputs.first(1)
    alone = [
        flops_per_caption(member, inputs, generator("greedy"), eos_id=WORDS.eos_id) for member in members
    ]
    together = flops_per_caption(Ensemble(members), both(inputs), generator("greedy"), eos_id=WORDS.eos_id)
    assert together == sum(alone)


def test_dropout_and_length_are_those_of_all_members() -> None:
    members = [captioner("lstm", 0), captioner("transformer", 1)]
    members[0].decoder.max_length = 4
    ensemble = Ensemble(members)
    assert ensemble.decoder.max_length == 4
    ensemble.train()
    assert all(member.training for member in members)
    with pytest.raises(AssertionError, match="dropout is on"):
        decode(ensemble, both(batch_of(WORDS).inputs), generator("greedy"))
    ensemble.eval()
    assert not ensemble.training

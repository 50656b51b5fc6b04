"""Drafts with every registered decoder, vocabulary and objective, at toy size."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from helpers.condition_data import condition_data
from helpers.tiny_captioners import PAIRS, REFERENCES, Letters, batch_of, captioner_of
from helpers.tiny_vocabularies import tiny_vocabulary

from easycap.config.instantiate import build, special_ids
from easycap.config.schema import option_from_text
from easycap.data.loader import context_ids
from easycap.generation.generate import Refinement, captions_of_batch
from easycap.registry import names
from easycap.types import Batch, Example, Objective, Vocabulary

OBJECTIVES = names("objective")
# Every pair of a decoder and a vocabulary; as there are three vocabularies, all three objectives with every decoder,
# and, as the objectives move on from decoder to decoder, with every vocabulary.
TRIPLES = [
    (*pair, OBJECTIVES[(place + place // len(names("vocab"))) % len(OBJECTIVES)])
    for place, pair in enumerate(PAIRS)
]
DATA = condition_data(
    {"train": [Example(i, None, references) for i, references in REFERENCES.items()]},
    captions_per_image=1,
    seed=0,
)
SHARES = {"another": 0.0, "nothing": 0.0, "as_tested": 0.0, "drop": 0.1, "replace": 0.1, "swap": 0.1}


SOURCE = build("draft", {"name": "own", "max_length": 5, "training": SHARES}, data=DATA)


def draft_batch(words: Vocabulary) -> Batch:
    return batch_of(words, {"draft": SOURCE}, epoch=0)


def made_objective(name: str, words: Vocabulary) -> Objective:
    settings = option_from_text("objective", name)
    given = {"vocabulary": words, "make_rewards": lambda weights, eos: Letters(), **special_ids(words)}
    return build("objective", settings, **given)


def test_every_two_choices_meet() -> None:
    for first, second in ((0, 1), (0, 2), (1, 2)):
        options = [{triple[place] for triple in TRIPLES} for place in (first, second)]
        assert len({(t[first], t[second]) for t in TRIPLES}) == len(options[0]) * len(options[1])
    assert {objective for *_, objective in TRIPLES} == set(OBJECTIVES)


@pytest.mark.parametrize(("name", "vocabulary", "objective"), TRIPLES)
def test_drafts_are_learned_from(name: str, vocabulary: str, objective: str) -> None:
    words = tiny_vocabulary(vocabulary)
    captioner, batch = captioner_of(name, words, "draft"), draft_batch(words)
    read: list[torch.Tensor] = []
    captioner.context["draft"].register_forward_hook(lambda module, given, out: read.append(given[0]))
    loss, _ = made_objective(objective, words)(captioner, batch)
    loss.backward()
    assert loss.isfinite()
    # Whatever is generated, sampled or scored is conditioned on the draft in the batch.
    ids = batch.inputs.context["draft"]
    assert read and all(torch.equal(vectors, captioner.decoder.token_embedding(ids)) for vectors in read)
    of_draft = [*captioner.context.parameters(), captioner.decoder.token_embedding.weight]
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in of_draft)
    drafted = ids[ids != words.pad_id].unique()
    assert captioner.decoder.token_embedding.weight.grad[drafted].any(1).float().mean() > 0.5


@pytest.mark.parametrize(("name", "vocabulary"), PAIRS)
def test_rounds_feed_back_what_was_generated(name: str, vocabulary: str) -> None:
    words = tiny_vocabulary(vocabulary)
    captioner, batch = captioner_of(name, words, "draft").eval(), draft_batch(words)
    generate = build("decoding", option_from_text("decoding", "greedy"), vocabulary=words)

    def with_draft(inputs, texts):
        return replace(inputs, context={"draft": context_ids(texts, words, SOURCE)})

    def generated(inputs, rounds: int) -> list[list[list[str]]]:
        refinement = Refinement(rounds, with_draft)
        return captions_of_batch(captioner, inputs, generate, words, nullcontext, refinement)

    rounds = generated(batch.inputs, 2)
    assert len(rounds) == 3
    inputs = batch.inputs
    for texts in rounds:
        assert generated(inputs, 0) == [texts]
        ids = context_ids([one for (one,) in texts], words, SOURCE)
        inputs = replace(inputs, context={"draft": ids})

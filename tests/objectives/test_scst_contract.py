"""Self-critical training over every registered decoder and vocabulary, at toy size."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_captioners import (
    PAIRS,
    Letters,
    batch_of,
    captioner_of,
)
from helpers.tiny_decoders import VARIANTS
from helpers.tiny_vocabularies import tiny_vocabulary

import easycap.objectives.scst as scst
from easycap.config.instantiate import build, special_ids
from easycap.config.schema import option_from_text
from easycap.models.captioner import Captioner
from easycap.objectives.scst import Baseline, SelfCritical
from easycap.registry import names
from easycap.types import Batch, Vocabulary

WITH_VARIANTS = PAIRS + [(variant, "word") for variant in VARIANTS]


def make(words: Vocabulary, **changes: object) -> SelfCritical:
    settings = option_from_text("objective", "scst") | {"baseline": Baseline.others} | changes
    given = {"vocabulary": words, "make_rewards": lambda weights, eos: Letters(), **special_ids(words)}
    return build("objective", settings, **given)


def greedy(captioner: Captioner, batch: Batch, words: Vocabulary) -> torch.Tensor:
    generate = build("decoding", option_from_text("decoding", "greedy"), vocabulary=words)
    captioner.eval()
    with torch.no_grad():
        sampled = generate(captioner.decoder, captioner.build_memory(batch.inputs)).words
    captioner.train()
    return sampled


@pytest.mark.parametrize(("name", "vocabulary"), WITH_VARIANTS)
def test_samples_are_drawn_with_the_probabilities_that_get_the_gradient(
    name: str, vocabulary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word by word while sampling, and all at once afterwards: the same log-probabilities, without dropout."""
    words = tiny_vocabulary(vocabulary)
    captioner, batch, objective = captioner_of(name, words), batch_of(words), make(words)
    drawn, passes = [], []

    def draw(scores: torch.Tensor) -> torch.Tensor:
        chosen = torch.multinomial(scores.softmax(1), 1)
        drawn.append(scores.log_softmax(1).gather(1, chosen).squeeze(1))
        return chosen.squeeze(1)

    def log_probs(self: SelfCritical, decoder, state, rows, sampled) -> torch.Tensor:
        passes.append((sampled, original(self, decoder, state, rows, sampled)))
        return passes[-1][1]

    original = SelfCritical._log_probs
    monkeypatch.setattr(scst, "draw", draw)
    monkeypatch.setattr(SelfCritical, "_log_probs", log_probs)
    before = greedy(captioner, batch, words)
    loss, _ = objective(captioner, batch)
    [(sampled, found)] = passes
    assert len(sampled) == 10 and len(drawn) == sampled.shape[1]
    for said_now, found_now, drawn_now in zip(sampled.T, found.T, drawn, strict=True):
        still = said_now != words.pad_id  # rows that have ended are drawn no more
        torch.testing.assert_close(found_now[still], drawn_now, rtol=1e-4, atol=1e-4)
        assert not found_now[~still].any()
    ended = (sampled == words.eos_id).any(1).tolist()
    texts = [words.decode(row) for row in sampled.tolist()]
    assert objective.rewards.asked == list(zip(["x"] * 5 + ["y"] * 5, texts, ended, strict=True))
    assert not any("<unk>" in text for text in texts)
    loss.backward()
    idle = [n for n, p in captioner.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert loss.isfinite() and not idle
    assert all(part.any() for part in (p.grad for p in captioner.image_tokens.parameters()))
    assert torch.equal(greedy(captioner, batch, words), before)


@pytest.mark.parametrize(("name", "vocabulary"), PAIRS)
def test_every_pair_learns_what_is_rewarded(name: str, vocabulary: str) -> None:
    words = tiny_vocabulary(vocabulary)
    captioner, batch, objective = captioner_of(name, words), batch_of(words), make(words, num_samples=16)
    optimizer = torch.optim.Adam(captioner.parameters(), lr=0.02)
    rewards = []
    for _ in range(16):
        loss, parts = objective(captioner, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rewards.append(float(parts["reward"]))
    assert sum(rewards[-3:]) > 1.3 * sum(rewards[:3])


@pytest.mark.parametrize("name", names("decoder"))
def test_passes_of_few_rows_give_every_decoder_the_same_gradient(name: str) -> None:
    words, found = tiny_vocabulary("word"), []
    for rows in (None, 3):
        captioner = captioner_of(name, words)
        torch.manual_seed(1)
        make(words, rows_per_pass=rows)(captioner, batch_of(words))[0].backward()
        found.append({name: p.grad for name, p in captioner.named_parameters()})
        assert all(module.training for module in captioner.modules()), "the trainer's modes are back"
    whole, parts = found
    for key, gradient in whole.items():
        torch.testing.assert_close(
            parts[key], gradient, rtol=1e-3, atol=1e-5 * float(1 + gradient.abs().max())
        )

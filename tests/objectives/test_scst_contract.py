"""Self-critical training over every registered decoder and vocabulary, at toy size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from models.test_decoder_contract import TINY as DECODERS
from test_scheduled_sampling import WIDTH, Pixels
from torch import nn
from vocab.test_contract import made

import easycap.objectives.scst as scst
from easycap.build import build, special_ids
from easycap.config import option_from_text
from easycap.data.loader import Collate
from easycap.models.captioner import Captioner
from easycap.models.context.words import ContextWords
from easycap.models.decoders.attention_lstm import Attention
from easycap.objectives.scst import Baseline, SelfCritical
from easycap.registry import names
from easycap.types import Batch, Example, Features, TextSource, Vocabulary

MAX_WORDS, SLOTS = 6, 3
PAIRS = [(name, vocabulary) for name in names("decoder") for vocabulary in names("vocab")]
REFERENCES = {"x": ("a dog and a cat", "the dog"), "y": ("two cats", "a red ball")}


class Letters:
    """Rewards lower-case letters; it remembers what it was asked."""

    signature = "letters"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bool]] = []

    def __call__(self, ids: Sequence[str], captions: Sequence[str], ended: Sequence[bool]) -> dict:
        self.asked += zip(ids, captions, ended, strict=True)
        return {"letters": np.array([sum(map(str.islower, text)) for text in captions], float)}

    def total(self, found: Mapping[str, np.ndarray]) -> np.ndarray:
        return found["letters"]


class Slots(nn.Module):
    """One cell -> some slots of the decoder's width."""

    grid = None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, SLOTS * width)

    def forward(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.linear(features.cells[:, 0] / 2).unflatten(1, (SLOTS, -1))
        return tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool)


def captioner_of(name: str, words: Vocabulary, *segments: str) -> Captioner:
    """In training, with dropout wherever the decoder has one, and words of `segments` beside the image."""
    settings = {"name": name, **DECODERS[name]}
    if "dropout" in settings:
        settings["dropout"] = 0.5
    if "attention" in settings:
        settings["attention"] = Attention.soft
    if settings.get("segments"):
        settings["segments"] += tuple(segment for segment in segments if segment not in settings["segments"])
    torch.manual_seed(0)
    decoder = build(
        "decoder", settings, channels=12, vocab_size=len(words), pieces=None, **special_ids(words)
    )
    with torch.no_grad():  # weights as they are drawn say nearly the same whatever they read
        for parameter in decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3 / parameter.std())
    context = {segment: ContextWords(decoder, max_words=5, pad_id=words.pad_id) for segment in segments}
    image_tokens = Slots(decoder.memory_dim)
    return Captioner(encoder=Pixels(), image_tokens=image_tokens, decoder=decoder, context=context).train()


def batch_of(
    words: Vocabulary, context: Mapping[str, TextSource] | None = None, epoch: int | None = None
) -> Batch:
    collate = Collate(words, context or {}, max_words=MAX_WORDS, captions_per_image=1, seed=0)
    collate.epoch = epoch
    pixels = torch.tensor([[10, 200, 90], [250, 40, 10]], dtype=torch.uint8).view(2, 3, 1, 1)
    pairs = zip(REFERENCES.items(), pixels, strict=True)
    return collate([(Example(i, None, references), image) for (i, references), image in pairs])


def make(words: Vocabulary, **changes: object) -> SelfCritical:
    settings = option_from_text("objective", "scst") | {"baseline": Baseline.others} | changes
    given = {"vocabulary": words, "make_rewards": lambda weights, eos: Letters(), **special_ids(words)}
    return build("objective", settings, **given)


def greedy(captioner: Captioner, batch: Batch, words: Vocabulary) -> torch.Tensor:
    generate = build(
        "decoding", option_from_text("decoding", "greedy"), encode=words.encode, **special_ids(words)
    )
    captioner.eval()
    with torch.no_grad():
        said = generate(captioner.decoder, captioner.remember(batch.inputs)).words
    captioner.train()
    return said


@pytest.mark.parametrize(("name", "vocabulary"), PAIRS)
def test_samples_are_drawn_with_the_probabilities_that_get_the_gradient(
    name: str, vocabulary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word by word while sampling, and all at once afterwards: the same log-probabilities, without dropout."""
    words = made(vocabulary)
    captioner, batch, objective = captioner_of(name, words), batch_of(words), make(words)
    drawn, passes = [], []

    def draw(scores: torch.Tensor) -> torch.Tensor:
        chosen = torch.multinomial(scores.softmax(1), 1)
        drawn.append(scores.log_softmax(1).gather(1, chosen).squeeze(1))
        return chosen.squeeze(1)

    def log_probs(self: SelfCritical, decoder, state, rows, said) -> torch.Tensor:
        passes.append((said, original(self, decoder, state, rows, said)))
        return passes[-1][1]

    original = SelfCritical._log_probs
    monkeypatch.setattr(scst, "draw", draw)
    monkeypatch.setattr(SelfCritical, "_log_probs", log_probs)
    before = greedy(captioner, batch, words)
    loss, _ = objective(captioner, batch)
    [(said, found)] = passes
    assert len(said) == 10 and len(drawn) == said.shape[1]
    for said_now, found_now, drawn_now in zip(said.T, found.T, drawn, strict=True):
        still = said_now != words.pad_id  # rows that have ended are drawn no more
        torch.testing.assert_close(found_now[still], drawn_now, rtol=1e-4, atol=1e-4)
        assert not found_now[~still].any()
    ended = (said == words.eos_id).any(1).tolist()
    texts = [words.decode(row) for row in said.tolist()]
    assert objective.rewards.asked == list(zip(["x"] * 5 + ["y"] * 5, texts, ended, strict=True))
    assert not any("<unk>" in text for text in texts)
    loss.backward()
    idle = [n for n, p in captioner.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert loss.isfinite() and not idle
    assert all(part.any() for part in (p.grad for p in captioner.image_tokens.parameters()))
    assert torch.equal(greedy(captioner, batch, words), before)


@pytest.mark.parametrize(("name", "vocabulary"), PAIRS)
def test_every_pair_learns_what_is_rewarded(name: str, vocabulary: str) -> None:
    words = made(vocabulary)
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
    words, found = made("word"), []
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

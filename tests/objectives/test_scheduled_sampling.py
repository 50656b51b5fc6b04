"""Scheduled sampling: how its share grows, which words it replaces, and that nothing else changes."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.tiny_captioners import WIDTH, AsTheyAre, Pixels
from torch import nn

from easycap.models.captioner import Captioner
from easycap.models.decoders.lstm import LSTM, Cell, Init
from easycap.objectives.scheduled_sampling import Growth, ScheduledSampling
from easycap.objectives.xe import CrossEntropy
from easycap.types import Batch, Inputs

VOCAB = 9


@pytest.fixture
def captioner() -> Captioner:
    torch.manual_seed(0)
    decoder = LSTM(
        embed_dim=WIDTH,
        hidden_dim=8,
        max_length=5,
        dropout=0.0,
        vocab_size=VOCAB,
        dropout_inputs=True,
        cell=Cell.lstm,
        init=Init.im2txt,
    )
    return Captioner(encoder=Pixels(), image_tokens=AsTheyAre(), decoder=decoder).train()


@pytest.fixture
def batch() -> Batch:
    words = torch.tensor([[1, 4, 5, 6], [1, 7, 0, 0], [1, 8, 4, 0]])
    targets = torch.tensor([[4, 5, 6, 2], [7, 2, 0, 0], [8, 4, 2, 0]])
    images = torch.arange(6, dtype=torch.uint8).view(2, 3, 1, 1)
    return Batch(["a", "b"], Inputs(images), words, targets, torch.tensor([0, 0, 1]))


def make(**changes: object) -> ScheduledSampling:
    settings = {"growth": Growth.linear, "rate": 0.05, "max_share": 0.25, "start_epoch": 0, "every_epochs": 5}
    return ScheduledSampling(**(settings | {"label_smoothing": 0.0, "pad_id": 0} | changes))


def test_the_share_grows_as_in_the_usual_recipe() -> None:
    """Nothing for five epochs, then 0.05 more every five, never above 0.25."""
    shares = [make().share_at(epoch) for epoch in (0, 4, 5, 9, 10, 24, 25, 100)]
    assert shares == pytest.approx([0, 0, 0.05, 0.05, 0.1, 0.2, 0.25, 0.25])
    assert [make(start_epoch=3).share_at(epoch) for epoch in (0, 2, 7, 8)] == pytest.approx([0, 0, 0, 0.05])


def test_the_inverse_sigmoid_is_the_papers() -> None:
    objective = make(growth=Growth.inverse_sigmoid, rate=3.0, max_share=1.0, every_epochs=1)
    for epoch in range(20):
        assert objective.share_at(epoch) == pytest.approx(1 - 3 / (3 + math.exp(epoch / 3)))
    assert objective.share_at(100_000) == 1


def test_without_a_share_it_is_cross_entropy(captioner: Captioner, batch: Batch) -> None:
    objective = make()
    objective.begin_epoch(0)
    loss, parts = objective(captioner, batch)
    expected, _ = CrossEntropy(label_smoothing=0.0, ignore_unk=False, unk_id=None, pad_id=0)(captioner, batch)
    assert torch.equal(loss, expected) and parts["own_words"] == 0
    objective.begin_epoch(30)
    assert not torch.equal(objective(captioner, batch)[0], expected)
    assert torch.equal(objective(captioner.eval(), batch)[0], expected), "validation reads the references"


def test_the_share_of_words_is_replaced_and_padding_never(batch: Batch) -> None:
    torch.manual_seed(0)
    words = batch.input_ids.repeat(500, 1)
    own = make()._own_words(words, 0.2)
    assert not own[words == 0].any()
    assert float(own[words != 0].float().mean()) == pytest.approx(0.2, abs=0.03)


def test_words_are_drawn_one_after_another_from_what_was_drawn(captioner: Captioner, batch: Batch) -> None:
    """A model that always says the next number: bos, own, own, ... counts upwards; given words stay."""
    decoder = captioner.decoder
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.zero_()
    decoder.step = lambda words, state: (
        1e4 * nn.functional.one_hot((words + 1) % VOCAB, VOCAB).float(),
        state,
    )
    read: list[torch.Tensor] = []
    decoder.forward = lambda words, state: read.append(words)
    own = torch.tensor([[True, True, True, True], [False, True, False, False], [False, False, True, True]])
    captioner(batch.inputs, batch.input_ids, batch.rows, own)
    assert read[0].tolist() == [[1, 2, 3, 4], [1, 2, 0, 0], [1, 8, 0, 1]]


def test_an_image_is_encoded_once_and_learning_reaches_the_decoder(
    captioner: Captioner, batch: Batch
) -> None:
    objective = make(max_share=1.0, rate=1.0)
    objective.begin_epoch(5)
    loss, parts = objective(captioner, batch)
    loss.backward()
    assert captioner.encoder.calls == 1 and float(parts["own_words"]) == 1
    assert all(p.grad is not None and p.grad.any() for p in captioner.decoder.parameters())


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ({"rate": 0.0}, "rate=0.0"),
        ({"rate": 0.5, "growth": Growth.inverse_sigmoid}, "rate=0.5"),
        ({"max_share": 1.5}, "max_share=1.5"),
        ({"start_epoch": -1}, "start_epoch=-1"),
        ({"every_epochs": 0}, "every_epochs=0"),
    ],
)
def test_wrong_settings_are_named(setting: dict, word: str) -> None:
    with pytest.raises(ValueError, match=f"objective.{word}"):
        make(**setting)

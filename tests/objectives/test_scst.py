"""Self-critical training: its gradient is that of the expected reward; what is sampled, rewarded and counted."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from helpers.tiny_captioners import AsTheyAre, Pixels
from torch import nn

from easycap.metrics import DocumentFrequencies
from easycap.metrics.rewards import Rewards
from easycap.models.captioner import Captioner
from easycap.models.decoders.lstm import LSTM, Cell, Init
from easycap.objectives.scst import Baseline, SelfCritical, without_dropout
from easycap.objectives.xe import CrossEntropy
from easycap.types import Batch, Inputs

WIDTH, MAX_LENGTH = 6, 3
PAD, BOS, EOS, UNK = range(4)


class Words:
    """Six ids: four special ones, "a" and "b"."""

    pad_id, bos_id, eos_id, unk_id = PAD, BOS, EOS, UNK

    def __len__(self) -> int:
        return 6

    def encode(self, text: str) -> list[int]:
        return [{"a": 4, "b": 5}[word] for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        ids = list(ids)[: list(ids).index(EOS)] if EOS in ids else ids
        return " ".join({4: "a", 5: "b"}[i] for i in ids if i not in (PAD, BOS))


class Table:
    """A reward drawn for each image, text and whether it ended; it remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bool]] = []
        self.signature = "table"

    def of(self, image_id: str, text: str, ended: bool) -> float:
        seed = sum((i + 1) * ord(c) for i, c in enumerate(f"{image_id}|{text}|{ended}"))
        return 1.0 + float(np.random.default_rng(seed).normal())

    def __call__(self, ids: Sequence[str], captions: Sequence[str], ended: Sequence[bool]) -> dict:
        rows = list(zip(ids, captions, ended, strict=True))
        self.asked += rows
        return {"table": np.array([self.of(*row) for row in rows])}

    def total(self, found: Mapping[str, np.ndarray]) -> np.ndarray:
        return found["table"]


def make(**changes: object) -> SelfCritical:
    settings = {
        "rewards": {"table": 1.0},
        "eos_in_reward": True,
        "baseline": Baseline.others,
        "num_samples": 5,
        "temperature": 1.0,
        "max_length": None,
        "rows_per_pass": None,
        "cross_entropy": 0.0,
        "label_smoothing": 0.0,
        "ignore_unk": False,
        "xe_first": False,
        "lr_factor": 0.1,
    }
    return SelfCritical(**(settings | changes), vocabulary=Words(), make_rewards=lambda weights, eos: Table())


def captioner_of(dropout: float = 0.0) -> Captioner:
    torch.manual_seed(0)
    decoder = LSTM(
        embed_dim=WIDTH,
        hidden_dim=8,
        max_length=MAX_LENGTH,
        dropout=dropout,
        vocab_size=6,
        dropout_inputs=True,
        cell=Cell.lstm,
        init=Init.im2txt,
    )
    with torch.no_grad():  # as drawn, its captions hardly depend on the image or on the words before
        for parameter in decoder.parameters():
            parameter.mul_(4)
    return Captioner(encoder=Pixels(), image_tokens=AsTheyAre(), decoder=decoder).train()


@pytest.fixture
def captioner() -> Captioner:
    return captioner_of()


def batch_of(copies: int = 1) -> Batch:
    images = (
        torch.tensor([[10, 200, 90], [250, 40, 10]], dtype=torch.uint8).repeat(copies, 1).view(-1, 3, 1, 1)
    )
    words, targets = torch.tensor([[BOS, 4, 5], [BOS, 5, PAD]]), torch.tensor([[4, 5, EOS], [5, EOS, PAD]])
    rows = torch.arange(2 * copies)
    return Batch(
        ["x", "y"] * copies, Inputs(images), words.repeat(copies, 1), targets.repeat(copies, 1), rows
    )


def every_caption() -> list[list[int]]:
    """All that can be generated: ended by eos, or of MAX_LENGTH words."""
    ended = [[*some, EOS] for n in range(MAX_LENGTH) for some in itertools.product((4, 5), repeat=n)]
    return ended + [list(some) for some in itertools.product((4, 5), repeat=MAX_LENGTH)]


def flat_gradient(loss: torch.Tensor, captioner: Captioner) -> torch.Tensor:
    parameters = list(captioner.decoder.parameters())
    found = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in found])


def log_probs_of(
    captioner: Captioner, batch: Batch, captions: list[list[int]], temperature: float = 1.0
) -> torch.Tensor:
    """Log-probability (N,C) of each caption for each image, by stepping; pad, bos and unk are never generated."""
    decoder, found = captioner.decoder, []
    for caption in captions:
        state, last, total = decoder.start(captioner.build_memory(batch.inputs)), BOS, 0
        for word in caption:
            logits, state = decoder.step(torch.full((len(batch.image_ids),), last), state)
            total = (
                total + (logits[:, [EOS, 4, 5]] / temperature).log_softmax(1)[:, {EOS: 0, 4: 1, 5: 2}[word]]
            )
            last = word
        found.append(total)
    return torch.stack(found, 1)


def expected_gradient(captioner: Captioner, batch: Batch, temperature: float = 1.0) -> torch.Tensor:
    """The gradient of minus the expected reward, over all captions there are."""
    captions, table = every_caption(), Table()
    log_probs = log_probs_of(captioner, batch, captions, temperature)
    assert torch.allclose(log_probs.exp().sum(1), torch.ones(2)), "these are all captions"
    rewards = torch.tensor(
        [[table.of(i, Words().decode(c), EOS in c) for c in captions] for i in batch.image_ids]
    )
    return flat_gradient(-(log_probs.exp() * rewards).sum(1).mean(), captioner)


@pytest.mark.parametrize(
    ("baseline", "temperature"), [(Baseline.others, 1.0), (Baseline.greedy, 1.0), (Baseline.others, 0.7)]
)
def test_the_gradient_is_that_of_the_expected_reward(
    captioner: Captioner, baseline: Baseline, temperature: float
) -> None:
    """Mean over many steps against the sum over all captions, in units of its standard error."""
    expected = expected_gradient(captioner, batch_of(), temperature)
    objective, many, found = make(baseline=baseline, temperature=temperature), batch_of(copies=60), []
    torch.manual_seed(1)
    for _ in range(50):
        loss, parts = objective(captioner, many)
        # The loss is per word; per caption it is an unbiased estimate.
        found.append(flat_gradient(loss * parts["words_per_sample"], captioner))
    estimates = torch.stack(found)
    error = estimates.std(0) / len(estimates) ** 0.5
    off = (estimates.mean(0) - expected).abs()
    assert (off < 5 * error + 1e-6).all(), "several standard errors away from the exact gradient"
    assert (off[error > 1e-6] / error[error > 1e-6]).square().mean() < 2
    assert estimates.mean(0).norm() > 10 * error.norm(), "too noisy to say anything"


def test_equal_rewards_teach_nothing(captioner: Captioner) -> None:
    objective = make()
    objective.rewards.of = lambda *row: 3.0
    loss, parts = objective(captioner, batch_of(copies=4))
    assert not flat_gradient(loss, captioner).any()
    assert float(parts["reward"]) == pytest.approx(3)


def test_samples_may_be_beams_against_their_mean(captioner: Captioner) -> None:
    objective, batch = make(baseline=Baseline.beam, num_samples=4), batch_of()
    loss, _parts = objective(captioner, batch)
    asked = objective.rewards.asked
    assert len(set(asked)) == 8, "beams of an image differ"
    captions = [[Words().encode(text) + [EOS] * ended for _, text, ended in asked[i : i + 4]] for i in (0, 4)]
    log_probs = torch.stack([log_probs_of(captioner, batch, some)[i] for i, some in enumerate(captions)])
    likeliest = log_probs_of(captioner, batch, every_caption()).max(1).values
    assert torch.allclose(log_probs.max(1).values, likeliest)
    rewards = torch.tensor([objective.rewards.of(*row) for row in asked]).view(2, 4)
    words = sum(len(caption) for some in captions for caption in some)
    expected = -((rewards - rewards.mean(1, keepdim=True)) * log_probs).sum() / words
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert torch.allclose(flat_gradient(loss, captioner), flat_gradient(expected, captioner), atol=1e-5)


def test_passes_of_few_rows_give_the_same_gradient_though_dropout_is_configured() -> None:
    found = []
    for rows in (None, 3):
        captioner = captioner_of(dropout=0.5)
        torch.manual_seed(2)
        loss, _ = make(rows_per_pass=rows, cross_entropy=0.3)(captioner, batch_of(copies=3))
        loss.backward()
        found.append([p.grad for p in captioner.decoder.parameters()])
        assert all(module.training for module in captioner.modules()), "the trainer's modes are back"
    for whole, parts in zip(*found, strict=True):
        assert torch.allclose(whole, parts, atol=1e-6) and whole.any()


def test_an_image_is_encoded_once_and_only_eos_ends_a_caption(captioner: Captioner) -> None:
    objective = make(baseline=Baseline.greedy, num_samples=16)
    _, parts = objective(captioner, batch_of())
    assert captioner.encoder.calls == 1
    samples, plain = objective.rewards.asked[:32], objective.rewards.asked[32:]
    assert [row[0] for row in samples] == ["x"] * 16 + ["y"] * 16 and [row[0] for row in plain] == ["x", "y"]
    assert {ended for *_, ended in samples} == {True, False}
    assert all(ended or len(text.split()) == MAX_LENGTH for _, text, ended in samples)
    lengths = [len(text.split()) + ended for _, text, ended in samples]
    assert float(parts["words_per_sample"]) == pytest.approx(sum(lengths) / 32)


def test_cross_entropy_is_validated_on_and_mixed_in(captioner: Captioner) -> None:
    plain, batch = CrossEntropy(label_smoothing=0.0, ignore_unk=False, unk_id=None, pad_id=PAD), batch_of()
    assert torch.equal(make()(captioner.eval(), batch)[0], plain(captioner, batch)[0])
    captioner.train()
    torch.manual_seed(3)
    alone, _ = make()(captioner, batch)
    torch.manual_seed(3)
    mixed, parts = make(cross_entropy=0.25)(captioner, batch)
    likelihood = plain(captioner, batch)[0]
    assert mixed.item() == pytest.approx((0.75 * alone + 0.25 * likelihood).item(), rel=1e-5)
    assert float(parts["cross_entropy"]) == pytest.approx(likelihood.item(), rel=1e-5)


def test_dropout_is_off_within_and_as_before_afterwards() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout().eval(), nn.LSTM(2, 2)))
    with without_dropout(model):
        assert not model.training and not model[0].training
        assert model[1][1].training, "cuDNN's backward pass needs it"
    assert [module.training for module in model.modules()] == [True, True, True, False, True]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_samples": 1}, "num_samples=1 must be at least 2 with objective.baseline=others"),
        ({"num_samples": 0, "baseline": Baseline.greedy}, "num_samples=0 must be at least 1"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"temperature": 0.5, "baseline": Baseline.beam}, "temperature=0.5 .*baseline=beam"),
        ({"max_length": 0}, "max_length=0"),
        ({"rows_per_pass": 0}, "rows_per_pass=0"),
        ({"cross_entropy": 1.0}, "cross_entropy=1.0"),
        ({"lr_factor": 0.0}, "lr_factor=0.0"),
    ],
)
def test_wrong_settings_are_named(setting: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"objective.{message}"):
        make(**setting)


def test_samples_longer_than_the_decoder_can_are_refused(captioner: Captioner) -> None:
    with pytest.raises(ValueError, match="objective.max_length=9 .* decoder.max_length=3"):
        make(max_length=9)(captioner, batch_of())


# ------------------------------------------------------------------------------------------------ rewards

REFERENCES = {"x": ("a dog sits on a red mat", "a dog on a mat"), "y": ("two birds fly", "birds in the sky")}


def rewards_of(weights: Mapping[str, float], *, eos: bool = True, df_eos: bool | None = None) -> Rewards:
    df = DocumentFrequencies.from_references(
        REFERENCES.values(), source="train", eos=eos if df_eos is None else df_eos
    )
    return Rewards(
        weights,
        eos=eos,
        references=REFERENCES,
        annotations={},
        scorers=("bleu", "rouge_l", "cider_d"),
        df=df,
    )


def test_rewards_are_weighed_and_each_sample_counts_for_itself() -> None:
    mixed = rewards_of({"CIDEr-D": 1.0, "BLEU-4": 0.5, "ROUGE-L": 0.0})
    ids, captions = ["y", "x", "x"], ["two birds fly", "a dog on a mat", "two birds fly"]
    found = mixed(ids, captions, [True] * 3)
    assert found.keys() == {"CIDEr-D", "BLEU-4"}
    assert found["BLEU-4"][1] == pytest.approx(1, abs=1e-6) and found["BLEU-4"][2] < 1e-3
    assert list(mixed.total(found)) == pytest.approx(list(found["CIDEr-D"] + 0.5 * found["BLEU-4"]))
    alone = rewards_of({"CIDEr-D": 1.0})(ids, captions, [True] * 3)
    assert list(alone["CIDEr-D"]) == list(found["CIDEr-D"])


def test_the_end_of_a_caption_counts_as_the_signature_says() -> None:
    ids, captions, ended = ["x", "x"], ["a dog on a"] * 2, [True, False]
    with_eos, without = (rewards_of({"CIDEr-D": 1.0}, eos=eos) for eos in (True, False))
    first, second = with_eos(ids, captions, ended)["CIDEr-D"]
    assert first != second and "eos:yes" in with_eos.signature
    first, second = without(ids, captions, ended)["CIDEr-D"]
    assert first == second and "eos:no" in without.signature


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"CIDEr": 1.0}, "'CIDEr' is not measured; did you mean 'CIDEr-D'"),
        ({"BLEU-4": 0.0}, "rewards is empty"),
    ],
)
def test_rewards_that_do_not_exist_are_named(weights: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rewards_of(weights)

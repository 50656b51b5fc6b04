"""Show, Attend and Tell, once more, as its paper writes it; its two losses of attention against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.attention_decoders import HIDDEN, VOCAB, WIDTH, build_attention_lstm
from helpers.memories import (
    NUM_TAGS,
    close,
    naive_lstm,
    pad_memory,
    random_memory,
    random_words,
    spread_weights,
)

from easycap.models.decoders.attention_lstm import (
    Attention,
    AttentionLSTM,
    Reduction,
    doubly_stochastic,
)
from easycap.types import Memory


def naive(
    decoder: AttentionLSTM, memory: Memory, words: torch.Tensor, image: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Equations 1 to 7 with the gate of section 4.2.1, for one caption (T,) -> logits (T,V), attention (T,M)."""
    w = dict(decoder.named_parameters())

    def affine(name: str, x: torch.Tensor) -> torch.Tensor:
        return w[f"{name}.weight"] @ x + w.get(f"{name}.bias", 0)

    tokens, valid = memory.tokens[image], memory.mask[image]
    patches = [a for a, real in zip(tokens[NUM_TAGS:], valid[NUM_TAGS:], strict=True) if real]
    mean = affine("initial", sum(patches) / len(patches)).clamp(min=0)
    h, c = affine("initial_hidden", mean).tanh(), affine("initial_cell", mean).tanh()
    logits, attention = [], []
    for word in words:
        ey = w["embedding.weight"][word]
        energy = {
            i: affine(
                "attention.energy", (affine("attention.key", tokens[i]) + affine("attention.query", h)).tanh()
            )
            for i in range(len(tokens))
            if valid[i]
        }
        total = sum(e.exp() for e in energy.values())
        alpha = torch.zeros(len(tokens))
        for i, e in energy.items():
            alpha[i] = (e.exp() / total).squeeze()
        z = affine("gate", h).sigmoid() * sum(alpha[i] * tokens[i] for i in energy)
        gates = w["word_gates.weight"] @ ey + affine("lstm.gates", torch.cat([z, h]))
        h, c = naive_lstm(gates, c)
        logits.append(affine("output", (ey + affine("from_hidden", h) + affine("from_context", z)).tanh()))
        attention.append(alpha)
    return torch.stack(logits), torch.stack(attention)


@pytest.mark.parametrize("attention", list(Attention))
def test_equals_the_papers_equations(attention: Attention) -> None:
    decoder = spread_weights(build_attention_lstm(attention=attention)).eval()
    memory, words = random_memory(WIDTH), random_words(VOCAB)
    output = decoder(words, decoder.start(memory))
    assert not output.losses
    for image in range(len(words)):
        logits, alpha = naive(decoder, memory, words[image], image)
        close(output.logits[image], logits)
        close(output.attention[image], alpha)


def test_the_gate_is_one_number_a_word() -> None:
    assert build_attention_lstm().gate.weight.shape == (1, HIDDEN)


# ------------------------------------------------------------------------------------ doubly stochastic


def naive_penalties(alpha: torch.Tensor, words: torch.Tensor, memory: Memory) -> list[list[float]]:
    """(1 - sum_t alpha_ti)^2 for each real patch of each image, over the real words of its caption."""
    return [
        [
            (1 - sum(float(alpha[b, t, i]) for t in range(words.shape[1]) if words[b, t] != 0)) ** 2
            for i in range(NUM_TAGS, alpha.shape[2])
            if memory.mask[b, i]
        ]
        for b in range(len(words))
    ]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("reduction", list(Reduction))
def test_the_penalty_counts_real_words_and_real_patches_only(reduction: Reduction, padded: bool) -> None:
    decoder = spread_weights(build_attention_lstm(alpha_reduction=reduction, alpha_weight=3.0)).train()
    memory, words = random_memory(WIDTH), random_words(VOCAB)
    alpha = decoder(words, decoder.start(memory)).attention.detach()
    patches = naive_penalties(alpha, words, memory)
    num_words = int((words != 0).sum())
    expected = {
        Reduction.paper: sum(map(sum, patches)) / num_words,
        Reduction.patches: sum(sum(c) / len(c) for c in patches) / num_words,
        Reduction.mean: sum(map(sum, patches)) / sum(map(len, patches)),
    }[reduction]
    if padded:
        memory, words = pad_memory(memory), torch.nn.functional.pad(words, (0, 2))
    loss = decoder(words, decoder.start(memory)).losses["doubly_stochastic"]
    assert float(loss) == pytest.approx(3 * expected, rel=1e-5)


@pytest.mark.parametrize("reduction", [Reduction.paper, Reduction.patches])
def test_the_penalty_does_not_depend_on_the_parts_of_a_batch(reduction: Reduction) -> None:
    real = random_words(VOCAB) != 0
    alpha = torch.rand(len(real), real.shape[1], 5, generator=torch.manual_seed(0)).softmax(2)
    is_image = torch.ones(len(real), 5, dtype=torch.bool)
    is_image[0, 3:] = False

    def weighted(rows: slice) -> torch.Tensor:
        share = real[rows].sum() / real.sum()  # as a step counts its batches
        return share * doubly_stochastic(alpha[rows], real[rows], is_image[rows], reduction)

    close(weighted(slice(0, 1)) + weighted(slice(1, None)), weighted(slice(None)))


def test_without_weight_there_is_no_penalty() -> None:
    decoder = build_attention_lstm(alpha_weight=0.0).train()
    assert not decoder(random_words(VOCAB), decoder.start(random_memory(WIDTH))).losses


# --------------------------------------------------------------------------------------- hard attention


def test_half_of_the_captions_look_at_one_slot_each_time() -> None:
    decoder = build_attention_lstm(attention=Attention.hard)
    torch.manual_seed(0)
    rows = decoder.reinforce.draw_rows(torch.zeros(2000, 3))
    assert float(rows.float().mean()) == pytest.approx(0.5, abs=0.05)
    weights = torch.tensor([[0.7, 0.0, 0.3]]).repeat(2000, 1)
    locations = decoder.reinforce.draw(weights, rows)
    assert torch.equal(locations[~rows], weights[~rows])
    assert set(map(tuple, locations[rows].tolist())) == {(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)}
    assert float(locations[rows][:, 0].mean()) == pytest.approx(0.7, abs=0.05)


def test_costs_are_those_of_the_targets() -> None:
    decoder = build_attention_lstm(attention=Attention.hard, max_length=6)
    words = torch.tensor([[1, 5, 6, 0, 0, 0], [1, 5, 6, 7, 8, 9]])
    logits = torch.randn(2, 6, VOCAB, generator=torch.manual_seed(0))
    log_probs = logits.log_softmax(2)
    ended = [(0, 5), (1, 6), (2, 2)]
    cut = [(0, 5), (1, 6), (2, 7), (3, 8), (4, 9)]  # the sixth word was cut off, and is not known to be eos
    expected = [-sum(log_probs[0, t, w] for t, w in ended), -sum(log_probs[1, t, w] for t, w in cut)]
    close(decoder.reinforce.costs(words, logits), torch.stack(expected))


def test_losses_are_those_of_the_papers_rule() -> None:
    decoder = build_attention_lstm(
        attention=Attention.hard, entropy_weight=0.5, reinforce_weight=2.0
    ).reinforce
    words = torch.tensor([[1, 5, 0], [1, 5, 6], [1, 0, 0]])
    logits = torch.randn(3, 3, VOCAB, generator=torch.manual_seed(0))
    alpha = torch.rand(3, 3, 4, generator=torch.manual_seed(1)).softmax(2)
    places = torch.tensor([[0, 1, 2], [3, 3, 0], [1, 1, 1]])
    locations = torch.nn.functional.one_hot(places, 4).float()
    rows = torch.tensor([True, True, False])
    decoder.baseline.fill_(1.5)
    costs = decoder.costs(words, logits).tolist()
    reward = entropy = 0.0
    for b in range(3):
        for t in range(3):
            if words[b, t] == 0:
                continue
            a = alpha[b, t].tolist()
            entropy -= sum(p * math.log(p) for p in a)
            if rows[b]:
                reward += (costs[b] - 1.5) * math.log(a[places[b, t]])
    losses = decoder(words, logits, alpha, locations, rows)
    assert float(losses["reinforce"]) == pytest.approx(2.0 * reward / 6, rel=1e-5)
    assert float(losses["attention_entropy"]) == pytest.approx(-0.5 * entropy / 6, rel=1e-5)
    assert float(decoder.baseline) == pytest.approx(0.9 * 1.5 + 0.1 * sum(costs) / 3, rel=1e-5)


def test_the_expected_gradient_is_that_of_the_expected_cost() -> None:
    """With every location enumerated, the rule's mean gradient for the attention is the true one."""
    torch.manual_seed(0)
    energies = torch.randn(3, requires_grad=True)
    rule = build_attention_lstm(attention=Attention.hard, reinforce_weight=1.0, max_length=8).reinforce
    words = torch.tensor([[1]])  # one word, eos
    logits_at = torch.randn(3, VOCAB)
    cost_at = torch.stack([rule.costs(words, logits_at[i].view(1, 1, -1))[0] for i in range(3)])
    (truth,) = torch.autograd.grad((energies.softmax(0) * cost_at).sum(), energies)
    estimate = torch.zeros(3)
    for i in range(3):
        alpha = energies.softmax(0)
        rule.baseline.fill_(4.0)
        locations = torch.nn.functional.one_hot(torch.tensor(i), 3).float().view(1, 1, 3)
        losses = rule(
            words, logits_at[i].view(1, 1, -1), alpha.view(1, 1, 3), locations, torch.tensor([True])
        )
        (gradient,) = torch.autograd.grad(losses["reinforce"], energies)
        estimate += gradient * float(alpha[i])
    close(estimate, truth)


def test_masked_slots_are_never_drawn() -> None:
    decoder = spread_weights(build_attention_lstm(attention=Attention.hard, entropy_weight=0.1)).train()
    memory, words = random_memory(WIDTH), random_words(VOCAB)
    tokens = memory.tokens.masked_fill(~memory.mask.unsqueeze(2), 1e6)
    for _ in range(20):
        output = decoder(words, decoder.start(memory._replace(tokens=tokens)))
        assert output.logits.abs().max() < 1e3
        assert all(loss.isfinite() for loss in output.losses.values())
    assert set(output.losses) == {"doubly_stochastic", "reinforce", "attention_entropy"}


# ------------------------------------------------------------------------------------------------ start


def test_the_start_is_the_papers() -> None:
    decoder = build_attention_lstm(embed_dim=30, hidden_dim=40, attention_dim=20, channels=20, vocab_size=60)
    for name in ("embedding", "output", "word_gates", "attention.key", "from_hidden"):
        weight = decoder.get_parameter(f"{name}.weight").detach()
        assert float(weight.std()) == pytest.approx(0.01, rel=0.2), name
    for square in (*decoder.lstm.recurrent_blocks, decoder.initial.weight):
        close(square.detach() @ square.detach().T, torch.eye(len(square)))
    assert not any(p.any() for name, p in decoder.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("name", ["alpha_weight", "reinforce_weight", "entropy_weight"])
def test_negative_weights_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"decoder.{name}=-1.0"):
        build_attention_lstm(**{name: -1.0})

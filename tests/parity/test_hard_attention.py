"""The recipe show_attend_tell/hard against the gradients of the authors' release, formula by formula.

kelvinxu/arctic-captions at f4565bf, capgen.py: the cost of a word and its sum (701-704), the batch's mean (1165), the
learning rule (1191-1195) and the baseline (1202); batches of captions of one length (1217), all drawn or none (376,
409).
"""

from __future__ import annotations

import pytest
import torch
from helpers.attention_decoders import EMBED, HIDDEN, VOCAB, WIDTH, build_attention_lstm
from helpers.memories import spread_weights

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.models.decoders.attention_lstm import Attention, AttentionLSTM
from easycap.objectives.xe import CrossEntropy
from easycap.types import Memory

N, T, M = 64, 5, 4  # the release's batch; words of a caption with its end; patches


def recipe() -> dict:
    decoder = check(compose(["experiment=show_attend_tell/hard", "data.root=somewhere"])[0])["decoder"]
    names = ("attention", "reinforce_cost", "reinforce_weight", "entropy_weight", "alpha_weight")
    return {name: decoder[name] for name in names}


def release_gradients(
    decoder: AttentionLSTM, patches: torch.Tensor, words: torch.Tensor, locations: torch.Tensor | None
) -> tuple[dict[str, torch.Tensor], float]:
    """Gradients by parameter and the next baseline; `locations` (T,N,M) one-hot if the batch is drawn, else None."""
    p = {name: parameter.detach().clone().requires_grad_() for name, parameter in decoder.named_parameters()}

    def ff(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0)

    initial = torch.relu(ff("initial", patches.mean(1)))
    h, c = torch.tanh(ff("initial_hidden", initial)), torch.tanh(ff("initial_cell", initial))
    costs, alphas = [], []
    for t in range(T):
        e = p["embedding.weight"][words[:, t]]
        energy = ff(
            "attention.energy",
            torch.tanh(ff("attention.key", patches) + ff("attention.query", h).unsqueeze(1)),
        )
        alpha = torch.softmax(energy.squeeze(2), 1)
        seen = alpha if locations is None else locations[t]
        z = torch.sigmoid(ff("gate", h)) * (patches * seen.unsqueeze(2)).sum(1)
        i, f, g, o = (ff("word_gates", e) + ff("lstm.gates", torch.cat([z, h], 1))).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        logit = ff("output", torch.tanh(e + ff("from_hidden", h) + ff("from_context", z)))
        probability = torch.softmax(logit, 1)
        target = words[:, t + 1] if t + 1 < T else torch.full((N,), 2)
        costs.append(-torch.log(probability[torch.arange(N), target]))
        alphas.append(alpha)
    masked_cost, alpha = torch.stack(costs), torch.stack(alphas)
    sample = alpha.detach() if locations is None else locations
    baseline = float(decoder.reinforce.baseline)
    known = (baseline - masked_cost.mean(0))[None, :, None] / 10 * (-sample / alpha)
    known = (known + 0.002 * (torch.log(alpha) + 1)).detach()
    (masked_cost.sum(0).mean() + (known * alpha).sum()).backward()
    gradients = {name: torch.zeros_like(q) if q.grad is None else q.grad for name, q in p.items()}
    return gradients, 0.9 * baseline + 0.1 * float(masked_cost.detach().mean())


@pytest.mark.parametrize("drawn", [True, False])
def test_a_step_has_the_gradients_of_the_release(drawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = spread_weights(build_attention_lstm(**recipe())).double().train()
    assert recipe()["attention"] is Attention.hard
    assert (EMBED, HIDDEN, WIDTH, VOCAB) == (4, 5, 6, 11)
    generator = torch.manual_seed(0)
    patches = torch.randn(N, M, WIDTH, generator=generator, dtype=torch.float64)
    words = torch.randint(4, VOCAB, (N, T), generator=generator)
    words[:, 0] = 1
    places = torch.randint(0, M, (T, N), generator=generator)
    locations = torch.nn.functional.one_hot(places, M).double()
    decoder.reinforce.baseline.fill_(1.5)
    expected, baseline = release_gradients(decoder, patches, words, locations if drawn else None)

    draws = iter(locations)
    monkeypatch.setattr(decoder.reinforce, "draw_rows", lambda words: torch.full((N,), drawn))
    monkeypatch.setattr(decoder.reinforce, "draw", lambda weights, rows: next(draws) if drawn else weights)
    memory = Memory(patches, torch.ones(N, M, dtype=torch.bool), {"image": slice(0, M)})
    output = decoder(words, decoder.start(memory))
    targets = torch.cat([words[:, 1:], torch.full((N, 1), 2)], 1)
    loss, _ = CrossEntropy(label_smoothing=0.0, ignore_unk=False, unk_id=None, pad_id=0).loss_of_output(
        output, targets
    )
    (loss * T).backward()  # ours is the mean over N * T words, the release's over N captions
    for name, parameter in decoder.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-5, msg=name)
    assert float(decoder.reinforce.baseline) == pytest.approx(baseline, rel=1e-5)
    assert "doubly_stochastic" not in output.losses

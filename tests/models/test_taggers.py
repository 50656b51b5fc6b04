"""Every registered tagger: it learns which tags images have, and what its probabilities are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from easycap.registry import construct, lookup, names
from easycap.types import Features

SETTINGS = {
    "cnn": {"width": 16, "dropout": 0.0, "gamma_positive": 0.0, "gamma_negative": 4.0, "margin": 0.05},
    "lstm": {"embed_dim": 16, "hidden_dim": 32, "max_tags": 3, "dropout": 0.0},
}
SUPPLIED = {"channels": 6, "vocab_size": 3 + 5, "num_tags": 5, "pad_id": 0, "bos_id": 1, "eos_id": 2}
TAGGERS = [name for name in names("tagger") if name != "none"]


@pytest.fixture(params=TAGGERS)
def tagger(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return construct(lookup("tagger", request.param), SETTINGS[request.param], SUPPLIED)


def features(count: int = 4) -> Features:
    patches = torch.randn(count, 3, 6, generator=torch.manual_seed(1))
    return Features(patches, torch.ones(count, 3, dtype=torch.bool), None)


# Tags 0..4 are ids 3..7; the images have 0 and 2, 1, none, 0 and 1 and 4.
TARGETS = torch.tensor([[3, 5, 2, 0], [4, 2, 0, 0], [2, 0, 0, 0], [3, 4, 7, 2]])
WORDS = torch.tensor([[1, 3, 5, 0], [1, 4, 0, 0], [1, 0, 0, 0], [1, 3, 4, 7]])
THERE = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 1]])


def test_it_learns_the_tags_of_images(tagger: nn.Module) -> None:
    optimizer = torch.optim.Adam(tagger.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        tagger.loss(features(), WORDS, TARGETS).backward()
        optimizer.step()
    likely = tagger.eval().probabilities(features())
    assert ((likely > 0.5) == THERE.bool()).all()


def test_probabilities_are_of_each_image_and_between_0_and_1(tagger: nn.Module) -> None:
    likely = tagger.eval().probabilities(features())
    assert likely.shape == (4, 5) and (likely >= 0).all() and (likely <= 1).all()
    one = tagger.probabilities(Features(features().patches[1:2], features().mask[1:2], None))
    torch.testing.assert_close(one, likely[1:2])


def test_padded_patches_change_nothing(tagger: nn.Module) -> None:
    seen = features()
    padded = Features(
        torch.cat([seen.patches, 9 + seen.patches], 1), torch.tensor([[True] * 3 + [False] * 3] * 4), None
    )
    torch.testing.assert_close(tagger.eval().probabilities(padded), tagger.probabilities(seen))


def test_the_asymmetric_loss_by_hand() -> None:
    settings = SETTINGS["cnn"] | {"gamma_positive": 1.0, "gamma_negative": 2.0, "margin": 0.1}
    supplied = {key: SUPPLIED[key] for key in ("channels", "vocab_size", "num_tags", "pad_id")}
    tagger = lookup("tagger", "cnn")(**settings, **supplied)
    tagger.logits = lambda seen: torch.tensor([[0.0, -10.0, 1.0, -1.0, 0.5]])
    loss = tagger.loss(features(1), WORDS[:1], TARGETS[:1])
    p = torch.tensor([0.0, -10.0, 1.0, -1.0, 0.5]).sigmoid()
    there = -(1 - p[[0, 2]]) * p[[0, 2]].log()
    q = (p[[1, 3, 4]] - 0.1).clamp(min=0)
    # Two tags and the end.
    torch.testing.assert_close(loss, (there.sum() - (q**2 * (1 - q).log()).sum()) / 3)


def test_a_batch_in_parts_counts_as_one(tagger: nn.Module) -> None:
    tagger.eval()
    whole, seen = tagger.loss(features(), WORDS, TARGETS), features()
    counts, parts = [], []
    for rows in (slice(0, 1), slice(1, 4)):
        part = Features(seen.patches[rows], seen.mask[rows], None)
        counts.append((TARGETS[rows] != 0).sum())
        parts.append(tagger.loss(part, WORDS[rows], TARGETS[rows]))
    shares = [count / sum(counts) for count in counts]
    torch.testing.assert_close(sum(s * loss for s, loss in zip(shares, parts, strict=True)), whole)


def test_no_tag_is_written_twice_and_the_end_ends() -> None:
    """A tagger that says tag 0, 0, 0: with 0 taken it must say what comes next."""
    tagger = construct(lookup("tagger", "lstm"), SETTINGS["lstm"], SUPPLIED).eval()
    with torch.no_grad():
        tagger.decoder.output.weight.zero_()
        tagger.decoder.output.bias.copy_(torch.tensor([0.0, 0.0, 1.0, 3.0, 2.0, 0.0, 0.0, 0.0]))
        likely = tagger.probabilities(features(1))[0]
    left = torch.tensor([1.0, 3.0, 2.0, 0.0, 0.0, 0.0]).exp()
    first = left[1] / left.sum()
    second = left[2] / (left.sum() - left[1])  # of what is left without tag 0
    assert likely[0] == pytest.approx(float(first), abs=1e-5)
    assert likely[1] == pytest.approx(
        float(1 - (1 - left[2] / left.sum()) * (1 - second) * 1.0), abs=1e-5
    )  # and in the third step the end is likeliest: nothing more is drawn but in it

"""Text conditions as positions of the memory, over every registered decoder."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_decoders import PREFIX, SUPPLIED, TINY
from torch import nn

from easycap.models.captioner import Captioner
from easycap.models.condition_tokens import ConditionTokens
from easycap.registry import construct, lookup, names
from easycap.types import Features, Inputs, Preprocessing

PATCHES, PAD = 4, SUPPLIED["pad_id"]


class Patches(nn.Module):
    """Four patches of an image of 4 x 4 pixels."""

    channels, grid, preprocessing = 12, (2, 2), Preprocessing(4, (0.5,) * 3, (0.25,) * 3)

    def forward(self, images: torch.Tensor) -> Features:
        patches = (
            images.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(len(images), PATCHES, 12)
        )
        return Features(patches, torch.ones(len(images), PATCHES, dtype=torch.bool), (2, 2))


class Mapped(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(12, width)

    def forward(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        return self.map(features.patches), features.mask


@pytest.fixture(params=names("decoder"))
def decoder(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    values = TINY[request.param] | ({"segments": ()} if "segments" in TINY[request.param] else {})
    decoder = construct(lookup("decoder", request.param), values, SUPPLIED)
    assert decoder.prefix == (request.param in PREFIX)
    with torch.no_grad():  # weights as they are drawn make logits so flat that nothing would show
        for parameter in decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.5 / parameter.std())
    return decoder


def captioner_with(decoder: nn.Module, *segments: str, **options) -> Captioner:
    torch.manual_seed(1)
    context = {name: ConditionTokens(decoder, max_length=5, pad_id=PAD) for name in segments}
    image_tokens = Mapped(decoder.memory_dim)
    options = {"order": ("tags", "image", "draft")} | options
    return Captioner(
        encoder=Patches(), image_tokens=image_tokens, decoder=decoder, context=context, **options
    )


IMAGES = torch.randint(0, 255, (2, 3, 4, 4), generator=torch.manual_seed(2), dtype=torch.uint8)
WORDS, ROWS = torch.tensor([[1, 5, 6], [1, 7, 8], [1, 5, 9]]), torch.tensor([0, 0, 1])


def logits(captioner: Captioner, **context: list[list[int]]) -> torch.Tensor:
    ids = {name: torch.tensor(rows, dtype=torch.long) for name, rows in context.items()}
    return captioner.eval()(Inputs(IMAGES, ids), WORDS, ROWS).logits


def test_words_are_read_and_padding_is_not(decoder: nn.Module) -> None:
    captioner = captioner_with(decoder, "tags", "draft")
    before = logits(captioner, tags=[[4, 5], [6, PAD]], draft=[[7, 8, 9], [5, 5, PAD]])
    padded = logits(captioner, tags=[[4, 5, PAD], [6, PAD, PAD]], draft=[[7, 8, 9, PAD], [5, 5, PAD, PAD]])
    torch.testing.assert_close(padded, before, rtol=1e-4, atol=1e-5)
    other = logits(captioner, tags=[[4, 12], [6, PAD]], draft=[[7, 8, 9], [5, 5, PAD]])
    assert (other - before)[:2].abs().amax() > 1e-4 and torch.allclose(other[2], before[2], atol=1e-6)
    other = logits(captioner, tags=[[4, 5], [6, PAD]], draft=[[7, 9, 8], [5, 5, PAD]])
    assert (other - before)[:2].abs().amax() > 1e-4, "the order of a draft's words makes no difference"


def test_no_words_at_all_are_an_image_alone(decoder: nn.Module) -> None:
    alone = logits(captioner_with(decoder))
    nothing = logits(captioner_with(decoder, "tags"), tags=[[PAD, PAD], [PAD, PAD]])
    if decoder.prefix:
        torch.testing.assert_close(nothing, alone, rtol=1e-4, atol=1e-5)
    empty = logits(captioner_with(decoder, "tags"), tags=[[], []])
    torch.testing.assert_close(nothing, empty, rtol=1e-4, atol=1e-5)


def test_a_prefix_decoder_learns_no_vectors_beside_its_own(decoder: nn.Module) -> None:
    added = sum(p.numel() for p in captioner_with(decoder, "tags").context.parameters())
    width = decoder.token_embedding.embedding_dim
    assert added == (0 if decoder.prefix else (width + 1 + 5) * decoder.memory_dim)


def test_the_order_of_segments_matters_to_a_prefix_decoder_alone(decoder: nn.Module) -> None:
    tags = [[4, 5], [6, 7]]
    before = logits(captioner_with(decoder, "tags"), tags=tags)
    after = logits(captioner_with(decoder, "tags", order=("image", "tags", "draft")), tags=tags)
    assert torch.allclose(before, after, atol=1e-3) != decoder.prefix


def test_segments_lie_where_the_memory_says(decoder: nn.Module) -> None:
    captioner = captioner_with(decoder, "tags", "draft")
    ids = {"tags": torch.tensor([[4, 5], [6, PAD]]), "draft": torch.tensor([[7], [8]])}
    memory = captioner.build_memory(Inputs(IMAGES, ids))
    assert memory.segments == {"tags": slice(0, 2), "image": slice(2, 6), "draft": slice(6, 7)}
    assert memory.mask.tolist() == [[True] * 7, [True, False] + [True] * 5]


def test_missing_words_are_named(decoder: nn.Module) -> None:
    with pytest.raises(ValueError, match="is conditioned on tags, and the inputs have none"):
        logits(captioner_with(decoder, "tags"))

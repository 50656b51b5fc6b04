"""Image token modes: what each makes of a view of the image."""

from __future__ import annotations

import pytest
import torch

from easycap.models.image_tokens.grid import All, Grid, grid_shape
from easycap.models.image_tokens.mapper import Mapper
from easycap.models.image_tokens.mlp import MLP
from easycap.models.image_tokens.resampler import Resampler
from easycap.models.image_tokens.split import Split
from easycap.registry import lookup, names
from easycap.types import Features

N, C, D = 3, 6, 8
CONFIGURED = {
    "split": {"count": 4, "normalize": False},
    "grid": {"count": 4},
    "resampler": {"count": 4, "num_layers": 2, "num_heads": 2},
    "all": {},
    "mlp": {"count": 4, "normalize": False},
    "mapper": {"count": 4, "num_pieces": 3, "num_layers": 2, "num_heads": 2, "normalize": False},
}


def features(height: int = 3, width: int = 5, padded: int = 0) -> Features:
    """Patches of N images; the last `padded` of each are masked, and then the patches form no grid."""
    patches = torch.randn(N, height * width, C)
    mask = torch.ones(N, height * width, dtype=torch.bool)
    if padded:
        mask[:, -padded:] = False
    return Features(patches, mask, None if padded else (height, width))


@pytest.mark.parametrize("name", names("image_tokens"))
def test_every_mode_gives_tokens_with_gradient(name: str) -> None:
    supplied = {"channels": C, "memory_dim": D, "source_grid": (3, 5)}
    component = lookup("image_tokens", name)
    wanted = component.__init__.__kwdefaults__ or component.__init__.__annotations__
    mode = component(**CONFIGURED[name], **{k: v for k, v in supplied.items() if k in wanted})
    view = features()
    view.patches.requires_grad_()
    tokens, mask = mode(view)
    count = CONFIGURED[name].get("count", 15)
    assert tokens.shape == (N, count, D) and mask.shape == (N, count) and mask.all()
    assert mode.grid is None or mode.grid[0] * mode.grid[1] == count
    tokens.square().sum().backward()
    assert (view.patches.grad.abs().sum(-1) > 0).all(), "every patch should matter"


@pytest.mark.parametrize("name", ["split", "resampler", "all", "mlp", "mapper"])
def test_padded_patches_change_nothing(name: str) -> None:
    torch.manual_seed(0)
    extra = {"source_grid": None} if name in ("resampler", "all") else {}
    mode = lookup("image_tokens", name)(**CONFIGURED[name], channels=C, memory_dim=D, **extra)
    view = features(padded=4)
    tokens, mask = mode(view)
    changed = view.patches.clone()
    changed[:, -4:] = 1e3
    again, _ = mode(view._replace(patches=changed))
    assert torch.allclose(tokens[mask], again[mask])


def test_split_cuts_one_vector_into_pieces() -> None:
    mode = Split(count=4, normalize=False, channels=C, memory_dim=D)
    view = features()
    tokens, _ = mode(view)
    pooled = view.patches.mean(1)
    assert torch.allclose(tokens.flatten(1), mode.project(pooled), atol=1e-6)


def test_grid_pools_patches_where_they_are() -> None:
    mode = Grid(count=4, channels=C, memory_dim=C, source_grid=(4, 4))
    torch.nn.init.eye_(mode.project.weight)
    torch.nn.init.zeros_(mode.project.bias)
    view = features(4, 4)
    tokens, _ = mode(view)
    upper_left = view.patches.unflatten(1, (4, 4))[:, :2, :2].mean((1, 2))
    assert torch.allclose(tokens[:, 0], upper_left, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "source", "expected"),
    [(4, (4, 4), (2, 2)), (8, (4, 4), (2, 4)), (6, (6, 3), (3, 2)), (7, (7, 7), (1, 7))],
)
def test_grid_takes_the_shape_nearest_to_the_map(count: int, source: tuple, expected: tuple) -> None:
    height, width = grid_shape(count, source)
    assert sorted((height, width)) == sorted(expected) and height <= source[0] and width <= source[1]
    if source[0] > source[1]:
        assert (height, width) == expected


def test_grid_says_what_is_possible() -> None:
    with pytest.raises(ValueError, match="3 x 2 map; possible: 1, 2, 3, 4, 6"):
        grid_shape(5, (3, 2))
    with pytest.raises(ValueError, match="form a grid"):
        grid_shape(4, None)


def test_resampler_tells_positions_apart() -> None:
    torch.manual_seed(0)
    mode = Resampler(count=4, num_layers=1, num_heads=2, channels=C, memory_dim=D, source_grid=(3, 5))
    view = features()
    swapped = view._replace(patches=view.patches.flip(1))
    assert not torch.allclose(mode(view)[0], mode(swapped)[0], atol=1e-4)


def test_all_is_the_identity_when_widths_agree() -> None:
    view = features(padded=2)
    tokens, mask = All(channels=C, memory_dim=C, source_grid=None)(view)
    assert tokens is view.patches and mask is view.mask


def test_clipcaps_mappers_have_the_papers_sizes() -> None:
    """Table 1 of 2111.09734, in millions beside GPT-2: 32 and 43. They fit CLIP RN50x4's 640 numbers and K = 10."""
    with torch.device("meta"):
        mlp = MLP(count=10, normalize=False, channels=640, memory_dim=768)
        mapper = Mapper(
            count=10, num_pieces=10, num_layers=8, num_heads=8, normalize=False, channels=640, memory_dim=768
        )
    sizes = [sum(p.numel() for p in mode.parameters()) / 1e6 for mode in (mlp, mapper)]
    assert [round(size) for size in sizes] == [32, 43]


def test_the_mapper_reads_what_stands_at_its_constants() -> None:
    torch.manual_seed(0)
    mode = Mapper(count=2, num_pieces=3, num_layers=1, num_heads=2, normalize=False, channels=C, memory_dim=D)
    view = features()
    tokens, _ = mode(view)
    with torch.no_grad():
        mode.constants[1] *= -2
    again, _ = mode(view)
    assert not torch.allclose(tokens[:, 0], again[:, 0]), "constants see each other"
    mode.layers = torch.nn.ModuleList()
    assert torch.equal(mode(view)[0], mode.constants.expand(N, -1, -1))

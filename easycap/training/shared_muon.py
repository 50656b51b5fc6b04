"""Muon's orthogonalisation shared among ranks: each does it for some of the matrices and sends the others the result.

Every rank calls these functions with the same matrices, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

Orthogonalize = Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]


def owners(shapes: Sequence[Sequence[int]], world_size: int) -> list[int]:
    """Return the rank that orthogonalises each matrix (rows, columns), so that ranks have about the same work.

    The most expensive matrix goes first, to the rank with the least work so far; that is at most 4/3 of the best
    division (Graham 1969).
    """
    costs = [rows * columns * min(rows, columns) for rows, columns in shapes]
    work, found = [0] * world_size, [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda i: -costs[i]):
        found[index] = work.index(min(work))
        work[found[index]] += costs[index]
    return found


def share_whole(
    matrices: Sequence[torch.Tensor], orthogonalize: Orthogonalize, group: dist.ProcessGroup | None = None
) -> list[torch.Tensor]:
    """Orthogonalise matrices that all ranks have."""
    world_size, rank = dist.get_world_size(group), dist.get_rank(group)
    of = owners([m.shape for m in matrices], world_size)
    per_rank = [[i for i, owner in enumerate(of) if owner == number] for number in range(world_size)]
    sizes = [sum(matrices[i].numel() for i in own) for own in per_rank]
    # As long as the longest. Gloo without NCCL, as when processes share a GPU, takes CPU tensors only.
    device = torch.device("cpu") if dist.get_backend(group) == "gloo" else matrices[0].device
    sent = matrices[0].new_zeros(max(sizes), device=device)
    own = orthogonalize([matrices[i] for i in per_rank[rank]])
    if own:
        sent[: sizes[rank]].copy_(torch.cat([m.reshape(-1) for m in own]))
    received = sent.new_empty(world_size * len(sent))
    dist.all_gather_single(received, sent, group=group)
    found = list(matrices)
    for indices, size, part in zip(per_rank, sizes, received.split(len(sent)), strict=True):
        pieces = part[:size].split([matrices[i].numel() for i in indices])
        for i, piece in zip(indices, pieces, strict=True):
            found[i] = piece.view(matrices[i].shape).to(matrices[i].device)
    return found


def share_rows(
    parts: Sequence[torch.Tensor],
    rows: Sequence[int],
    orthogonalize: Orthogonalize,
    group: dist.ProcessGroup | None = None,
    *,
    at_once: int = 2**26,
) -> list[torch.Tensor]:
    """Orthogonalise matrices of which each rank has some rows; return the same rows of the results.

    `parts` are this rank's rows of matrices that have `rows` in all, divided as `torch.chunk` does. Matrices of
    about `at_once` elements per rank are put together at a time.
    """
    world_size = dist.get_world_size(group)
    shapes = [(count, part.shape[1]) for count, part in zip(rows, parts, strict=True)]
    of = owners(shapes, world_size)
    found: list[torch.Tensor] = []
    for start, end in _rounds([r * c for r, c in shapes], at_once * world_size):
        found += _round(parts[start:end], shapes[start:end], of[start:end], orthogonalize, group)
    return found


def _rounds(sizes: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Consecutive ranges of indices whose sizes are at most `limit` in all, or of one index."""
    found, start, total = [], 0, 0
    for index, size in enumerate(sizes):
        if index > start and total + size > limit:
            found.append((start, index))
            start, total = index, 0
        total += size
    return [*found, (start, len(sizes))] if sizes else []


def _round(
    parts: Sequence[torch.Tensor],
    shapes: Sequence[tuple[int, int]],
    of: Sequence[int],
    orthogonalize: Orthogonalize,
    group: dist.ProcessGroup | None,
) -> list[torch.Tensor]:
    """Send all rows to the owners of their matrices, and the results back."""
    world_size, rank = dist.get_world_size(group), dist.get_rank(group)
    order = sorted(range(len(parts)), key=lambda i: of[i])  # what is sent lies in the order of the ranks
    mine = [i for i in order if of[i] == rank]
    to_owner = [sum(parts[i].numel() for i in order if of[i] == owner) for owner in range(world_size)]
    held = [
        [_rows_of(shapes[i][0], number, world_size) * shapes[i][1] for i in mine]
        for number in range(world_size)
    ]
    from_ranks = [sum(sizes) for sizes in held]
    sent = torch.cat([parts[i].reshape(-1) for i in order])
    received = sent.new_empty(sum(from_ranks))
    dist.all_to_all_single(received, sent, from_ranks, to_owner, group=group)
    by_rank = [piece.split(sizes) for piece, sizes in zip(received.split(from_ranks), held, strict=True)]
    whole = [torch.cat([pieces[n].view(-1, shapes[i][1]) for pieces in by_rank]) for n, i in enumerate(mine)]
    results = orthogonalize(whole)
    chunks = [_chunks(result, world_size) for result in results]
    back = [chunk[number].reshape(-1) for number in range(world_size) for chunk in chunks]
    returned = torch.empty_like(sent)
    dist.all_to_all_single(
        returned, torch.cat(back) if back else sent.new_empty(0), to_owner, from_ranks, group=group
    )
    found = list(parts)
    for i, piece in zip(order, returned.split([parts[i].numel() for i in order]), strict=True):
        found[i] = piece.view(parts[i].shape)
    return found


def _rows_of(rows: int, rank: int, world_size: int) -> int:
    """How many of `rows` a rank has: ranks are filled one after the other."""
    size = -(-rows // world_size)
    return max(0, min(size, rows - rank * size))


def _chunks(matrix: torch.Tensor, world_size: int) -> list[torch.Tensor]:
    return list(matrix.split([_rows_of(len(matrix), rank, world_size) for rank in range(world_size)]))

"""How often a caption is fed back as the draft."""

from __future__ import annotations

from easycap.registry import register


@register("refine", "default")
def refinement(*, rounds: int) -> int:
    """Return how often; `ValueError` for less than never."""
    if rounds < 0:
        raise ValueError(f"refine.rounds={rounds} must be at least 0")
    return rounds

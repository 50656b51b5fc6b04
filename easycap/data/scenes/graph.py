"""The scene graph: what is in a scene and where. Everything a caption may claim is stated here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from easycap.data.scenes.tables import SIZES


class Spot(NamedTuple):
    """One thing's place: bottom centre (x, y) in 1/256 of the side, mirrored or not, and its look."""

    x: int
    y: int
    flip: int
    look: int


@dataclass(frozen=True, slots=True)
class Group:
    """One or more things of a kind that share colour, size and action (each None where nothing is stated)."""

    kind: str
    count: int
    colour: str | None
    size: str | None
    action: str | None
    sky: bool = False
    spots: tuple[Spot, ...] = ()

    @property
    def scale(self) -> float:
        """How much larger than its kind's table entry the thing is."""
        return SIZES[self.size] if self.size else 1.0


@dataclass(frozen=True, slots=True)
class Scene:
    """A place, its weather (None indoors), one to three groups, and what the first group is to the second.

    A group in the sky, if there is one, comes last. `relation` is one of tables.RELATIONS with "left of" or
    "right of" in place of "beside", or None when the first group is alone on the ground.
    """

    setting: str
    weather: str | None
    backdrop: int
    relation: str | None
    groups: tuple[Group, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_dict` restores an equal scene."""
        groups = [
            {
                "kind": g.kind,
                "count": g.count,
                "colour": g.colour,
                "size": g.size,
                "action": g.action,
                "sky": g.sky,
                "spots": [list(spot) for spot in g.spots],
            }
            for g in self.groups
        ]
        return {
            "setting": self.setting,
            "weather": self.weather,
            "backdrop": self.backdrop,
            "relation": self.relation,
            "groups": groups,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scene:
        """Restore a scene from `to_dict`'s values."""
        groups = tuple(
            Group(**{**group, "spots": tuple(Spot(*spot) for spot in group["spots"])})
            for group in values["groups"]
        )
        return cls(**{**values, "groups": groups})

    def relations(self, first: int, second: int) -> frozenset[str]:
        """Return every relation in which group `first` stands to group `second`."""
        names = set()
        if self.groups[first].sky and not self.groups[second].sky:
            names.add("above")
        if self.relation and (first, second) == (0, 1):
            names |= {self.relation} | _ALSO.get(self.relation, set())
        if self.relation and (first, second) == (1, 0):
            names |= _INVERSE.get(self.relation, set())
        return frozenset(names)


_ALSO = {"left of": {"beside"}, "right of": {"beside"}, "flying": {"below"}}
_INVERSE = {
    "left of": {"right of", "beside"},
    "right of": {"left of", "beside"},
    "in front of": {"behind"},
    "under": {"above"},
    "flying": {"above"},
}

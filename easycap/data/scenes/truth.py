"""Whether what a caption says is true of the scene it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from easycap.data.scenes import tables
from easycap.data.scenes.chinese import CHINESE
from easycap.data.scenes.german import GERMAN
from easycap.data.scenes.graph import Scene
from easycap.data.scenes.parse import Mention, Reading, parse
from easycap.errors import UserError
from easycap.registry import register
from easycap.types import Score

VERSION = 1
FEWEST_CLAIMS = 2
Fact = tuple[str, int]


class Claim(NamedTuple):
    """Something a caption says, whether it holds, and the scene's fact that it tells (if it is one)."""

    what: str
    true: bool
    fact: Fact | None


class Verdict(NamedTuple):
    """All that a caption claims of a scene; `claims` is empty where the caption does not parse."""

    claims: tuple[Claim, ...]
    facts: frozenset[Fact]

    @property
    def true(self) -> bool:
        """Every claim holds, and there are at least two."""
        return len(self.claims) >= FEWEST_CLAIMS and all(claim.true for claim in self.claims)

    @property
    def share(self) -> float:
        """Share of claims that hold; 0 for a caption that does not parse."""
        return sum(claim.true for claim in self.claims) / max(len(self.claims), 1)

    @property
    def recall(self) -> float:
        """Share of the scene's facts that the caption tells."""
        stated = {claim.fact for claim in self.claims if claim.true}
        return len(stated & self.facts) / len(self.facts)


def judge(caption: str, scene: Scene, read: Callable[[str], Reading | None] = parse) -> Verdict:
    """Return what the caption claims of the scene, read in the way most favourable to it; `read` knows the language."""
    reading, facts = read(caption), frozenset(_facts(scene))
    if reading is None:
        return Verdict((), facts)
    readings = [tuple(_claims(reading, scene, meant)) for meant in _meanings(reading.mentions, scene)]
    return Verdict(max(readings, key=lambda claims: sum(claim.true for claim in claims)), facts)


def _meanings(mentions: list[Mention], scene: Scene) -> Iterator[tuple[int | None, ...]]:
    """Every way to take each mention for a group of its kind, no group twice, None where there is none."""
    options = [
        [None, *(i for i, group in enumerate(scene.groups) if group.kind in mention.kinds)]
        for mention in mentions
    ]
    for meant in product(*options):
        groups = [i for i in meant if i is not None]
        if len(groups) == len(set(groups)):
            yield meant


def _claims(reading: Reading, scene: Scene, meant: tuple[int | None, ...]) -> Iterator[Claim]:
    for mention, index in zip(reading.mentions, meant, strict=True):
        yield from _claims_of_thing(mention, scene, index)
    for names, heads, target in reading.relations:
        true, fact = _holds(scene, names, [meant[h] for h in heads if h != target], meant[target])
        yield Claim("relation", true, fact)
    for setting in reading.settings:
        yield Claim("setting", setting == scene.setting, ("setting", 0))
    for weather in reading.weathers:
        yield Claim("weather", weather == scene.weather, ("weather", 0))


def _claims_of_thing(mention: Mention, scene: Scene, index: int | None) -> Iterator[Claim]:
    group, at = (None, -1) if index is None else (scene.groups[index], index)
    number = mention.number
    fits = group is not None and number.low <= group.count <= number.high
    yield Claim("thing", group is not None and (fits or number.stated), ("thing", at))
    if number.stated:
        yield Claim("count", fits, ("count", at))
    if mention.colour:
        yield Claim("colour", group is not None and mention.colour == group.colour, ("colour", at))
    if mention.size:
        yield Claim("size", group is not None and mention.size == group.size, ("size", at))
    for action in mention.actions:
        yield Claim("action", group is not None and action == group.action, ("action", at))
    if mention.in_sky:
        yield Claim("sky", group is not None and group.action == "flying", None)


def _holds(
    scene: Scene, names: frozenset[str], heads: list[int | None], target: int | None
) -> tuple[bool, Fact | None]:
    for head in heads:
        if head is not None and target is not None and names & scene.relations(head, target):
            return True, ("relation", 0) if {head, target} == {0, 1} else None
    return False, None


def _facts(scene: Scene) -> Iterator[Fact]:
    """What a complete caption would tell."""
    yield "setting", 0
    if scene.weather:
        yield "weather", 0
    if scene.relation:
        yield "relation", 0
    for i, group in enumerate(scene.groups):
        stated = {
            "colour": group.colour,
            "size": group.size,
            "action": group.action,
            "count": group.count > 1,
        }
        yield from ((name, i) for name, value in (("thing", True), *stated.items()) if value)


@register("scorer", "truth")
class TruthScorer:
    """Checks captions of scenes against their graphs.

    `truth` is the share of captions that parse, make at least two claims and none that is false; `claims` the
    mean share of true claims; `claims_per_caption` their number; `recall` the share of facts stated.
    """

    names = ("truth", "claims", "claims_per_caption", "recall")
    language = ""
    read = staticmethod(parse)

    def __call__(
        self,
        captions: Mapping[str, str],
        references: Mapping[str, Sequence[str]],
        annotations: Mapping[str, Any] | None = None,
    ) -> dict[str, Score]:
        """Annotations are `Scene.to_dict` values; `UserError` if an image has none."""
        missing = [image for image in captions if annotations is None or not annotations.get(image)]
        if missing or annotations is None:
            raise UserError(
                f"truth needs every image's scene graph, {missing[:1]} has none: use it with data=scenes"
            )
        verdicts = {
            image: judge(text, Scene.from_dict(annotations[image]), self.read)
            for image, text in captions.items()
        }
        return {
            "truth": _score({i: float(v.true) for i, v in verdicts.items()}, self.language),
            "claims": _score({i: v.share for i, v in verdicts.items()}, self.language),
            "claims_per_caption": _score(
                {i: float(len(v.claims)) for i, v in verdicts.items()}, self.language
            ),
            "recall": _score({i: v.recall for i, v in verdicts.items()}, self.language),
        }


@register("scorer", "truth_zh")
class ChineseTruthScorer(TruthScorer):
    """Checks Chinese captions of scenes; see `TruthScorer`."""

    language = "zh"
    read = staticmethod(CHINESE.parse)


@register("scorer", "truth_de")
class GermanTruthScorer(TruthScorer):
    """Checks German captions of scenes; see `TruthScorer`."""

    language = "de"
    read = staticmethod(GERMAN.parse)


def _score(per_image: dict[str, float], language: str) -> Score:
    value = sum(per_image.values()) / max(len(per_image), 1)
    spoken = f"|lang:{language}" if language else ""
    return Score(
        value, per_image, f"truth|v{VERSION}|scenes:v{tables.VERSION}{spoken}|images:{len(per_image)}"
    )

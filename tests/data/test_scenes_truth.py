import random
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from easycap.data.scenes.grammar import references
from easycap.data.scenes.graph import Group, Scene, Spot
from easycap.data.scenes.lexicon import ACTIONS, NOUNS, PLACES, RELATIONS, WEATHER
from easycap.data.scenes.sample_scene import sample
from easycap.data.scenes.tables import COLOURS, KINDS
from easycap.data.scenes.truth import TruthScorer, judge
from easycap.registry import lookup

SPOT = (Spot(60, 240, 0, 0),)


def scene(
    *groups: Group, setting: str = "street", weather: str | None = "rainy", relation: str | None = None
) -> Scene:
    return Scene(setting, weather, 0, relation, groups)


def group(kind: str, count: int = 1, colour: str | None = None, **values) -> Group:
    return Group(
        kind, count, colour, values.get("size"), values.get("action"), values.get("sky", False), SPOT * count
    )


DOG_AND_CAR = scene(
    group("dog", 2, "brown", size="small", action="running"),
    group("car", 1, "red", action="parked"),
    relation="left of",
)
RIDER = scene(
    group("man", 1, "blue"), group("horse", 1, "white", action=None), relation="riding", setting="beach"
)
COUPLE = scene(
    group("man", 1, "blue", action="standing"),
    group("woman", 1, "red", action="sitting"),
    relation="right of",
)
RIDER_AND_BIRD = replace(RIDER, groups=(*RIDER.groups, group("bird", 1, "red", action="flying", sky=True)))
CAT = scene(
    group("cat", 1, "black", action="lying"),
    group("sofa", 1, "green"),
    relation="on",
    setting="living room",
    weather=None,
)


@pytest.mark.parametrize(
    ("caption", "where"),
    [
        ("two small brown dogs running next to a red car on a city street", DOG_AND_CAR),
        ("A RED CAR, beside two dogs in the rain .", DOG_AND_CAR),
        ("there are a couple of dogs to the left of a car", DOG_AND_CAR),
        ("a car to the right of two brown dogs on a rainy day", DOG_AND_CAR),
        ("a man in a blue shirt is riding a white horse on the beach", RIDER),
        ("a horse with a person riding it by the ocean", RIDER),
        ("a person in red sitting to the left of a person in blue", COUPLE),
        ("a black cat resting on top of a green couch in a room", None),
        ("a sofa with a cat on it in the living room", CAT),
        ("a man riding a white horse with a red bird in the sky", RIDER_AND_BIRD),
        ("a red bird flying over a beach on a rainy day", RIDER_AND_BIRD),
    ],
)
def test_true_captions(caption, where):
    if where is None:  # "in a room" is no phrase of ours
        assert not judge(caption, CAT).claims
    else:
        assert judge(caption, where).true


@pytest.mark.parametrize(
    ("caption", "where"),
    [
        ("two small red dogs running next to a brown car", DOG_AND_CAR),  # colours bound to the other noun
        ("a brown dog running next to a red car", DOG_AND_CAR),  # one dog
        ("three dogs next to a car on a city street", DOG_AND_CAR),
        ("two dog next to a car on a city street", DOG_AND_CAR),
        ("two dogs is next to a car on a city street", DOG_AND_CAR),
        ("two dogs to the right of a car on a city street", DOG_AND_CAR),
        ("two dogs under a car on a city street", DOG_AND_CAR),
        ("two dogs running next to a car on the beach", DOG_AND_CAR),
        ("two dogs running on a city street at night", DOG_AND_CAR),
        ("two dogs running next to a car and a cat", DOG_AND_CAR),
        ("two dogs and two dogs on a city street", DOG_AND_CAR),  # both mean the same dogs
        ("two dogs next to two dogs on a city street", DOG_AND_CAR),
        ("two dogs running", CAT),
        ("a dog dog dog a a car", DOG_AND_CAR),
        ("a a a dog dog", DOG_AND_CAR),
        ("", DOG_AND_CAR),
        (".", DOG_AND_CAR),
        ("a car", DOG_AND_CAR),  # a single claim
        ("a car next to", DOG_AND_CAR),
        ("a red zeppelin next to two dogs", DOG_AND_CAR),
        ("a red car car next to two brown dogs", DOG_AND_CAR),
        ("an red car next to two brown dogs", DOG_AND_CAR),
        ("two dogs on a city street on a city street", DOG_AND_CAR),
        ("two dogs on a city street in the rain at night", DOG_AND_CAR),
        ("two dogs running running on a city street", DOG_AND_CAR),
        ("a city street with two brown cars and a red dog", DOG_AND_CAR),
        ("a horse riding a man on the beach", RIDER),
        ("a man with a bird riding a white horse", RIDER_AND_BIRD),  # not the bird
        ("a white horse is riding a man in a blue shirt", RIDER),
        ("a man next to a white horse on the beach", RIDER),
        ("a woman riding a horse on the beach", RIDER),
        ("a man with a horse riding it on the beach", RIDER),
        ("a person in blue sitting to the left of a person in red", COUPLE),
        ("a man in a red shirt and a woman in a blue dress", COUPLE),
        ("a man in a blue dress standing next to a woman", COUPLE),
        ("a couch on top of a cat in the living room", CAT),
        ("a green cat on a black couch in the living room", CAT),
    ],
)
def test_untrue_captions(caption, where):
    assert not judge(caption, where).true


def swapped(caption: str, groups: list[tuple[str, ...]], rng: random.Random, allowed) -> Iterator[str]:
    """The caption with one phrase replaced by one of another meaning, for every phrase in it."""
    for i, phrases in enumerate(groups):
        for phrase in phrases:
            if re.search(rf"\b{phrase}\b", caption):
                others = [p for j, ps in enumerate(groups) if j != i for p in ps if allowed(phrase, p)]
                if others:
                    yield re.sub(rf"\b{phrase}\b", others[int(rng.random() * len(others))], caption, count=1)


def same_article(first: str, second: str) -> bool:
    return (first[0] in "aeiou") == (second[0] in "aeiou")


def nouns_not_in(where: Scene, form: int) -> list[tuple[str, ...]]:
    present = {forms[form] for g in where.groups for forms in NOUNS[g.kind]}
    return [tuple(present), tuple({NOUNS[k][0][form] for k in KINDS} - present - {"sheep"})]


def cases() -> Iterator[tuple[Scene, str, random.Random]]:
    for i in range(400):
        rng = random.Random(f"mutation/{i}")
        where = sample(rng)
        for caption in references(where, rng):
            yield where, caption.lower().rstrip("."), rng


SWAPS = {
    "colour": lambda where: [(colour,) for colour in COLOURS],
    "setting": lambda where: [prepositions for prepositions, _ in PLACES.values()],
    "named place": lambda where: [names for _, names in PLACES.values()],
    "weather": lambda where: list(WEATHER.values()),
    "action": lambda where: [
        ACTIONS[a] for a in ("standing", "running", "sitting", "jumping", "lying", "grazing")
    ],
    "number": lambda where: [("two", "a couple of", "a pair of"), ("three",), ("four",)],
    "relation": lambda where: [RELATIONS[r] for r in ("left of", "right of", "on", "in front of", "behind")],
    "kind": lambda where: nouns_not_in(where, 0),
    "kinds": lambda where: nouns_not_in(where, 1),
}


@pytest.mark.parametrize("name", SWAPS)
def test_one_wrong_phrase_makes_a_reference_untrue(name):
    tried = 0
    for where, caption, rng in cases():
        for wrong in swapped(caption, SWAPS[name](where), rng, same_article):
            if wrong != caption:
                tried += 1
                assert not judge(wrong, where).true, (caption, wrong, where)
    assert tried > 100


def test_left_and_right_two_colours_and_two_things_cannot_be_exchanged():
    tried = 0
    for where, caption, _ in cases():
        if where.relation in ("left of", "right of"):
            wrong = re.sub(r"\b(left|right)\b", lambda m: {"left": "right", "right": "left"}[m[0]], caption)
            tried += wrong != caption
            assert wrong == caption or not judge(wrong, where).true
        first, second = ([*where.groups, where.groups[0]])[:2]
        if (
            first.colour
            and second.colour
            and first.colour != second.colour
            and same_article(first.colour, second.colour)
        ):
            found = re.findall(rf"\b(?:{first.colour}|{second.colour})\b", caption)
            if found == [first.colour, second.colour] or found == [second.colour, first.colour]:
                other = {first.colour: second.colour, second.colour: first.colour}
                wrong = re.sub(
                    rf"\b(?:{first.colour}|{second.colour})\b", lambda m, o=other: o[m[0]], caption
                )
                tried += 1
                assert not judge(wrong, where).true, (caption, wrong)
    assert tried > 100


def test_a_repeated_or_misplaced_word_does_not_parse():
    for where, caption, rng in list(cases())[:600]:
        words = caption.split()
        at = int(rng.random() * len(words))
        assert not judge(" ".join([*words[:at], words[at], *words[at:]]), where).true, (caption, words[at])
        assert not judge(" ".join(words[::-1]), where).claims


def test_scores_are_shares_over_images():
    captions = {
        "1": "two small brown dogs running next to a red car on a city street",
        "2": "two dogs next to a blue car",
        "3": "the the dog",
    }
    graphs = {image: DOG_AND_CAR.to_dict() for image in captions}
    scores = TruthScorer()(captions, {}, graphs)
    assert set(scores) == {"truth", "claims", "claims_per_caption", "recall"}
    assert scores["truth"].per_image == {"1": 1.0, "2": 0.0, "3": 0.0} and scores[
        "truth"
    ].value == pytest.approx(1 / 3)
    assert scores["claims"].per_image["1"] == 1.0 and scores["claims"].per_image["3"] == 0.0
    assert 0.5 < scores["claims"].per_image["2"] < 1.0
    assert scores["claims_per_caption"].per_image["1"] == 9.0
    assert scores["recall"].per_image["1"] == pytest.approx(9 / 11)  # all but the rain and the parking
    assert scores["truth"].signature.startswith("truth|v1|scenes") and "images:3" in scores["truth"].signature


def test_the_scorer_is_registered_and_needs_scene_graphs():
    scorer = lookup("scorer", "truth")()
    with pytest.raises(ValueError, match="scene graph"):
        scorer({"1": "a dog"}, {}, None)
    with pytest.raises(ValueError, match="'1'"):
        scorer({"1": "a dog"}, {}, {"1": None})

"""Captions of scenes in German: three genders, cases, endings of adjectives, the verb in the second place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import NamedTuple

from easycap.data.scenes.tables import PEOPLE
from easycap.data.scenes.templates import Forms, Grammar, Thing, same


class _Noun(NamedTuple):
    """Gender, singular and plural of the nominative; `oblique` is the singular of the other cases if it differs."""

    gender: str
    one: str
    several: str
    oblique: str = ""


_NOUNS = {
    "man": _Noun("m", "Mann", "Männer"), "woman": _Noun("f", "Frau", "Frauen"),
    "boy": _Noun("m", "Junge", "Jungen", "Jungen"), "girl": _Noun("n", "Mädchen", "Mädchen"),
    "dog": _Noun("m", "Hund", "Hunde"), "cat": _Noun("f", "Katze", "Katzen"),
    "horse": _Noun("n", "Pferd", "Pferde"), "cow": _Noun("f", "Kuh", "Kühe"),
    "sheep": _Noun("n", "Schaf", "Schafe"), "elephant": _Noun("m", "Elefant", "Elefanten", "Elefanten"),
    "giraffe": _Noun("f", "Giraffe", "Giraffen"), "zebra": _Noun("n", "Zebra", "Zebras"),
    "bird": _Noun("m", "Vogel", "Vögel"), "duck": _Noun("f", "Ente", "Enten"),
    "penguin": _Noun("m", "Pinguin", "Pinguine"), "rabbit": _Noun("n", "Kaninchen", "Kaninchen"),
    "car": _Noun("n", "Auto", "Autos"), "truck": _Noun("m", "Lastwagen", "Lastwagen"),
    "bus": _Noun("m", "Bus", "Busse"), "bicycle": _Noun("n", "Fahrrad", "Fahrräder"),
    "boat": _Noun("n", "Boot", "Boote"), "plane": _Noun("n", "Flugzeug", "Flugzeuge"),
    "kite": _Noun("m", "Drachen", "Drachen"), "balloon": _Noun("m", "Luftballon", "Luftballons"),
    "ball": _Noun("m", "Ball", "Bälle"), "umbrella": _Noun("m", "Regenschirm", "Regenschirme"),
    "chair": _Noun("m", "Stuhl", "Stühle"), "bench": _Noun("f", "Bank", "Bänke"),
    "sofa": _Noun("n", "Sofa", "Sofas"), "table": _Noun("m", "Tisch", "Tische"),
    "vase": _Noun("f", "Vase", "Vasen"), "tree": _Noun("m", "Baum", "Bäume"),
    "tent": _Noun("n", "Zelt", "Zelte"), "snowman": _Noun("m", "Schneemann", "Schneemänner"),
}  # fmt: skip
_COLOURS = {
    "red": "rot", "orange": "orangefarben", "yellow": "gelb", "green": "grün", "blue": "blau", "purple": "violett",
    "pink": "rosafarben", "white": "weiß", "black": "schwarz", "brown": "braun", "gray": "grau",
}  # fmt: skip
_SIZES = {"small": "klein", "big": "groß"}
_NUMBERS = {2: "zwei", 3: "drei", 4: "vier"}
_GARMENTS = {
    "man": _Noun("n", "Hemd", "Hemden"), "boy": _Noun("n", "Hemd", "Hemden"),
    "woman": _Noun("n", "Kleid", "Kleider"), "girl": _Noun("n", "Kleid", "Kleider"),
}  # fmt: skip
# Case -> gender -> the article, and the ending of an adjective after it (Duden's mixed inflection).
_ARTICLES = {
    "nom": {"m": ("ein", "er"), "f": ("eine", "e"), "n": ("ein", "es")},
    "acc": {"m": ("einen", "en"), "f": ("eine", "e"), "n": ("ein", "es")},
    "dat": {"m": ("einem", "en"), "f": ("einer", "en"), "n": ("einem", "en")},
}
_PLURAL_ENDINGS = {"nom": "e", "acc": "e", "dat": "en"}  # without an article


def _phrase(noun: _Noun, number: str, adjectives: list[str], case: str, *, several: bool) -> str:
    """Number or article, adjectives with their endings, and the noun in its case; without a number if it is ""."""
    if several:
        ending, word = _PLURAL_ENDINGS[case], noun.several
        if case == "dat" and word[-1] not in "ns":
            word += "n"
    else:
        number, ending = _ARTICLES[case][noun.gender]
        word = noun.oblique if noun.oblique and case != "nom" else noun.one
    return " ".join([*([number] if number else []), *(stem + ending for stem in adjectives), word])


def _either(words: Iterable[str]) -> str:
    return "(?:" + "|".join(sorted(set(words), key=len, reverse=True)) + ")"


def _forms(noun: _Noun) -> Iterator[str]:
    yield from (word for word in (noun.one, noun.oblique, noun.several, f"{noun.several}n") if word)


# Whatever could be a thing; `_Nouns.read` knows the case, and which endings go together.
_ADJECTIVE = f"(?:{_either([*_COLOURS.values(), *_SIZES.values()])}(?:e|er|es|en))"
_PATTERN = (
    f"{_either([*_NUMBERS.values(), *(article for of in _ARTICLES.values() for article, _ in of.values())])}"
    f"(?: {_ADJECTIVE})* {_either(word for noun in _NOUNS.values() for word in _forms(noun))}"
    f"(?: in(?: einem)? {_ADJECTIVE} {_either(word for noun in _GARMENTS.values() for word in _forms(noun))})?"
)


class _Nouns:
    def write(self, thing: Thing, case: str) -> str:
        several, person = thing.is_plural, thing.kind in PEOPLE
        colour = _COLOURS[thing.colour] if thing.colour else ""
        adjectives = [_SIZES[thing.size]] if thing.size else []
        if colour and not person:
            adjectives.append(colour)
        text = _phrase(_NOUNS[thing.kind], _NUMBERS.get(thing.number, ""), adjectives, case, several=several)
        if colour and person:
            text += f" in {_phrase(_GARMENTS[thing.kind], '', [colour], 'dat', several=several)}"
        return text

    def pattern(self, case: str) -> str:
        return _PATTERN

    def read(self, text: str, case: str) -> Iterator[Thing]:
        yield from _readings(case).get(text, ())

    def has_group_word(self, kind: str) -> bool:
        return False


_KNOWN: dict[str, dict[str, list[Thing]]] = {}


def _readings(case: str) -> dict[str, list[Thing]]:
    """All words for things in a case, in lower case, with what they mean."""
    if case not in _KNOWN:
        known: dict[str, list[Thing]] = {}
        for choice in product(_NOUNS, (1, *_NUMBERS), (None, *_COLOURS), (None, *_SIZES)):
            thing = Thing(*choice)
            known.setdefault(_Nouns().write(thing, case).lower(), []).append(thing)
        _KNOWN[case] = known
    return _KNOWN[case]


def _verbs(table: dict[str, tuple[str, str]]) -> dict[str, list[Forms]]:
    return {meaning: [Forms(*forms)] for meaning, forms in table.items()}


_BE = _verbs({"be": ("ist", "sind")})
_SIDES = {
    "left of": ["links von"], "right of": ["rechts von"], "in front of": ["vor"], "behind": ["hinter"],
    "on": ["auf"], "under": ["unter"],
}  # fmt: skip

GERMAN = Grammar(
    name="de",
    templates=(
        "{A:nom} {act} {place}",
        "{place} {act} {A:nom}",
        "{A:nom} {act} {weather} {place}",
        "{weather} {act} {A:nom} {place}",
        "{A:nom} {be} {place}",
        "{place} {be} {A:nom}",
        "es gibt {A:acc} {place}",
        "man sieht {A:acc} {place}",
        "man sieht {weather} {A:acc}",
        "{A:nom} {act} {side} {B:dat}",
        "{A:nom} {act} {near} {B:dat} {place}",
        "{place} {act} {A:nom} {side} {B:dat}",
        "{A:nom} {be} {side} {B:dat}",
        "{A:nom} {mount} auf {B:dat} {place}",
        "{place} {mount} {A:nom} auf {B:dat}",
        "{A:nom} {cycle} auf {B:dat} {place}",
        "{place} {cycle} {A:nom} auf {B:dat}",
        "{A:nom} {hold} {B:acc} {place}",
        "{place} {hold} {A:nom} {B:acc}",
        "{A:nom} {let} {place} {B:acc} steigen",
        "{A:nom} und {B:nom} {both} {place}",
        "{B:nom} {be_B} {inverse} {A:dat}",
        "{A:nom} {be} {place} und am Himmel {fly_S} {S:nom}",
        "{S:nom} {fly_S} {over} {A:dat}",
    ),
    nouns=_Nouns(),
    words={
        "place": same({
            "beach": ["am Strand"], "street": ["auf einer Straße", "auf der Straße"],
            "park": ["in einem Park", "im Park"], "farm": ["auf einem Bauernhof"], "desert": ["in der Wüste"],
            "savanna": ["in der Savanne"], "mountains": ["in den Bergen"], "snow": ["im Schnee"],
            "lake": ["auf einem See"], "forest": ["im Wald", "in einem Wald"], "living room": ["im Wohnzimmer"],
            "kitchen": ["in der Küche"], "soccer field": ["auf einem Fußballplatz"],
        }),
        "weather": same({
            "sunny": ["an einem sonnigen Tag", "bei Sonnenschein"], "cloudy": ["an einem bewölkten Tag"],
            "rainy": ["im Regen", "an einem regnerischen Tag"], "snowing": ["bei Schneefall"],
            "night": ["bei Nacht"], "sunset": ["bei Sonnenuntergang"], "rainbow": ["unter einem Regenbogen"],
        }),
        "act": _verbs({
            "standing": ("steht", "stehen"), "running": ("rennt", "rennen"), "sitting": ("sitzt", "sitzen"),
            "jumping": ("springt", "springen"), "lying": ("liegt", "liegen"), "grazing": ("grast", "grasen"),
            "flying": ("fliegt", "fliegen"), "swimming": ("schwimmt", "schwimmen"),
            "floating": ("treibt", "treiben"), "parked": ("parkt", "parken"),
        }),
        "be": _BE, "be_B": _BE, "both": _verbs({"both": ("sind", "sind")}),
        "side": same(_SIDES), "near": same({"beside": ["neben"]}),
        "inverse": same(_SIDES),
        "mount": _verbs({"riding": ("reitet", "reiten")}), "cycle": _verbs({"riding": ("fährt", "fahren")}),
        "hold": _verbs({"holding": ("hält", "halten")}), "let": _verbs({"flying": ("lässt", "lassen")}),
        "fly_S": _verbs({"fly": ("fliegt", "fliegen")}), "over": same({"over": ["über"]}),
    },
    ignored=".,!?;:",
    stop=".",
)  # fmt: skip

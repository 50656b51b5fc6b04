"""Captions of scenes in other languages: one list of sentence templates both writes captions and reads them.

A template is text with slots: `{A:dat}` is the main thing in the dative, `{place}` where it is. Writing fills the slots
from a scene. Reading matches the template, takes every slot's meaning, and writes the things of these meanings again:
only what comes out as it was read is a caption, so that no wrong ending or measure word passes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple, Protocol

from easycap.data.scenes.graph import Group, Scene
from easycap.data.scenes.lexicon import LEAST_IN_GROUP
from easycap.data.scenes.parse import Mention, Reading, Relation
from easycap.data.scenes.phrases import Number
from easycap.data.scenes.sample_scene import pick

REFERENCES = 5
_THINGS = {
    "A": 0,
    "B": 1,
    "S": -1,
}  # slots of things and their groups; S is in the sky, the last if there is one
_SLOT = re.compile(r"\{(\w+)(?::(\w+))?\}")
_TRIES = 400
_INVERSE = {"left of": "right of", "right of": "left of", "in front of": "behind", "under": "above"}


class Thing(NamedTuple):
    """Things of one kind as a caption names them; `number` 0 is a group of three or more."""

    kind: str
    number: int
    colour: str | None = None
    size: str | None = None

    @property
    def is_plural(self) -> bool:
        return self.number != 1

    def mention(self) -> Mention:
        number = Number(LEAST_IN_GROUP, 99, True)
        if self.number:
            number = Number(self.number, self.number, self.number > 1)
        return Mention(frozenset({self.kind}), number, self.colour, self.size)


class Nouns(Protocol):
    """How a language names things."""

    def write(self, thing: Thing, case: str) -> str:
        """Return the words for a thing."""

    def pattern(self, case: str) -> str:
        """Return a regular expression without groups that matches whatever `write` returns, and maybe more."""

    def read(self, text: str, case: str) -> Iterator[Thing]:
        """Yield the things that `text` may mean; those that `write` writes otherwise are no matter."""

    def has_group_word(self, kind: str) -> bool:
        """Whether several things of a kind may be called a group."""


class Forms(NamedTuple):
    """One way to say something: of one thing and of several, where a verb tells them apart."""

    one: str
    several: str


Words = Mapping[str, Sequence[Forms]]


def same(table: Mapping[str, Sequence[str]]) -> dict[str, list[Forms]]:
    """Return a table of words that are the same of one thing and of several."""
    return {meaning: [Forms(text, text) for text in texts] for meaning, texts in table.items()}


@dataclass(frozen=True)
class Grammar:
    """A language's templates, nouns and words {slot: {meaning: ways to say it}}.

    The subject of a slot of words is the thing A, or the one after its underscore: `be_B`. Captions are read without
    the characters `ignored`, in lower case; they are written with a `stop` at the end.
    """

    name: str
    templates: tuple[str, ...]
    nouns: Nouns
    words: Mapping[str, Words]
    ignored: str
    stop: str

    def references(self, scene: Scene, rng: random.Random) -> tuple[str, ...]:
        """Return five distinct captions of a scene, all true."""
        found: list[str] = []
        suited = [one for one in self.templates if self._suits(one, scene)]
        for _ in range(_TRIES):
            caption = self._write(pick(rng, suited), scene, rng)
            if caption not in found:
                found.append(caption)
            if len(found) == REFERENCES:
                return tuple(found)
        raise AssertionError(f"{self.name} has too few captions for {scene}")

    def parse(self, caption: str) -> Reading | None:
        """Return what a caption claims, or None if it is none."""
        text = self._bare(caption)
        for template, pattern in self._patterns:
            if (match := pattern.fullmatch(text)) and (reading := self._read(template, match)):
                return reading
        return None

    def _bare(self, text: str) -> str:
        return _bare(text, self.ignored)

    @cached_property
    def _patterns(self) -> list[tuple[str, re.Pattern[str]]]:
        return [(one, re.compile(self._pattern(one))) for one in self.templates]

    def _pattern(self, template: str) -> str:
        parts, at = [], 0
        text = "".join(
            piece if piece.startswith("{") else re.sub(f"[{re.escape(self.ignored)}]", "", piece).lower()
            for piece in re.split(r"(\{[^}]*\})", template)
        )
        for slot in _SLOT.finditer(text):
            parts += [re.escape(text[at : slot.start()]), f"(?P<{slot[1]}>{self._slot_pattern(slot)})"]
            at = slot.end()
        return "".join([*parts, re.escape(text[at:])])

    def _slot_pattern(self, slot: re.Match[str]) -> str:
        if slot[1] in _THINGS:
            return self.nouns.pattern(slot[2] or "").lower()
        texts = {self._bare(text) for forms in self.words[slot[1]].values() for one in forms for text in one}
        return "|".join(map(re.escape, sorted(texts, key=len, reverse=True)))

    # ------------------------------------------------------------------------------------------- writing

    def _suits(self, template: str, scene: Scene) -> bool:
        for slot in _SLOT.finditer(template):
            if slot[1] in _THINGS:
                if _group(slot[1], scene) is None:
                    return False
            elif self._meaning(slot[1], scene) not in self.words[slot[1]]:
                return False
        return True

    @staticmethod
    def _meaning(slot: str, scene: Scene) -> str | None:
        """What a slot of words says of a scene, None if nothing."""
        relation, name = scene.relation, slot.partition("_")[0]
        cycle = relation is not None and scene.groups[1].kind == "bicycle"
        match name:
            case "place":
                return scene.setting
            case "weather":
                return scene.weather
            case "act" | "there":
                return scene.groups[0].action
            case "near":
                return "beside" if relation in ("left of", "right of") else None
            case "inverse":
                return _INVERSE.get(relation or "")
            case "mount":
                return None if cycle else relation
            case "cycle":
                return relation if cycle else None
            case "side" | "verb" | "hold" | "let":
                return relation
        return name  # said of anything: be, both, fly, over

    def _write(self, template: str, scene: Scene, rng: random.Random) -> str:
        things = {
            slot[1]: self._thing(group, rng)
            for slot in _SLOT.finditer(template)
            if slot[1] in _THINGS and (group := _group(slot[1], scene)) is not None
        }

        def fill(slot: re.Match[str]) -> str:
            if slot[1] in things:
                return self.nouns.write(things[slot[1]], slot[2] or "")
            forms = pick(rng, self.words[slot[1]][self._meaning(slot[1], scene) or ""])
            return forms.several if self._is_plural(slot[1], things) else forms.one

        text = _SLOT.sub(fill, template)
        return f"{text[0].upper()}{text[1:]}{self.stop}"

    def _thing(self, group: Group, rng: random.Random) -> Thing:
        colour = group.colour if rng.random() < 0.85 else None
        size = group.size if rng.random() < 0.6 else None
        grouped = (
            group.count >= LEAST_IN_GROUP and self.nouns.has_group_word(group.kind) and rng.random() < 0.2
        )
        return Thing(group.kind, 0 if grouped else group.count, colour, size)

    @staticmethod
    def _is_plural(slot: str, things: Mapping[str, Thing]) -> bool:
        if slot == "both":
            return True
        subject = slot.partition("_")[2] or "A"
        return subject in things and things[subject].is_plural

    # ------------------------------------------------------------------------------------------- reading

    def _read(self, template: str, match: re.Match[str]) -> Reading | None:
        """What a matched caption claims, None if its things are not written so or its verbs do not agree."""
        things: dict[str, Thing] = {}
        said: dict[str, str] = {}
        for slot in _SLOT.finditer(template):
            text = match[slot[1]]
            if slot[1] in _THINGS:
                case = slot[2] or ""
                meant = [
                    t for t in self.nouns.read(text, case) if self._bare(self.nouns.write(t, case)) == text
                ]
                if not meant:
                    return None
                things[slot[1]] = meant[0]
        for slot in _SLOT.finditer(template):
            if slot[1] in things:
                continue
            plural = self._is_plural(slot[1], things)
            meaning = self._meaning_of(slot[1], match[slot[1]], plural)
            if meaning is None:
                return None
            said[slot[1]] = meaning
        if (
            "B" in things
            and (things["B"].kind == "bicycle") != ("cycle" in said)
            and said.keys() & {"mount", "cycle"}
        ):
            return None
        return _reading(things, said)

    def _meaning_of(self, slot: str, text: str, plural: bool) -> str | None:
        for meaning, ways in self.words[slot].items():
            if any(self._bare(forms.several if plural else forms.one) == text for forms in ways):
                return meaning
        return None


@lru_cache(maxsize=100_000)
def _bare(text: str, ignored: str) -> str:
    return " ".join(re.sub(f"[{re.escape(ignored)}]", "", text).lower().split())


def _group(slot: str, scene: Scene) -> Group | None:
    if slot == "S":
        return next((group for group in scene.groups if group.sky), None)
    if slot == "B" and scene.relation is None:
        return None
    return scene.groups[_THINGS[slot]]


def _reading(things: Mapping[str, Thing], said: Mapping[str, str]) -> Reading:
    reading = Reading([thing.mention() for thing in things.values()])
    place = {slot: number for number, slot in enumerate(things)}
    for slot, meaning in said.items():
        name = slot.partition("_")[0]
        if name == "place":
            reading.settings.append(meaning)
        elif name == "weather":
            reading.weathers.append(meaning)
        elif name in ("act", "there"):
            reading.mentions[place["A"]].actions.append(meaning)
        elif name == "fly":
            reading.mentions[place["S"]].in_sky = True
        elif name in ("side", "near", "verb", "mount", "cycle", "hold", "let"):
            reading.relations.append(Relation(frozenset({meaning}), (place["A"],), place["B"]))
        elif name == "inverse":
            reading.relations.append(Relation(frozenset({meaning}), (place["B"],), place["A"]))
        elif name == "over":
            reading.relations.append(Relation(frozenset({"above"}), (place["S"],), place["A"]))
    return reading

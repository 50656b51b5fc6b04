"""Captions back to claims: the words of words.py in the orders English allows; nothing else parses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from easycap.data.scenes.lexicon import GARMENTS, VERBS
from easycap.data.scenes.phrases import Chunk, NotACaption, Number, chunks


@dataclass
class Mention:
    """Things a caption speaks of, with what it says about them alone."""

    kinds: frozenset[str]
    number: Number
    colour: str | None = None
    size: str | None = None
    actions: list[str] = field(default_factory=list)
    in_sky: bool = False


class Relation(NamedTuple):
    """One of `heads` (by place in the reading's mentions) stands in one of `names` to `target`."""

    names: frozenset[str]
    heads: tuple[int, ...]
    target: int


@dataclass
class Reading:
    """All claims of a caption."""

    mentions: list[Mention] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    weathers: list[str] = field(default_factory=list)


def parse(caption: str) -> Reading | None:
    """Return what a caption claims, or None if it is malformed; case and punctuation do not matter."""
    words = re.sub(r"[.,!?;:]", " ", caption.lower()).split()
    try:
        return _Parser(list(chunks(words))).caption()
    except NotACaption:
        return None


class _Parser:
    def __init__(self, chunks: list[Chunk]) -> None:
        self._chunks, self._at = chunks, 0
        self._reading = Reading()

    def caption(self) -> Reading:
        """caption = ["there is" | place | day [place] "with" | place name "with"] things tail*"""
        opening = self._peek()
        if opening == "there":
            several = self._take("there").value
            self._agree(several, [self._things()[0]])
        elif opening == "day":
            self._set("weathers", self._take("day").value)
            self._day_place()
            self._take("with")
            self._things()
        elif self._names_place():
            self._named_place()
            self._take("with")
            self._things()
        else:
            if opening == "place":
                self._set("settings", self._take("place").value)
            self._clause()
        while self._peek():
            self._tail()
        return self._reading

    def _clause(self) -> None:
        """things ["is" (doing | relation | place)]"""
        heads = self._things()
        if self._peek() != "be":
            return
        self._agree(self._take("be").value, heads)
        if self._peek() == "action" and not self._verb():
            action = self._take("action").value
            for head in heads:
                self._reading.mentions[head].actions.append(action)
        elif self._peek() in ("relation", "action"):
            self._relation(heads)
        elif self._peek() != "place":
            raise NotACaption("is what?")

    def _tail(self) -> None:
        """One more thing said at the end: of the last mention, or of the whole scene."""
        last = len(self._reading.mentions) - 1
        match self._peek():
            case "action" if not self._verb():
                mention = self._reading.mentions[last]
                if mention.actions:
                    raise NotACaption("two actions")
                mention.actions.append(self._take("action").value)
            case "action" | "relation":
                self._relation([last])
            case "with" | "and":
                self._next()
                self._thing()
            case "sky":
                self._next()
                self._reading.mentions[last].in_sky = True
            case "place":
                self._set("settings", self._next().value)
            case "weather":
                self._set("weathers", self._next().value)
            case _:
                raise NotACaption(self._chunks[self._at].text)

    def _relation(self, heads: list[int]) -> None:
        chunk = self._next()
        names = frozenset({chunk.value}) if chunk.type == "action" else chunk.value
        mentions = self._reading.mentions
        if "above" in names and self._names_place():
            self._named_place()
            mentions[heads[-1]].in_sky = True
            return
        spread = chunk.text in VERBS or chunk.text == "on the back of"
        candidates = tuple(heads) if spread else tuple(range(len(mentions)))
        self._reading.relations.append(Relation(names, candidates, self._target(heads)))

    def _target(self, heads: list[int]) -> int:
        """A new thing, or "it": a couch with a cat on it."""
        if self._peek() != "it":
            return self._thing()
        self._next()
        if 0 in heads or self._reading.mentions[0].number.high > 1:
            raise NotACaption("what is it?")
        return 0

    def _things(self) -> list[int]:
        """thing ("and" thing)*"""
        found = [self._thing()]
        while self._peek() == "and":
            self._next()
            found.append(self._thing())
        return found

    def _thing(self) -> int:
        """number [size] [colour] noun ["in" ["a"] colour [garment]]"""
        number = self._number()
        size = self._take("size").value if self._peek() == "size" else None
        colour = self._take("colour").value if self._peek() == "colour" else None
        kinds, forms = self._take("noun").value
        if (number.high > 1) not in forms or (colour and kinds & set(GARMENTS)):
            raise NotACaption("number and noun disagree, or a coloured person")
        mention = Mention(kinds, number, colour, size)
        if self._peek() == "wear":
            self._clothes(mention)
        self._reading.mentions.append(mention)
        return len(self._reading.mentions) - 1

    def _clothes(self, mention: Mention) -> None:
        self._next()
        with_article = self._peek() == "number"
        if with_article and self._number().high > 1:
            raise NotACaption("several dresses")
        mention.colour = self._take("colour").value
        several = mention.number.high > 1
        kinds = frozenset(GARMENTS)
        if with_article or self._peek() == "garment":
            plural, kinds = self._take("garment").value
            if plural != several or with_article == several:
                raise NotACaption("number and garment disagree")
        mention.kinds &= kinds
        if not mention.kinds:
            raise NotACaption("wrong garment")

    def _number(self) -> Number:
        chunk = self._take("number")
        if chunk.text in ("a", "an"):
            vowel = self._at < len(self._chunks) and self._chunks[self._at].text[0] in "aeiou"
            if vowel != (chunk.text == "an"):
                raise NotACaption("a or an")
        return chunk.value

    def _day_place(self) -> None:
        """[place | "over" named place]"""
        if self._peek() == "place":
            self._set("settings", self._next().value)
        elif self._peek() == "relation" and "above" in self._next().value:
            self._named_place()

    def _names_place(self) -> bool:
        """number [weather] place name comes next."""
        types = [chunk.type for chunk in self._chunks[self._at : self._at + 3]]
        return types[:2] == ["number", "scene"] or types == ["number", "place weather", "scene"]

    def _named_place(self) -> None:
        if self._number().high > 1:
            raise NotACaption("several places")
        if self._peek() == "place weather":
            self._set("weathers", self._next().value)
        self._set("settings", self._take("scene").value)

    def _verb(self) -> bool:
        """An action that takes an object: flying a kite."""
        after = self._chunks[self._at + 1 : self._at + 2]
        return self._chunks[self._at].value == "flying" and bool(after) and after[0].type == "number"

    def _agree(self, several: bool, heads: list[int]) -> None:
        if several != (len(heads) > 1 or self._reading.mentions[heads[0]].number.high > 1):
            raise NotACaption("is or are")

    def _set(self, name: str, value: str) -> None:
        values = getattr(self._reading, name)
        if values:
            raise NotACaption(f"two {name}")
        values.append(value)

    def _peek(self) -> str | None:
        return self._chunks[self._at].type if self._at < len(self._chunks) else None

    def _next(self) -> Chunk:
        self._at += 1
        return self._chunks[self._at - 1]

    def _take(self, wanted: str) -> Chunk:
        if self._peek() != wanted:
            raise NotACaption(f"no {wanted}")
        return self._next()

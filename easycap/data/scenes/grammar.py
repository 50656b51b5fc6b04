"""Five references of a scene, each true, each of another plan: who and where, weather, place first, ..."""

from __future__ import annotations

import random
from collections.abc import Callable

from easycap.data.scenes.graph import Scene
from easycap.data.scenes.lexicon import (
    ACTIONS,
    DAYS,
    GARMENTS,
    NOUNS,
    NUMBERS,
    PLACE_WEATHER,
    PLACES,
    RELATIONS,
    SIZE_WORDS,
    VERBS,
    WEATHER,
    article,
)
from easycap.data.scenes.sample_scene import pick
from easycap.data.scenes.tables import PEOPLE

_Plan = Callable[[], str | None]

REFERENCES = 5
SHORTEST, LONGEST = 6, 16
_INVERSES = {"left of": "right of", "right of": "left of", "in front of": "behind", "flying": "above"}


def references(scene: Scene, rng: random.Random) -> tuple[str, ...]:
    """Return five distinct captions of the scene, 6 to 16 words each."""
    teller = _Teller(scene, rng)
    captions: list[str] = []
    plans: list[Callable[[], str | None]] = []
    while len(captions) < REFERENCES:
        plans = plans or _shuffled(teller.plans(), rng)
        plan = plans.pop()
        for _ in range(4):
            caption = plan()
            if caption and SHORTEST <= len(caption.split()) <= LONGEST and caption not in captions:
                captions.append(caption)
                break
    return tuple(_written(caption) for caption in captions)


def _shuffled(plans: list[_Plan], rng: random.Random) -> list[_Plan]:
    """`random.shuffle` may change between Python versions."""
    left = list(plans)
    shuffled: list[_Plan] = []
    while left:
        shuffled.append(left.pop(int(rng.random() * len(left))))
    return shuffled


def _written(caption: str) -> str:
    return f"{caption[0].upper()}{caption[1:]}."


class _Teller:
    """Tells one scene; each plan returns a caption in lower case, or None if it does not suit."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self._scene, self._rng = scene, rng
        self._sky = next((i for i, g in enumerate(scene.groups) if g.sky), None)

    def plans(self) -> list[_Plan]:
        """Return the plans that suit the scene; never fewer than five."""
        plans: list[_Plan] = [
            self._plain,
            self._there,
            self._place_first,
            self._finite,
            self._where_first,
        ]
        if self._scene.weather:
            plans += [self._weather, self._day]
        if self._scene.relation:
            plans += [self._both, self._inverse]
        if self._sky is not None:
            plans += [self._flyers, self._with_flyers]
        return plans

    def _plain(self) -> str:
        """A brown dog running next to a red car on a city street."""
        return f"{self._thing(0)} {self._doing()} {self._where()}"

    def _weather(self) -> str:
        """A brown dog running on a city street in the rain."""
        action = self._action(0) or (self._doing() if self._scene.relation else "")
        where = f" {self._where()}" if self._chance(0.75) else ""
        return f"{self._thing(0)} {action}{where} {self._weather_words()}".replace("  ", " ")

    def _there(self) -> str:
        """There are two cows grazing on a farm."""
        be = "is" if self._scene.groups[0].count == 1 else "are"
        return f"there {be} {self._thing(0)} {self._doing()} {self._where()}"

    def _place_first(self) -> str:
        """A sunny beach with a woman in a red dress and a yellow ball."""
        other = f" and {self._thing(1)}" if self._scene.relation else f" {self._action(0)}"
        return f"{self._named_place()} with {self._thing(0)}{other}"

    def _finite(self) -> str:
        """A man in a blue shirt is riding a green bike in the park."""
        be = "is" if self._scene.groups[0].count == 1 else "are"
        where = f" {self._where()}" if not self._scene.relation or self._chance(0.6) else ""
        return f"{self._thing(0)} {be} {self._doing()}{where}"

    def _where_first(self) -> str:
        """On the beach a dog is running next to a ball."""
        where = PLACES[self._scene.setting][0][int(self._rng.random() * 2)]
        be = "is" if self._scene.groups[0].count == 1 else "are"
        return f"{where} {self._thing(0)} {be} {self._doing()}"

    def _day(self) -> str:
        """A rainy day in the park with three girls running."""
        weather = self._scene.weather or ""
        where = PLACES[self._scene.setting][0][0]
        if weather in ("sunset", "rainbow"):
            where = f"over {article(self._short_place())}"
        return f"{DAYS[weather]} {where} with {self._thing(0)} {self._action(0)}".rstrip()

    def _both(self) -> str:
        """A white dog and a black cat in the living room."""
        end = self._weather_words() if self._scene.weather and self._chance(0.4) else self._where()
        return f"{self._thing(0)} and {self._thing(1)} {end}"

    def _inverse(self) -> str:
        """A red car beside a brown dog on a city street; a blue couch with a cat lying on it in a room."""
        relation, where = self._scene.relation or "", self._where()
        if relation in ("holding", "riding", "on", "under"):
            doing = f"{self._action(0)} {RELATIONS[relation][0]}".lstrip()
            return f"{self._thing(1)} with {self._thing(0)} {doing} it {where}"
        inverse = _INVERSES[relation]
        sideways = relation in ("left of", "right of")
        words = self._choose(
            RELATIONS["beside"] if sideways and self._chance(0.7) else RELATIONS[inverse], first=0.7
        )
        return f"{self._thing(1)} {words} {self._thing(0)} {where}"

    def _flyers(self) -> str:
        """A white airplane flying over a sandy beach."""
        over = RELATIONS["above"][int(self._rng.random() * 2)]
        below = self._thing(0) if self._chance(0.5) else article(self._short_place())
        return f"{self._thing(self._sky or 0)} flying {over} {below} {self._weather_words()}"

    def _with_flyers(self) -> str:
        """Two ducks swimming on a lake with a red kite in the sky."""
        flyers = f"with {self._thing(self._sky or 0)} in the sky"
        return f"{self._thing(0)} {self._action(0)} {self._where()} {flyers}".replace("  ", " ")

    # ------------------------------------------------------------------------------------- pieces

    def _chance(self, share: float) -> bool:
        return self._rng.random() < share

    def _choose(self, phrases: tuple[str, ...], *, first: float = 0.6) -> str:
        return phrases[0] if len(phrases) == 1 or self._chance(first) else pick(self._rng, phrases[1:])

    def _thing(self, index: int) -> str:
        """Number, size, colour, noun: "two small black dogs", "a woman in a red dress"."""
        group = self._scene.groups[index]
        several = group.count > 1
        forms = NOUNS[group.kind]
        noun = (forms[0] if self._chance(0.75) else pick(self._rng, forms))[several]
        person = group.kind in PEOPLE
        coloured = group.colour is not None and self._chance(0.85)
        words = [noun]
        if coloured and not person:
            words.insert(0, group.colour or "")
        if group.size and self._chance(0.6):
            words.insert(0, self._choose(SIZE_WORDS[group.size]))
        text = " ".join(words)
        text = f"{self._choose(NUMBERS[group.count], first=0.8)} {text}" if several else article(text)
        return f"{text} {self._clothes(index)}" if coloured and person else text

    def _clothes(self, index: int) -> str:
        group = self._scene.groups[index]
        if self._chance(0.3):
            return f"in {group.colour}"
        verb = "wearing" if self._chance(0.2) else "in"
        if group.count > 1:
            return f"{verb} {group.colour} {GARMENTS[group.kind][1]}"
        return f"{verb} {article(f'{group.colour} {GARMENTS[group.kind][0]}')}"

    def _action(self, index: int) -> str:
        action = self._scene.groups[index].action
        return self._choose(ACTIONS[action]) if action else ""

    def _doing(self) -> str:
        """What the main thing does, and to what."""
        relation = self._scene.relation
        if relation is None:
            return self._action(0)
        name = "beside" if relation in ("left of", "right of") and self._chance(0.8) else relation
        words = self._choose(RELATIONS[name])
        if words == "on the back of" and self._scene.groups[1].kind == "bicycle":
            words = "riding"
        if words in VERBS or not self._chance(0.7):
            return f"{words} {self._thing(1)}"
        return f"{self._action(0)} {words} {self._thing(1)}".lstrip()

    def _where(self) -> str:
        return self._choose(PLACES[self._scene.setting][0], first=0.5)

    def _short_place(self) -> str:
        return self._choose(PLACES[self._scene.setting][1], first=0.7)

    def _named_place(self) -> str:
        place, weather = self._short_place(), PLACE_WEATHER.get(self._scene.weather or "")
        return article(f"{weather} {place}" if weather and self._chance(0.6) else place)

    def _weather_words(self) -> str:
        return self._choose(WEATHER[self._scene.weather or ""])

"""The words of captions: scenes are described and captions understood with the same ones, so they cannot drift.

Phrases are in lower case; the first of several is the one used most often.
"""

from __future__ import annotations

from easycap.data.scenes.tables import KINDS

_PERSON, _CHILD, _KID = ("person", "people"), ("child", "children"), ("kid", "kids")
_OTHER_NOUNS: dict[str, tuple[tuple[str, str], ...]] = {
    "man": (("man", "men"), ("guy", "guys"), _PERSON),
    "woman": (("woman", "women"), ("lady", "ladies"), _PERSON),
    "boy": (("boy", "boys"), _KID, _CHILD),
    "girl": (("girl", "girls"), _KID, _CHILD),
    "sheep": (("sheep", "sheep"),),
    "rabbit": (("rabbit", "rabbits"), ("bunny", "bunnies")),
    "bus": (("bus", "buses"),),
    "bicycle": (("bicycle", "bicycles"), ("bike", "bikes")),
    "boat": (("boat", "boats"), ("sailboat", "sailboats")),
    "plane": (("airplane", "airplanes"), ("plane", "planes")),
    "bench": (("bench", "benches"),),
    "sofa": (("couch", "couches"), ("sofa", "sofas")),
    "vase": (("vase of flowers", "vases of flowers"),),
    "snowman": (("snowman", "snowmen"),),
}
# Singular and plural names of each kind of thing.
NOUNS = {kind: _OTHER_NOUNS.get(kind, ((kind, f"{kind}s"),)) for kind in KINDS}

GARMENTS = {"man": ("shirt", "shirts"), "boy": ("shirt", "shirts"), "woman": ("dress", "dresses"),
            "girl": ("dress", "dresses")}  # fmt: skip
SIZE_WORDS = {"small": ("small", "little"), "big": ("large", "big")}
NUMBERS = {2: ("two", "a couple of", "a pair of"), 3: ("three", "a group of"), 4: ("four", "a group of")}
LEAST_IN_GROUP = 3

ACTIONS: dict[str, tuple[str, ...]] = {
    "standing": ("standing",),
    "running": ("running",),
    "sitting": ("sitting",),
    "jumping": ("jumping", "jumping in the air"),
    "lying": ("lying down", "resting"),
    "grazing": ("grazing", "eating grass"),
    "flying": ("flying",),
    "swimming": ("swimming",),
    "floating": ("floating", "sailing"),
    "parked": ("parked",),
}

RELATIONS: dict[str, tuple[str, ...]] = {
    "beside": ("next to", "beside", "near"),
    "left of": ("to the left of", "on the left of"),
    "right of": ("to the right of", "on the right of"),
    "in front of": ("in front of",),
    "behind": ("behind",),
    "on": ("on", "on top of"),
    "under": ("under", "underneath", "beneath"),
    "above": ("above", "over"),
    "riding": ("riding", "on the back of"),
    "holding": ("holding", "carrying"),
    "flying": ("flying",),
}
VERBS = ("riding", "holding", "carrying", "flying")  # relations that are said without another action

# Where: said after a thing, and (second) named as a thing that holds others.
PLACES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "beach": (("on the beach", "on a sandy beach", "at the beach", "by the ocean"), ("beach", "sandy beach")),
    "street": (
        ("on a city street", "on the street", "in the city", "on the road"),
        ("city street", "street"),
    ),
    "park": (("in a park", "in the park", "in a grassy park"), ("park", "green park")),
    "farm": (("on a farm", "on the farm", "near a red barn", "by a white fence"), ("farm", "farm field")),
    "desert": (("in the desert", "in a desert", "near some cactus plants"), ("desert", "hot desert")),
    "savanna": (("in a dry field", "in the wild", "on the dry grass"), ("dry field", "dry grassy field")),
    "mountains": (
        ("in the mountains", "near the mountains", "with mountains in the background"),
        ("mountain meadow", "mountain valley"),
    ),
    "snow": (
        ("in the snow", "on a snowy hill", "on the snow covered ground"),
        ("snowy hill", "snowy landscape"),
    ),
    "lake": (("on a lake", "on the water", "in the water"), ("lake", "blue lake")),
    "forest": (("in the forest", "in the woods", "near some pine trees"), ("forest", "pine forest")),
    "living room": (
        ("in a living room", "in the living room", "on a rug by a window"),
        ("living room", "room"),
    ),
    "kitchen": (("in a kitchen", "in the kitchen", "on a kitchen floor"), ("kitchen", "clean kitchen")),
    "soccer field": (
        ("on a soccer field", "on the soccer field", "in front of a soccer goal"),
        ("soccer field", "green soccer field"),
    ),
}

# Weather: said at the end, named as a day that holds things, or put before a place ("a rainy street").
WEATHER: dict[str, tuple[str, ...]] = {
    "sunny": ("on a sunny day", "in the sunshine", "under the bright sun"),
    "cloudy": ("on a cloudy day", "under a cloudy sky", "under gray clouds"),
    "rainy": ("in the rain", "on a rainy day"),
    "snowing": ("on a snowy day", "while snow is falling"),
    "night": ("at night", "under the moon", "under the stars"),
    "sunset": ("at sunset", "while the sun sets", "under an orange sky"),
    "rainbow": ("under a rainbow", "with a rainbow in the sky"),
}
DAYS: dict[str, str] = {
    "sunny": "a sunny day",
    "cloudy": "a cloudy day",
    "rainy": "a rainy day",
    "snowing": "a snowy day",
    "night": "a dark night",
    "sunset": "a beautiful sunset",
    "rainbow": "a colorful rainbow",
}
PLACE_WEATHER: dict[str, str] = {"sunny": "sunny", "cloudy": "cloudy", "rainy": "rainy", "night": "dark"}


def article(words: str) -> str:
    """Return `words` with "a" or "an" before them."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"

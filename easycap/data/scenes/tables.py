"""What can be in a scene: colours, kinds of things, settings, weather. Lengths: 1/256 of the image side.

Everything listed here is mentioned in captions, so everything listed here must be seen at 64 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSION = 2  # of graphs, captions and drawing: in the name of the cache folder and in truth's signature

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 34, 38),
    "orange": (252, 136, 16),
    "yellow": (254, 222, 30),
    "green": (20, 140, 54),
    "blue": (32, 84, 228),
    "purple": (126, 40, 172),
    "pink": (255, 128, 188),
    "white": (252, 252, 252),
    "black": (34, 34, 40),
    "brown": (134, 78, 36),
    "gray": (146, 150, 156),
}

_CLOTHES = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
_PAINT = ("red", "orange", "yellow", "green", "blue", "white", "black")
_CLOTH = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
_FURNITURE = ("red", "yellow", "green", "blue", "purple", "brown")

SIZES: dict[str, float] = {"small": 0.78, "big": 1.28}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing: its box as drawn standing, how many fit, which colours and actions it can have."""

    width: int
    height: int
    most: int = 1
    colours: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    sized: bool = False


KINDS: dict[str, Kind] = {
    "man": Kind(50, 108, 3, _CLOTHES, ("standing", "running", "sitting", "jumping")),
    "woman": Kind(50, 108, 3, (*_CLOTHES, "pink"), ("standing", "running", "sitting", "jumping")),
    "boy": Kind(40, 72, 3, _CLOTHES, ("standing", "running", "sitting", "jumping")),
    "girl": Kind(40, 72, 3, (*_CLOTHES, "pink"), ("standing", "running", "sitting", "jumping")),
    "dog": Kind(58, 46, 3, ("brown", "black", "white", "gray"), ("standing", "running", "lying"), sized=True),
    "cat": Kind(44, 44, 3, ("black", "white", "orange", "gray"), ("standing", "sitting", "lying")),
    "horse": Kind(88, 84, 2, ("brown", "black", "white"), ("standing", "running", "grazing")),
    "cow": Kind(82, 62, 3, (), ("standing", "grazing", "lying")),
    "sheep": Kind(56, 46, 4, ("white", "black"), ("standing", "grazing")),
    "elephant": Kind(100, 84, 2, (), ("standing",), sized=True),
    "giraffe": Kind(66, 132, 3, (), ("standing",)),
    "zebra": Kind(74, 70, 3, (), ("standing", "grazing")),
    "bird": Kind(42, 36, 4, ("red", "blue", "yellow", "black", "white"), ("standing",)),
    "duck": Kind(50, 42, 4, ("yellow", "white", "brown"), ("swimming",)),
    "penguin": Kind(34, 52, 4, (), ("standing",)),
    "rabbit": Kind(40, 44, 3, ("white", "brown", "gray"), ("sitting",)),
    "car": Kind(92, 46, 2, _PAINT, ("parked",)),
    "truck": Kind(116, 70, 1, _PAINT, ("parked",)),
    "bus": Kind(134, 76, 1, _PAINT, ("parked",)),
    "bicycle": Kind(76, 52, 2, _PAINT[:5], ("parked",)),
    "boat": Kind(70, 92, 3, _CLOTH, ("floating",), sized=True),
    "plane": Kind(76, 34, 2, ("white", "red", "blue", "yellow"), ("flying",)),
    "kite": Kind(40, 60, 3, _CLOTH, ("flying",)),
    "balloon": Kind(34, 44, 1, _CLOTH, ()),
    "ball": Kind(32, 32, 3, _CLOTH, (), sized=True),
    "umbrella": Kind(100, 124, 1, _CLOTH, ()),
    "chair": Kind(44, 64, 2, _FURNITURE, ()),
    "bench": Kind(92, 46, 1, ("brown", "red", "green", "blue"), ()),
    "sofa": Kind(124, 58, 1, _FURNITURE, ()),
    "table": Kind(96, 50, 1, ("brown", "white", "red", "blue"), ()),
    "vase": Kind(32, 54, 2, _FURNITURE[:5], ()),
    "tree": Kind(86, 118, 1, (), (), sized=True),
    "tent": Kind(104, 72, 2, _CLOTH[:6], ()),
    "snowman": Kind(50, 80, 2, (), ()),
}

PEOPLE = ("man", "woman", "boy", "girl")
ANIMALS = ("dog", "cat", "horse", "cow", "sheep", "elephant", "giraffe", "zebra", "bird", "duck", "penguin",
           "rabbit")  # fmt: skip

# Colour-thing pairs shown only in the split `test_novel`. Each colour and each thing is well known from
# other pairs, so that a captioner that binds colour and thing separately can tell them.
NOVEL_PAIRS: tuple[tuple[str, str], ...] = (
    ("green", "man"),
    ("red", "woman"),
    ("yellow", "boy"),
    ("blue", "girl"),
    ("black", "dog"),
    ("white", "cat"),
    ("brown", "horse"),
    ("blue", "car"),
    ("yellow", "bus"),
    ("red", "bicycle"),
    ("green", "boat"),
    ("orange", "kite"),
    ("blue", "umbrella"),
    ("purple", "sofa"),
    ("red", "tent"),
    ("yellow", "ball"),
)

SKIES = ("sunny", "cloudy", "rainy", "snowing", "night", "sunset", "rainbow")
_DRY = ("sunny", "cloudy", "night", "sunset")
_WET = ("sunny", "cloudy", "rainy", "night", "sunset", "rainbow")
_COLD = ("sunny", "cloudy", "snowing", "night", "sunset")


@dataclass(frozen=True, slots=True)
class Setting:
    """A place: what a scene there may be about, what may only be beside that, what flies, the weather."""

    mains: tuple[str, ...]
    partners: tuple[str, ...]
    sky: tuple[str, ...] = ()
    weather: tuple[str, ...] = ()


SETTINGS: dict[str, Setting] = {
    "beach": Setting(
        (*PEOPLE, "dog", "horse", "bird"),
        ("ball", "umbrella", "chair", "balloon", "kite"),
        ("plane", "kite", "bird"),
        _WET,
    ),
    "street": Setting(
        (*PEOPLE, "dog", "cat", "car", "truck", "bus", "bicycle"),
        ("bench", "umbrella", "balloon"),
        ("plane", "bird"),
        (*_WET, "snowing"),
    ),
    "park": Setting(
        (*PEOPLE, "dog", "cat", "rabbit", "bird", "bicycle"),
        ("ball", "bench", "umbrella", "balloon", "kite"),
        ("plane", "kite", "bird"),
        _WET,
    ),
    "farm": Setting(
        (*PEOPLE, "dog", "cat", "horse", "cow", "sheep"), ("truck", "tree", "car"), ("plane", "bird"), _WET
    ),
    "desert": Setting(
        (*PEOPLE, "dog", "horse", "car", "truck", "bus"),
        ("tent", "umbrella", "kite"),
        ("plane", "kite", "bird"),
        _DRY,
    ),
    "savanna": Setting(
        ("elephant", "giraffe", "zebra", "man", "woman"),
        ("tent", "truck", "bird", "car"),
        ("plane", "bird"),
        _WET,
    ),
    "mountains": Setting(
        (*PEOPLE, "dog", "horse", "cow", "sheep", "rabbit", "car", "bicycle"),
        ("tent", "tree", "kite"),
        ("plane", "kite", "bird"),
        (*_WET, "snowing"),
    ),
    "snow": Setting(
        (*PEOPLE, "dog", "penguin", "rabbit"),
        ("tent", "tree", "snowman", "car", "truck", "ball"),
        ("plane", "bird"),
        _COLD,
    ),
    "lake": Setting(("duck", "boat"), (), ("plane", "kite", "bird"), _WET),
    "forest": Setting(
        (*PEOPLE, "dog", "rabbit", "bird", "horse", "bicycle"),
        ("tent", "ball", "umbrella"),
        ("plane", "bird"),
        (*_WET, "snowing"),
    ),
    "living room": Setting((*PEOPLE, "dog", "cat"), ("sofa", "chair", "table", "vase", "ball", "balloon")),
    "kitchen": Setting((*PEOPLE, "dog", "cat"), ("chair", "table", "vase", "balloon")),
    "soccer field": Setting(
        (*PEOPLE, "dog"), ("ball", "bench", "umbrella", "balloon"), ("plane", "bird"), _WET
    ),
}

RIDDEN = ("bicycle", "horse", "elephant")
HELD = ("umbrella", "balloon")
BACKDROPS = ("bus", "truck", "tree", "tent", "sofa", "car")  # what something can be seen standing in front of
SHELTERS = ("tree", "umbrella")
# A support, and what is seen on it: people sit, small things rest on top.
SUPPORTS: dict[str, tuple[str, ...]] = {
    "sofa": (*PEOPLE, "cat", "dog"),
    "bench": (*PEOPLE, "cat", "bird"),
    "chair": ("cat",),  # a person would hide it
    "table": ("cat", "vase", "ball"),
    "car": ("cat", "bird"),
}
SEAT_HEIGHTS: dict[str, int] = {"sofa": 26, "bench": 24, "chair": 26, "table": 48, "car": 44}
UNDER_HEIGHTS: dict[str, int] = {"tree": 50, "umbrella": 80}  # clear height below the crown
# What the main thing of a pair is to the other, and how often it is drawn where possible.
RELATIONS: dict[str, float] = {
    "beside": 0.34,
    "in front of": 0.12,
    "on": 0.16,
    "under": 0.08,
    "riding": 0.18,
    "holding": 0.14,
    "flying": 0.08,
}

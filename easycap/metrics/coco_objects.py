"""Which of COCO's 80 object categories a caption names, against the objects annotated in its image.

The words for a category are its name, its plural and the synonyms below: a list of our own, so that these scores
compare with each other and not with published CHAIR, whose list is another. The signature has the list's digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from easycap.errors import UserError, json_fault
from easycap.metrics.corpus import normal_id
from easycap.metrics.java import Absent
from easycap.metrics.things import named_things
from easycap.registry import register
from easycap.types import Score

# Words that mean the category in nearly every caption; ambiguous ones (bag, plant, baseball) are left out.
_SYNONYMS = {
    "person": "man, woman, boy, girl, child, kid, baby, toddler, infant, guy, lady, gentleman, teenager, "
    "couple, crowd, player, rider, skier, snowboarder, surfer, skateboarder, skater, cyclist, "
    "bicyclist, biker, motorcyclist, batter, pitcher, catcher, umpire, athlete, swimmer, chef, waiter, waitress, "
    "officer, policeman, fireman, soldier, worker, farmer, driver, passenger, pedestrian, tourist, student, teacher, "
    "bride, groom, cowboy, fisherman, spectator, someone, somebody",
    "bicycle": "bike",
    "car": "automobile, sedan, suv, taxi, cab, jeep, minivan",
    "motorcycle": "motorbike, motor bike, moped, scooter, motor scooter, dirt bike",
    "airplane": "plane, aeroplane, aircraft, jet, airliner, jetliner, biplane",
    "bus": "double decker",
    "train": "locomotive, train car, train engine, tram, trolley",
    "truck": "pickup, pickup truck, lorry, truck bed, fire engine",
    "boat": "ship, sailboat, canoe, kayak, ferry, yacht, rowboat, motorboat, speedboat, tugboat, dinghy, gondola",
    "traffic light": "traffic signal, stop light, stoplight",
    "fire hydrant": "hydrant, fire plug",
    "parking meter": "meter",
    "bird": "duck, goose, seagull, gull, pigeon, parrot, owl, eagle, hawk, swan, crow, ostrich, penguin, flamingo, "
    "pelican, heron, sparrow, hummingbird, rooster, peacock, parakeet, baby bird",
    "cat": "kitten, kitty, tabby",
    "dog": "puppy, pup, poodle, dachshund, terrier, bulldog, retriever, labrador, german shepherd, husky, pug, corgi, "
    "beagle, collie, chihuahua",
    "horse": "pony, foal, mare, stallion, colt, baby horse",
    "sheep": "lamb, ram, ewe, baby sheep",
    "cow": "cattle, bull, calf, ox, oxen, baby cow",
    "elephant": "baby elephant",
    "bear": "grizzly, baby bear",
    "zebra": "baby zebra",
    "giraffe": "baby giraffe",
    "backpack": "back pack, rucksack, knapsack",
    "umbrella": "parasol",
    "handbag": "purse, hand bag, pocketbook",
    "tie": "necktie, neck tie, bowtie",
    "suitcase": "luggage, suit case, briefcase",
    "frisbee": "flying disc, flying disk",
    "snowboard": "snow board",
    "sports ball": "ball",
    "baseball bat": "bat",
    "baseball glove": "mitt",
    "skateboard": "skate board, longboard",
    "surfboard": "surf board",
    "tennis racket": "racket, racquet",
    "wine glass": "wineglass, glass of wine, glasses of wine",
    "cup": "mug, teacup",
    "sandwich": "burger, hamburger, cheeseburger, panini",
    "orange": "orange slice, orange fruit, tangerine, clementine, mandarin",
    "hot dog": "hotdog, chili dog",
    "donut": "doughnut",
    "cake": "cupcake, cup cake, cheesecake",
    "chair": "armchair, recliner",
    "couch": "sofa, loveseat, love seat, futon",
    "potted plant": "house plant, houseplant",
    "dining table": "table",
    "toilet": "toilet bowl, toilet seat, commode",
    "tv": "television, monitor, computer screen, flat screen",
    "laptop": "lap top",
    "remote": "remote control, tv remote, television remote, wii remote, wii controller, game controller",
    "cell phone": "cellphone, phone, iphone, smartphone, smart phone, mobile phone",
    "microwave": "microwave oven",
    "oven": "stove, stove top, stovetop",
    "sink": "washbasin, basin",
    "refrigerator": "fridge, freezer",
    "book": "textbook, novel",
    "scissors": "scissor",
    "teddy bear": "teddy, stuffed bear, toy bear",
    "hair drier": "hair dryer, hairdryer, hairdrier, blow dryer, blow drier",
    "toothbrush": "tooth brush",
}
SYNONYMS: Mapping[str, Sequence[str]] = {name: words.split(", ") for name, words in _SYNONYMS.items()}

# What contains a category's word and is something else, exactly as written: the colour orange, a train station.
NOT_OBJECTS = tuple(
    "orange, couple of, pitcher of, dvd player, cd player, record player, cable car, bus stop, bus stops, bus station, "
    "train track, train tracks, train station, train stations, train platform, jet ski, jet skis, bird house, "
    "bird feeder, dog house, corn dog, corn dogs, ball game, ball field, at bat, toaster oven, chair lift, "
    "table tennis, table cloth, flower bed, flower beds, toilet paper, tv stand, tv show, phone booth, phone booths, "
    "book shelf, book shelves, book case".split(", ")
)


@register("scorer", "coco_objects")
class CocoObjects:
    """things_precision, things_recall, CHAIR-i and CHAIR-s of COCO's objects, from what `read_instances` gives.

    Absent if no image has annotations; raises `UserError` if only some have.
    """

    names = ("things_precision", "things_recall", "CHAIR-i", "CHAIR-s")

    def __call__(
        self,
        captions: Mapping[str, str],
        references: Mapping[str, Sequence[str]],
        annotations: Mapping[str, Any] | None = None,
    ) -> dict[str, Score]:
        """Return the scores of objects; `annotations` {id: what `read_instances` returns}."""
        known = {image_id: note for image_id, note in (annotations or {}).items() if note is not None}
        if not known:
            raise Absent("no image has object annotations (COCO's instances_<split>.json)")
        return named_things(
            captions,
            {image_id: note["objects"] for image_id, note in known.items()},
            known=next(iter(known.values()))["categories"],
            synonyms=SYNONYMS,
            ignored=NOT_OBJECTS,
        )


def read_instances(path: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return {image id: {"objects": names, "categories": all names}} of COCO's instances_<split>.json.

    Raises `UserError` for another file. Outlines, nearly all of the file, are dropped while it is read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            stored = json.load(file, object_hook=_without_outline)
        names = {category["id"]: category["name"] for category in stored["categories"]}
        objects: dict[str, set[str]] = {normal_id(image["id"]): set() for image in stored["images"]}
        for row in stored["annotations"]:
            objects[normal_id(row["image_id"])].add(names[row["category_id"]])
    except (ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} is not a COCO instances file ({json_fault(error)})") from None
    except (KeyError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{str(path)!r} is not a COCO instances file ({reason})") from None
    categories = tuple(sorted(names.values()))
    return {i: {"objects": tuple(sorted(found)), "categories": categories} for i, found in objects.items()}


def _without_outline(row: dict[str, Any]) -> dict[str, Any]:
    row.pop("segmentation", None)
    return row

"""Captions of scenes in Chinese and German: grammatical, true, and read back exactly."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from easycap.data.scenes.chinese import CHINESE
from easycap.data.scenes.german import GERMAN
from easycap.data.scenes.graph import Group, Scene, Spot
from easycap.data.scenes.sample_scene import sample
from easycap.data.scenes.source import Language, scenes
from easycap.data.scenes.tables import COLOURS, KINDS
from easycap.data.scenes.templates import Thing
from easycap.data.scenes.truth import ChineseTruthScorer, GermanTruthScorer, judge
from easycap.vocab.word import WordVocabulary

SPOT = (Spot(60, 240, 0, 0),)
LANGUAGES = {"zh": CHINESE, "de": GERMAN}


def group(kind: str, count: int = 1, colour: str | None = None, action: str | None = None, **values) -> Group:
    return Group(kind, count, colour, values.get("size"), action, values.get("sky", False), SPOT * count)


DOGS = Scene(
    "street",
    "rainy",
    0,
    "left of",
    (group("dog", 2, "brown", "running", size="small"), group("car", 1, "red", "parked")),
)
RIDER = Scene("beach", "sunny", 0, "riding", (group("woman", 1, "blue"), group("horse", 1, "white")))
CYCLIST = Scene("park", "night", 0, "riding", (group("boy", 1, "red"), group("bicycle", 1, "blue")))
KITE = Scene("park", "sunny", 0, "flying", (group("boy", 1, "red"), group("kite", 1, "yellow", "flying")))
ELEPHANT = Scene("savanna", "sunny", 0, None, (group("elephant", 1, None, "standing", size="big"),))


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_caption_is_true_and_distinct(name: str) -> None:
    language, rng = LANGUAGES[name], random.Random(3)
    for number in range(60):
        scene = sample(rng, novel=number % 4 == 0)
        captions = language.references(scene, rng)
        assert len(set(captions)) == 5
        for caption in captions:
            assert judge(caption, scene, language.parse).true, caption


@pytest.mark.parametrize("name", LANGUAGES)
def test_captions_of_other_scenes_are_mostly_false(name: str) -> None:
    language, rng = LANGUAGES[name], random.Random(4)
    scene_list = [sample(rng) for _ in range(40)]
    told = [language.references(scene, rng)[0] for scene in scene_list]
    true = [
        judge(caption, scene, language.parse).true
        for caption, scene in zip(told[1:], scene_list, strict=False)
    ]
    assert sum(true) <= 3


@pytest.mark.parametrize("name", LANGUAGES)
def test_what_a_vocabulary_gives_back_is_read(name: str) -> None:
    language, rng = LANGUAGES[name], random.Random(5)
    scene_list = [sample(rng) for _ in range(10)]
    told = [language.references(scene, rng) for scene in scene_list]
    segmenter = "characters" if name == "zh" else "spaces"
    every = [text for captions in told for text in captions]
    words = WordVocabulary(every, size=500, min_count=1, segmenter=segmenter)
    for captions, scene in zip(told, scene_list, strict=True):
        for caption in captions:
            assert judge(words.decode(words.encode(caption)), scene, language.parse).true


@pytest.mark.parametrize(
    ("caption", "scene"),
    [
        ("Zwei kleine braune Hunde rennen neben einem roten Auto auf der Straße.", DOGS),
        ("ein rotes auto ist rechts von zwei kleinen hunden", DOGS),
        ("Im Regen rennen zwei Hunde auf einer Straße.", DOGS),
        ("Es gibt zwei braune Hunde auf einer Straße.", DOGS),
        ("Eine Frau in einem blauen Kleid reitet auf einem weißen Pferd am Strand.", RIDER),
        ("Im Park fährt ein Junge in einem roten Hemd auf einem blauen Fahrrad.", CYCLIST),
        ("Ein Junge lässt in einem Park einen gelben Drachen steigen.", KITE),
        ("Man sieht einen großen Elefanten in der Savanne.", ELEPHANT),
        ("街道上有两只棕色的小狗在一辆红色的汽车的左边奔跑。", DOGS),
        ("下雨时，街道上有两只狗。", DOGS),
        ("一个穿着蓝色裙子的女人在海滩上骑着一匹白色的马。", RIDER),
        ("公园里有一个男孩放着一只黄色的风筝", KITE),
        ("草原上有一头高大的大象站着", ELEPHANT),
    ],
)
def test_true_captions(caption: str, scene: Scene) -> None:
    language = GERMAN if caption[0].isascii() else CHINESE
    assert judge(caption, scene, language.parse).true


@pytest.mark.parametrize(
    "caption",
    [
        "Zwei kleinen Hunde rennen auf einer Straße.",  # the ending of the dative
        "Zwei kleine Hunde rennt auf einer Straße.",  # the verb does not agree
        "Ein braune Hund rennt auf einer Straße.",
        "Eine brauner Hund rennt auf einer Straße.",
        "Ein Hund rennt neben ein rotes Auto auf der Straße.",  # no dative
        "Zwei Hunde rennen rechts von zwei Hunde.",
        "Es gibt ein Hund auf einer Straße.",  # no accusative
        "Auf einer Straße zwei Hunde rennen.",  # the verb is not in the second place
        "Ein Junge fährt auf einem Pferd am Strand.",
        "Man sieht einen Elefant in der Savanne.",
        "街道上有两匹狗。",  # horses' measure word
        "街道上有二只狗。",
        "街道上有两只狗奔跑。",
        "街道上有两只红色狗。",
        "一个穿着蓝色衬衫的女人在海滩上站着。",  # a man's garment
        "",
        "a dog runs",
    ],
)
def test_wrong_forms_are_no_captions(caption: str) -> None:
    assert GERMAN.parse(caption) is None and CHINESE.parse(caption) is None


@pytest.mark.parametrize(
    ("caption", "scene"),
    [
        ("Zwei rote Hunde rennen auf einer Straße.", DOGS),
        ("Drei braune Hunde rennen auf einer Straße.", DOGS),
        ("Zwei braune Hunde rennen rechts von einem roten Auto.", DOGS),
        ("Zwei braune Hunde sitzen auf einer Straße.", DOGS),
        ("下雪时，街道上有两只狗。", DOGS),
        ("街道上有一只狗。", DOGS),
        ("一辆汽车在两只狗的左边。", DOGS),
    ],
)
def test_false_captions(caption: str, scene: Scene) -> None:
    language = GERMAN if caption[0].isascii() else CHINESE
    found = judge(caption, scene, language.parse)
    assert len(found.claims) > 1 and not found.true


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_thing_is_read_as_it_is_written(name: str) -> None:
    nouns = LANGUAGES[name].nouns
    for kind in KINDS:
        for colour in (None, *COLOURS):
            for size in (None, "small", "big"):
                thing = Thing(kind, 2, colour, size)
                for case in ("nom", "acc", "dat"):
                    assert thing in list(nouns.read(nouns.write(thing, case).lower(), case))


def test_scenes_are_told_in_each_language(tmp_path: Path) -> None:
    small = {"size": 32, "train_images": 4, "val_images": 2, "test_images": 2, "seed": 0, "workers": 1}
    told = {
        name: scenes(**small, cache=str(tmp_path), language=Language(name)) for name in ("en", "zh", "de")
    }
    assert [data.scorers for data in told.values()] == [("truth",), ("truth_zh",), ("truth_de",)]
    for scorer, data in ((ChineseTruthScorer(), told["zh"]), (GermanTruthScorer(), told["de"])):
        examples = data.splits["test"]
        found = scorer(
            {e.id: e.references[0] for e in examples},
            {e.id: e.references for e in examples},
            {e.id: e.annotations for e in examples},
        )
        assert found["truth"].value == 1.0 and f"|lang:{scorer.language}|" in found["truth"].signature
    assert told["de"].splits["test"][0].annotations == told["en"].splits["test"][0].annotations

"""Tags of an image: which, how many, in which order; noise in training."""

from __future__ import annotations

import pickle
from collections import Counter
from random import Random

import numpy as np
import pytest
from helpers.condition_data import condition_data
from hypothesis import given
from hypothesis import strategies as st

from easycap.conditioning.tags import Order, Tags, with_noise
from easycap.models.decoders.segments import Placement
from easycap.registry import construct, lookup
from easycap.types import Example
from easycap.vocab.tags import TagSource, TagVocabulary

EXAMPLES = [
    Example("1", None, ("dogs bark", "a dog runs on grass", "a barking dog"), ()),
    Example("2", None, ("a cat", "the cat sleeps on grass"), ()),
    Example("3", None, ("grass",), ()),
]
PLACED = {"placement": Placement.before_image}


class SamePredictions:
    """Predictions of a tag model that are the same for every image."""

    def __init__(self) -> None:
        self.vocabulary = TagVocabulary(
            source=TagSource.captions, size=9, min_count=1, examples=EXAMPLES
        )  # grass bark cat dog run sleep
        self.prepared: list[str] = []

    def prepare(self, examples) -> None:
        self.prepared += [example.id for example in examples]

    def probabilities(self, example) -> np.ndarray:
        return np.array([0.6, 0.2, 0.9, 0.5, 0.1, 0.6])


def source(kind: str, data: SamePredictions | None = None, **settings) -> Tags:
    values = {"count": 8, "order": Order.surest, "max_length": 9, **PLACED}
    if kind != "oracle":
        values |= {"run": "somewhere", "threshold": 0.5}
    if kind == "mixed":
        values |= {"drop": 0.3, "add": 0.3, "shuffle": 0.5, "seed": 1}
    supplied = {"data": condition_data({"train": EXAMPLES})}
    condition = construct(lookup("tags", kind), values | settings, supplied)
    if kind == "oracle":
        condition.vocabulary = (data or SamePredictions()).vocabulary
    else:
        condition.predictions = data or SamePredictions()
    return condition


def in_testing(tags: Tags) -> list[str]:
    return [tags.text(example, epoch=None, targets=()) for example in EXAMPLES]


def in_training(tags: Tags, epoch: int) -> list[str]:
    return [tags.text(example, epoch=epoch, targets=example.references[:1]) for example in EXAMPLES]


def test_an_oracle_names_what_most_references_name_first() -> None:
    assert in_testing(source("oracle")) == ["dog bark grass runs", "cat grass sleeps", "grass"]
    assert in_training(source("oracle"), 3) == in_testing(source("oracle"))
    assert in_testing(source("oracle", count=2)) == ["dog bark", "cat grass", "grass"]


def test_orders() -> None:
    assert in_testing(source("oracle", order=Order.frequency))[0] == "grass bark dog runs"
    assert in_testing(source("oracle", order=Order.alphabet))[0] == "bark dog grass runs"
    # The surest are chosen first, then put in order.
    assert in_testing(source("oracle", order=Order.alphabet, count=2))[0] == "bark dog"


def test_predictions_are_those_above_the_threshold() -> None:
    tags = source("predicted")
    assert set(in_testing(tags)) == set(in_training(tags, 0)) == {"cat grass sleeps dog"}
    assert in_testing(source("predicted", threshold=0.7))[0] == "cat"
    assert in_testing(source("predicted", threshold=1.0))[0] == ""
    assert in_testing(source("predicted", count=2))[0] == "cat grass"


def test_mixed_tags_are_own_with_noise_in_training_and_predicted_in_testing() -> None:
    tags = source("mixed", drop=0.0, add=0.0, shuffle=0.0)
    assert in_training(tags, 0) == in_testing(source("oracle")) and in_testing(tags) == in_testing(
        source("predicted")
    )
    tags = source("mixed")
    assert in_training(tags, 4) == in_training(source("mixed"), 4), (
        "what is drawn depends on more than the epoch"
    )
    assert len({tuple(in_training(tags, epoch)) for epoch in range(9)}) > 4
    assert in_training(tags, 4) != in_training(source("mixed", seed=2), 4)


@pytest.mark.parametrize("kind", ["oracle", "predicted", "mixed"])
def test_processes_that_are_not_forked_get_the_same_tags(kind: str) -> None:
    tags = source(kind)
    assert tags.data.splits  # the data is here, and not sent to them
    copy = pickle.loads(pickle.dumps(tags))
    assert in_testing(copy) == in_testing(tags) and in_training(copy, 2) == in_training(tags, 2)
    assert not hasattr(copy, "data")


def test_predictions_are_made_for_what_needs_them() -> None:
    for kind, in_training, in_testing in (("oracle", 0, 0), ("mixed", 0, 3), ("predicted", 3, 3)):
        data = SamePredictions()
        tags = source(kind, data)
        tags.prepare(EXAMPLES, "train")
        assert len(data.prepared) == in_training
        tags.prepare(EXAMPLES, "test")
        assert len(data.prepared) - in_training == in_testing


@pytest.mark.parametrize("kind", ["oracle", "mixed"])
def test_training_images_without_any_own_tag_are_refused(kind: str) -> None:
    data = SamePredictions()
    data.vocabulary = TagVocabulary(
        source=TagSource.data, size=9, min_count=1, examples=[Example("1", None, (), ("dog",))]
    )
    with pytest.raises(ValueError, match=f"tags={kind}: no training image has a tag .* tag_vocab=data"):
        source(kind, data).prepare(EXAMPLES, "train")
    source(kind, data).prepare(EXAMPLES, "test")
    tagged = Example("2", None, ("a dog",), ("dog",))
    source(kind, data).prepare([*EXAMPLES, tagged], "train")


def test_the_message_names_the_kind_of_tags() -> None:
    with pytest.raises(ValueError, match="tags=mixed needs an image's annotations"):
        source("mixed").text(Example("photo.jpg", None, ()), epoch=0, targets=())


def test_only_an_oracle_says_that_it_is_one() -> None:
    assert [source(kind).describe().oracle for kind in ("oracle", "predicted", "mixed")] == [
        True,
        False,
        False,
    ]
    with pytest.raises(ValueError, match="photo.jpg has none$"):
        source("oracle").text(Example("photo.jpg", None, ()), epoch=None, targets=())


words = st.lists(st.sampled_from("abcdefg"), unique=True, max_size=6)
rates = st.floats(0, 1)


@given(words, rates, rates, rates, st.integers())
def test_noise_adds_no_tag_twice_and_depends_on_its_random_alone(tags, drop, add, shuffle, seed) -> None:
    shares = {"others": "uvw", "drop": drop, "add": add, "shuffle": shuffle}
    found = with_noise(tags, Random(seed), **shares)
    assert found == with_noise(tags, Random(seed), **shares)
    assert max(Counter(found).values(), default=1) == 1 and set(found) <= {*tags, *"uvw"}
    own = [tag for tag in found if tag in tags]
    assert shuffle or own == [tag for tag in tags if tag in own]


@given(words, st.integers())
def test_shares_of_zero_and_one(tags, seed) -> None:
    assert with_noise(tags, Random(seed), others="u", drop=0, add=0, shuffle=0) == tags
    assert with_noise(tags, Random(seed), others="u", drop=1, add=0, shuffle=1) == []
    assert set(with_noise(tags, Random(seed), others="u", drop=0, add=1, shuffle=1)) == {
        *tags,
        *"u"[: len(tags)],
    }


def test_about_the_shares_are_drawn() -> None:
    tags = [str(n) for n in range(4000)]
    others = [str(n) for n in range(4000, 10**6)]
    found = with_noise(tags, Random(0), others=others, drop=0.25, add=0.1, shuffle=0)
    own = set(found) & set(tags)
    assert 2900 < len(own) < 3100 and 340 < len(found) - len(own) < 460


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("oracle", {"count": 0}, "tags.count=0"),
        ("oracle", {"max_length": 0}, "tags.max_length=0"),
        ("predicted", {"threshold": 1.5}, "tags.threshold=1.5 must be a share"),
        ("mixed", {"drop": -0.1}, "tags.drop=-0.1 must be a share"),
    ],
)
def test_senseless_settings_are_named(kind: str, settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        source(kind, **settings)

"""Drafts of captions: what they are in training and in testing."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from random import Random

import pytest
from helpers.condition_data import condition_data
from hypothesis import given
from hypothesis import strategies as st

from easycap.conditioning.draft import Corruption, Draft
from easycap.conditioning.draft_from_run import copy_captions
from easycap.registry import lookup
from easycap.types import Example

SHARES = {"another": 0.0, "nothing": 0.0, "as_tested": 0.0, "drop": 0.0, "replace": 0.0, "swap": 0.0}
EXAMPLES = [Example(str(n), None, tuple(f"image {n} says {k} in words" for k in "abcde")) for n in range(6)]
DATA = condition_data({"train": EXAMPLES})

texts = st.lists(st.sampled_from(["a", "cat", "on", "mat", "two"]), max_size=9).map(" ".join)
rates = st.floats(0, 1)


def other_word(random: Random) -> str:
    return random.choice(["dog", "sees"])


def draft(kind: str, **shares: float) -> Draft:
    return lookup("draft", kind)(DATA, max_length=20, training=SHARES | shares)


def trained(source: Draft, epoch: int = 0, targets: tuple[str, ...] = ()) -> list[str]:
    return [source.text(example, epoch=epoch, targets=targets) for example in EXAMPLES]


# -------------------------------------------------------------------------------------------------- corruption


@given(texts, rates, rates, rates, st.integers())
def test_a_text_never_gets_longer_and_corruption_depends_on_its_random_alone(text, drop, replace, swap, seed):
    corruption = Corruption(drop, replace, swap, other_word)
    corrupted = corruption(text, Random(seed))
    assert len(corrupted.split()) <= len(text.split())
    assert corrupted == corruption(text, Random(seed))
    assert set(corrupted.split()) <= set(text.split()) | {"dog", "sees"}


@given(texts, rates, rates, st.integers())
def test_shares_of_zero_and_one(text, replace, swap, seed):
    words = text.split()

    def corrupted(drop: float, replace: float, swap: float) -> list[str]:
        return Corruption(drop, replace, swap, other_word)(text, Random(seed)).split()

    assert corrupted(0, 0, 0) == words
    assert corrupted(1, replace, swap) == []
    assert len(corrupted(0, 1, swap)) == len(words) and set(corrupted(0, 1, swap)) <= {"dog", "sees"}
    assert sorted(corrupted(0, 0, swap)) == sorted(words)
    pairs = [words[first : first + 2][::-1] for first in range(0, len(words), 2)]
    assert corrupted(0, 0, 1) == [word for pair in pairs for word in pair]


def test_about_the_share_of_words_is_corrupted() -> None:
    words = " ".join(["a"] * 4000)
    assert 2900 < len(Corruption(0.25, 0, 0, other_word)(words, Random(0)).split()) < 3100
    assert 900 < sum(w != "a" for w in Corruption(0, 0.25, 0, other_word)(words, Random(0)).split()) < 1100


# ------------------------------------------------------------------------------------------------ training


def test_a_training_draft_is_a_reference_that_is_not_a_target() -> None:
    source = draft("own")
    for epoch in range(20):
        for example in EXAMPLES:
            targets = Random(epoch).sample(example.references, 3)
            found = source.text(example, epoch=epoch, targets=targets)
            assert found in example.references and found not in targets


def test_the_words_of_what_is_said_are_not_drafted_in_another_writing() -> None:
    source = draft("own")
    example = Example("twice", None, ("A cat sits.", "a cat sits", "a cat  sits .", "Two dogs run."))
    assert {source.text(example, epoch=epoch, targets=["a cat sits"]) for epoch in range(20)} == {
        "Two dogs run."
    }
    same = Example("same", None, ("A cat.", "a cat"))
    one = condition_data({"train": [same]}, captions_per_image=1)
    with pytest.raises(ValueError, match=r"makes all references of every training image \(1 at most\)"):
        lookup("draft", "own")(one, max_length=20, training=SHARES).prepare([same], "train")


def test_an_oracle_as_tested_is_not_what_is_to_be_said_in_training() -> None:
    source = draft("oracle", as_tested=1.0)
    for epoch in range(20):
        for example in EXAMPLES:
            targets = example.references[: epoch % 4 + 1]
            found = source.text(example, epoch=epoch, targets=targets)
            assert found in example.references and found not in targets


def test_where_all_is_said_the_draft_is_of_another_image() -> None:
    source = draft("own")
    for example in EXAMPLES:
        found = source.text(example, epoch=0, targets=example.references)
        assert any(found in other.references for other in EXAMPLES if other is not example)


@pytest.mark.parametrize("kind", ["noise", "own", "oracle"])
def test_shares_of_images_are_what_they_say(kind: str) -> None:
    assert trained(draft(kind, nothing=1.0)) == [""] * len(EXAMPLES)
    for example, found in zip(EXAMPLES, trained(draft(kind, another=1.0)), strict=True):
        assert found and found not in example.references
    if kind != "oracle":
        tested = draft(kind, as_tested=1.0)
        assert trained(tested) == [tested.text(example, epoch=None, targets=()) for example in EXAMPLES]


def test_drafts_are_drawn_from_seed_epoch_and_image_alone() -> None:
    shares = {"another": 0.3, "nothing": 0.2, "drop": 0.2, "replace": 0.2, "swap": 0.2}
    source = draft("own", **shares)
    first = trained(source)
    assert trained(source) == first == trained(draft("own", **shares))
    assert trained(source, epoch=1) != first
    other = condition_data({"train": EXAMPLES}, seed=2)
    reseeded = lookup("draft", "own")(other, max_length=20, training=SHARES | shares)
    assert trained(reseeded) != first
    backwards = [source.text(example, epoch=0, targets=()) for example in EXAMPLES[::-1]]
    assert backwards[::-1] == first


def test_processes_that_are_not_forked_get_the_same_drafts() -> None:
    for kind in ("noise", "own", "oracle"):
        source = draft(kind, another=0.5, replace=0.5)
        source.prepare(EXAMPLES, "train")
        assert trained(pickle.loads(pickle.dumps(source))) == trained(source)


def test_where_training_leaves_no_reference_it_is_said_before() -> None:
    few = condition_data({"train": EXAMPLES}, captions_per_image=5)
    source = lookup("draft", "own")(few, max_length=20, training=SHARES)
    source.prepare(EXAMPLES, "test")
    with pytest.raises(ValueError, match="captions_per_image=5 makes all references of every training image"):
        source.prepare(EXAMPLES, "train")
    lookup("draft", "own")(few, max_length=20, training=SHARES | {"another": 1.0}).prepare(EXAMPLES, "train")
    everything = condition_data({"train": EXAMPLES}, captions_per_image=None)
    source = lookup("draft", "own")(everything, max_length=20, training=SHARES)
    config = {"trainer": {"captions_per_image": None}, "objective": {"name": "xe"}}
    with pytest.raises(ValueError, match="captions_per_image=null makes all references"):
        source.validate(config)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"drop": 1.5}, r"draft.training.drop=1.5 must be a share"),
        ({"another": -0.1}, r"draft.training.another=-0.1 must be a share"),
        (
            {"another": 0.7, "nothing": 0.7},
            "another=0.7, nothing=0.7, as_tested=0 are shares of the same images",
        ),
        ({"dorp": 0.1}, "draft.training.dorp does not exist; did you mean 'drop'"),
    ],
)
def test_wrong_shares_are_named(shares: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draft("noise", **shares)


# ------------------------------------------------------------------------------------------------- testing


def test_noise_is_some_other_training_image_whatever_the_seed() -> None:
    example = Example("new", None, ("its own",))
    found = draft("noise").text(example, epoch=None, targets=())
    assert any(found in other.references for other in EXAMPLES)
    for known in EXAMPLES:
        assert draft("noise").text(known, epoch=None, targets=()) not in known.references
    alone = condition_data({"train": EXAMPLES[:1]})
    with pytest.raises(ValueError, match="needs at least two training images"):
        lookup("draft", "noise")(alone, max_length=20, training=SHARES).text(
            EXAMPLES[0], epoch=None, targets=()
        )


def test_own_begins_with_nothing_and_an_oracle_is_a_reference_and_says_so() -> None:
    assert draft("own").text(EXAMPLES[0], epoch=None, targets=()) == ""
    oracle = draft("oracle")
    assert (
        oracle.text(EXAMPLES[0], epoch=None, targets=()) in EXAMPLES[0].references
        and oracle.describe().oracle
    )
    assert not any(draft(kind).describe().oracle for kind in ("noise", "own"))
    with pytest.raises(ValueError, match="photo.jpg has none$"):
        oracle.text(Example("photo.jpg", None, ()), epoch=None, targets=())


def said_run(folder: Path, splits: dict[str, list[Example]], marks: str = "") -> None:
    """Write what else a run's folder holds beside its captions."""
    for name, its in splits.items():
        (folder / f"references.{name}.json").write_text(json.dumps({e.id: e.references for e in its}))
    scores = {
        "val": {
            "CIDEr-D": {"value": 1.0, "signature": f"CIDEr-D|split:val{marks}"},
            "METEOR": {"absent": "x"},
        }
    }
    (folder / "result.json").write_text(json.dumps({"scores": scores}))


def captions_draft(run: Path, splits: dict[str, list[Example]], saved: Path | None = None) -> Draft:
    data = condition_data(splits)
    source = lookup("draft", "captions")(data, run=str(run), max_length=20, training=SHARES)
    if saved is not None:
        source.load(saved)
    return source


@pytest.mark.parametrize(
    ("marks", "is_oracle"), [("", False), ("|tags:oracle", True), ("|draft:oracle", True)]
)
def test_captions_of_an_oracle_are_an_oracle(tmp_path: Path, marks: str, is_oracle: bool) -> None:
    said_run(tmp_path, {}, marks)
    assert captions_draft(tmp_path, {}).describe().oracle == is_oracle


def test_captions_of_other_data_are_refused(tmp_path: Path) -> None:
    mine, other = ({"val": [Example("1", 1, ("a cat", text))]} for text in ("a dog", "a cow"))
    (tmp_path / "captions.val.json").write_text(json.dumps([{"image_id": "1", "caption": "a cat"}]))
    said_run(tmp_path, other)
    with pytest.raises(ValueError, match="was run on other data: its references of '1' in val are not those"):
        captions_draft(tmp_path, mine).prepare(mine["val"], "test")
    said_run(tmp_path, mine)
    captions_draft(tmp_path, mine).prepare(mine["val"], "test")
    (tmp_path / "references.val.json").unlink()
    with pytest.raises(ValueError, match="has no references.val.json: `easycap evaluate"):
        captions_draft(tmp_path, mine).prepare(mine["val"], "test")


def test_kept_captions_stay_when_the_other_run_changes(tmp_path: Path) -> None:
    run, kept = tmp_path / "run", tmp_path / "own" / "drafts"
    run.mkdir()
    splits = {name: [Example(name, name, ("a cat",))] for name in ("val", "test")}
    said_run(run, splits, "|draft:oracle")
    (run / "captions.val.json").write_text(json.dumps([{"image_id": "val", "caption": "before"}]))
    kept.mkdir(parents=True)
    copy_captions(run, kept, splits)
    for name in splits:
        (run / f"captions.{name}.json").write_text(json.dumps([{"image_id": name, "caption": "after"}]))
    said_run(run, splits)
    source = captions_draft(run, splits, tmp_path / "own")
    found = [example for its in splits.values() for example in its]
    source.prepare(found, "test")
    assert source.describe().oracle
    assert [source.text(e, epoch=None, targets=()) for e in found] == [
        "before",
        "after",
    ]  # test was not there to keep


def test_captions_of_another_run_are_found_by_split(tmp_path: Path) -> None:
    splits = {
        name: [Example(f"{name}{n}", n, tuple("abcd")) for n in range(start, start + 2)]
        for name, start in (("train", 0), ("val", 5), ("test", 9))
    }
    data = condition_data(splits)
    said_run(tmp_path, splits)
    source = lookup("draft", "captions")(data, run=str(tmp_path), max_length=20, training=SHARES)
    rows = [{"image_id": f"val{n}", "caption": f"a {n}"} for n in (5, 6)]
    (tmp_path / "captions.val.json").write_text(json.dumps(rows))
    source.prepare(splits["val"], "test")
    assert [source.text(e, epoch=None, targets=()) for e in splits["val"]] == ["a 5", "a 6"]
    with pytest.raises(
        ValueError, match=r"no captions.test.json: `easycap evaluate \S+ --split test` makes them"
    ):
        source.prepare(splits["test"], "test")
    (tmp_path / "captions.test.json").write_text(json.dumps([{"image_id": "test9", "caption": "a"}]))
    with pytest.raises(ValueError, match="captions.test.json has no caption of 'test10'"):
        source.prepare(splits["test"], "test")
    with pytest.raises(ValueError, match="photo.jpg is not one of them$"):
        source.prepare([Example("photo.jpg", "photo.jpg", ())], "test")
    source.prepare(splits["train"], "train")  # nothing of them is read unless training wants it
    (tmp_path / "captions.test.json").write_text("[")
    with pytest.raises(ValueError, match="captions.test.json cannot be read"):
        source.prepare(splits["test"], "test")

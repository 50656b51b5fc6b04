"""What a trustworthy scorer refuses, counts and marks."""

import logging
import time

import pytest

from easycap.errors import UserError
from easycap.metrics import prepare, score
from easycap.types import Score

CAPTIONS = {"1": "a dog", "2": "a cat on a mat", "3": "two birds"}
REFERENCES = {"1": ["a brown dog", "the dog"], "2": ["a cat"], "3": ["birds in a tree", "two birds fly"]}


@pytest.mark.parametrize(
    ("captions", "references", "message"),
    [
        ({"1": "a dog"}, REFERENCES, r"2 images have no caption.*'2', '3'"),
        ({**CAPTIONS, "9": "a cow"}, REFERENCES, r"1 caption has no references.*'9'"),
        ({**CAPTIONS, 1: "a dog"}, REFERENCES, "image '1' has two captions"),
        (
            [{"image_id": 1, "caption": "x"}, {"image_id": "1", "caption": "y"}],
            REFERENCES,
            "'1' has two captions",
        ),
        (CAPTIONS, {**REFERENCES, 2: ["a cat"]}, "image '2' has references twice"),
        ({**CAPTIONS, "1": None}, REFERENCES, "caption of image '1' is None, not a string"),
        ({**CAPTIONS, "1": float("nan")}, REFERENCES, "caption of image '1' is nan, not a string"),
        ({**CAPTIONS, "1": ["a", "b"]}, REFERENCES, "caption of image '1' is"),
        ({**CAPTIONS, float("nan"): "x"}, REFERENCES, "image id nan is neither"),
        ({**CAPTIONS, True: "x"}, REFERENCES, "image id True is neither"),
        ({**CAPTIONS, "": "x"}, REFERENCES, "image id '' is neither"),
        (CAPTIONS, {**REFERENCES, "1": []}, "1 image has no reference with a word.*'1'"),
        (CAPTIONS, {**REFERENCES, "1": ["", "..."]}, "1 image has no reference with a word.*'1'"),
        (CAPTIONS, {**REFERENCES, "1": "a dog"}, "references of image '1' are 'a dog', not a list"),
        (CAPTIONS, {**REFERENCES, "1": [7]}, "reference of image '1' is 7, not a string"),
        ([{"image": 1, "caption": "x"}], REFERENCES, "is not a caption; each must be"),
        (["a dog"], REFERENCES, "is not a caption; each must be"),
        ({}, {}, "nothing to score"),
    ],
)
def test_input_that_does_not_fit_is_refused(captions, references, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(captions, references)


def test_a_long_list_of_missing_ids_is_cut() -> None:
    references = {str(i): ["a dog"] for i in range(1000)}
    with pytest.raises(ValueError, match="999 images have no caption") as error:
        score({"0": "a dog"}, references)
    assert str(error.value).count("'") == 20 and len(str(error.value)) < 250


def test_numbers_and_text_are_the_same_ids() -> None:
    found = score({1: "a dog", "2": "a cat", 3: "birds"}, REFERENCES)
    assert set(found["ROUGE-L"].per_image) == {"1", "2", "3"}


def test_partial_is_marked() -> None:
    found = score({"1": "a dog", "2": "a cat"}, REFERENCES, partial=True)
    assert found.counts["missing"] == 1
    assert all("|partial:2/3" in one.signature for one in found.values())
    assert all("partial" not in one.signature for one in score(CAPTIONS, REFERENCES, partial=True).values())


def test_partial_is_marked_on_scorers_that_see_text_only() -> None:
    def length(captions, references, annotations=None):
        assert annotations == {"1": "known"}
        sizes = {i: float(len(text)) for i, text in captions.items()}
        return {"length": Score(sum(sizes.values()) / len(sizes), sizes, "length")}

    notes = {1: "known", "3": "left out"}
    found = score({"1": "a dog", "2": "a cat"}, REFERENCES, scorers=[length], annotations=notes, partial=True)
    assert found["length"].signature == "length|partial:2/3" and found["length"].value == 5


@pytest.mark.parametrize("empty", ["", "  ", "...", "\n", "?", "' \" ,"])
def test_an_empty_caption_scores_zero_and_is_counted(empty: str) -> None:
    found = score({**CAPTIONS, "2": empty}, REFERENCES)
    assert found.counts["empty_captions"] == 1
    assert all(one.per_image["2"] == 0 for one in found.values())


def test_an_empty_reference_is_dropped_with_a_warning(caplog) -> None:
    with_empty = {**REFERENCES, "1": ["a brown dog", "", "the dog", "."]}
    with caplog.at_level(logging.WARNING):
        found = score(CAPTIONS, with_empty)
    assert "2 empty references were dropped" in caplog.text
    assert found.to_dict() == score(CAPTIONS, REFERENCES).to_dict()


def test_a_caption_with_line_ends_stays_one_caption() -> None:
    odd = {**CAPTIONS, "1": "a\r\ndog\u2028\x0b"}
    assert score(odd, REFERENCES).per_image() == score(CAPTIONS, REFERENCES).per_image()


def test_the_signature_knows_the_data() -> None:
    first = score(CAPTIONS, REFERENCES, split="val")["BLEU-4"].signature
    assert first.startswith("BLEU-4|v:1|tok:ptb1|") and first.endswith("|split:val")
    assert "refs:1-2|images:3|" in first
    changed = score(CAPTIONS, {**REFERENCES, "2": ["a cat sleeps"]}, split="val")["BLEU-4"].signature
    assert changed != first


@pytest.mark.parametrize("piece", ["dog ", "a dog on a mat ", "dog, "])
def test_time_of_all_scores_is_linear_in_the_length_of_a_caption(piece: str) -> None:
    """A caption of 1 MB: ten times the words may take twenty times as long, not a hundred times."""

    def seconds(size: int) -> float:
        captions = {**CAPTIONS, "1": piece * (size // len(piece))}
        start = time.perf_counter()
        found = score(captions, REFERENCES, intervals=False)
        assert 0 < found["ROUGE-L"].per_image["1"] < 0.1
        return time.perf_counter() - start

    short = min(seconds(100_000) for _ in range(2))
    assert seconds(1_000_000) < 20 * short + 0.5


def test_lone_surrogates_do_not_stop_the_scores() -> None:
    assert score({**CAPTIONS, "1": "a \ud800 dog"}, REFERENCES)["ROUGE-L"].per_image["1"] > 0


def test_a_prepared_corpus_is_sorted_by_id() -> None:
    assert prepare({"b": "x", "a": "y"}, {"a": ["y"], "b": ["x"]}).texts == ["y", "x"]


def test_two_lists_belong_together_by_position() -> None:
    captions, references = ["a dog runs", "a cat"], [["a dog is running"], ["a cat", "one cat"]]
    by_id = score(dict(zip("ab", captions, strict=True)), dict(zip("ab", references, strict=True)))
    assert score(captions, references)["BLEU-1"].value == by_id["BLEU-1"].value
    for wrong, message in (
        (references[:1], "2 captions but references of 1"),
        (["a dog", "a cat"], "a list of lists in the same order"),
    ):
        with pytest.raises(UserError, match=message):
            score(captions, wrong)

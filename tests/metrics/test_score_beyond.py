"""What overlap does not see: health of captions, diversity, things named, baselines."""

import json
import math

import pytest

from easycap.metrics import (
    DocumentFrequencies,
    caption_health,
    diversity,
    most_frequent_caption,
    named_things,
    read_instances,
    score,
    score_baselines,
)
from easycap.metrics.coco_objects import NOT_OBJECTS, SYNONYMS
from easycap.metrics.health import BAD_ENDINGS, normalized

REFERENCES = {
    "1": ["A dog runs on the grass.", "a brown dog on green grass", "The dog is running."],
    "2": ["A cat sleeps on a sofa.", "a cat on a sofa", "The cat is asleep."],
    "3": ["A red bus on a street."],
    "4": ["Two birds sit in a tree.", "birds in a tree"],
}
CAPTIONS = {"1": "a dog on the grass", "2": "a cat on a sofa", "3": "a bus", "4": "a bird"}


def _df() -> DocumentFrequencies:
    training = [*REFERENCES.values(), ["a man on a horse", "a horse"], ["a boat"], ["a dog on a sofa"]]
    return DocumentFrequencies.from_references(training, source="train")


class TestHealth:
    def test_numbers(self) -> None:
        found = caption_health(
            ["a dog on a", "A dog on a.", "a red red bus", "the <unk> cat"],
            unknown="<unk>",
            training=normalized(["A dog, on a"]),
        )
        assert found == {
            "distinct_captions": 0.75,
            "most_frequent_caption": 0.5,
            "repeating_captions": 0.25,
            "bad_endings": 0.5,
            "words_per_caption": 3.75,
            "vocabulary_used": 8,
            "unknown_words": pytest.approx(1 / 15),
            "novel_captions": 0.5,
        }

    @pytest.mark.parametrize(
        ("caption", "repeating"),
        [
            ("a cat a cat", 0),
            ("a red box and a red ball", 0),
            ("a red cat and a red cat", 1),
            ("on on", 1),
            ("", 0),
        ],
    )
    def test_repeats(self, caption: str, repeating: int) -> None:
        assert caption_health([caption])["repeating_captions"] == repeating

    def test_no_captions(self) -> None:
        with pytest.raises(ValueError, match="no captions"):
            caption_health([])

    def test_empty_captions_do_not_end_badly(self) -> None:
        assert caption_health(["", "."])["bad_endings"] == 0
        assert {
            "with",
            "in",
            "on",
            "of",
            "a",
            "at",
            "to",
            "for",
            "an",
            "this",
            "his",
            "her",
            "that",
            "the",
        } <= BAD_ENDINGS


class TestDiversity:
    def test_the_same_caption_again_and_again(self) -> None:
        found = diversity({"1": ["a dog on a sofa"] * 4}, df=_df())
        assert found["Div-1"].value == pytest.approx(4 / 20)
        assert found["Div-2"].value == pytest.approx(4 / 20)
        assert found["self-CIDEr"].value == pytest.approx(0, abs=1e-6)

    def test_captions_without_a_shared_word(self) -> None:
        found = diversity(
            {"1": ["brown dog runs fast", "two birds sit here", "red bus stops there"]}, df=_df()
        )
        assert found["Div-1"].value == 1 and found["self-CIDEr"].value == pytest.approx(1)

    def test_self_cider_by_hand(self) -> None:
        """Two captions that share 3 of 4 words, 2 of 3 pairs, 1 of 2 triples; no n-gram is in df, so all weigh 1."""
        found = diversity({"1": ["p q r s", "p q r t"]}, df=_df())["self-CIDEr"].value
        cosine = (3 / 4 + 2 / 3 + 1 / 2 + 0) / 4
        first, second = math.sqrt(1 + cosine), math.sqrt(1 - cosine)
        assert found == pytest.approx(-math.log2(first / (first + second)))

    def test_more_different_captions_are_more_diverse(self) -> None:
        close, far = (
            diversity({"1": ["a dog on grass", other]}, df=_df())["self-CIDEr"].value
            for other in ("a dog on green grass", "a cat asleep")
        )
        assert 0 < close < far <= 1

    def test_one_caption_is_refused(self) -> None:
        with pytest.raises(ValueError, match="image '7' has 1 captions"):
            diversity({"7": ["a dog"]}, df=_df())


class TestThings:
    def test_precision_recall_and_hallucination(self) -> None:
        captions = {"1": "A man with two dogs", "2": "a cat under a traffic light", "3": "nothing here"}
        things = {"1": ["dog", "ball"], "2": ["cat", "traffic light", "Person"], "3": ["light"]}
        found = named_things(captions, things, synonyms={"person": ["man", "women"]})
        assert {n: one.value for n, one in found.items()} == {
            "things_precision": 3 / 4,
            "things_recall": 3 / 6,
            "CHAIR-i": 1 / 4,
            "CHAIR-s": 1 / 3,
        }
        assert found["CHAIR-i"].per_image == {"1": 0.5, "2": 0, "3": 0}

    def test_the_longest_name_counts(self) -> None:
        found = named_things({"1": "a dog house", "2": "a dog"}, {"1": ["dog house"], "2": ["dog"]})
        assert found["things_precision"].value == found["things_recall"].value == 1

    @pytest.mark.parametrize(
        "word", ["puppies", "buses", "boxes", "horses", "vases", "men", "glass", "bus", "sheep"]
    )
    def test_plurals(self, word: str) -> None:
        thing = {
            "puppies": "puppy",
            "buses": "bus",
            "boxes": "box",
            "horses": "horse",
            "vases": "vase",
            "men": "man",
        }.get(word, word)
        assert named_things({"1": f"some {word}"}, {"1": [thing]})["things_recall"].value == 1

    def test_things_that_no_image_shows_can_be_hallucinated_if_they_are_known(self) -> None:
        captions, things = {"1": "a dog on a table", "2": "a cat"}, {"1": ["dog"], "2": ["cat"]}
        alone = named_things(captions, things)["CHAIR-i"]
        known = named_things(
            captions, things, known=["dog", "cat", "dining table"], synonyms={"dining table": ["table"]}
        )
        assert (
            alone.value == 0
            and known["CHAIR-i"].value == 1 / 3
            and alone.signature != known["CHAIR-i"].signature
        )

    def test_what_is_ignored_names_nothing(self) -> None:
        captions = {"1": "an orange train station", "2": "oranges on a train"}
        things = {"1": [], "2": ["orange", "train"]}
        found = named_things(captions, things, ignored=["orange", "train station"])
        assert (
            found["things_precision"].value == found["things_recall"].value == 1
            and not found["CHAIR-s"].value
        )

    def test_an_image_without_annotations_is_named(self) -> None:
        with pytest.raises(ValueError, match="1 images have no annotated things, e.g. '2'"):
            named_things({"1": "a dog", 2: "a cat"}, {"1": ["dog"]})


class TestCocoObjects:
    INSTANCES = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [
            {"image_id": 1, "category_id": 18, "segmentation": [[0.0, 1.0]]},
            {"image_id": 1, "category_id": 18, "segmentation": []},
            {"image_id": 1, "category_id": 1},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 7, "name": "train"}],
    }

    def _read(self, tmp_path, content: object):
        (tmp_path / "instances.json").write_text(json.dumps(content))
        return read_instances(tmp_path / "instances.json")

    def test_captions_are_read_with_the_synonyms(self, tmp_path) -> None:
        objects = self._read(tmp_path, self.INSTANCES)
        everything = ("dog", "person", "train")
        assert objects == {
            "1": {"objects": ("dog", "person"), "categories": everything},
            "2": {"objects": (), "categories": everything},
        }
        captions = {"1": "a boy walks two puppies by the train tracks", "2": "a locomotive"}
        found = score(
            captions, {"1": ["x"], "2": ["y"]}, scorers=["coco_objects"], annotations=objects, split="val"
        )
        assert found["things_recall"].value == 1 and found["things_precision"].value == 2 / 3
        assert found["CHAIR-s"].per_image == {"1": 0, "2": 1} and found["CHAIR-s"].low is not None
        assert "|things:3|words:" in found["CHAIR-i"].signature and "|split:val" in found["CHAIR-i"].signature

    def test_every_synonym_names_its_own_category_only(self) -> None:
        assert len(SYNONYMS) < 80
        words = [word for group in SYNONYMS.values() for word in group]
        assert len(words) == len(set(words)) and not set(words) & (set(SYNONYMS) | set(NOT_OBJECTS))

    def test_without_annotations_it_is_absent_and_half_of_them_are_refused(self, tmp_path) -> None:
        captions, references = {"1": "a dog", "2": "a train"}, {"1": ["x"], "2": ["y"]}
        found = score(captions, references, scorers=["coco_objects"], annotations={"1": None, "2": None})
        assert not found and "no image has object annotations" in found.absent["CHAIR-i"]
        half = {"1": self._read(tmp_path, self.INSTANCES)["1"], "2": None}
        with pytest.raises(ValueError, match="1 images have no annotated things, e.g. '2'"):
            score(captions, references, scorers=["coco_objects"], annotations=half)

    @pytest.mark.parametrize(
        "content",
        [[], {}, {"images": []}, {**INSTANCES, "categories": []}, {**INSTANCES, "images": [{"id": 5}]}],
    )
    def test_another_file_is_named(self, tmp_path, content: object) -> None:
        with pytest.raises(ValueError, match="instances.json' is not a COCO instances file"):
            self._read(tmp_path, content)


class TestReferencePoints:
    def test_each_is_what_it_says(self) -> None:
        df = _df()
        found = score_baselines(CAPTIONS, REFERENCES, df=df, most_frequent="a cat on a sofa", split="val")
        rest = {i: texts[1:] for i, texts in REFERENCES.items() if len(texts) > 1}
        people = score({i: REFERENCES[i][0] for i in rest}, rest, df=df)
        model = score({i: CAPTIONS[i] for i in rest}, rest, df=df)
        same = score(dict.fromkeys(REFERENCES, "a cat on a sofa"), REFERENCES)
        for name in ("CIDEr-D", "BLEU-4", "ROUGE-L"):
            assert found["reference_caption"][name].value == people[name].value
            assert found["model_same_references"][name].value == model[name].value
            assert found["most_frequent"][name].value == same[name].value
        assert found["reference_caption"].counts["one_reference"] == 1
        assert "df:train,N=7" in found["model_same_references"]["CIDEr-D"].signature
        assert "df:refs,N=4" in found["most_frequent"]["CIDEr-D"].signature
        assert all("split:val" in one.signature for scores in found.values() for one in scores.values())

    def test_images_with_one_reference_only(self) -> None:
        found = score_baselines({"3": "a bus"}, {"3": ["a bus"]}, df=_df(), most_frequent="a dog")
        assert not found["reference_caption"] and found["reference_caption"].absent
        assert found["reference_caption"].counts["one_reference"] == 1

    def test_the_most_frequent_caption_ignores_case_and_punctuation(self) -> None:
        training = ["A dog.", "a cat", "a dog", "A cat!", "a dog", "", ".", "", "."]
        assert most_frequent_caption(normalized(training)) == "a dog"
        assert most_frequent_caption(normalized(["b", "a"])) == "a"
        with pytest.raises(ValueError, match="no word"):
            most_frequent_caption(normalized(["", "."]))

"""BLEU, ROUGE-L and CIDEr-D against pycocoevalcap: goldens, and its own code on made-up captions."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import reference_tool
from hypothesis import given
from hypothesis import strategies as st

from easycap.metrics import CiderD, CiderReward, DocumentFrequencies, score
from easycap.metrics.cider import _warn_of_few
from easycap.metrics.ngrams import distinct

GOLDENS = json.loads(reference_tool.GOLDENS.read_text(encoding="utf-8"))
WORDS = "a man woman dog cat ball park red big on in with two the of sits runs holds plays near".split()


def made_up(num_images: int, seed: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Captions and references with repeats, empty captions, long ones, single words and uneven references."""
    rng = random.Random(seed)

    def sentence(most: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, most)))

    references = {f"{i:03}": [sentence(12) for _ in range(rng.randint(1, 7))] for i in range(num_images)}
    captions = {
        i: rng.choice([sentence(9), texts[0], "", "a a a", sentence(60)]) for i, texts in references.items()
    }
    return captions, references


@pytest.mark.parametrize("num_images", [2, 5, 150])
def test_scores_equal_pycocoevalcap(num_images: int) -> None:
    captions, references = made_up(num_images, seed=num_images)
    ours = score(captions, references, intervals=False)
    for name, (value, per_image) in reference_tool.overlap_scores(captions, references).items():
        assert ours[name].value == pytest.approx(value, abs=1e-9), name
        assert [ours[name].per_image[i] for i in references] == pytest.approx(per_image, abs=1e-9), name


def test_scores_equal_goldens() -> None:
    """From raw text, through the tokeniser."""
    ours = score(GOLDENS["captions"], GOLDENS["references"], intervals=False)
    for name, golden in GOLDENS["scores"].items():
        if name != "METEOR":
            assert ours[name].value == pytest.approx(golden["value"], abs=1e-9), name
            found = [ours[name].per_image[i] for i in GOLDENS["references"]]
            assert found == pytest.approx(golden["per_image"], abs=1e-9), name


def test_a_token_with_a_no_break_space_is_split_again_for_n_grams() -> None:
    """The tokeniser makes one token of "22 3/4"; BLEU and CIDEr-D split it, ROUGE-L does not."""
    captions, references = made_up(5, seed=12)
    captions["001"], references["001"] = "a 22 3/4 sign", ["the 22 3/4 sign", "a sign 3/4"]
    joined = {**captions, "001": "a 22\xa03/4 sign"}
    wanted = {**references, "001": ["the 22\xa03/4 sign", "a sign 3/4"]}
    ours = score(captions, references, intervals=False)
    for name, (_, per_image) in reference_tool.overlap_scores(joined, wanted).items():
        assert [ours[name].per_image[i] for i in wanted] == pytest.approx(per_image, abs=1e-9), name


def test_a_caption_beyond_a_thousand_words_scores_as_pycocoevalcap_does() -> None:
    """Its longest common subsequence is found in another way."""
    captions, references = made_up(4, seed=15)
    captions["001"] = " ".join(random.Random(15).choices([*WORDS, "else"], k=1200))
    ours = score(captions, references, intervals=False)
    for name, (_, per_image) in reference_tool.overlap_scores(captions, references).items():
        assert [ours[name].per_image[i] for i in references] == pytest.approx(per_image, abs=1e-9), name


def test_order_of_rows_keys_and_references_changes_nothing() -> None:
    captions, references = made_up(120, seed=1)
    shuffled = {i: references[i][::-1] for i in sorted(references, key=lambda i: hash((i, 7)))}
    rows = [{"image_id": i, "caption": captions[i]} for i in reversed(list(captions))]
    first, second = score(captions, references), score(rows, shuffled)
    assert first.to_dict() == second.to_dict()
    assert first.per_image() == second.per_image()


def test_two_processes_give_identical_scores() -> None:
    code = (
        "import json, test_score_overlap as t; from easycap.metrics import score\n"
        "print(json.dumps(score(*t.made_up(110, seed=4)).to_dict(), sort_keys=True))"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            cwd=reference_tool.GOLDENS.parent,
            env={"PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert outputs[0] == outputs[1] and b"CIDEr-D" in outputs[0]


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_distinct_numbers_are_those_of_a_set(values: list[int]) -> None:
    assert distinct(np.array(values, np.int64)).tolist() == sorted(set(values))


def test_fixed_frequencies_make_subsets_comparable() -> None:
    captions, references = made_up(150, seed=2)
    _, training = made_up(400, seed=3)
    df = DocumentFrequencies.from_references(training.values(), source="train")
    whole = score(captions, references, df=df, intervals=False)["CIDEr-D"]
    some = dict(list(captions.items())[:40])
    part = score(some, {i: references[i] for i in some}, df=df, intervals=False)["CIDEr-D"]
    assert all(part.per_image[i] == pytest.approx(whole.per_image[i], abs=1e-12) for i in some)
    assert "df:train,N=400," in whole.signature
    own = score(captions, references, intervals=False)["CIDEr-D"]
    assert "df:refs,N=150" in own.signature and own.value != pytest.approx(whole.value, abs=1e-3)


def test_frequencies_of_the_scored_references_given_as_df_change_nothing() -> None:
    captions, references = made_up(150, seed=5)
    df = DocumentFrequencies.from_references(references.values(), source="same")
    fixed, own = (score(captions, references, df=d, intervals=False)["CIDEr-D"] for d in (df, None))
    assert fixed.per_image == own.per_image


def test_frequencies_survive_saving_and_do_not_depend_on_order(tmp_path) -> None:
    _, training = made_up(60, seed=6)
    df = DocumentFrequencies.from_references(training.values(), source="train")
    df.save(tmp_path / "df.npz")
    loaded = DocumentFrequencies.load(tmp_path / "df.npz")
    assert loaded.signature == df.signature
    backwards = DocumentFrequencies.from_references(list(training.values())[::-1], source="train")
    assert backwards.signature == df.signature
    captions, references = made_up(20, seed=7)
    values = [score(captions, references, df=d, intervals=False)["CIDEr-D"].value for d in (df, loaded)]
    assert values[0] == values[1]


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off"])
def test_a_file_without_frequencies_is_refused(tmp_path, content: bytes) -> None:
    (tmp_path / "df.npz").write_bytes(content)
    with pytest.raises(ValueError, match="holds no document frequencies"):
        DocumentFrequencies.load(tmp_path / "df.npz")


def test_few_images_with_their_own_frequencies_are_warned_about_once(caplog) -> None:
    _warn_of_few.cache_clear()
    captions, references = made_up(99, seed=8)
    for _ in range(3):
        score(captions, references, intervals=False)
    assert caplog.text.count("from only 99 images") == 1
    score(*made_up(98, seed=8), intervals=False)
    assert "from only 98 images" in caplog.text
    assert all(len(message) < 100 for message in caplog.messages)
    caplog.clear()
    score(*made_up(100, seed=8), intervals=False)
    assert "CIDEr-D" not in caplog.text


def test_one_image_scores_zero_with_its_own_frequencies() -> None:
    found = score({"1": "a man on a horse"}, {"1": ["a man on a horse"]})
    assert found["CIDEr-D"].value == 0 and found["BLEU-4"].value == pytest.approx(1)
    assert found["BLEU-4"].low is None


class TestReward:
    def _both(self, eos: bool):
        captions, references = made_up(50, seed=9)
        df = DocumentFrequencies.from_references(references.values(), source="train", eos=eos)
        return captions, references, df, CiderReward(references=references, df=df, eos=eos)

    def test_equals_the_scorer_for_repeated_images_in_any_order(self) -> None:
        captions, references, df, reward = self._both(eos=False)
        expected = CiderD(df=df)(captions, references)["CIDEr-D"].per_image
        ids = [i for i in captions for _ in range(2)][::-1]
        assert list(reward(ids, [captions[i] for i in ids])) == pytest.approx(
            [expected[i] for i in ids], abs=1e-12
        )

    def test_with_eos_equals_pycocoevalcap_on_text_with_an_end_word(self) -> None:
        captions, references, _, reward = self._both(eos=True)
        ended = {i: f"{text} ENDTOKEN".strip() for i, text in captions.items()}
        wanted = {i: [f"{text} ENDTOKEN" for text in texts] for i, texts in references.items()}
        expected = reference_tool.overlap_scores(ended, wanted)["CIDEr-D"][1]
        assert list(reward(list(captions), list(captions.values()))) == pytest.approx(expected, abs=1e-9)

    def test_a_cut_off_caption_earns_less(self) -> None:
        _, references, _, reward = self._both(eos=True)
        image_id = max(references, key=lambda i: len(references[i][0].split()))
        whole, cut = reward([image_id] * 2, [references[image_id][0]] * 2, ended=[True, False])
        assert cut < whole

    def test_end_tokens_of_df_and_reward_must_agree(self) -> None:
        _, references, df, _ = self._both(eos=True)
        with pytest.raises(ValueError, match="eos=True and the reward wants eos=False"):
            CiderReward(references=references, df=df, eos=False)
        with pytest.raises(ValueError, match="eos=False"):
            CiderD(df=df)

    def test_an_empty_caption_and_an_empty_batch(self) -> None:
        _, _references, _, reward = self._both(eos=False)
        assert reward(["000"], [""])[0] == 0
        assert len(reward([], [])) == 0

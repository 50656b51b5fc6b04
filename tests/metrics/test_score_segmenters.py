"""Scores of captions in scripts without spaces: cut into words, and named in the signature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easycap import cli
from easycap.errors import UserError
from easycap.metrics import (
    DocumentFrequencies,
    Meteor,
    caption_health,
    prepare,
    score,
    score_baselines,
    score_samples,
)
from easycap.metrics.rewards import Rewards
from easycap.metrics.unspaced import scripts_note, unspaced_scripts
from easycap.registry import construct, lookup
from easycap.utils.segmenters import SPACES, segmenter, segmenter_in
from easycap.vocab.word import WordVocabulary

CHARACTERS = segmenter("characters")
REFERENCES = {"1": ["一只狗在跑", "狗跑"], "2": ["两只猫睡觉", "猫在睡"], "3": ["一辆红车", "红车停着"]}
CAPTIONS = {"1": "一只狗跑", "2": "一只猫睡觉", "3": "一辆红车"}


def spaced(text: str) -> str:
    return " ".join(text)


def test_characters_are_words_of_the_scores() -> None:
    by_hand = score(
        {i: spaced(text) for i, text in CAPTIONS.items()},
        {i: [spaced(text) for text in texts] for i, texts in REFERENCES.items()},
    )
    found = score(CAPTIONS, REFERENCES, segmenter=CHARACTERS)
    assert {n: (s.value, s.low) for n, s in found.items()} == {
        n: (s.value, s.low) for n, s in by_hand.items()
    }
    assert found["BLEU-4"].value > score(CAPTIONS, REFERENCES)["BLEU-4"].value
    for one in found.values():
        assert "|tok:characters+ptb" in one.signature and segmenter_in(one.signature) is CHARACTERS
    assert segmenter_in(by_hand["BLEU-1"].signature) is SPACES


def test_everything_that_counts_words_takes_the_segmenter() -> None:
    df = DocumentFrequencies.from_references(REFERENCES.values(), source="train", segmenter=CHARACTERS)
    assert DocumentFrequencies.cached(
        [*REFERENCES.values()], source="train", segmenter=CHARACTERS
    ).signature == (df.signature)
    assert "狗" in df.tree.vocabulary
    health = caption_health([*CAPTIONS.values(), "狗<unk>跑"], unknown="<unk>", segmenter=CHARACTERS)
    assert (
        health["words_per_caption"] > 3 and health["unknown_words"] == 1 / 16 and "bad_endings" not in health
    )
    points = score_baselines(CAPTIONS, REFERENCES, df=df, most_frequent="狗跑", segmenter=CHARACTERS)
    assert points["model_same_references"]["BLEU-1"].value > 0.4
    several = {i: [text, "狗"] for i, text in CAPTIONS.items()}
    samples = score_samples(several, REFERENCES, segmenter=CHARACTERS)
    assert "tok:characters" in samples["Div-1"].signature and 0 < samples["Div-1"].value < 1
    rewards = Rewards(
        {"CIDEr-D": 1.0, "BLEU-1": 1.0},
        eos=False,
        references=REFERENCES,
        annotations={},
        scorers=["cider_d", "bleu"],
        df=df,
        segmenter=CHARACTERS,
    )
    found = rewards(["1", "1"], ["一只狗", "猫"], [True, True])
    assert found["CIDEr-D"][0] > found["CIDEr-D"][1] and found["BLEU-1"][0] > 0.5


def test_english_metrics_are_absent() -> None:
    scores = score(CAPTIONS, REFERENCES, scorers=[Meteor()], segmenter=CHARACTERS)
    assert not scores and "stems, synonyms and paraphrases are English" in scores.absent["METEOR"]


@given(st.text(alphabet="一只狗 跑ab.，กำ", max_size=30))
def test_segmented_again_is_the_same(text: str) -> None:
    words = CHARACTERS(text)
    assert CHARACTERS(words) == words and CHARACTERS(CHARACTERS.join(words.split())) == words
    assert words.replace(" ", "") == text.replace(" ", "")


def test_marks_stay_with_their_character() -> None:
    assert CHARACTERS("กำลังวิ่ง dog run") == "ก ำ ลั ง วิ่ ง dog run"
    assert CHARACTERS("一只iPhone 15在<unk>") == "一 只 iPhone 15 在 <unk>"


def test_vocabulary_of_characters(tmp_path: Path) -> None:
    vocabulary = WordVocabulary(
        ["一只狗在跑", "狗 跑 fast run"], size=50, min_count=1, segmenter="characters"
    )
    ids = vocabulary.encode("一只狗跑。")
    assert len(ids) == 4 and vocabulary.unk_id not in ids and vocabulary.decode(ids) == "一只狗跑"
    assert vocabulary.decode(vocabulary.encode("狗fast run")) == "狗fast run"
    vocabulary.save(tmp_path)
    loaded = WordVocabulary.load(tmp_path)
    assert loaded.encode("一只狗跑。") == ids and loaded.decode(ids) == "一只狗跑"


def test_jieba_cuts_chinese_words() -> None:
    pytest.importorskip("jieba")
    jieba = segmenter("jieba")
    assert (
        jieba("一只狗在公园里跑步") == jieba("一 只狗在 公园里跑步") and "公园" in jieba("狗在公园里").split()
    )
    assert (
        jieba.signature.startswith("jieba-0.") and segmenter_in(f"BLEU-1|tok:{jieba.signature}+ptb1") is jieba
    )


def test_mecab_cuts_japanese_words() -> None:
    pytest.importorskip("fugashi")
    fugashi = segmenter("fugashi")
    assert fugashi("赤い犬が公園で走る").split() == ["赤い", "犬", "が", "公園", "で", "走る"]
    assert "unidic-lite" in fugashi.signature


def test_what_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="segmenter 'jeiba' does not exist; did you mean 'jieba'"):
        segmenter("jeiba")
    segmenter.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "jieba", None)
    with pytest.raises(UserError, match=r'segmenter jieba needs jieba: pip install "easycap\[chinese\]"'):
        segmenter("jieba")
    segmenter.cache_clear()
    for name, own in (("gpt2", {"end": None}), ("bert", {})):
        with pytest.raises(UserError, match="segmenter 'x' does not exist"):
            construct(lookup("vocab", name), {"path": None, "segmenter": "x", **own}, {})


def test_scripts_are_named_with_what_fits() -> None:
    assert (
        scripts_note(["a dog", "Ein Hündchen läuft"]) == "scripts: Latin 100 %; vocab.segmenter=spaces fits"
    )
    assert scripts_note(["一只狗"] * 49 + ["a dog"]).startswith(
        "scripts: Chinese 98.0%, Latin 2.0%; vocab.segmenter=jieba"
    )
    assert "vocab.segmenter=fugashi" in scripts_note(["犬が走る"]) and "Cyrillic" in scripts_note(["собака"])
    assert (
        "vocab.segmenter=characters fits" in scripts_note(["กำลังวิ่ง"])
        and scripts_note(["1"]) == "scripts: none"
    )
    (found,) = unspaced_scripts(["一只红色的狗在公园里跑"])
    assert "vocab.segmenter=jieba (--segmenter jieba of easycap score), or" in str(found)
    assert not unspaced_scripts([CHARACTERS("一只红色的狗在公园里跑")])


def test_score_and_compare_take_a_segmenter(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.json").write_text(json.dumps(CAPTIONS))
    (tmp_path / "b.json").write_text(json.dumps({i: text[1:] for i, text in CAPTIONS.items()}))
    (tmp_path / "r.json").write_text(json.dumps(REFERENCES))
    files = [str(tmp_path / name) for name in ("a.json", "r.json")]
    assert (
        cli.main(["score", *files, "--segmenter", "characters", "--training", files[1], "--df", files[1]])
        == 0
    )
    printed = capsys.readouterr().out
    assert "tok:characters+ptb" in printed and "without spaces" not in printed
    pair = ["compare", files[0], str(tmp_path / "b.json"), "--references", files[1]]
    assert cli.main([*pair, "--segmenter", "characters"]) == 0
    assert "tok:characters+ptb" in capsys.readouterr().out


def test_prepared_text_stays_as_it_is_written() -> None:
    corpus = prepare(CAPTIONS, REFERENCES, segmenter=CHARACTERS)
    assert corpus.texts == [*CAPTIONS.values()] and corpus.digest == prepare(CAPTIONS, REFERENCES).digest

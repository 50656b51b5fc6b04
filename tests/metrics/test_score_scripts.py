"""Captions of fifty scripts and languages are cut, scored and named as the COCO evaluation does it."""

import json
from pathlib import Path

import pytest
import reference_tool
from hypothesis import given, settings
from hypothesis import strategies as st

from easycap.commands.score import main
from easycap.metrics import score, tokenize
from easycap.metrics.paired import signature_mismatch
from easycap.metrics.tokenizer import version
from easycap.metrics.unspaced import unspaced_scripts

# Sentences written for this test; tokens and scores are those of pycocoevalcap.
RECORDED = json.loads(Path(__file__).with_name("scripts.json").read_text(encoding="utf-8"))
TOKENS = RECORDED["tokens"]
SCRIPTS = sorted({row["script"] for row in TOKENS})

needs_java = pytest.mark.skipif(not reference_tool.HAS_JAVA, reason="Java is not installed")

# One character of each kind: a letter, a mark, a digit, signs that join and signs that part.
_KINDS = "aé\u0301\u093e1٣-.'’‘`/_,:;&#@ \u2010\xad\u200c\u200d\u0964。½²\U0001f600"
_BLOCKS = [(0x80, 0x250), (0x250, 0x370), (0x370, 0x530), (0x530, 0x600), (0x600, 0x800)]
_BLOCKS += [(start, start + 0x80) for start in range(0x900, 0x1100, 0x80)]
_BLOCKS += [(0x1100, 0x1400), (0x1680, 0x1900), (0x1D00, 0x2000), (0x2000, 0x2C00), (0x3000, 0x3200)]
_BLOCKS += [(0xA640, 0xAC00), (0xFB00, 0xFE80)]


def _differences(texts: list[str]) -> list[tuple[str, str, str]]:
    ours = [" ".join(tokenize(text)) for text in texts]
    return [row for row in zip(texts, reference_tool.tokenize(texts), ours, strict=True) if row[1] != row[2]]


@pytest.mark.parametrize("script", SCRIPTS)
def test_recorded_tokens(script: str) -> None:
    rows = [row for row in TOKENS if row["script"] == script]
    assert rows and [" ".join(tokenize(row["text"])) for row in rows] == [row["tokens"] for row in rows]


@needs_java
def test_what_is_recorded_is_what_java_says() -> None:
    texts = [row["text"] for row in TOKENS]
    assert reference_tool.tokenize(texts) == [row["tokens"] for row in TOKENS]


def _words(block: tuple[int, int]) -> st.SearchStrategy[str]:
    characters = st.characters(min_codepoint=block[0], max_codepoint=block[1] - 1)
    return st.text(st.one_of(characters, characters, st.sampled_from(_KINDS)), min_size=1, max_size=7)


@needs_java
def test_words_of_all_blocks_equal_java() -> None:
    """Java starts slowly, so all examples go to it at once."""
    texts: list[str] = []

    @settings(max_examples=400, deadline=None, database=None)
    @given(st.lists(st.sampled_from(_BLOCKS).flatmap(_words), min_size=1, max_size=6).map(" ".join))
    def collect(text: str) -> None:
        texts.append(text)

    collect()
    assert len(set(texts)) > 200
    assert not _differences(texts)


@needs_java
@pytest.mark.slow
@pytest.mark.parametrize("context", ["{}", "a{}b", "1{}2", "a-{}", "a.{}", "#{}", "x {} y"])
def test_every_character_equals_java(context: str) -> None:
    codes = [code for code in range(0x20, 0x10000) if not 0xD800 <= code < 0xE000]
    assert not _differences([context.replace("{}", chr(code)) for code in codes])


def test_hindi_scores_equal_the_coco_evaluation() -> None:
    ours = score(RECORDED["captions"], RECORDED["references"])
    for name, wanted in RECORDED["scores"].items():
        assert ours[name].value == pytest.approx(wanted["value"], abs=1e-9), name
        assert list(ours[name].per_image.values()) == pytest.approx(wanted["per_image"], abs=1e-9), name


def test_the_version_changes_with_the_tokens_alone() -> None:
    """Scores of English stored before stay comparable; those of scripts with marks say that they are others."""
    assert version(["a man’s café — naïve", "女人 и 犬", "5 ½ £"]) == "ptb1"
    assert version(["a dog", "एक कुत्ता"]) == version(["Köln/Bonn"]) == "ptb2"
    hindi = score(RECORDED["captions"], RECORDED["references"])["CIDEr-D"].signature
    assert "|tok:ptb2|" in hindi
    assert signature_mismatch(hindi.replace("ptb2", "ptb1"), hindi) == ("tok: ptb1 / ptb2",)


def test_the_version_is_that_of_the_references() -> None:
    references = {"1": ["a dog"], "2": ["a cat"]}
    plain = score({"1": "a dog", "2": "a cat"}, references)["ROUGE-L"].signature
    assert score({"1": "कुत्ता", "2": "a cat"}, references)["ROUGE-L"].signature == plain


UNSPACED = {
    "Chinese": ("一个男人在海滩上骑马", "一个 男人 在 海滩 上 骑马"),
    "Japanese": ("犬が芝生の上を走っている", "犬 が 芝生 の 上 を 走っ て いる"),
    "Thai": ("ผู้ชายกำลังขี่ม้าบนชายหาด", "ผู้ชาย กำลัง ขี่ ม้า บน ชายหาด"),
    "Lao": ("ຜູ້ຊາຍກຳລັງຂີ່ມ້າ", "ຜູ້ຊາຍ ກຳລັງ ຂີ່ ມ້າ"),
    "Khmer": ("បុរសម្នាក់កំពុងជិះសេះ", "បុរស ម្នាក់ កំពុង ជិះ សេះ"),
    "Burmese": ("လူတစ်ယောက်မြင်းစီးနေသည်", "လူ တစ်ယောက် မြင်း စီး နေသည်"),
}


@pytest.mark.parametrize("script", UNSPACED)
def test_a_script_without_spaces_is_named_until_it_is_segmented(script: str) -> None:
    run_on, segmented = UNSPACED[script]
    (found,) = unspaced_scripts([run_on] * 3 + ["a dog"])
    assert found.script == script and found.share == 0.75
    assert f"75% of the captions are {script} without spaces" in str(found)
    assert not unspaced_scripts([segmented] * 3)


def test_other_scripts_and_quotations_are_not_named() -> None:
    assert not unspaced_scripts([*RECORDED["captions"].values(), "한 남자가 말을 타고 있다", "a dog"])
    assert not unspaced_scripts([UNSPACED["Chinese"][0], *["a sign in Chinese"] * 99])
    assert not unspaced_scripts([])


def test_score_says_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thai, segmented = UNSPACED["Thai"]
    for text, times in ((thai, 1), (segmented, 0)):
        captions, references = tmp_path / "captions.json", tmp_path / "references.json"
        captions.write_text(json.dumps({"1": text}), encoding="utf-8")
        references.write_text(json.dumps({"1": [text, text]}), encoding="utf-8")
        assert main([str(captions), str(references), "--metrics", "bleu"]) == 0
        assert capsys.readouterr().out.count("Thai without spaces") == times

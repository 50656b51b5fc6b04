"""The tokeniser against Java's: committed goldens, odd text where Java is present, and linear time."""

import json
import os
import time
from pathlib import Path

import pytest
import reference_tool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easycap.metrics import tokenize
from easycap.metrics.tokenizer import version

# A caption file in COCO's format, where there is one to check parity on.
COCO_MINI = Path(os.environ.get("EASYCAP_TEST_COCO_CAPTIONS", "no-such-file.json"))
GOLDENS = json.loads(reference_tool.GOLDENS.read_text(encoding="utf-8"))["tokens"]

needs_java = pytest.mark.skipif(not reference_tool.HAS_JAVA, reason="Java is not installed")

PIECES = [
    *"a I A B K. the The man dogs can't won't It's she'll we've o'clock d'art ma'am cannot gonna".split(),
    *"U.S. U.S Mr. St. etc. e.g. p.m. No. no. T-shirt x-ray's and/or AT&T R&D 5 22 1/2 1,000 3.5".split(),
    *"12:30 5:54pm 10% $5 #1 @home (left) [b] {c} 'word' \"hi\" n't 's '90s 'n' -- - ... .. . , ! ? : ;".split(),
    *"& &amp; * / \\ _ < > = + ~ <b> café naïve ½ £ — – … “ ” ‘ ’ it’s 中文 Ж 😀 \u200b \u3000".split(),
]
CAPTIONS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map(" ".join)
# Letters and marks without spaces: what joins, what splits.
JOINED = st.text(alphabet="abAB5--__//..,''!?@#&$ ", min_size=1, max_size=9)


def _differences(texts: list[str]) -> list[tuple[str, str, str]]:
    ours = [" ".join(tokenize(text)) for text in texts]
    return [row for row in zip(texts, reference_tool.tokenize(texts), ours, strict=True) if row[1] != row[2]]


def test_goldens() -> None:
    wrong = [
        (g["text"], g["tokens"], t) for g in GOLDENS if (t := " ".join(tokenize(g["text"]))) != g["tokens"]
    ]
    assert not wrong


@needs_java
@pytest.mark.parametrize("kind", ["captions", "joined"])
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_odd_text_equals_java(kind: str, data: st.DataObject) -> None:
    texts = data.draw(st.lists(CAPTIONS if kind == "captions" else JOINED, min_size=200, max_size=400))
    assert not _differences(texts)


@needs_java
@pytest.mark.skipif(not COCO_MINI.is_file(), reason="the real captions are not here")
def test_real_captions_equal_java() -> None:
    texts = [row["caption"] for row in json.loads(COCO_MINI.read_text())["annotations"]]
    assert len(texts) == 400
    assert not _differences(texts)


def test_capitals_joined_by_a_sign_keep_a_full_stop_before_a_comma() -> None:
    """As Stanford's tokenizer does, asked for these by hand."""
    assert tokenize("an A&A., dog") == ["an", "a&a.", "dog"]
    assert tokenize("an A&A. dog") == ["an", "a&a", "dog"]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"])
def test_line_ends_are_spaces(end: str) -> None:
    assert tokenize(f"a red{end}bus{end}") == ["a", "red", "bus"]


def test_a_caption_does_not_depend_on_what_was_tokenised_before() -> None:
    alone = tokenize("a man's dog, no. 5")
    tokenize("no. man's dog, 5")
    assert tokenize("a man's dog, no. 5") == alone == ["a", "man", "'s", "dog", "no.", "5"]


@pytest.mark.parametrize("piece", ["a man on ", "x", "a,", "'", "<a ", "&", "A. ", "5 ", "(", "a@b.", "-a"])
def test_time_is_linear(piece: str) -> None:
    """Ten times the text may take twenty times as long, not a hundred times."""

    def seconds(size: int) -> float:
        start = time.perf_counter()
        tokenize(piece * (size // len(piece)))
        return time.perf_counter() - start

    short = min(seconds(4_000) for _ in range(3))
    assert seconds(40_000) < 20 * short + 0.2


def test_one_megabyte_caption() -> None:
    assert len(tokenize("a man on a horse " * 60_000)) == 300_000


ODD = json.loads(Path(__file__).with_name("odd_captions.json").read_text(encoding="utf-8"))


def test_stored_odd_captions() -> None:
    """Some of the captions of experiments/reliability/odd_captions.py, with what Java made of them."""
    assert len({row["kind"] for row in ODD}) == 6
    wrong = [row for row in ODD if " ".join(tokenize(row["text"])) != row["tokens"]]
    assert not wrong


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a Ph.D. student", "a ph.d. student"),
        ("Dr. K, Ed.D., speaks", "dr. k ed.d. speaks"),
        ("Rd.K", "rd. k"),  # the abbreviation counts with the end of the line
        ("Corp.on", "corp.on"),
        ("Dec.-B", "dec. b"),
        ("Inc.,-No., 12", "inc.,-no. 12"),
        ("1/2-rock-n-roll", "1/2-rock-n roll"),
        ("(555)-555-1234", "-lrb- 555 -rrb- -555 -1234"),
        ("<!--(x)--> (>-<)", "<!--(x)--> -lrb->-<-rrb-"),
        ("caf&eacute;s", "caf&eacute;s"),
    ],
)
def test_rare_forms_are_those_of_java_and_marked_in_signatures(text: str, tokens: str) -> None:
    assert " ".join(tokenize(text)) == tokens
    assert version([text]) == "ptb3"
    assert (
        version(["A man in a red-and-white T-shirt at 5 p.m. in the U.S.", "Mr. Smith's dog, etc."]) == "ptb1"
    )

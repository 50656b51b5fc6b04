"""Agreement of the metrics with people: Kendall's tau, and on Flickr8k's judgements the published figures."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

STUDY = Path(__file__).parents[2] / "experiments" / "human_judgement"
# Flickr8k's text files, where they are.
FLICKR8K = Path(os.environ.get("EASYCAP_TEST_FLICKR8K", "no folder"))


@pytest.fixture
def agreement(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDY))
    return importlib.import_module("agreement")


def test_tau_counts_pairs(agreement: ModuleType) -> None:
    draw = np.random.default_rng(0)
    scores, ratings = draw.integers(0, 9, 40) / 9, draw.integers(1, 5, 40).astype(float)
    pairs = list(itertools.combinations(range(40), 2))
    signs = [np.sign(scores[a] - scores[b]) * np.sign(ratings[a] - ratings[b]) for a, b in pairs]
    untied = [sum(values[a] != values[b] for a, b in pairs) for values in (scores, ratings)]
    assert agreement.tau_b(scores, ratings) == pytest.approx(sum(signs) / np.sqrt(untied[0] * untied[1]))
    assert agreement.tau_c(scores, ratings) == pytest.approx(2 * sum(signs) * 4 / (40**2 * 3))
    assert agreement.tau_b(ratings, ratings) == pytest.approx(1)


def _write(folder: Path) -> None:
    captions = [
        f"{image}.jpg#{n}\tA {thing} runs {n} .\n"
        for image, thing in (("a", "dog"), ("b", "cat"))
        for n in range(3)
    ]
    (folder / "Flickr8k.token.txt").write_text("".join(captions))
    (folder / "ExpertAnnotations.txt").write_text("a.jpg\ta.jpg#0\t4\t4\t4\na.jpg\tb.jpg#1\t1\t2\t1\n")
    (folder / "CrowdFlowerAnnotations.txt").write_text(
        "a.jpg\ta.jpg#0\t1\t3\t0\na.jpg\tb.jpg#1\t0.25\t1\t3\n"
    )


def test_a_caption_is_not_scored_by_itself(agreement: ModuleType, tmp_path: Path) -> None:
    _write(tmp_path)
    one = agreement.expert(tmp_path)
    assert [(j.caption, len(j.references), j.ratings) for j in one] == [
        ("A cat runs 1 .", 3, [1.0, 2.0, 1.0])
    ]
    both = agreement.crowd(tmp_path)
    assert [j.ratings for j in both] == [[1.0], [0.25]]
    assert all(j.references == ["A dog runs 1 .", "A dog runs 2 ."] for j in both)


def test_a_missing_or_damaged_file_is_named(agreement: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Flickr8k.token.txt' is missing"):
        agreement.expert(tmp_path)
    _write(tmp_path)
    (tmp_path / "ExpertAnnotations.txt").write_text("a.jpg\ta.jpg#0\t4\n")
    with pytest.raises(ValueError, match="line 1: 3 columns instead of 5"):
        agreement.expert(tmp_path)


def test_stored_results_are_the_published_ones(agreement: ModuleType) -> None:
    results = json.loads((STUDY / "results.json").read_text())
    for name, published in agreement.PUBLISHED.items():
        for metric, row in results[name]["metrics"].items():
            if metric in published:  # the paper has METEOR of the crowd as 22.2, we have 22.27
                assert row["tau"] == pytest.approx(published[metric], abs=0.07), (name, metric)


def test_the_command_writes_the_agreement_of_both_sets(
    agreement: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    _write(tmp_path)
    with (tmp_path / "Flickr8k.token.txt").open("a") as file:
        texts = ["A dog runs 9 .", "A cat runs 9 .", "Two horses stand still ."]
        file.writelines(f"c.jpg#{number}\t{text}\n" for number, text in enumerate(texts))
    judgements = {
        "Expert": ["a c#0 4 4 4", "a c#2 1 1 1", "b c#1 4 3 4", "b c#2 1 1 2"],
        "CrowdFlower": ["a a#0 1 3 0", "a c#2 0 0 3", "b b#0 1 3 0", "b c#2 0 0 3"],
    }
    for name, rows in judgements.items():
        lines = [re.sub(r"\b([abc])\b", r"\1.jpg", row).replace(" ", "\t") for row in rows]
        (tmp_path / f"{name}Annotations.txt").write_text("\n".join(lines))
    out = tmp_path / "out.json"
    words = ["agreement.py", str(tmp_path), "--metrics", "bleu,cider_d", "--json", str(out)]
    monkeypatch.setattr("sys.argv", words)
    assert agreement.main() == 0
    results = json.loads(out.read_text())
    counts = {name: [row[key] for key in ("pairs", "judgements", "tau")] for name, row in results.items()}
    assert counts == {"expert": [4, 12, "tau-c"], "crowd": [4, 4, "tau-b"]}
    # the order of the scores is that of the ratings, as far as they are not tied
    for name in ("BLEU-1", "CIDEr-D"):
        assert results["expert"]["metrics"][name]["tau"] > 70
        assert results["crowd"]["metrics"][name]["tau"] == pytest.approx(100)
    assert "published 43.9" in capsys.readouterr().out


@pytest.mark.skipif(not FLICKR8K.is_dir(), reason="EASYCAP_TEST_FLICKR8K is not set")
def test_agreement_with_experts_is_the_published_one(agreement: ModuleType) -> None:
    judged = agreement.expert(FLICKR8K)
    assert (len(judged), sum(len(one.ratings) for one in judged)) == (5664, 16992)
    found = agreement.measure(judged, ["bleu", "rouge_l", "cider_d"], agreement.tau_c)
    stored = json.loads((STUDY / "results.json").read_text())["expert"]["metrics"]
    for metric in ("BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr-D"):
        assert round(found[metric]["tau"], 1) == agreement.PUBLISHED["expert"][metric]
        assert found[metric] == stored[metric]

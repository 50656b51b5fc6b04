from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers.fabricated_run import config, metric_lines, result, row, status, write
from PIL import Image

from easycap.report import thumbnails
from easycap.report.baseline_dots import dot_groups
from easycap.report.caption_history import histories, repeated
from easycap.report.run_page import write_report
from easycap.report.thumbnails import Pictures, Thumbnails
from easycap.runs.samples import Sample

_VOID = {"meta", "link", "img", "br", "hr", "input"}


class _Page(HTMLParser):
    """Text, tags and addresses of a page; complains about tags closed in the wrong order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.text, self.addresses, self.ids = html, "", [], set()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append((tag, values))
        self.addresses += [
            values[name] for name in ("src", "href", "action", "srcset", "poster") if name in values
        ]
        self.ids.add(values.get("id"))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += f" {data}"

    def count(self, tag: str, kind: str = "") -> int:
        return sum(
            name == tag and (not kind or kind in values.get("class", "").split())
            for name, values in self.tags
        )


def _page(run: Path) -> _Page:
    return _Page(write_report(run).read_text(encoding="utf-8"))


def test_the_page_is_whole_and_needs_no_other_file(run: Path) -> None:
    made = _page(run)
    assert made.addresses
    for address in made.addresses:
        assert address.startswith(("data:", "#")), address
        assert not address.startswith("#") or address[1:] in made.ids, f"nothing has the id {address}"
    assert "http://" not in made.html and "https://" not in made.html
    assert "url(" not in made.html and "@import" not in made.html
    assert list(run.glob(".report*")) == []
    for section in ("scores", "curves", "captions", "epochs", "cost", "config"):
        assert section in made.ids


def test_numbers_are_shown_as_measured(run: Path) -> None:
    text = _page(run).text
    assert "CIDEr-D, test 102.3 100.5 – 104.1 against all references" in text
    assert "truth, test 82.3 79.9 – 84.7" in text
    assert "relative to a reference caption 98 %" in text
    assert "claims_per_caption 3.41 3.36 – 3.47" in text  # a count is not a share
    assert "METEOR not measured not measured" in text and "METEOR: Java was not found" in text
    assert "CIDEr-D|refs:2-5|df:train:20000|n:4|sigma:6|tok:ptb|v:0.1.0" in text
    assert "wall time 3 min 20 s" in text and "peak memory 1.25 GiB" in text
    assert "parameters 4.81 M" in text and "work per caption 312 MFLOPs" in text
    assert "image tokens resampler × 10" in text and "encoder small" in text
    assert "easycap train data=scenes image_tokens.count=10" in text
    assert "31 % of validation images got the same caption at epoch 1." in text
    assert "334 × 33.4 % a brown dog running on the green grass" in text
    assert "label_smoothing: 0.1" in text
    assert "test_novel easycap evaluate RUN --split test_novel" in text
    assert "distinct captions, % 61.2 65.5" in text
    assert "vocabulary used 214 –" in text and "words per caption 9.31 –" in text


def test_the_score_that_is_cited_comes_first(run: Path) -> None:
    tiles = re.compile(r'class="tile-label">([^<]*)<')
    assert tiles.findall(_page(run).html)[:2] == ["CIDEr-D, test", "truth, test"]
    tagger = result()
    tagger["scores"] = {"test": {name: {"value": 0.5} for name in ("F1@3", "precision@3", "mAP")}}
    write(run / "result.json", tagger | {"baselines": {}})
    assert tiles.findall(_page(run).html) == ["mAP, test", "F1@3, test", "wall time"]


def test_a_command_that_scored_two_splits_stands_once(run: Path) -> None:
    commands = {"test": "easycap train x", "test_novel": "easycap train x", "val": "easycap evaluate y"}
    write(run / "result.json", result() | {"commands": commands})
    text = _page(run).text
    assert "test, test_novel easycap train x val easycap evaluate y" in text


def test_baselines_and_footnotes_do_not_crowd_the_numbers(run: Path) -> None:
    made = _page(run)
    assert made.text.count("101.2 99.4 – 103.0") == 1 and made.text.count("98.8 97.0 – 100.6") == 1
    assert "reference caption 37.1" in made.text  # BLEU-4, which no dot shows
    link = next(values for tag, values in made.tags if tag == "a" and values.get("class") == "score")
    assert (
        link["href"] == "#signature-1"
        and link["title"] == "CIDEr-D|refs:all|df:test:1000|n:4|sigma:6|tok:ptb|v:0.1.0"
    )
    uses = "CIDEr-D on test; CIDEr-D on test_novel; CIDEr-D on test (most frequent caption) CIDEr-D|refs:all"
    assert uses in made.text


def test_pictures_are_inside_and_untrue_captions_marked(run: Path) -> None:
    made = _page(run)
    pictures = [values for tag, values in made.tags if tag == "img" and values.get("src")]
    assert len(pictures) == 2 * 3 * 8 + 6
    assert all(values["src"].startswith("data:image/png;base64,") for values in pictures)
    assert made.count("strong", "untrue") == 2 * 3 * 3


def test_what_models_and_data_say_is_text_never_markup(run: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    write(run / "samples/test.json", {"random": [row(1, caption=evil, **{evil: 1.0})]})
    write(run / "samples/epoch-001.json", [row(900, caption=evil)])
    write(run / "captions.test.json", [{"image_id": i, "caption": evil} for i in range(3)])
    write(run / "config.yaml", json.dumps(config() | {"note": evil, "data": {"name": evil}}))
    write(run / "status.json", status("failed", error=evil, command=evil))
    write(run / "metrics.jsonl", json.dumps({"step": 1, evil: 1.0, f"val/{evil}": 2.0}) + "\n")
    scored = result()
    scored["scores"][evil] = {evil: {"value": 0.5, "signature": evil}}
    scored["warnings"] = [evil]
    write(run / "result.json", scored)
    made = _page(run)
    assert made.count("script") == 1
    assert "<script>alert" not in made.html
    assert not any("onerror" in values for _, values in made.tags)
    assert made.text.count("<script>alert(1)</script>") >= 8


def test_without_a_result_the_page_says_so_and_shows_validation(run: Path) -> None:
    (run / "result.json").unlink()
    write(run / "status.json", status("running"))
    made = _page(run)
    assert "This run is still in progress" in made.text
    assert "No split has been scored yet" in made.text
    assert "val/CIDEr-D 100.1 last, at step 1,600; best 100.1" in made.text
    assert "scores" not in made.ids


def test_a_failed_run_shows_its_error(run: Path) -> None:
    write(run / "status.json", status("failed", error="the loss is nan at step 601"))
    made = _page(run)
    assert "This run failed. the loss is nan at step 601" in made.text
    assert made.count("span", "failed") == 1


def test_a_run_that_wrote_almost_nothing_still_has_a_page(tmp_path: Path) -> None:
    run = tmp_path / "young"
    write(run / "config.yaml", "seed: 1")
    write(run / "status.json", {"status": "running", "pid": None})
    made = _page(run)
    assert "This run was killed" in made.text
    assert made.count("figure") == 0


def test_empty_and_missing_samples_do_no_harm(run: Path) -> None:
    write(run / "samples/test.json", {"best": [], "worst": [], "random": []})
    write(run / "samples/test_novel.json", {"random": [row(555), row(1, caption="")]})
    (run / "samples/images/0900.png").write_bytes(b"not a picture")
    for epoch in range(1, 9):
        write(run / f"samples/epoch-{epoch:03d}.json", [row(900, caption="")] if epoch == 1 else [])
    made = _page(run)
    assert made.count("span", "no-picture") == 2
    assert made.text.count("(empty caption)") == 2


def test_ten_thousand_lines_stay_fast_and_small(run: Path) -> None:
    lines = metric_lines(steps=100_000, every=10, epochs=100)
    assert len(lines) > 10_000
    write(run / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    start = time.perf_counter()
    size = write_report(run).stat().st_size
    assert time.perf_counter() - start < 5
    assert size < 500_000


def test_many_photos_stay_under_three_megabytes(run: Path) -> None:
    # As hard to compress as a photo of 100 kB.
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((480, 360), Image.Resampling.BICUBIC)
    photo.save(run / "photo.jpg", quality=85)
    for number in range(144):
        shutil.copy(run / "photo.jpg", run / f"samples/images/{number:04d}.png")
    for first, split in ((0, "test"), (72, "test_novel")):
        numbers = [range(first + start, first + start + 24) for start in (0, 24, 48)]
        kinds = zip(("best", "worst", "random"), numbers, strict=True)
        write(run / f"samples/{split}.json", {kind: [row(n) for n in some] for kind, some in kinds})
    size = write_report(run).stat().st_size
    assert 1_000_000 < size < 3_000_000


def test_pictures_of_a_large_page_are_files(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = run / "report_files"
    whole = _page(run)
    monkeypatch.setattr(thumbnails, "LARGEST_PAGE", len(whole.html.encode()))
    assert "report_files" not in _page(run).html
    monkeypatch.setattr(thumbnails, "LARGEST_PAGE", 10_000)
    made = _page(run)
    pictures = {values["src"] for tag, values in made.tags if tag == "img" and values.get("src")}
    assert pictures == {f"report_files/{file.name}" for file in files.iterdir()}
    assert all(len(file.read_bytes()) > 100 for file in files.iterdir())
    assert "img-src data: file: 'self';" in made.html.replace("&#39;", "'")
    (run / "samples" / "test.json").unlink()
    assert 0 < len(_page(run).html) < len(made.html)
    assert len(list(files.iterdir())) < len(pictures), "pictures of the earlier page are removed"
    monkeypatch.undo()
    assert "report_files" not in _page(run).html and not files.exists()
    assert "img-src data:;" in whole.html


def test_someone_elses_files_stay(run: Path) -> None:
    write(run / "report_files" / "notes.txt", "mine")
    (run / "report_files" / "0123456789abcdef.png").write_bytes(b"of an earlier page")
    write_report(run)
    assert [file.name for file in (run / "report_files").iterdir()] == ["notes.txt"]


def test_more_pictures_make_smaller_ones(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    paths = [tmp_path / f"{number}.jpg" for number in range(60)]
    for path in paths:
        Image.fromarray(noise).save(path) if path == paths[0] else shutil.copy(paths[0], path)
    inside = Pictures()
    sides = [Thumbnails(paths[:count], inside).side for count in (1, 30, 60)]
    assert sides[0] == 320 and sides[0] > sides[1] > sides[2]
    assert Thumbnails(paths, Pictures("x_files")).side == 320  # files need no room in the page
    uri = Thumbnails(paths[:1], inside).address(paths[0])
    assert uri and uri.startswith("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as picture:
        assert picture.size == (320, 320)
    assert Thumbnails([], inside).address(None) is None


@pytest.mark.parametrize("value", [None, math.nan])
def test_a_loss_that_is_not_finite_is_reported(run: Path, value: float | None) -> None:
    lines = metric_lines()[:50]
    lines[30]["train/loss"] = value
    write(run / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    assert "not finite at step 310" in _page(run).text


def test_an_old_page_stays_whole_if_writing_fails(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_report(run).read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before
    assert list(run.glob(".report*")) == []


def test_only_equal_signatures_share_an_axis() -> None:
    groups = dot_groups(result(), "test")
    assert [[dot.label for dot in group.dots] for group in groups] == [
        ["this model", "most frequent caption"],
        ["reference caption", "this model, same protocol"],
    ]
    top = groups[0].dots[0]
    assert top.end == pytest.approx(100)
    assert groups[1].dots[0].left == pytest.approx(100 * 1.012 / (1.0234 + 0.018))
    assert dot_groups(result(), "test_novel") == []  # a model without a baseline has nothing to stand beside


def test_a_caption_history_tells_changes_once() -> None:
    texts = ("a dog", "a dog", "a brown dog", "a dog")
    (history,) = histories({epoch: [Sample("7", None, text)] for epoch, text in enumerate(texts, 1)})
    assert [(stage.epochs, stage.words) for stage in history.stages] == [
        ("1–2", (("a", False), ("dog", False))),
        ("3", (("a", False), ("brown", True), ("dog", False))),
        ("4", (("a", False), ("dog", False))),
    ]
    (long,) = histories({epoch: [Sample("7", None, f"caption {epoch}")] for epoch in range(1, 101)})
    assert len(long.stages) == 10
    assert (long.stages[0].first, long.stages[-1].last) == (1, 100)
    assert len(long.stages) + sum(stage.skipped for stage in long.stages) == 100


def test_captions_said_once_are_not_called_frequent() -> None:
    assert repeated(["a", "b", "a", "c"]) == [("a", 2, 0.5)]
    assert repeated([]) == []


def test_the_room_does_not_load_torch() -> None:
    code = "import sys, easycap.report.run_page, easycap.report.rich_tables; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

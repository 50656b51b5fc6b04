"""`easycap score`: any COCO results file, one sentence for what is wrong with it, no torch."""

import json
import math
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

import easycap
from easycap.commands.score import main

ROWS = [{"image_id": 1, "caption": "a dog runs"}, {"image_id": 2, "caption": "a cat"}]
COCO = {
    "images": [{"id": 1}, {"id": 2}, {"id": 3}],
    "annotations": [
        {"image_id": 1, "id": 7, "caption": "the dog runs"},
        {"image_id": 2, "id": 8, "caption": "a cat"},
        {"image_id": 2, "id": 9, "caption": "two cats"},
    ],
}


def _write(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("plain", [False, True])
def test_a_table_and_a_file(tmp_path, capsys, plain: bool) -> None:
    captions = {"1": "a dog runs", "2": "a cat"} if plain else ROWS
    references = {"1": ["the dog runs"], "2": ["a cat", "two cats"]} if plain else COCO
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    files = [_write(folder / "c.json", captions), _write(folder / "r.json", references)]
    assert main([*files, "--json", str(folder / "out.json"), "--split", "val"]) == 0
    shown = capsys.readouterr().out
    assert "CIDEr-D" in shown and "BLEU-4" in shown
    # As the other commands print them; the file keeps 0..1.
    bleu = next(line.split() for line in shown.splitlines() if line.split()[:1] == ["BLEU-1"])
    assert bleu[1] == "80.0" and "Scores and shares are ×100" in shown
    written = json.loads((folder / "out.json").read_text())
    assert written["scores"]["BLEU-1"]["value"] == pytest.approx(0.8)
    assert written["diagnostics"]["words_per_caption"] == 2.5
    assert written["scores"]["BLEU-1"]["signature"].endswith("split:val")
    assert all(one["signature"] in shown.splitlines() for one in written["scores"].values())
    assert written["per_image"]["2"]["ROUGE-L"] == pytest.approx(1)
    assert [p.name for p in sorted(folder.iterdir())] == ["c.json", "out.json", "r.json"]


def test_metrics_can_be_chosen_and_absent_ones_are_named(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    files = [_write(tmp_path / "c.json", ROWS), _write(tmp_path / "r.json", COCO)]
    assert main([*files, "--metrics", "rouge_l,meteor"]) == 0
    shown = capsys.readouterr().out
    assert "METEOR is absent: 'java' was not found" in shown and "BLEU" not in shown


@pytest.mark.parametrize(
    ("captions", "references", "message"),
    [
        ("a dog", COCO, "c.json' cannot be read: not JSON, or cut off: line 1"),
        ('[{"image_id": 1,\n "capt', COCO, "c.json' cannot be read: not JSON, or cut off: line 2"),
        ("", COCO, "c.json' cannot be read: not JSON"),
        ("[" * 100_000, COCO, "c.json' cannot be read: nested too deeply"),
        (
            '[{"image_id": ' + "1" * 5000 + ', "caption": "x"}]',
            COCO,
            "c.json' .* number of thousands of digits",
        ),
        ("7", COCO, "c.json' holds no captions"),
        (ROWS, "[]", "r.json' holds no references"),
        (ROWS, ROWS, "r.json' holds captions, one per image, not references: captions come first"),
        (ROWS, '{"1": "a dog"}', "r.json' holds captions, one per image, not references"),
        (ROWS, {"annotations": [{"image_id": 1}]}, "annotation 0 of .*r.json' has no image_id or no caption"),
        (ROWS, '{"1": ["a"], "2": ["b"], "1": ["c"]}', "r.json': the key '1' appears twice"),
        ('[{"image_id": 1, "caption": NaN}]', COCO, "caption of image '1' is nan"),
        ('[{"image_id": NaN, "caption": "x"}]', COCO, "image id nan"),
        (ROWS, '{"1": [NaN], "2": ["a cat"]}', "a reference of image '1' is nan, not a string"),
        (ROWS, '{"1": ["a"], "2": null}', "the references of image '2' are None, not a list"),
        ([*ROWS, ROWS[0]], COCO, "image '1' has two captions"),
        (ROWS[:1], COCO, "1 image has no caption; add them, or pass partial .--partial"),
        ([*ROWS, {"image_id": 3, "caption": "x"}], COCO, "1 caption has no references.*'3'"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path, captions, references, message: str) -> None:
    files = [_write(tmp_path / "c.json", captions), _write(tmp_path / "r.json", references)]
    with pytest.raises(ValueError, match=message) as error:
        main(files)
    assert "\n" not in str(error.value) and str(error.value).count(".json'") <= 1


def test_a_file_as_windows_writes_it_is_read(tmp_path, capsys) -> None:
    text = json.dumps(ROWS, indent=0).replace("\n", "\r\n")
    (tmp_path / "c.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert main([str(tmp_path / "c.json"), _write(tmp_path / "r.json", COCO)]) == 0


def test_files_that_cannot_be_read(tmp_path) -> None:
    good = _write(tmp_path / "r.json", COCO)
    with pytest.raises(ValueError, match="^'[^']*nowhere.json' is not a file; check the path$"):
        main([str(tmp_path / "nowhere.json"), good])
    with pytest.raises(ValueError, match="is not a file"):
        main([str(tmp_path), good])
    (tmp_path / "latin.json").write_bytes('["café"]'.encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        main([str(tmp_path / "latin.json"), good])


@pytest.mark.parametrize("out", ["missing/out.json", "folder", "r.json/out.json"])
def test_a_place_that_cannot_be_written_is_known_before_the_work(tmp_path, out: str) -> None:
    (tmp_path / "folder").mkdir()
    files = [str(tmp_path / "not-even-read.json"), _write(tmp_path / "r.json", COCO)]
    with pytest.raises(ValueError, match="cannot be written"):
        main([*files, "--json", str(tmp_path / out)])
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["folder", "r.json"]


def test_json_on_the_terminal_is_nothing_but_json(tmp_path, capsys) -> None:
    files = [_write(tmp_path / "c.json", ROWS), _write(tmp_path / "r.json", COCO)]
    assert main([*files, "--json", "-"]) == 0
    assert "CIDEr-D" in json.loads(capsys.readouterr().out)["scores"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["c.json", "r.json"]


def test_partial_and_unknown_metric(tmp_path, capsys) -> None:
    files = [_write(tmp_path / "c.json", ROWS[:1]), _write(tmp_path / "r.json", COCO)]
    assert main([*files, "--partial"]) == 0
    assert "missing: 1" in capsys.readouterr().out
    with pytest.raises(ValueError, match="did you mean 'cider_d'"):
        main([*files, "--partial", "--metrics", "cider"])


def test_it_starts_fast_and_without_torch(tmp_path) -> None:
    files = [_write(tmp_path / "c.json", ROWS), _write(tmp_path / "r.json", COCO)]
    code = (
        "import sys; from easycap.commands.score import main; main(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'pycocoevalcap'} & set(sys.modules); assert not heavy, heavy"
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *files], check=True, capture_output=True, timeout=60)
    # 0.35 s on a free core.
    assert time.perf_counter() - start < 3


def test_in_python_it_is_one_line_without_torch() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import easycap; took = time.perf_counter() - start;"
        "assert took < 0.2 and 'numpy' not in sys.modules, took;"
        "scores = easycap.score({'1': 'a dog runs'}, {'1': ['the dog runs']}, scorers=['bleu']);"
        "assert abs(scores['BLEU-1'].value - 2 / 3) < 1e-6 and 'torch' not in sys.modules;"
        "assert easycap.score is easycap.metrics.score"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        _ = easycap.scores


def test_two_at_once_give_the_same_file(tmp_path) -> None:
    files = [_write(tmp_path / "c.json", ROWS), _write(tmp_path / "r.json", COCO)]
    code = "import sys; from easycap.commands.score import main; main(sys.argv[1:])"
    outputs = [tmp_path / f"{n}.json" for n in "ab"]
    runs = [
        subprocess.Popen([sys.executable, "-c", code, *files, "--json", str(o)], stdout=subprocess.DEVNULL)
        for o in outputs
    ]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_a_file_of_five_hundred_megabytes_is_refused_at_once(tmp_path) -> None:
    with open(tmp_path / "big.json", "wb") as file:
        file.truncate(500_000_000)
    start = time.perf_counter()
    with pytest.raises(ValueError, match="big.json' has 500 MB, more than the limit of 200 MB"):
        main([str(tmp_path / "big.json"), _write(tmp_path / "r.json", COCO)])
    assert time.perf_counter() - start < 1


def test_memory_of_a_long_file_is_bounded(tmp_path) -> None:
    """Twenty megabytes that are cut off: read, refused with the line, in less than ten times their size."""
    row = json.dumps({"image_id": 1, "caption": "word " * 200}) + ",\n"
    (tmp_path / "big.json").write_text("[" + row * 20_000)
    tracemalloc.start()
    with pytest.raises(ValueError, match="not JSON, or cut off: line 20001"):
        main([str(tmp_path / "big.json"), _write(tmp_path / "r.json", COCO)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * (tmp_path / "big.json").stat().st_size


SEVERAL = [
    {"image_id": 1, "caption": "a dog runs"},
    {"image_id": 2, "caption": "a cat"},
    {"image_id": 2, "caption": "two birds"},
    {"image_id": 1, "caption": "dogs"},
]


class TestSeveral:
    @pytest.mark.parametrize("rows", [SEVERAL, {"1": ["a dog runs", "dogs"], 2: ["a cat", "two birds"]}])
    def test_mean_scores_and_diversity(self, tmp_path, capsys, rows) -> None:
        files = [_write(tmp_path / "c.json", rows), _write(tmp_path / "r.json", COCO)]
        assert main([*files, "--several", "--json", str(tmp_path / "out.json")]) == 0
        found = json.loads((tmp_path / "out.json").read_text())
        # Words of image 1: 4, all distinct; pairs: 2. Of image 2: 4 and 2.
        assert found["scores"]["Div-1"]["value"] == 1 and found["scores"]["Div-2"]["value"] == 0.5
        # No n-gram is shared: eigenvalues 1/2, 1/2 of "a cat", "two birds", and 3/4, 1/4 with the one word of "dogs".
        first = -math.log2(math.sqrt(3) / (math.sqrt(3) + 1))
        assert found["scores"]["self-CIDEr"]["value"] == pytest.approx((first + 1) / 2)
        rouge = found["scores"]["ROUGE-L"]
        references = {"1": ["the dog runs"], "2": ["a cat", "two cats"]}
        apart = [
            easycap.score(one, references)["ROUGE-L"].value
            for one in ({"1": "a dog runs", "2": "a cat"}, {"1": "dogs", "2": "two birds"})
        ]
        assert rouge["value"] == pytest.approx(sum(apart) / 2) and "captions:mean of 2" in rouge["signature"]
        assert rouge["low"] <= rouge["value"] <= rouge["high"]
        assert found["counts"]["captions"] == 4
        assert "self-CIDEr" in capsys.readouterr().out

    def test_the_order_of_rows_changes_nothing(self) -> None:
        references = {"1": ["the dog runs"], "2": ["a cat", "two cats"]}
        first, second = (
            easycap.score_samples(SEVERAL, references),
            easycap.score_samples(SEVERAL[::-1], references),
        )
        assert first.to_dict() == second.to_dict() and first.per_image() == second.per_image()

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (SEVERAL[:3], "image '1' has 1 captions .* another has 2"),
            (SEVERAL[:2], "image '1' has 1 captions .* two at least"),
            (
                [*SEVERAL[:3], {"image_id": 1, "caption": None}],
                "a caption of image '1' is None, not a string",
            ),
            (
                [*SEVERAL[:3], {"image_id": 1, "caption": math.nan}],
                "a caption of image '1' is nan, not a string",
            ),
            ({"1": ["a", "b"], "2": 7}, "a caption of image '2' is 7, not a string"),
            ({"1": ["a", "b"], "2": []}, "image '2' has 0 captions"),
            ({"1": [], "2": []}, "image '1' has 0 captions"),
            ({}, "nothing to score"),
            ({"1": ["a", "b"]}, "1 image has no caption"),
            ({"1": ["a", "b"], "2": ["a", "b"], "9": ["a", "b"]}, "1 caption has no references"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, tmp_path, rows, message: str) -> None:
        files = [_write(tmp_path / "c.json", rows), _write(tmp_path / "r.json", COCO)]
        with pytest.raises(ValueError, match=message):
            main([*files, "--several"])

    def test_without_the_flag_it_says_so(self, tmp_path) -> None:
        files = [_write(tmp_path / "c.json", SEVERAL), _write(tmp_path / "r.json", COCO)]
        with pytest.raises(ValueError, match="image '2' has two captions.*--several"):
            main(files)


def test_objects_named(tmp_path, capsys) -> None:
    files = [_write(tmp_path / "c.json", ROWS), _write(tmp_path / "r.json", COCO)]
    instances = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [{"image_id": 1, "category_id": 18}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
    }
    where = _write(tmp_path / "instances.json", instances)
    assert main([*files, "--instances", where, "--json", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())["scores"]
    assert found["things_precision"]["value"] == 0.5 and found["CHAIR-i"]["value"] == 0.5
    assert "CHAIR-s" in capsys.readouterr().out
    with pytest.raises(ValueError, match="is not a file"):
        main([*files, "--instances", str(tmp_path / "nowhere.json")])


def test_frequencies_and_novelty_from_training_captions(tmp_path) -> None:
    files = [_write(tmp_path / "c.json", ROWS), _write(tmp_path / "r.json", COCO)]
    training = _write(tmp_path / "train.json", {"7": ["A dog runs."], "8": ["a horse", "the cat"]})
    out = tmp_path / "out.json"
    assert main([*files, "--df", training, "--training", training, "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert "df:train,N=2," in found["scores"]["CIDEr-D"]["signature"]
    assert found["diagnostics"]["novel_captions"] == 0.5


def test_clip_and_images_go_together(tmp_path) -> None:
    files = [_write(tmp_path / "c.json", ROWS), _write(tmp_path / "r.json", COCO)]
    with pytest.raises(ValueError, match="go together"):
        main([*files, "--clip", str(tmp_path)])


def test_help_reads_well(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and "examples:" in shown and "cider_d,meteor" in shown


@pytest.mark.parametrize(
    "ids",
    [
        ("000000000001", "000000000002"),
        (1.0, 2.0),
        ("000000000001.jpg", "COCO_val2014_000000000002.jpg"),
        ("val2014/000000000001.jpg", "2"),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_ids_in_another_spelling_are_scored_alike(tmp_path, capsys, ids: tuple, several: bool) -> None:
    references = _write(tmp_path / "r.json", COCO)

    def scored(rows: list) -> str:
        rows = rows * 2 if several else rows
        flags = ["--metrics", "bleu,cider_d", *(["--several"] if several else [])]
        assert main([_write(tmp_path / "c.json", rows), references, *flags]) == 0
        return capsys.readouterr().out

    other = [{"image_id": one, "caption": row["caption"]} for one, row in zip(ids, ROWS, strict=True)]
    assert scored(other) == scored(ROWS)


def test_two_spellings_of_an_id_are_two_captions_and_unknown_ones_are_refused(tmp_path) -> None:
    references = _write(tmp_path / "r.json", COCO)
    twice = [*ROWS, {"image_id": "0001", "caption": "x"}]
    with pytest.raises(ValueError, match="image '1' has two captions, as '1' and as '0001'"):
        main([_write(tmp_path / "c.json", twice), references])
    named = {"photo_1": ["a dog"], "photo_2": ["a cat"]}
    with pytest.raises(ValueError, match="1 caption has no references.*'foto_1'; did you mean 'photo_1'"):
        main(
            [_write(tmp_path / "c.json", {"foto_1": "x", "photo_2": "x"}), _write(tmp_path / "n.json", named)]
        )


def test_an_annotation_file_is_captions_too_where_each_image_has_one(tmp_path, capsys) -> None:
    rows = [{"image_id": 1, "caption": "the dog runs"}, {"image_id": 2, "caption": "a cat"}]
    file = _write(tmp_path / "r.json", {"images": [{"id": 1}, {"id": 2}], "annotations": rows})
    assert main([file, file, "--metrics", "bleu"]) == 0
    assert "100.0" in capsys.readouterr().out


def test_karpathys_files_are_references_of_a_split(tmp_path, capsys) -> None:
    def entry(split: str, text: str, **name: object) -> dict:
        return {"split": split, "sentences": [{"raw": text}], **name}

    entries = [entry("test", "a dog runs", cocoid=1), entry("val", "a cat", cocoid=2)]
    file = _write(tmp_path / "dataset.json", {"images": entries, "dataset": "coco"})
    captions = _write(tmp_path / "c.json", [{"image_id": 1, "caption": "a dog runs"}])
    assert main([captions, file, "--split", "test", "--metrics", "bleu"]) == 0
    assert "100.0" in capsys.readouterr().out
    with pytest.raises(ValueError, match="has several splits; choose one with --split test or --split val"):
        main([captions, file])
    flickr = _write(tmp_path / "f.json", {"images": [entry("test", "a dog runs", filename="1_a.jpg")]})
    assert main([_write(tmp_path / "c.json", {"1_a": "a dog runs"}), flickr]) == 0
    broken = _write(tmp_path / "b.json", {"images": [{"cocoid": 1, "sentences": [{"tokens": []}]}]})
    with pytest.raises(ValueError, match=r"images\[0\] lacks a filename, or the raw text of a sentence"):
        main([captions, broken])

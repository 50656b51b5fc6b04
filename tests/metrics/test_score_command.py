"""`easycap score`: any COCO results file, one sentence for what is wrong with it, no torch."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import easycap
from easycap.scoring import main

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
    written = json.loads((folder / "out.json").read_text())
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
        ("a dog", COCO, "c.json' is not JSON or was cut off: line 1"),
        ('[{"image_id": 1,\n "capt', COCO, "c.json' is not JSON or was cut off: line 2"),
        ("", COCO, "c.json' is not JSON"),
        ("[" * 100_000, COCO, "c.json'"),
        ("7", COCO, "c.json' holds no captions"),
        (ROWS, "[]", "r.json' holds no references"),
        (ROWS, {"annotations": [{"image_id": 1}]}, "annotation 0 of .*r.json' has no image_id or no caption"),
        (ROWS, '{"1": ["a"], "2": ["b"], "1": ["c"]}', "the key '1' comes twice"),
        ('[{"image_id": 1, "caption": NaN}]', COCO, "caption of image '1' is nan"),
        ('[{"image_id": NaN, "caption": "x"}]', COCO, "image id nan"),
        ([*ROWS, ROWS[0]], COCO, "image '1' has two captions"),
        (ROWS[:1], COCO, "1 image has no caption; add them, or pass partial .--partial"),
        ([*ROWS, {"image_id": 3, "caption": "x"}], COCO, "1 caption has no references.*'3'"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path, captions, references, message: str) -> None:
    files = [_write(tmp_path / "c.json", captions), _write(tmp_path / "r.json", references)]
    with pytest.raises(ValueError, match=message) as error:
        main(files)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path) -> None:
    good = _write(tmp_path / "r.json", COCO)
    with pytest.raises(ValueError, match="nowhere.json' is no file"):
        main([str(tmp_path / "nowhere.json"), good])
    with pytest.raises(ValueError, match="is no file"):
        main([str(tmp_path), good])
    (tmp_path / "latin.json").write_bytes('["café"]'.encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8"):
        main([str(tmp_path / "latin.json"), good])


def test_nothing_is_left_where_the_result_cannot_be_written(tmp_path) -> None:
    files = [_write(tmp_path / "c.json", ROWS), _write(tmp_path / "r.json", COCO)]
    with pytest.raises(ValueError, match="cannot be written"):
        main([*files, "--json", str(tmp_path / "missing" / "out.json")])


def test_partial_and_unknown_metric(tmp_path, capsys) -> None:
    files = [_write(tmp_path / "c.json", ROWS[:1]), _write(tmp_path / "r.json", COCO)]
    assert main([*files, "--partial"]) == 0
    assert "missing: 1" in capsys.readouterr().out
    with pytest.raises(ValueError, match="did you mean 'cider_d'"):
        main([*files, "--partial", "--metrics", "cider"])


def test_it_starts_fast_and_without_torch(tmp_path) -> None:
    files = [_write(tmp_path / "c.json", ROWS), _write(tmp_path / "r.json", COCO)]
    code = (
        "import sys; from easycap.scoring import main; main(sys.argv[1:]);"
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
    code = "import sys; from easycap.scoring import main; main(sys.argv[1:])"
    outputs = [tmp_path / f"{n}.json" for n in "ab"]
    runs = [
        subprocess.Popen([sys.executable, "-c", code, *files, "--json", str(o)], stdout=subprocess.DEVNULL)
        for o in outputs
    ]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


@pytest.mark.slow
def test_a_file_of_five_hundred_megabytes(tmp_path) -> None:
    """Half a million captions of a thousand characters: it is cut off, and the error says so."""
    row = json.dumps({"image_id": 1, "caption": "word " * 200}) + ",\n"
    with open(tmp_path / "big.json", "w") as file:
        file.write("[")
        file.writelines(row for _ in range(500_000))
    with pytest.raises(ValueError, match="is not JSON or was cut off: line 500001"):
        main([str(tmp_path / "big.json"), _write(tmp_path / "r.json", COCO)])

"""`easycap compare`: whether two systems differ, on which images, and what must not be compared unmarked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_config import TINY

from easycap.cli import main as easycap
from easycap.commands.compare import main
from easycap.metrics import compare, score
from easycap.runs.run_folder import RunFolder

NUM_IMAGES = 60
IDS = [f"test-{n:03}" for n in range(NUM_IMAGES)]
THINGS = "dog cat bus boat man horse".split()
REFERENCES = {
    image: [
        f"a {THINGS[n % 6]} on the street number {n}",
        f"one [{THINGS[n % 6]}] stands near house {n}",
    ]
    for n, image in enumerate(IDS)
}
GOOD = {image: texts[0] for image, texts in REFERENCES.items()}
# Every third caption is poor, and the last is the worst.
POOR = {image: "a dog on the street" if n % 3 == 0 else GOOD[image] for n, image in enumerate(IDS)}
POOR["test-017"] = "[red] nothing whatsoever [/bold]"


def make_run(path: Path, captions: dict, references: dict = REFERENCES, *, version: int = 1) -> Path:
    """What evaluation leaves behind, with a truth that says whether the caption is reference 1."""
    folder = RunFolder(path, command="easycap train ...")
    folder.write_captions("test", captions)
    folder.write_references("test", references)
    truth = {image: float(text == GOOD.get(image)) for image, text in captions.items()}
    folder.write_per_image("test", {"truth": truth})
    value = sum(truth.values()) / len(truth)
    signature = f"truth|scenes:v{version}|images:{len(truth)}"
    folder.update_result({"scores": {"test": {"truth": {"value": value, "signature": signature}}}})
    return path


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.setenv("COLUMNS", "160")
    return str(make_run(tmp_path / "A [run] é", GOOD)), str(make_run(tmp_path / "b", POOR))


def compared(*argv: object) -> dict:
    """Run the command with --json and return what it wrote."""
    out = Path(str(argv[0])).parent / "out.json"
    assert main([*map(str, argv), "--json", str(out)]) == 0
    return json.loads(out.read_text(encoding="utf-8"))


def test_the_numbers_are_those_of_the_paired_test(runs: tuple[str, str]) -> None:
    found = compared(*runs)["metrics"]
    wanted = compare(score(GOOD, REFERENCES), score(POOR, REFERENCES))
    for name, one in wanted.items():
        plain = json.loads(json.dumps(one.to_dict()))
        del plain["images"]
        assert found[name] == plain
    assert found["CIDEr-D"]["p_value"] < 0.01 and found["CIDEr-D"]["low"] > 0
    assert set(found) == {*wanted, "truth"}


def test_truth_is_paired_from_what_evaluation_left(runs: tuple[str, str]) -> None:
    truth = compared(*runs)["metrics"]["truth"]
    changed = sum(POOR[image] != GOOD[image] for image in IDS)
    assert truth["difference"] == pytest.approx(changed / NUM_IMAGES)
    assert truth["low"] < truth["difference"] < truth["high"] and truth["p_value"] < 0.01
    assert truth["method"] == "sign flip" and truth["comparable"]


def test_a_reader_sees_scores_and_the_images_that_differ_most(runs: tuple[str, str], capsys) -> None:
    assert main([*runs, "--top", "2", "--by", "ROUGE-L"]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert lines["truth"][1] == "100.0" and lines["truth"][-1] == "0.001" and "<" in lines["truth"]
    assert lines["CIDEr-D"][3].startswith("+") and lines["BLEU-4"][1] == "100.0"
    assert "A [run] é" in out and "ROUGE-L|v:1|tok:ptb1" in out and "≠" not in out
    # The caption of one side without a word of the references, with what stands in brackets.
    assert POOR["test-017"] in out and GOOD["test-017"] in out and REFERENCES["test-017"][1] in out
    shown = [image for image in IDS if image in out]
    assert len(shown) == 2 and "test-017" in shown


def test_a_difference_has_its_sign_unless_it_is_zero(runs: tuple[str, str], capsys) -> None:
    main([*reversed(runs), "--top", "0"])
    truth = next(line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("truth"))
    assert truth.split()[1:4] == ["65.0", "100.0", "-35.0"]
    main([runs[0], runs[0]])
    truth = next(line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("truth"))
    assert truth.split()[3:] == ["0.0", "0.0", "to", "0.0", "1.000"]


def test_images_come_in_the_order_of_their_difference(runs: tuple[str, str]) -> None:
    images = compared(*runs, "--top", "5", "--by", "ROUGE-L")["images"]
    gaps = [abs(image["scores"]["a"] - image["scores"]["b"]) for image in images]
    assert gaps == sorted(gaps, reverse=True) and images[0]["id"] == "test-017" and len(images) == 5
    assert images[0]["captions"] == {"a": GOOD["test-017"], "b": POOR["test-017"]}
    assert images[0]["references"] == REFERENCES["test-017"]
    assert images[0]["scores"]["b"] < 0.3


def test_scores_that_an_oracle_helped_are_marked(runs: tuple[str, str], capsys) -> None:
    signature = "CIDEr-D|v:1|tags:oracle|draft:oracle"
    score = {"test": {"CIDEr-D": {"value": 1.0, "signature": signature}}}
    RunFolder(Path(runs[0]), command="easycap evaluate").update_result({"scores": score})
    found = compared(*runs)["metrics"]
    for name in ("CIDEr-D", "BLEU-4", "ROUGE-L"):
        left, right = found[name]["signatures"]
        assert left.endswith("|tags:oracle|draft:oracle") and "oracle" not in right
        assert not found[name]["comparable"]
    capsys.readouterr()
    assert main([*runs, "--top", "0"]) == 0
    out = capsys.readouterr().out
    (row,) = (line for line in out.splitlines() if line.strip().startswith("BLEU-4"))
    assert row.split()[1:5] == ["≠", "100.0", "(oracle)", row.split()[4]] and row.count("(oracle)") == 1
    assert "BLEU-4 was measured in two ways (tags: oracle / -; draft: oracle / -)" in out


def test_equal_systems_show_no_image(runs: tuple[str, str], capsys) -> None:
    found = compared(runs[1], runs[1])
    assert found["images"] == [] and all(one["p_value"] == 1 for one in found["metrics"].values())
    assert "differ most" not in capsys.readouterr().out
    main([*runs, "--top", "0"])
    assert "differ most" not in capsys.readouterr().out


def test_different_signatures_are_marked(runs: tuple[str, str], tmp_path: Path, capsys) -> None:
    other = make_run(tmp_path / "c", POOR, version=2)
    assert not compared(runs[0], other)["metrics"]["truth"]["comparable"]
    out = capsys.readouterr().out
    assert "truth ≠" in out and "≠ truth was measured in two ways (scenes: v1 / v2)" in out
    assert "CIDEr-D ≠" not in out


def test_what_one_side_alone_has_is_named(runs: tuple[str, str], tmp_path: Path, capsys) -> None:
    file = write(tmp_path / "peer.json", POOR)
    assert set(compared(runs[0], file)["metrics"]) == {
        "CIDEr-D",
        "ROUGE-L",
        *(f"BLEU-{n}" for n in range(1, 5)),
    }
    assert "measured on one side only, so not compared: truth" in capsys.readouterr().out


def test_values_that_do_not_make_the_score_are_not_paired(runs: tuple[str, str]) -> None:
    RunFolder(Path(runs[1]), command="").update_result(
        {"scores": {"test": {"truth": {"value": 0.123, "signature": "truth|scenes:v1|images:60"}}}}
    )
    assert "truth" not in compared(*runs)["metrics"]


def test_results_files_of_any_systems(tmp_path: Path) -> None:
    rows = [{"image_id": image, "caption": text} for image, text in GOOD.items()]
    coco = {"annotations": [{"image_id": i, "caption": t} for i, ts in REFERENCES.items() for t in ts]}
    a, b = write(tmp_path / "a.json", rows), write(tmp_path / "b.json", POOR)
    found = compared(a, b, "--references", write(tmp_path / "refs.json", coco))
    assert found["metrics"]["CIDEr-D"]["a"] == score(GOOD, REFERENCES)["CIDEr-D"].value
    assert found["num_images"] == NUM_IMAGES and found["images"]
    with pytest.raises(ValueError, match="no references for .*a.json and .*b.json: give --references"):
        main([str(a), str(b)])


def test_given_references_are_used_for_both(runs: tuple[str, str], tmp_path: Path) -> None:
    other = {image: [texts[1]] for image, texts in REFERENCES.items()}
    found = compared(*runs, "--references", write(tmp_path / "refs.json", other))["metrics"]["BLEU-1"]
    assert found["a"] == score(GOOD, other)["BLEU-1"].value and "refs:1" in found["signatures"][1]


def test_images_without_a_caption(runs: tuple[str, str], tmp_path: Path) -> None:
    fewer = {image: text for image, text in GOOD.items() if image != "test-003"}
    file, same = write(tmp_path / "fewer.json", fewer), write(tmp_path / "same.json", fewer)
    with pytest.raises(ValueError, match=r"fewer.json: 1 image has no caption; .*--partial.*'test-003'"):
        main([runs[0], str(file)])
    with pytest.raises(ValueError, match="different images .*'test-003'"):
        main([runs[0], str(file), "--partial"])
    found = compared(file, same, "--references", Path(runs[0]) / "references.test.json", "--partial")
    assert "partial:59/60" in found["metrics"]["BLEU-1"]["signatures"][0]


@pytest.mark.parametrize("change", ["a reference", "an image"])
def test_runs_on_different_data_are_refused(runs: tuple[str, str], tmp_path: Path, change: str) -> None:
    captions, references = dict(POOR), dict(REFERENCES)
    if change == "a reference":
        references["test-004"] = ["another", references["test-004"][1]]
    else:
        del captions["test-004"], references["test-004"]
    other = make_run(tmp_path / "c", captions, references)
    with pytest.raises(ValueError, match=r"different images or references \(1 image.*'test-004'\)") as error:
        main([runs[0], str(other)])
    assert "\n" not in str(error.value)


def test_the_order_of_references_and_images_does_not_matter(runs: tuple[str, str], tmp_path: Path) -> None:
    turned = {image: REFERENCES[image][::-1] for image in reversed(IDS)}
    other = make_run(tmp_path / "c", dict(reversed(POOR.items())), turned)
    assert compared(runs[0], other)["metrics"] == compared(*runs)["metrics"]


def test_mistakes_are_one_sentence(runs: tuple[str, str], tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.json").write_text('{"a": ')
    new = make_run(tmp_path / "new", POOR)
    (new / "captions.test.json").unlink()
    (new / "config.yaml").write_text("seed: 1")
    (new / "status.json").write_text('{"status": "running"}')
    old = make_run(tmp_path / "old", POOR)
    (old / "references.test.json").unlink()
    for argv, words in (
        ([*runs, "--split", "val"], "no captions of split 'val'; it has test"),
        ([str(tmp_path / "empty"), runs[0]], "no run found in"),
        ([runs[0], str(new), "--top", "1"], "the run has not been scored yet"),
        ([str(tmp_path / "cut.json"), runs[0]], "not JSON, or cut off"),
        ([str(old), str(old)], "run `easycap evaluate RUN` again"),
        ([*runs, "--by", "CIDER"], "--by CIDER is not a metric of both; did you mean 'CIDEr-D'?"),
        ([*runs, "--top", "-1"], "--top -1 must be at least 0"),
        ([*runs, "--json", str(tmp_path / "no" / "x.json")], "cannot be written"),
    ):
        assert easycap(["compare", *argv]) == 1, argv
        sentences = [line for line in capsys.readouterr().err.splitlines() if line.startswith("easycap: ")]
        assert len(sentences) == 1 and words in sentences[0]


def test_a_wrong_metric_is_refused_before_anything_is_printed(
    runs: tuple[str, str], tmp_path: Path, capsys
) -> None:
    for run in runs:
        write(Path(run) / "config.yaml", {"seed": 1})
        write(Path(run) / "status.json", {"status": "completed"})
    page = str(tmp_path / "page.html")
    for more in ([], ["--latex", "-"]):
        with pytest.raises(ValueError, match="--by foo is not a metric of both"):
            main([*runs, "--html", page, "--by", "foo", *more])
        assert capsys.readouterr().out == "" and not Path(page).exists()
    out = tmp_path / "out.json"
    assert main([*runs, "--html", page, "--json", str(out), "--csv", "-"]) == 0
    assert capsys.readouterr().out.startswith("run,") and "CIDEr-D" in json.loads(out.read_text())["metrics"]


def test_it_starts_without_torch(runs: tuple[str, str]) -> None:
    code = (
        "import sys; from easycap.cli import main; done = main(['compare', *sys.argv[1:]]);"
        "assert not {'torch', 'transformers', 'pycocoevalcap'} & set(sys.modules); sys.exit(done)"
    )
    subprocess.run([sys.executable, "-c", code, *runs], check=True, capture_output=True)


def test_real_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """What training and evaluation write is what is compared; another way of decoding is another split."""
    assert easycap(["train", *TINY, "trainer.max_steps=2", "data.test_images=8"]) == 0
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    health = json.loads((run / "result.json").read_text())["diagnostics"]["test"]
    assert 0 <= health["novel_captions"] <= 1
    assert easycap(["evaluate", str(run), "--decoding", "beam,num_beams=2", "--device", "cpu"]) == 0
    assert {f.name for f in run.glob("*.test@beam,num_beams=2.json")} == {
        f"{kind}.test@beam,num_beams=2.json" for kind in ("captions", "references", "per_image")
    }
    twin = tmp_path / "twin"
    shutil.copytree(run, twin)
    capsys.readouterr()
    found = compared(run, twin, "--other-split", "test@beam,num_beams=2")["metrics"]
    scores = json.loads((run / "result.json").read_text())["scores"]
    for name in ("CIDEr-D", "BLEU-4", "truth", "claims", "recall", "claims_per_caption"):
        assert found[name]["a"] == pytest.approx(scores["test"][name]["value"], abs=1e-12)
        assert found[name]["b"] == pytest.approx(scores["test@beam,num_beams=2"][name]["value"], abs=1e-12)
        assert found[name]["comparable"]
    with pytest.raises(ValueError, match="different images or references"):
        main([str(run), str(twin), "--other-split", "test_novel"])

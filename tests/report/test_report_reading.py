from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.fabricated_run import status, write

from easycap.runs.reading import find_runs, last_step, read_run, read_status, series


def test_everything_in_a_runs_folder_is_read(run: Path) -> None:
    files = read_run(run)
    assert files.config["image_tokens"]["count"] == 10
    assert files.status.state == "completed"
    assert len(files.metrics) == 168
    assert list(files.epochs) == list(range(1, 9))
    assert {split: list(kinds) for split, kinds in files.galleries.items()} == {
        split: ["random", "best", "worst"] for split in ("test", "test_novel")
    }
    assert len(files.captions["test"]) == 1000
    assert files.result["scores"]["test"]["truth"]["value"] == 0.823
    assert files.notes == ()


def test_a_line_cut_off_by_a_kill_is_left_out_and_reported(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1700, "train/lo')
    files = read_run(run)
    assert len(files.metrics) == 168
    assert files.notes == ("metrics.jsonl: left out 1 of 169 lines that could not be read.",)
    assert last_step(run) == 1600


@pytest.mark.parametrize(
    ("present", "missing"),
    [(None, "not a folder"), ([], "config.yaml and status.json"), (["config.yaml"], "no status.json")],
)
def test_a_folder_that_is_no_run_is_refused_in_one_sentence(
    tmp_path: Path, present: list[str] | None, missing: str
) -> None:
    folder = tmp_path / "somewhere"
    for name in present or []:
        write(folder / name, "seed: 1")
    if present == []:
        folder.mkdir()
    with pytest.raises(ValueError, match=missing) as caught:
        read_run(folder)
    assert "easycap runs" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [1", "just words", ""])
def test_a_config_that_cannot_be_read_is_named(run: Path, text: str) -> None:
    write(run / "config.yaml", text)
    with pytest.raises(ValueError, match="config.yaml"):
        read_run(run)


def test_running_with_a_dead_process_is_killed(run: Path) -> None:
    write(run / "status.json", status("running"))
    assert read_status(run).state == "running"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write(run / "status.json", status("running", pid=ended.pid))
    assert read_status(run).state == "killed"


def test_a_process_on_another_host_is_believed_while_it_writes(run: Path) -> None:
    write(run / "status.json", status("running", pid=2**22 + 1, host="elsewhere"))
    assert read_status(run).state == "running"
    for name in ("status.json", ".seconds"):  # it has not written for an hour
        (run / name).touch()
        os.utime(run / name, (time.time() - 3600,) * 2)
    assert read_status(run).state == "killed"
    write(run / "status.json", status("running", pid=2**22 + 1))
    assert read_status(run).state == "killed"


def test_captions_of_a_label_with_dots_are_read(run: Path) -> None:
    write(run / "captions.test@beam,length_penalty=0.9.json", [{"image_id": 1, "caption": "a dog"}])
    assert read_run(run).captions["test@beam,length_penalty=0.9"] == ("a dog",)


def test_a_process_id_given_to_another_program_is_not_the_run(run: Path) -> None:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("needs /proc")
    other = subprocess.Popen(["sleep", "30"])
    try:
        write(run / "status.json", status("running", pid=other.pid))
        assert read_status(run).state == "killed"
    finally:
        other.kill()
        other.wait()


def test_what_a_resumed_run_repeats_replaces_what_it_had_logged() -> None:
    lines = [{"step": step, "train/loss": 1.0} for step in (10, 20, 30, 40)]
    lines += [{"step": 25, "val/loss": 5.0}]
    lines += [{"step": step, "train/loss": 2.0} for step in (30, 40, 50)]
    assert series(lines, "train/loss") == ([10, 20, 30, 40, 50], [1.0, 1.0, 2.0, 2.0, 2.0])
    assert series(lines, "val/loss") == ([25], [5.0])


def test_images_outside_the_runs_folder_are_not_taken(run: Path) -> None:
    (run.parent / "private.png").write_bytes((run / "samples/images/0001.png").read_bytes())
    rows = json.loads((run / "samples/epoch-008.json").read_text())
    rows[0]["image"] = "../private.png"
    write(run / "samples/epoch-008.json", rows)
    images = [sample.image for sample in read_run(run).epochs[8]]
    assert images[0] is None
    assert all(images[1:])


@pytest.mark.parametrize("key", ["conditioning", "beside"])
def test_conditioning_text_of_this_and_earlier_versions_is_read(run: Path, key: str) -> None:
    rows = [{"id": "1", "caption": "a dog", key: {"tags": "dog grass"}}]
    (run / "samples" / "test.json").write_text(json.dumps({"random": rows}))
    (sample,) = read_run(run).galleries["test"]["random"]
    assert sample.conditioning == {"tags": "dog grass"}


def test_unreadable_samples_cost_nothing_but_themselves(run: Path) -> None:
    write(run / "samples/epoch-003.json", "[{")
    write(run / "samples/test.json", {"best": None, "random": [{"id": 1}, 3]})
    files = read_run(run)
    assert files.epochs[3] == () and len(files.epochs[4]) == 6
    assert list(files.galleries) == ["test_novel"]
    assert any("epoch-003.json" in note for note in files.notes)


def test_runs_are_found_also_broken_ones_and_hydras_folder_is_none(run: Path) -> None:
    root = run.parent
    write(run / ".hydra/config.yaml", "seed: 1")
    write(root / "sweeps/tokens/cell-1/config.yaml", "seed: 1")
    write(root / "sweeps/tokens/.hydra/config.yaml", "seed: 1")
    assert list(find_runs(root)) == [run, root / "sweeps/tokens/cell-1"]
    assert list(find_runs(run)) == [run]
    assert list(find_runs(root / "nowhere")) == []

"""Trackers besides W&B: TensorBoard, MLflow and CSV, alone and several at once."""

from __future__ import annotations

import csv
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_config import TINY
from PIL import Image

from easycap.config.compose import compose
from easycap.config.instantiate import build, trackers_of
from easycap.config.schema import check, option_from_text
from easycap.errors import UserError
from easycap.runs.run_folder import RunFolder
from easycap.runs.trackers import FileTracker, Trackers, flat_settings
from easycap.train import train
from easycap.types import Tracker

CONFIG: dict[str, Any] = {"seed": 3, "decoder": {"name": "lstm", "width": 8}, "optim": {"betas": [0.9, 0.99]}}
RESULT = {"scores": {"test": {"CIDEr-D": {"value": 0.5}}, "test@beam": {"BLEU-4": {"value": 0.25}}}}


@pytest.fixture(autouse=True)
def _outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYCAP_OUTPUTS", str(tmp_path / "outputs"))


def tracker(text: str, path: Path) -> Tracker:
    """A run's own files and the tracker "name,setting=value"."""
    folder = RunFolder(path, command="")
    mirror = build("tracking", option_from_text("tracking", text), folder=folder, config=CONFIG)
    return Trackers([FileTracker(folder), mirror])


class Grey:
    """A grey image."""

    def load(self) -> Image.Image:
        return Image.new("RGB", (4, 4), (200, 200, 200))


def sample() -> dict[str, Any]:
    return {"id": "7", "image": Grey(), "caption": "a dog", "references": ["a cat", "two cats"]}


def test_metrics_become_a_table(tmp_path: Path) -> None:
    made = tracker("csv", tmp_path / "run")
    made.log({"train/loss": 2.5}, step=1)
    made.log({"val/loss": math.inf, "val/CIDEr-D": 0.25}, step=1)
    made.samples([sample()], step=1, epoch=1)
    with (tmp_path / "run" / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["train/loss"], row["val/loss"], row["val/CIDEr-D"]) for row in rows] == [
        ("1", "2.5", "", ""),
        ("1", "", "", "0.25"),
    ]


def events(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "tensors": 0})
    found.Reload()
    return found


def test_a_resumed_run_has_one_curve_in_tensorboard(tmp_path: Path) -> None:
    first = tracker("tensorboard", tmp_path / "run")
    for step in (1, 2, 3):
        first.log({"train/loss": 5.0 - step}, step=step)
    first.samples([sample()], step=3, epoch=1)
    first.finish(None, status="interrupted")
    second = tracker("tensorboard", tmp_path / "run")
    for step in (2, 3, 4):
        second.log({"train/loss": 1.0 / step}, step=step)
    second.finish(RESULT, status="completed")
    found = events(tmp_path / "run")
    curve = [(event.step, round(event.value, 3)) for event in found.Scalars("train/loss")]
    assert curve == [(1, 4.0), (2, 0.5), (3, 0.333), (4, 0.25)]
    assert found.Scalars("test/CIDEr-D")[0].value == 0.5
    assert "samples/7" in found.Tags()["images"] or "samples/7/text_summary" in found.Tags()["tensors"]


def test_sample_images_and_captions_are_in_tensorboard(tmp_path: Path) -> None:
    made = tracker("tensorboard", tmp_path / "run")
    made.samples([sample()], step=3, epoch=1)
    made.samples([sample()], step=6, epoch=2)
    made.finish(None, status="completed")
    found = events(tmp_path / "run")
    assert [event.step for event in found.Images("samples/7")] == [3]
    texts = [event.tensor_proto.string_val[0].decode() for event in found.Tensors("samples/7/text_summary")]
    assert texts == ["**a dog**\n\n- a cat\n- two cats"] * 2


def test_a_run_in_mlflow_goes_on_under_its_id(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    first = tracker("mlflow,group=sweep", tmp_path / "run")
    first.log({"train/loss": 2.0}, step=1)
    first.samples([sample()], step=1, epoch=1)
    first.finish(None, status="interrupted")
    second = tracker("mlflow,group=sweep", tmp_path / "run")
    second.log({"train/loss": 1.0}, step=2)
    second.finish(RESULT, status="completed")

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/outputs/mlflow.db")
    experiment = client.get_experiment_by_name("easycap")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params == {
        "seed": "3",
        "decoder.name": "lstm",
        "decoder.width": "8",
        "optim.betas": "[0.9, 0.99]",
    }
    assert run.data.tags["decoder"] == "lstm" and run.data.tags["group"] == "sweep"
    assert run.data.metrics["test/CIDEr-D"] == 0.5 and run.data.metrics["test at beam/BLEU-4"] == 0.25
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(value.step, value.value) for value in history] == [(1, 2.0), (2, 1.0)]
    table = client.download_artifacts(run.info.run_id, "samples/epoch-001.json")
    assert '"a dog"' in Path(table).read_text(encoding="utf-8")
    assert not (Path.cwd() / "mlruns").exists()


def test_a_run_survives_an_mlflow_that_fails_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = tracker("mlflow", tmp_path / "run")
    made.log({"train/loss": 2.0}, step=1)
    (tmp_path / "outputs" / "mlflow.db").write_bytes(b"no database")
    with caplog.at_level(logging.WARNING):
        made.log({"train/loss": 1.0}, step=2)
        made.log({"train/loss": 0.5}, step=3)
        made.finish(RESULT, status="completed")
    assert sum("is logged to its own folder only" in record.message for record in caplog.records) == 1
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


def test_an_mlflow_out_of_reach_is_an_error_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1:9 cannot be used"):
        tracker("mlflow,uri='http://127.0.0.1:9'", tmp_path / "run")


def config(*overrides: str) -> dict[str, Any]:
    tiny = [word for word in TINY if not word.startswith("tracking")]
    return check(compose([*tiny, *overrides])[0])


def test_several_trackers_see_one_run(tmp_path: Path) -> None:
    train(config("tracking=csv", "tracking.also=[tensorboard]"), tmp_path / "run", command="")
    assert (tmp_path / "run" / "metrics.csv").is_file() and (tmp_path / "run" / "metrics.jsonl").is_file()
    assert {"train/loss", "val/CIDEr-D", "test/CIDEr-D"} <= set(events(tmp_path / "run").Tags()["scalars"])


@pytest.mark.parametrize(
    ("also", "message"),
    [
        ("[tensorbord]", "did you mean 'tensorboard'"),
        ("[csv]", "names csv twice"),
        ("['mlflow,experimet=x']", "did you mean 'experiment'"),
    ],
)
def test_what_is_wrong_with_further_trackers_is_named(also: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        trackers_of(config("tracking=csv", f"tracking.also={also}"))


def test_settings_of_further_trackers_are_read() -> None:
    found = trackers_of(config("tracking=csv", "tracking.also=['mlflow,experiment=captions']"))
    assert [one["name"] for one in found] == ["csv", "mlflow"] and found[1]["experiment"] == "captions"


def test_settings_have_their_names_on_the_command_line() -> None:
    assert flat_settings({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}

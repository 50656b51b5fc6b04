"""Ensembles of whole runs, and runs of averaged weights, as users meet them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers import whole_runs
from helpers.tiny_config import TINY
from safetensors.torch import load_file

import easycap
from easycap.cli import main
from easycap.data.image_inputs import as_examples
from easycap.errors import UserError
from easycap.runs.find import checkpoint_of
from easycap.tasks.create import load_task
from easycap.tasks.nearest_captions import NearestCaptions, _Index
from easycap.types import Features
from easycap.utils import cpu_threads

RECURRENT = [
    *(word for word in TINY if not word.startswith(("image_tokens.", "decoder.", "encoder.image_size"))),
    *("encoder.image_size=48", "image_tokens=grid", "decoder=updown", "decoder.embed_dim=16"),
    *("decoder.hidden_dim=16", "decoder.max_length=8", "trainer.max_steps=2"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> Path:
    """A folder with two seeds, `one` of which kept its epochs, another `decoder`, and other `words`."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EASYCAP_CACHE", str(scenes_cache))
        whole_runs.run(folder / "one", "trainer.epochs=4", "trainer.keep_checkpoints=3")
        whole_runs.run(folder / "two", "seed=2", "trainer.max_steps=3")
        whole_runs.run(folder / "words", "vocab.min_count=3", "trainer.max_steps=1")
        assert main(["train", *RECURRENT, f"hydra.run.dir={folder / 'decoder'}"]) == 0
    return folder


@pytest.fixture
def photo(runs: Path) -> str:
    return str(sorted((runs / "one" / "samples" / "images").glob("*.png"))[0])


def weights(run: Path, name: str = "best") -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / name / "model.safetensors")


def test_an_ensemble_is_a_run_that_can_be_compared_and_used_again(
    runs: Path, photo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = str(runs / "one"), str(runs / "decoder")
    assert main(["evaluate", one, "--ensemble", other, "--split", "val"]) == 0
    (ensemble,) = (tmp_path / "outputs" / "runs").iterdir()
    assert main(["evaluate", one, other, "--ensemble", "--decoding", "diverse_beam", "--samples", "2"]) == 0
    assert [ensemble] == list((tmp_path / "outputs" / "runs").iterdir()), "the same runs are one ensemble"
    result = json.loads((ensemble / "result.json").read_text())
    assert set(result["scores"]) == {"val", "test@diverse_beam,num_samples=2"}
    sizes = [
        whole_runs.read(run, "result.json")["cost"]["total_parameters"] for run in map(Path, (one, other))
    ]
    assert result["cost"]["total_parameters"] == sum(sizes)
    assert whole_runs.read(ensemble, "status.json")["status"] == "completed"
    assert main(["train", f"resume={ensemble}"]) == 1
    assert "has no training to resume: resume one of its runs" in capsys.readouterr().err
    # its folder is as good as its members' names
    assert main(["evaluate", ensemble.name]) == 0
    capsys.readouterr()
    assert main(["compare", one, other, str(ensemble)]) == 0
    shown = capsys.readouterr().out
    assert "size" in shown
    rows = {row["run"]: row for row in easycap.compare([one, other, ensemble])}
    assert rows[ensemble.name]["decoder"] == "causal_lm + updown"
    assert [rows[name]["ensemble.size"] for name in ("one", ensemble.name)] == ["–", "2"]
    assert main(["caption", one, other, "--ensemble", photo]) == 0
    by_names = capsys.readouterr().out
    assert main(["caption", str(ensemble), photo]) == 0
    assert capsys.readouterr().out == by_names and by_names.startswith(photo)


def test_the_scores_of_a_run_with_itself_are_its_own(runs: Path, tmp_path: Path) -> None:
    one = runs / "one"
    scores = easycap.evaluate([one, one], ensemble=True, folder=tmp_path / "twice", device="cpu")
    own = whole_runs.read(one, "result.json")["scores"]["test"]
    assert {name: of["value"] for name, of in scores["test"].items()} == {
        name: of["value"] for name, of in own.items()
    }
    captions = [whole_runs.read(run, "captions.test.json") for run in (one, tmp_path / "twice")]
    assert captions[0] == captions[1]


def test_each_member_reads_what_it_was_trained_to_read(
    runs: Path, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    drafted = whole_runs.run(tmp_path / "drafted", "draft=noise", "refine.rounds=1", "trainer.max_steps=1")
    captioner = easycap.load([runs / "one", drafted], ensemble=True, device="cpu")
    pipeline = captioner.task.pipeline
    assert list(pipeline.conditions) == ["draft"]
    (example,) = as_examples(photo)
    pixels = pipeline.transform(example.image)
    inputs = pipeline.inputs([example], [pixels], {"draft": ["a dog"]})
    ids = pipeline.vocabulary.encode("a dog")
    assert [list(of.context) for of in inputs.members] == [[], ["draft"]]
    assert inputs.members[1].context["draft"].tolist() == [ids]
    inputs = pipeline.with_draft(inputs, ["a red boat"])
    assert inputs.members[0].context == {}
    assert inputs.members[1].context["draft"].tolist() == [pipeline.vocabulary.encode("a red boat")]
    assert captioner.caption(photo, draft="a dog", rounds=2)
    scores = easycap.evaluate([drafted, runs / "one"], ensemble=True, folder=tmp_path / "both", device="cpu")
    assert set(scores) == {"test", "test@round0"}, "the first run's rounds"
    with pytest.raises(UserError, match="takes no draft"):
        easycap.load([runs / "one", runs / "two"], ensemble=True, device="cpu").caption(photo, draft="a dog")


def test_a_sweep_stands_for_its_runs(runs: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "seeds"
    sweep.mkdir()
    for name in ("one", "two"):
        (sweep / name).symlink_to(runs / name)
    whole = easycap.load(sweep, ensemble=True, device="cpu")
    by_names = easycap.load([runs / "one", runs / "two"], ensemble=True, device="cpu")
    assert [len(one.task.model.members) for one in (whole, by_names)] == [2, 2]
    weights = [[p.sum() for p in one.task.model.parameters()] for one in (whole, by_names)]
    assert torch.equal(torch.stack(weights[0]), torch.stack(weights[1]))


def test_an_ensemble_from_python(runs: Path, photo: str) -> None:
    members = [runs / "one", runs / "two"]
    captioner = easycap.load(members, ensemble=True, device="cpu")
    caption = captioner.caption(photo, details=True, decoding="beam", num_beams=2)
    assert caption.text == captioner.caption(photo, decoding="beam", num_beams=2)
    assert caption.attention is None
    assert caption.log_probability == pytest.approx(float(caption.log_probabilities.sum()))
    with pytest.raises(UserError, match="cannot be saved as one model"):
        captioner.save_pretrained(runs / "saved")
    with pytest.raises(UserError, match="draw those of one of its runs"):
        captioner.predictor().check_attention()


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["evaluate", "one", "two"], "2 runs given where one is expected"),
        (["evaluate", "one", "encoder.squash=true"], "evaluated with the settings it was trained with"),
        (
            ["evaluate", "one", "+objective.rewards.BLEU-4=1"],
            "evaluated with the settings it was trained with",
        ),
        (["evaluate", "one", "--ensemble"], "needs at least two runs"),
        (["evaluate", "one", "words", "--ensemble"], "has a different vocabulary from"),
        (["evaluate", "one", "nothing", "--ensemble"], "is not a folder"),
        (["evaluate", "one", "--folder", "new"], "only the scores of an ensemble"),
        (["evaluate", "one", "two", "--ensemble", "--folder", "one"], "not an ensemble of these runs"),
        (["evaluate", "one", "two", "--ensemble", "--split", "nowhere"], "split 'nowhere' does not exist"),
        (["evaluate", "one", "two", "--ensemble", "--decoding", "beem"], "did you mean"),
        (["caption", "one", "two", "--ensemble"], "no images"),
        (["train", "trainer.keep_checkpoints=-1"], "must be at least 0"),
        (["average", "two"], "kept 0 epochs, but 2 are needed"),
        (["average", "one", "--last", "4"], "kept 3 epochs, but 4 are needed"),
        (["average", "one", "--last", "1"], "must be at least 2"),
        (["average", "one", "two", "--last", "2"], "--last applies to the epochs of one run"),
        (["average", "one", "decoder"], "are different models"),
        (["average", "one", "words"], "have different vocabularies"),
        (["average", "one", "--folder", "two"], "already exists"),
    ],
)
def test_what_does_not_go_together_is_refused_and_leaves_nothing(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    argv: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(runs)
    before = sorted(path.name for path in runs.iterdir())
    assert main(argv) in (1, 2)
    error = capsys.readouterr().err
    assert sentence in error and len(error.strip().splitlines()) == 1
    assert sorted(path.name for path in runs.iterdir()) == before
    assert not list((tmp_path / "outputs").glob("runs/*"))


def test_the_last_epochs_are_kept_and_averaged(
    runs: Path, photo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(runs)
    kept = sorted(path.name for path in (runs / "one" / "checkpoints").glob("epoch-*"))
    assert kept == ["epoch-2", "epoch-3", "epoch-4"]
    assert main(["average", "one", "--last", "2", "--folder", str(tmp_path / "mean")]) == 0
    third, fourth = (weights(runs / "one", f"epoch-{number}") for number in (3, 4))
    mean = weights(tmp_path / "mean")
    assert any(not torch.equal(third[name], fourth[name]) for name in mean)
    for name, tensor in mean.items():
        wanted = fourth[name]
        if tensor.is_floating_point():
            wanted = ((third[name].double() + fourth[name].double()) / 2).to(tensor.dtype)
        assert torch.equal(tensor, wanted), name
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "mean"), "--split", "val"]) == 0
    assert main(["caption", str(tmp_path / "mean"), photo]) == 0
    capsys.readouterr()
    assert main(["train", f"resume={tmp_path / 'mean'}"]) == 1
    assert "train on with init_from=RUN" in capsys.readouterr().err
    assert main(["train", f"init_from={tmp_path / 'mean'}", *TINY, "trainer.max_steps=1"]) == 0
    rows = easycap.compare([runs / "one", tmp_path / "mean"], split="val")
    assert {row["run"]: row["average.size"] for row in rows} == {"one": "–", "mean": "2"}


def test_the_average_of_a_run_with_itself_is_that_run(runs: Path, tmp_path: Path, caplog) -> None:
    best = runs / "two" / "checkpoints" / "best"
    mean = easycap.average([best, best, best], folder=tmp_path / "same").folder
    assert all(torch.equal(tensor, weights(runs / "two")[name]) for name, tensor in weights(mean).items())
    assert "did not start from the same weights" not in caplog.text
    easycap.average([runs / "one", runs / "two"], folder=tmp_path / "seeds")
    assert "did not start from the same weights" in caplog.text


def test_a_consensus_is_found_in_evaluation_and_for_photos(
    runs: Path, photo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    one, decoding = str(runs / "two"), "consensus,num_draws=4,num_beams=2"
    assert main(["evaluate", one, "--decoding", decoding]) == 0
    assert f"test@{decoding}" in whole_runs.read(runs / "two", "result.json")["scores"]
    capsys.readouterr()
    assert main(["caption", one, photo, "--decoding", decoding]) == 0  # reads the training captions now
    assert Path(photo).name in capsys.readouterr().out
    assert main(["evaluate", one, "--decoding", "consensus", "--samples", "3"]) == 1
    assert "num_samples does not exist for decoding 'consensus'" in capsys.readouterr().err


def test_the_nearest_captions_are_those_of_the_most_similar_other_training_images(runs: Path) -> None:
    task = load_task(checkpoint_of(runs / "two"), device="cpu", with_data=True)
    train, count = task.examples("train"), 2
    with torch.inference_mode():
        task.model.eval()
        features = task.model.features_of(task.pipeline.inputs(train))
        means = features.patches.mean(1)
        found = NearestCaptions(task.config, task.data, task.pipeline)(features, count)
    centered = torch.nn.functional.normalize(means - means.mean(0), dim=1)
    for row, texts in enumerate(found):
        similar = centered @ centered[row]
        similar[similar > 0.9999] = -1  # itself, and images that look the same
        rows = similar.topk(count).indices.tolist()
        expected = [
            (text, pytest.approx(float(similar[other]), abs=1e-5))
            for other in rows
            for text in train[other].references
        ]
        assert texts == expected


def test_numbers_of_threads_are_tried_before_training_images_are_encoded(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path))
    tried = []
    monkeypatch.setattr(cpu_threads, "choose_threads", lambda work, **settings: tried.append(settings))
    task = load_task(checkpoint_of(runs / "two"), device="cpu", with_data=True)
    with torch.inference_mode():
        features = task.model.eval().features_of(task.pipeline.inputs(task.examples("val")))
    NearestCaptions(task.config, task.data, task.pipeline)(features, 2)
    assert [settings["ahead"] for settings in tried] == [len(task.examples("train"))]


def test_whitening_makes_principal_components_equally_important(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load_task(checkpoint_of(runs / "two"), device="cpu", with_data=True)
    train = task.examples("train")
    # One component varies a hundred times as much as the other, which alone says what looks alike.
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(len(train), 2, generator=generator) * torch.tensor([100.0, 1.0]) + 7
    nearest = NearestCaptions(task.config, task.data, task.pipeline)
    monkeypatch.setattr(nearest, "_index", _Index(means))

    def features(row: torch.Tensor) -> Features:
        return Features(row.view(1, 1, 2), torch.ones(1, 1, dtype=torch.bool), None)

    expected = torch.nn.functional.normalize((means - means.mean(0)) / means.std(0), dim=1)
    asked = torch.tensor([9.0, 8.5])  # 0.02 and 1.5 standard deviations from the mean, or nearly so
    ask = torch.nn.functional.normalize((asked - means.mean(0)) / means.std(0), dim=0)
    best = int((expected @ ask).argmax())
    assert [text for text, _ in nearest(features(asked), 1, 2)[0]] == list(train[best].references)
    assert nearest(features(asked), 1, None) != nearest(features(asked), 1, 2)

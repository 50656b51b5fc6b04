"""Captioners conditioned on tags: with every decoder, vocabulary and objective; whole runs; tags by hand."""

from __future__ import annotations

import json
import re
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
from helpers.damage import edit
from helpers.tiny_config import TINY, try_out
from helpers.tiny_tokenizers import tiny_bert, tiny_gpt2
from helpers.whole_runs import OVERLAYS, RECURRENT, metrics, read, run, settings
from safetensors.torch import load_file

import easycap.tasks.datasets
from easycap.commands.caption import main as caption
from easycap.commands.evaluate import main as evaluate
from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.evaluation.pipeline import Pipeline
from easycap.registry import names
from easycap.report import write_report
from easycap.sweeps.planned_run import Outcome, PlannedRun
from easycap.sweeps.run import _line
from easycap.tasks.captioning import CaptioningTask
from easycap.tasks.training import training_loader
from easycap.train import create_task
from easycap.utils.checksums import write_checksums

TAGGER = ["task=tags", "tagger=cnn", "tag_vocab.min_count=2"]


@pytest.fixture(scope="module")
def tag_run(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setenv("EASYCAP_CACHE", str(scenes_cache))
    path = run(tmp_path_factory.mktemp("run") / "tagger", *TAGGER)
    patch.undo()
    return path


def of_kind(kind: str, tag_run: Path) -> list[str]:
    if kind == "oracle":
        return ["tags=oracle", "tag_vocab.min_count=2"]
    return [f"tags={kind}", f"tags.run={tag_run}", "tags.threshold=0.02"]


# ------------------------------------------------------------------------------------------ with every part

VOCABS = {
    "word": [],
    "gpt2": ["vocab=gpt2", f"vocab.path={tiny_gpt2()}"],
    "bert": ["vocab=bert", f"vocab.path={tiny_bert()}"],
}
OBJECTIVES = {"xe": [], "scheduled_sampling": [], "scst": ["objective.num_samples=20"]}
DECODERS = names("decoder")
KINDS = ["oracle", "predicted", "mixed"]


def _rows() -> list[tuple[str, str, str, str]]:
    """Every pair of a decoder, a kind of tags, an objective and a vocabulary is in one of these."""
    objectives, vocabs = list(OBJECTIVES), list(VOCABS)
    return [
        (decoder, kind, objectives[(d + k) % 3], vocabs[(d + 2 * k + d // 3) % 3])
        for (d, decoder), (k, kind) in product(enumerate(DECODERS), enumerate(KINDS))
    ]


def test_the_rows_have_every_pair() -> None:
    wanted = [DECODERS, KINDS, list(OBJECTIVES), list(VOCABS)]
    for first in range(4):
        for second in range(first):
            found = {(row[first], row[second]) for row in _rows()}
            assert found == set(product(wanted[first], wanted[second])), (first, second)


def _sizes(decoder: str) -> list[str]:
    if decoder in RECURRENT:
        return [o for o in TINY if not o.startswith("decoder.")] + RECURRENT[decoder]
    own = [*TINY, *OVERLAYS["decoder"].get(decoder, [])]
    return own


@pytest.mark.parametrize(("decoder", "kind", "objective", "vocab"), _rows())
def test_every_pair_learns_and_captions(
    decoder: str, kind: str, objective: str, vocab: str, tag_run: Path
) -> None:
    words = [f"decoder={decoder}", f"objective={objective}", *OBJECTIVES[objective], *VOCABS[vocab]]
    task = create_task(check(compose([*_sizes(decoder), *words, *of_kind(kind, tag_run)])[0]))
    batch = next(training_loader(task).epoch(0))
    assert (batch.inputs.context["tags"] != task.vocabulary.pad_id).any()
    torch.manual_seed(0)  # rewards that are all zero would give no gradient
    loss, _ = task.objective()(task.model, batch)
    loss.backward()
    table = task.model.decoder.token_embedding.weight
    assert torch.isfinite(loss) and table.grad is not None
    learned = list(task.model.context.parameters())
    assert bool(learned) != task.model.decoder.prefix
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learned)
    task.model.eval()
    inputs = task.pipeline.inputs(task.examples("test")[:2])
    with torch.no_grad():
        written = task.generator()(task.model.decoder, task.model.build_memory(inputs)).words
    assert len(written) == 2


def test_off_they_cost_nothing() -> None:
    """No parameter more, and the loss is that of a captioner without text conditions."""
    task = create_task(settings())
    batch = next(training_loader(task).epoch(0))
    captioner = task.model
    assert batch.inputs.context == {} and not list(captioner.context.parameters())
    loss, _ = task.objective()(captioner, batch)
    tokens, mask = captioner.image_tokens(captioner.encode(batch.inputs.images))
    memory = captioner.build_memory(batch.inputs)
    assert torch.equal(memory.tokens, tokens) and torch.equal(memory.mask, mask)
    logits = captioner.decoder(batch.input_ids, captioner.decoder.start(memory).select(batch.rows)).logits
    plain = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), batch.targets.flatten(), ignore_index=task.vocabulary.pad_id
    )
    torch.testing.assert_close(loss, plain)


# ---------------------------------------------------------------------------------------------- whole runs


@pytest.mark.parametrize("source", ["data", "captions"])
def test_mixed_reads_own_tags_of_the_data_if_its_tag_model_does(
    source: str, tag_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever tag_vocab the captioner's own config says."""
    copy, asked = shutil.copytree(tag_run, tmp_path / "tagger"), []
    stored = read(copy / "checkpoints/best", "tags.json") | {"source": source}
    edit(copy / "checkpoints/best/tags.json", json.dumps(stored))
    original = easycap.tasks.datasets.build_dataset
    monkeypatch.setattr(
        "easycap.tasks.datasets.build_dataset",
        lambda config, with_tags: asked.append(with_tags) or original(config, with_tags=with_tags),
    )
    for own in ("captions", "data"):
        CaptioningTask.read_data(settings(*of_kind("mixed", copy), f"tag_vocab={own}"))
    assert asked == [source == "data"] * 2


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path, tag_run: Path) -> Path:
    """A captioner on mixed tags whose tag model's run is gone."""
    patch = pytest.MonkeyPatch()
    patch.setenv("EASYCAP_CACHE", str(scenes_cache))
    folder = tmp_path_factory.mktemp("run")
    copy = shutil.copytree(tag_run, folder / "tagger")
    path = run(folder / "run", *of_kind("mixed", copy), "trainer.epochs=2")
    shutil.rmtree(copy)
    patch.undo()
    return path


@pytest.fixture(scope="module")
def photo(mixed: Path) -> Path:
    return mixed / read(mixed, "samples/test.json")["random"][0]["image"]


def test_a_run_is_whole_without_the_run_of_its_tag_model(
    mixed: Path, photo: Path, capsys: pytest.CaptureFixture
) -> None:
    before = read(mixed, "result.json")["scores"]
    assert "oracle" not in before["test"]["CIDEr-D"]["signature"]
    assert evaluate([str(mixed), "--device", "cpu"]) == 0
    assert read(mixed, "result.json")["scores"] == before
    capsys.readouterr()
    assert caption([str(mixed), str(photo), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith(f"{photo}: ")


def test_the_report_shows_the_tags(mixed: Path) -> None:
    sample = read(mixed, "samples/test.json")["random"][0]
    known = read(mixed, "tagger/tags.json")["forms"]
    assert sample["conditioning"]["tags"] and set(sample["conditioning"]["tags"].split()) <= set(known)
    assert sample["conditioning"]["tags"] in write_report(mixed).read_text(encoding="utf-8")


def test_an_unfinished_run_goes_on_to_the_same_weights(
    mixed: Path, tag_run: Path, tmp_path: Path, monkeypatch
) -> None:
    from easycap.train import train
    from easycap.training.trainer import Trainer

    original = Trainer.train_step

    def dies(self, batches):
        if self.state.step == 9:
            raise KeyboardInterrupt
        return original(self, batches)

    copy, path = shutil.copytree(tag_run, tmp_path / "tagger"), tmp_path / "run"
    config = settings(*of_kind("mixed", copy), "trainer.epochs=2", "trainer.checkpoint_every_steps=2")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "train_step", dies)
        train(config, path, command="")
    shutil.rmtree(copy)
    train(config | {"resume": str(path)}, path, command="")
    ours, theirs = (load_file(p / "checkpoints/last/model.safetensors") for p in (path, mixed))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_workers_change_nothing(mixed: Path, tag_run: Path, tmp_path: Path) -> None:
    other = run(tmp_path / "run", *of_kind("mixed", tag_run), "trainer.epochs=2", "trainer.workers=2")
    losses = [[line["train/loss"] for line in metrics(p) if "train/loss" in line] for p in (mixed, other)]
    assert losses[0] == losses[1]


def test_an_oracle_is_marked_and_keeps_its_vocabulary(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "easycap.training.progress")
    path = run(tmp_path / "run", *of_kind("oracle", tmp_path), "trainer.max_steps=2")
    assert re.search(r"epoch 1: training loss .* CIDEr-D [\d.]+ \(oracle\)", caplog.text)
    planned = PlannedRun(path, (), ())
    assert re.search(r"CIDEr-D [\d.]+ \(oracle\)  ", _line(planned, Outcome("trained", "completed")))
    result = read(path, "result.json")
    for split in ("test", "test_novel"):
        assert all("|tags:oracle" in score["signature"] for score in result["scores"][split].values())
        points = result["baselines"][split]
        assert "oracle" in points["model_same_references"]["CIDEr-D"]["signature"]
        assert "oracle" not in points["reference_caption"]["CIDEr-D"]["signature"]
    assert "(oracle)" in write_report(path).read_text(encoding="utf-8")
    before = result["scores"]["test"]
    (path / "tagger/tags.json").write_text(
        json.dumps({"source": "captions", "tags": ["dog"], "forms": ["dog"]})
    )
    write_checksums(path / "tagger")
    assert evaluate([str(path), "--device", "cpu"]) == 0
    shown = {row["conditioning"]["tags"] for row in read(path, "samples/test.json")["random"]}
    assert shown <= {"dog", ""} and before.keys() == read(path, "result.json")["scores"]["test"].keys()
    photo = path / read(path, "samples/test.json")["random"][0]["image"]
    with pytest.raises(ValueError, match="has no tags for a photo: give them, --tags"):
        caption([str(path), str(photo), "--device", "cpu"])
    assert caption([str(path), str(photo), "--tags", "dog", "--device", "cpu"]) == 0


# -------------------------------------------------------------------------------------------------- by hand


def test_tags_by_hand(mixed: Path, photo: Path, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    from easycap.generation import generate as captions

    seen = []
    original = captions.captions_of_batch
    monkeypatch.setattr(
        "easycap.evaluation.pipeline.Pipeline.context_ids",
        lambda self, name, texts, was=Pipeline.context_ids: (
            seen.append((name, *texts)) or was(self, name, texts)
        ),
    )
    assert original is captions.captions_of_batch
    assert caption([str(mixed), str(photo), "--tags", "dog, field", "--device", "cpu"]) == 0
    assert seen == [("tags", "dog field")]
    with pytest.raises(ValueError, match="tag 'zeppelin': not in this model's vocabulary"):
        caption([str(mixed), str(photo), "--tags", "dog,zeppelin", "--device", "cpu"])


def test_a_tag_model_says_tags_of_photos(
    tag_run: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert caption([str(tag_run), str(photo), "--json", "--device", "cpu"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    known = read(tag_run / "checkpoints/best", "tags.json")["tags"]
    assert list(row["tags"]) == known and all(0 <= p <= 1 for p in row["tags"].values())
    assert caption([str(tag_run), str(photo), "--device", "cpu"]) == 0
    best = max(row["tags"], key=row["tags"].get)
    assert capsys.readouterr().out.startswith(f"{photo}: {best} {row['tags'][best]:.2f}")
    with pytest.raises(ValueError, match="predicts tags, not captions: leave out draft"):
        caption([str(tag_run), str(photo), "--draft", "a dog"])
    (tmp_path / "no.jpg").write_text("no image")
    assert caption([str(tag_run), str(tmp_path / "no.jpg"), "--device", "cpu"]) == 1


def test_a_run_without_tags_says_so(tmp_path: Path, photo: Path) -> None:
    path = run(tmp_path / "run", "trainer.max_steps=1")
    with pytest.raises(ValueError, match="takes no tags"):
        caption([str(path), str(photo), "--tags", "dog", "--device", "cpu"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["tags=predicted", "tags.run=nowhere"], "tags.run=nowhere: nowhere is not a folder"),
        (["tags=oracle", "tags.placement=after_image", "decoder=transformer"], "leave tags.placement out"),
        (["tags=oracle", "tags.placement=beside"], "one of before_image, after_image"),
        (["tags=oracle", "tags.count=0"], "tags.count=0"),
        (["tags=oracle", "tag_vocab.min_count=0"], "tag_vocab.min_count=0"),
        (["task=tags", "tagger=cnn", "tags=oracle"], "tags=oracle is for captioners"),
    ],
)
def test_wrong_settings_end_before_any_work(overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        try_out(settings(*overrides))


def test_conditions_and_the_longest_caption_must_fit_the_decoder(tag_run: Path) -> None:
    """The quickstart's model has no room for tags and a draft of their usual lengths."""
    both = ["experiment=easycap/quickstart", *of_kind("predicted", tag_run), "draft=own", "device=cpu"]

    def check_at(*overrides: str) -> None:
        try_out(check(compose([*both, *overrides])[0]))

    with pytest.raises(
        ValueError, match=r"10 image tokens, tags.max_length=16 and draft.max_length=20 .*=66, or"
    ):
        check_at()
    with pytest.raises(ValueError, match="decoder.max_positions=66"):
        check_at("decoder.max_positions=65")
    check_at("decoder.max_positions=66")
    check_at("tags.max_length=14")
    check_at("decoder=transformer")  # looks at its memory, however long it is
    with pytest.raises(ValueError, match="16 image tokens, .*=72"):
        check_at("image_tokens=all")


def test_doubtful_tag_models_are_reported(
    tag_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    try_out(settings(*of_kind("predicted", tag_run)))
    assert caplog.text == ""
    try_out(settings(*of_kind("predicted", tag_run), "data.seed=5"))
    assert "trained on other data (data.seed=0, here 5): its training images may be" in caplog.text
    copy = shutil.copytree(tag_run, tmp_path / "tagger")
    (copy / "status.json").write_text(json.dumps({"status": "running"}))
    try_out(settings(*of_kind("predicted", copy)))
    assert f"tags.run={copy} is not finished (running)" in caplog.text


def test_a_tag_model_that_was_kept_before_any_checkpoint_gives_way(tag_run: Path, tmp_path: Path) -> None:
    (tmp_path / "tagger").mkdir()
    (tmp_path / "tagger/model.safetensors").write_bytes(b"of an earlier start")
    create_task(settings(*of_kind("predicted", tag_run))).conditions.save(tmp_path)
    kept, own = (
        folder / "model.safetensors" for folder in (tmp_path / "tagger", tag_run / "checkpoints/best")
    )
    assert kept.read_bytes() == own.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["tagger"]


def test_a_captioner_is_no_tag_model(mixed: Path) -> None:
    with pytest.raises(ValueError, match="is not a tag model; train one with task=tags"):
        try_out(settings("tags=predicted", f"tags.run={mixed}"))


def test_a_photo_has_the_probabilities_that_it_has_in_a_data_set(tag_run: Path, monkeypatch) -> None:
    task = create_task(settings(*of_kind("predicted", tag_run)))
    example, predictions = task.examples("test")[0], task.conditions["tags"].predictions
    alone = predictions.probabilities(example)
    predictions.prepare([example])
    assert len(predictions._caches) == 1 and (predictions.probabilities(example) == alone).all()


def test_predictions_belong_to_the_whole_preprocessing(tag_run: Path, tmp_path: Path) -> None:
    folders = []
    for mean in (0.1, 0.2):
        copy = shutil.copytree(tag_run, tmp_path / str(mean))
        seen = read(copy / "checkpoints/best", "preprocessing.json")
        edit(copy / "checkpoints/best/preprocessing.json", json.dumps(seen | {"mean": [mean] * 3}))
        task = create_task(settings(*of_kind("predicted", copy)))
        task.conditions["tags"].predictions.prepare(task.examples("val"))
        folders.append(task.conditions["tags"].predictions._caches[0].folder)
    assert folders[0] != folders[1]


def test_tags_after_the_image_are_another_prefix(tag_run: Path) -> None:
    for placement, order in (("before_image", ["tags", "image"]), ("after_image", ["image", "tags"])):
        task = create_task(settings(*of_kind("predicted", tag_run), f"tags.placement={placement}"))
        memory = task.model.build_memory(task.pipeline.inputs(task.examples("test")[:2]))
        assert sorted(memory.segments, key=lambda name: memory.segments[name].start) == order

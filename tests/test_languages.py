"""Models for Chinese and German learn scenes as the English one does: no stage assumes English."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from easycap.cli import main
from easycap.data.scenes.truth import ChineseTruthScorer, GermanTruthScorer
from easycap.runs.find import checkpoint_of
from easycap.tasks.create import load_task

LANGUAGES = {
    "zh": (["data.language=zh", "vocab.segmenter=characters", "decoder.max_length=32"], ChineseTruthScorer),
    "de": (["data.language=de"], GermanTruthScorer),
}
SMALL = [
    "data.train_images=8000",
    "data.val_images=100",
    "data.test_images=300",
    "tracking=none",
    "device=cpu",
]


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_captioner_learns_scenes_in_its_language(language: str, tmp_path: Path) -> None:
    overrides, scorer = LANGUAGES[language]
    folder = tmp_path / "run"
    recipe = ["experiment=easycap/quickstart", "trainer.max_steps=600"]
    assert main(["train", *recipe, *SMALL, *overrides, f"hydra.run.dir={folder}"]) == 0
    scores = json.loads((folder / "result.json").read_text(encoding="utf-8"))["scores"]["test"]
    captions = {
        row["image_id"]: row["caption"]
        for row in json.loads((folder / "captions.test.json").read_text(encoding="utf-8"))
    }
    examples = load_task(checkpoint_of(folder), device="cpu", with_data=True).examples("test")
    graphs = {example.id: example.annotations for example in examples}
    assert captions.keys() == graphs.keys()
    of_others = dict(
        zip(captions, [*list(captions.values())[1:], next(iter(captions.values()))], strict=True)
    )
    truth, chance = (scorer()(texts, {}, graphs)["truth"].value for texts in (captions, of_others))
    assert scores["truth"]["value"] == pytest.approx(truth)
    assert truth > max(0.05, 5 * chance), (truth, chance)
    # What the decoder wrote is grammatical: claims are read in most captions.
    assert scores["claims_per_caption"]["value"] > 2

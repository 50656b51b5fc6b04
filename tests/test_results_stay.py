"""Tiny runs give the numbers that were stored: a change of the code that is meant to change nothing changes none.

`python tests/test_results_stay.py` stores new numbers. Do so only for a change that is meant to change results, and
say why in its commit.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from unittest import mock

import pytest
from helpers.tiny_config import TINY

from easycap.cli import main

STORED = Path(__file__).parent / "stored" / "results.json"
SMALL = [
    "data.train_images=12",
    "data.val_images=3",
    "data.test_images=3",
    "validation.images=3",
    "trainer.threads=1",
    "trainer.workers=0",
    "trainer.max_steps=3",
    "schedule.warmup_steps=0",
    "decoder.max_length=8",
]
TAGS = ["tag_vocab=data", "tag_vocab.min_count=2"]
# A name stands for the folder of an earlier run.
RUNS = {
    "captioner": [],
    "lstm, draft": ["decoder=lstm", "decoder.embed_dim=16", "decoder.hidden_dim=16", "draft=noise"],
    "m2, tags": ["decoder=m2", "decoder.feed_forward_dim=32", "tags=oracle", *TAGS],
    "rewards": ["init_from=captioner", "objective=scst", "objective.num_samples=2"],
    "tagger": ["task=tags", "tagger=cnn", *TAGS],
}
# Kernels of other CPUs and versions of torch sum in another order; over three steps that changes less than this.
RELATIVE = 1e-3


def results(folder: Path) -> dict[str, dict[str, object]]:
    """Train all of `RUNS` in `folder`; return per run its losses, its captions and the scores of reference captions.

    Muon computes in fp32, also on machines where it would use bfloat16.
    """
    with mock.patch("easycap.training.muon.has_bf16", return_value=False):
        return {name: _result(folder, name) for name in RUNS}


def _result(folder: Path, name: str) -> dict[str, object]:
    own = [word.replace("init_from=captioner", f"init_from={folder / 'captioner'}") for word in RUNS[name]]
    run = folder / name.replace(", ", "_")
    of_lstm = [word for word in TINY if not word.startswith("decoder.")]  # its sizes have other names
    base = of_lstm if "lstm" in name else TINY
    assert main(["train", *base, *SMALL, *own, f"hydra.run.dir={run}"]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found: dict[str, object] = {
        key: [line[key] for line in lines if key in line]
        for key in ("train/loss", "train/grad_norm", "val/loss", "train/reward")
    }
    result = json.loads((run / "result.json").read_text())
    for kind, scores in result.get("baselines", {}).get("test", {}).items():
        if not kind.startswith("model"):
            found[kind] = {metric: score["value"] for metric, score in scores.items()}
    if name != "tagger":
        rows = json.loads((run / "captions.test.json").read_text())
        found["captions"] = {row["image_id"]: row["caption"] for row in rows}
    return found


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> dict[str, dict[str, object]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EASYCAP_CACHE", str(scenes_cache))
        return results(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_gives_the_stored_numbers(name: str, measured: dict[str, dict[str, object]]) -> None:
    stored = json.loads(STORED.read_text())[name]
    assert measured[name].keys() == stored.keys()
    for key, values in stored.items():
        wanted = values if key == "captions" else pytest.approx(values, rel=RELATIVE, abs=1e-4)
        assert measured[name][key] == wanted, key


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        os.environ.setdefault("EASYCAP_CACHE", f"{temporary}/cache")
        rows = [
            f"{json.dumps(name)}: {json.dumps(found)}"
            for name, found in results(Path(temporary).resolve()).items()
        ]
    STORED.write_text("{\n" + ",\n".join(rows) + "\n}\n")

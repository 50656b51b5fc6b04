"""Does a captioner copy its draft? `python experiments/drafts/copying.py OUT.csv RUNS...` scores the drafts of each run
on the test split as if they were captions, and then gives it, as the draft of every image, a caption of some other,
training, image.

copied: the share of the draft's pairs of neighbouring words that are in the caption, mean over images. For a run
without a draft it is what those wrong drafts have in common with any caption.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from easycap.conditioning.conditions import ConditionData
from easycap.config.instantiate import build
from easycap.config.schema import option_from_text
from easycap.evaluation.evaluate import caption_examples
from easycap.metrics import score
from easycap.metrics.corpus import captions_by_id
from easycap.metrics.scoring import DEFAULT_SCORERS
from easycap.metrics.tokenizer import tokenize
from easycap.runs.find import checkpoint_of
from easycap.tasks.captioning import CaptioningTask
from easycap.tasks.create import load_task
from easycap.training.distributed import SINGLE_PROCESS


def copied(drafts: Mapping[str, str], captions: Mapping[str, str]) -> float:
    """Return the mean share, in percent, of a draft's pairs of words that are in the caption."""
    shares = []
    for image_id, draft in drafts.items():
        pairs = set(pairwise(tokenize(draft)))
        shares.append(len(pairs & set(pairwise(tokenize(captions[image_id])))) / max(1, len(pairs)))
    return round(100 * sum(shares) / len(shares), 1)


def measure(run: Path) -> dict[str, object]:
    """Return what a run's drafts are worth, and what it makes of wrong ones."""
    task = load_task(checkpoint_of(run), device="cpu", with_data=True)
    examples = task.examples("test")
    row: dict[str, object] = {"run": run.name}
    data = ConditionData(
        lambda: task.data.splits,
        captions_per_image=3,
        seed=0,
        tag_vocab=task.config["tag_vocab"],
        workers=0,
        device=task.device,
    )
    wrong = build("draft", option_from_text("draft", "noise"), data=data)
    if "draft" in task.conditions:
        drafts = dict(zip((e.id for e in examples), task.conditions.texts("draft", examples), strict=True))
        generated = captions_by_id(json.loads((run / "captions.test.json").read_text(encoding="utf-8")))
        row |= {
            "draft alone, CIDEr-D": scored(task, drafts)["CIDEr-D"],
            "copied, %": copied(drafts, generated),
        }
        task.conditions.by_name["draft"] = wrong
    (captions,), _ = caption_examples(
        task.pipeline, examples, task.generator(), 100, task.refinement(0), SINGLE_PROCESS
    )
    first = {image_id: texts[0] for image_id, texts in captions.items()}
    drafts = {example.id: wrong.text(example, epoch=None, targets=()) for example in examples}
    return (
        row
        | {"wrong draft, copied, %": copied(drafts, first)}
        | {f"wrong draft, {name}": value for name, value in scored(task, first).items()}
    )


def scored(task: CaptioningTask, captions: Mapping[str, str]) -> dict[str, float]:
    """Return scores of captions of the test split, x 100."""
    examples = task.examples("test")
    scores = score(
        captions,
        {example.id: example.references for example in examples},
        annotations={example.id: example.annotations for example in examples},
        scorers=(*DEFAULT_SCORERS, *task.data.scorers),
        intervals=False,
    )
    return {name: round(100 * scores[name].value, 1) for name in ("CIDEr-D", "truth", "claims", "recall")}


if __name__ == "__main__":
    rows = [measure(Path(run)) for run in sys.argv[2:]]
    with open(sys.argv[1], "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)

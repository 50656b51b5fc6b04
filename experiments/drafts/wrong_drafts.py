"""Does a captioner copy its draft? `python experiments/drafts/wrong_drafts.py OUT.csv RUNS...` gives each run, as the
draft of every test image, a caption of some other, training, image, and says how much of it comes back.

copied: the share of the wrong draft's pairs of neighbouring words that are in the caption, mean over images. The same
for a run without a draft is what wrong drafts have in common with any caption.
"""

from __future__ import annotations

import csv
import sys
from itertools import pairwise
from pathlib import Path

from easycap.build import build
from easycap.config import option_from_text
from easycap.context.draft import DraftData
from easycap.evaluate import caption_examples
from easycap.experiment import TEXT_SCORERS, Experiment
from easycap.metrics import score
from easycap.metrics.tokenizer import tokenize
from easycap.runs import checkpoint_of


def copied(draft: str, caption: str) -> float:
    """Return the share of the draft's pairs of words that are in the caption."""
    pairs = set(pairwise(tokenize(draft)))
    return len(pairs & set(pairwise(tokenize(caption)))) / max(1, len(pairs))


def measure(run: Path) -> dict[str, object]:
    """Return the run's scores on test with wrong drafts, and how much of them its captions copy."""
    experiment = Experiment.from_checkpoint(checkpoint_of(run), device="cpu")
    examples = experiment.examples("test")
    data = DraftData(lambda: experiment.dataset.splits, captions_per_image=3, seed=0)
    wrong = build("draft", option_from_text("draft", "noise"), draft_data=data)
    if "draft" in experiment.segments:
        experiment.context["draft"] = wrong
    (captions,), _ = caption_examples(
        experiment, examples, experiment.generator(), 100, experiment.refinement(0)
    )
    first = {image_id: texts[0] for image_id, texts in captions.items()}
    scores = score(
        first,
        {example.id: example.references for example in examples},
        annotations={example.id: example.annotations for example in examples},
        scorers=(*TEXT_SCORERS, *experiment.dataset.scorers),
    )
    shares = [copied(wrong(example, epoch=None, said=()), first[example.id]) for example in examples]
    names = ("CIDEr-D", "truth", "claims", "recall")
    found = {name: round(100 * scores[name].value, 1) for name in names}
    return {"run": run.name, "copied, %": round(100 * sum(shares) / len(shares), 1), **found}


if __name__ == "__main__":
    rows = [measure(Path(run)) for run in sys.argv[2:]]
    with open(sys.argv[1], "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)

"""`easycap evaluate RUN`: captions of a split by a run's best weights, their scores, and what the scores mean."""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from easycap.build import TEXT_SCORERS, Experiment
from easycap.config import option_from_text
from easycap.generation.captions import caption_batch, caption_batches
from easycap.metrics import Scores, caption_health, most_frequent_caption, reference_points, score
from easycap.metrics.health import normalized
from easycap.runs import checkpoint_of, shown
from easycap.tracking.run_folder import RunFolder
from easycap.training.hardware import Precision, autocast
from easycap.types import Example, Generator

logger = logging.getLogger(__name__)

_SHOWN_PER_GROUP = 12
_RANK_BY = "CIDEr-D"


def evaluate_split(
    experiment: Experiment,
    folder: RunFolder,
    split: str,
    *,
    generator: Generator,
    batch_size: int,
    command: str,
    label: str | None = None,
) -> dict[str, Any]:
    """Caption and score `split`, write captions, references, scores per image and samples; return result.json.

    `label` names the scores; it is the split unless captions are generated in another way than the run's own.
    """
    label = label or split
    examples = experiment.examples(split)
    captions, seconds = _captions(experiment, examples, generator, batch_size)
    references = {example.id: example.references for example in examples}
    scores = score(
        captions,
        references,
        annotations={example.id: example.annotations for example in examples},
        scorers=(*TEXT_SCORERS, *experiment.dataset.scorers),
        split=split,
    )
    training_captions = [e.references for e in experiment.examples("train")]
    points = reference_points(
        captions,
        references,
        df=experiment.training_df,
        most_frequent=most_frequent_caption(training_captions),
        scorers=("cider_d",),
        split=split,
    )
    known = normalized(chain.from_iterable(training_captions))
    health = caption_health(list(captions.values()), unknown="<unk>", training=known)
    folder.write_captions(label, captions)
    folder.write_references(label, references)
    folder.write_per_image(label, {name: one.per_image for name, one in scores.items()})
    folder.write_samples(label, _samples(examples, captions, scores))
    return folder.update_result(
        {
            "scores": {label: scores.to_dict() | {n: {"absent": why} for n, why in scores.absent.items()}},
            "reference_points": {label: {name: point.to_dict() for name, point in points.items()}},
            "diagnostics": {label: health | scores.counts},
            "commands": {label: command},
            # The run's cost is that of its own way of decoding on the test split.
            "cost": _cost(experiment, examples, generator, seconds) if label == "test" else {},
        }
    )


def _cost(
    experiment: Experiment, examples: Sequence[Example], generator: Generator, seconds: float
) -> dict[str, float]:
    flops = flops_per_caption(experiment, examples, generator)
    return {"captions_per_second": len(examples) / seconds, "flops_per_caption": flops}


def _captions(
    experiment: Experiment, examples: Sequence[Example], generator: Generator, batch_size: int
) -> tuple[dict[str, str], float]:
    """Return {id: caption} and the seconds it took."""
    started = time.perf_counter()
    captions = caption_batches(
        experiment.captioner,
        experiment.batches(examples, batch_size),
        generator,
        experiment.vocabulary,
        device=experiment.device,
        autocast=_autocast(experiment),
    )
    return captions, time.perf_counter() - started


def flops_per_caption(experiment: Experiment, examples: Sequence[Example], generator: Generator) -> float:
    """Return the floating point operations of captioning one image, measured over a few of `examples`.

    A multiply and an add count as two. torch's counter does not see what an nn.LSTM computes.
    """
    few = list(examples[:8])
    images = torch.stack([experiment.transform(example.image) for example in few]).to(experiment.device)
    with FlopCounterMode(display=False) as counter:
        caption_batch(experiment.captioner, images, generator, experiment.vocabulary, _autocast(experiment))
    return counter.get_total_flops() / len(few)


def _autocast(experiment: Experiment):
    return partial(autocast, experiment.device, Precision(experiment.config["trainer"]["precision"]))


def _samples(examples: Sequence[Example], captions: dict[str, str], scores: Scores) -> dict[str, list[dict]]:
    per_image = scores.per_image()
    rows = [
        {
            "id": example.id,
            "image": example.image,
            "caption": captions[example.id],
            "references": list(example.references),
            "scores": per_image.get(example.id, {}),
        }
        for example in examples
    ]
    ranked = sorted(rows, key=lambda row: row["scores"].get(_RANK_BY, 0.0))
    chosen = random.Random(0).sample(rows, min(_SHOWN_PER_GROUP, len(rows)))
    return {"random": chosen, "best": ranked[::-1][:_SHOWN_PER_GROUP], "worst": ranked[:_SHOWN_PER_GROUP]}


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap evaluate`."""
    parser = argparse.ArgumentParser(prog="easycap evaluate", description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--split", default="test", help="which split to caption and score (default: test)")
    parser.add_argument("--decoding", help="another way of decoding, e.g. beam or beam,num_beams=3")
    parser.add_argument(
        "--batch-size", type=int, help="images per batch (default: the run's validation.batch_size)"
    )
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    checkpoint = checkpoint_of(args.run)
    if not (args.run / "config.yaml").is_file():
        raise ValueError(f"{args.run} is a checkpoint; give the run's folder that holds it")
    experiment = Experiment.from_checkpoint(checkpoint, device=args.device)
    batch_size = experiment.config["validation"]["batch_size"] if args.batch_size is None else args.batch_size
    if batch_size < 1:
        raise ValueError(f"--batch-size {batch_size} must be at least 1")
    command = "easycap evaluate " + " ".join(map(shown, argv))
    other = (
        option_from_text("decoding", args.decoding, seed=experiment.config["seed"]) if args.decoding else None
    )
    evaluate_split(
        experiment,
        RunFolder(args.run, command=command),
        args.split,
        generator=experiment.generator(other),
        batch_size=batch_size,
        command=command,
        label=f"{args.split}@{args.decoding}" if other else None,
    )
    return show_run(args.run)


def show_run(run: Path) -> int:
    """Print a run's scores and write its report."""
    from rich.console import Console

    from easycap.report import read_run, scores_table, write_report

    console = Console()
    console.print(scores_table(read_run(run).result))
    console.print(f"report: {shown(write_report(run))}", soft_wrap=True, highlight=False)
    return 0

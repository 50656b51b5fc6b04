"""`easycap evaluate RUN`: captions of a split by a run's best weights, their scores, and what the scores mean."""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from easycap.attention import pictures, why_no_attention
from easycap.config import option_from_text
from easycap.experiment import TEXT_SCORERS, Experiment
from easycap.generation.captions import Refinement, captions_of_batches
from easycap.generation.flops import flops_per_caption
from easycap.metrics import (
    Scores,
    caption_health,
    most_frequent_caption,
    reference_points,
    score,
    score_several,
)
from easycap.metrics.clip_score import ClipScore
from easycap.metrics.health import normalized
from easycap.metrics.scoring import TEXT_METRICS, metric_names
from easycap.runs import checkpoint_of, shown
from easycap.tagging import TagExperiment, evaluate_tags, experiment_of
from easycap.tracking.run_folder import RunFolder
from easycap.training.hardware import Precision, autocast
from easycap.types import Example, Generator, Scorer

logger = logging.getLogger(__name__)

_SHOWN_PER_GROUP = 12
_WITH_ATTENTION = 4
_ATTENTION_SIDE = 112  # pixels of a panel: a page holds several pictures of many
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
    further: Sequence[str | Scorer] = (),
    rounds: int | None = None,
) -> dict[str, Any]:
    """Caption and score `split`, write captions, references, scores per image and samples; return result.json.

    `label` names the scores; it is the split unless captions are generated in another way than the run's own. With
    `rounds` of feeding captions back as drafts (None: the config's) each round is scored, as `labels_of_rounds` names
    it, and samples are of the last. `further` are scorers beside the usual ones. Of several captions per image the
    mean scores and the diversity are measured, and no reference points.
    """
    examples = experiment.examples(split)
    refinement = experiment.refinement(rounds)
    found, seconds = caption_examples(experiment, examples, generator, batch_size, refinement)
    labels = labels_of_rounds(experiment, label or split, refinement.rounds)
    for name, captions in zip(labels, found, strict=True):
        scores = _score_captions(experiment, folder, split, name, captions, command=command, further=further)
    folder.write_samples(labels[-1], _samples(experiment, examples, found, scores))
    # The run's cost is that of its own way of captioning the test split.
    if labels[-1] == "test":
        folder.update_result({"cost": _cost(experiment, examples, generator, refinement.rounds, seconds)})
    return folder.update_result({})


def labels_of_rounds(experiment: Experiment, label: str, rounds: int) -> list[str]:
    """Return the names of the scores of each round, the first included: `label` for as many rounds as the run has,
    label@round<number> for others."""
    own = experiment.refinement().rounds
    return [label if number == own else f"{label}@round{number}" for number in range(rounds + 1)]


def _score_captions(
    experiment: Experiment,
    folder: RunFolder,
    split: str,
    label: str,
    captions: Mapping[str, Sequence[str]],
    *,
    command: str,
    further: Sequence[str | Scorer],
) -> Scores:
    """Score captions of `split` and write all but samples under `label`."""
    examples = experiment.examples(split)
    references = {example.id: example.references for example in examples}
    several = any(len(texts) > 1 for texts in captions.values())
    scores = (score_several if several else score)(
        captions if several else _first(captions),
        references,
        annotations={example.id: example.annotations for example in examples},
        scorers=(*TEXT_SCORERS, *experiment.dataset.scorers, *further),
        split=split,
        oracles=experiment.beside.oracles,
    )
    training_captions = [e.references for e in experiment.examples("train")]
    points = {} if several else _reference_points(experiment, split, _first(captions), training_captions)
    known = normalized(chain.from_iterable(training_captions))
    health = caption_health(list(chain.from_iterable(captions.values())), unknown="<unk>", training=known)
    folder.write_captions(label, captions)
    folder.write_references(label, references)
    folder.write_per_image(label, {name: one.per_image for name, one in scores.items()})
    folder.update_result(
        {
            "scores": {label: scores.to_dict() | {n: {"absent": why} for n, why in scores.absent.items()}},
            "reference_points": {label: {name: point.to_dict() for name, point in points.items()}},
            "diagnostics": {label: health | scores.counts},
            "commands": {label: command},
        }
    )
    return scores


def _first(captions: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {image_id: texts[0] for image_id, texts in captions.items()}


def _reference_points(
    experiment: Experiment, split: str, captions: dict[str, str], training_captions: Sequence[Sequence[str]]
) -> dict[str, Scores]:
    return reference_points(
        captions,
        {example.id: example.references for example in experiment.examples(split)},
        df=experiment.training_df,
        most_frequent=most_frequent_caption(training_captions),
        scorers=("cider_d",),
        split=split,
        oracles=experiment.beside.oracles,
    )


def _cost(
    experiment: Experiment, examples: Sequence[Example], generator: Generator, rounds: int, seconds: float
) -> dict[str, float]:
    inputs = experiment.inputs(examples[:1])
    flops = flops_per_caption(
        experiment.captioner, inputs, generator, eos_id=experiment.vocabulary.eos_id, rounds=rounds
    )
    return {"captions_per_second": len(examples) / seconds, "flops_per_caption": flops}


def caption_examples(
    experiment: Experiment,
    examples: Sequence[Example],
    generator: Generator,
    batch_size: int,
    refinement: Refinement,
) -> tuple[list[dict[str, list[str]]], float]:
    """Return {id: captions} of each round and the seconds it took; several ranks share the batches."""
    started = time.perf_counter()
    captions = captions_of_batches(
        experiment.captioner,
        experiment.batches(experiment.ranks.part(examples, batch_size), batch_size),
        generator,
        experiment.vocabulary,
        device=experiment.device,
        autocast=_autocast(experiment),
        refinement=refinement,
    )
    merged = [experiment.ranks.merge(found) for found in captions]
    ordered = [{example.id: found[example.id] for example in examples} for found in merged]
    return ordered, time.perf_counter() - started


def _autocast(experiment: Experiment):
    return partial(autocast, experiment.device, Precision(experiment.config["trainer"]["precision"]))


def _samples(
    experiment: Experiment,
    examples: Sequence[Example],
    captions: Sequence[Mapping[str, Sequence[str]]],
    scores: Scores,
) -> dict[str, list[dict]]:
    """Some images with the words beside them, what was said in each round, and the scores of the last."""
    per_image = scores.per_image()
    rows = [
        {
            "id": example.id,
            "image": example.image,
            "caption": " / ".join(captions[-1][example.id]),
            "references": list(example.references),
            "scores": per_image.get(example.id, {}),
        }
        for example in examples
    ]
    ranked = sorted(rows, key=lambda row: row["scores"].get(_RANK_BY, 0.0))
    chosen = random.Random(0).sample(rows, min(_SHOWN_PER_GROUP, len(rows)))
    groups = {"random": chosen, "best": ranked[::-1][:_SHOWN_PER_GROUP], "worst": ranked[:_SHOWN_PER_GROUP]}
    by_id = {example.id: example for example in examples}
    for group in groups.values():
        _add_words(experiment, [by_id[row["id"]] for row in group], group, captions)
    drawn = groups["random"][:_WITH_ATTENTION]
    if all(len(captions[-1][row["id"]]) == 1 for row in drawn) and not why_no_attention(experiment):
        _add_attention(experiment, [by_id[row["id"]] for row in drawn], drawn)
    return groups


def _add_words(
    experiment: Experiment,
    examples: Sequence[Example],
    rows: Sequence[dict[str, Any]],
    captions: Sequence[Mapping[str, Sequence[str]]],
) -> None:
    """Give each row the words beside its image, by segment, and what the rounds before the last made of them."""
    texts = {name: experiment.beside.texts(name, examples) for name in experiment.beside.segments}
    for place, row in enumerate(rows):
        if texts:
            row["beside"] = {name: of[place] for name, of in texts.items()}
        if len(captions) > 1:
            row["rounds"] = [found[row["id"]][0] for found in captions[:-1]]


def _add_attention(
    experiment: Experiment, examples: Sequence[Example], rows: Sequence[dict[str, Any]]
) -> None:
    """Give each row a picture of where the decoder looked for the words of its caption."""
    captions = [row["caption"] for row in rows]
    given = {"draft": [row["rounds"][-1] for row in rows]} if "rounds" in rows[0] else None
    drawn = pictures(experiment, examples, captions, given=given, side=_ATTENTION_SIDE)
    for row, picture in zip(rows, drawn, strict=True):
        row["attention"] = picture


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap evaluate`."""
    args = _parser().parse_args(argv)
    names = metric_names(args.metrics) if args.metrics else ()
    decoding = _decoding(args.decoding, args.samples)
    checkpoint = checkpoint_of(args.run)
    if not (args.run / "config.yaml").is_file():
        raise ValueError(f"{args.run} is a checkpoint; give the run's folder that holds it")
    experiment = experiment_of(checkpoint, device=args.device)
    batch_size = experiment.config["validation"]["batch_size"] if args.batch_size is None else args.batch_size
    if batch_size < 1:
        raise ValueError(f"--batch-size {batch_size} must be at least 1")
    command = "easycap evaluate " + " ".join(map(shown, argv))
    if isinstance(experiment, TagExperiment):
        if others := [f"--{name}" for name in ("decoding", "samples", "metrics", "clip") if vars(args)[name]]:
            raise ValueError(f"{args.run} says tags, not captions: leave out {', '.join(others)}")
        folder = RunFolder(args.run, command=command)
        evaluate_tags(experiment, folder, args.split, batch_size=batch_size, command=command)
        return show_run(args.run, [args.split])
    other = option_from_text("decoding", decoding, seed=experiment.config["seed"]) if decoding else None
    label = f"{args.split}@{decoding}" if other else args.split
    rounds = experiment.refinement(args.rounds).rounds
    further: list[str | Scorer] = [name for name in names if name not in TEXT_SCORERS]
    if args.clip:
        if not args.clip.is_dir():
            raise ValueError(f"--clip {args.clip} is no folder; it must hold a CLIP saved by transformers")
        images = {example.id: example.image for example in experiment.examples(args.split)}
        further.append(ClipScore(model=args.clip, images=images, device=str(experiment.device)))
    evaluate_split(
        experiment,
        RunFolder(args.run, command=command),
        args.split,
        generator=experiment.generator(other),
        batch_size=batch_size,
        command=command,
        label=label,
        further=further,
        rounds=rounds,
    )
    return show_run(args.run, labels_of_rounds(experiment, label, rounds))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="easycap evaluate", description=__doc__)
    add = parser.add_argument
    add("run", type=Path, help="a run's folder")
    add("--split", default="test", help="which split to caption and score (default: test)")
    add("--decoding", help="another way of decoding, e.g. beam or beam,num_beams=3 or sample,top_p=0.8")
    add(
        "--samples",
        type=int,
        metavar="K",
        help="draw K captions per image (decoding sample): mean scores, and Div-1, Div-2, self-CIDEr",
    )
    add(
        "--rounds",
        type=int,
        metavar="R",
        help="feed captions back as drafts R times, and score every round (default: the run's refine.rounds)",
    )
    usual = ",".join(TEXT_SCORERS)
    others = ",".join(name for name in TEXT_METRICS if name not in TEXT_SCORERS)
    add("--metrics", metavar="NAMES", help=f"metrics beside {usual} and those of the data: {others}")
    add("--clip", type=Path, metavar="FOLDER", help="weights of a CLIP on disk: CLIPScore and RefCLIPScore")
    add("--batch-size", type=int, help="images per batch (default: the run's validation.batch_size)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    return parser


def _decoding(decoding: str | None, samples: int | None) -> str | None:
    """Return the way of decoding as text, with so many samples per image."""
    if samples is None:
        return decoding
    if samples < 2:
        raise ValueError(f"--samples {samples} must be at least 2")
    return f"{decoding or 'sample'},num_samples={samples}"


def show_run(run: Path, splits: Sequence[str] | None = None) -> int:
    """Print a run's scores, of all splits or of some, and write its report."""
    from rich.console import Console

    from easycap.report import read_run, scores_tables, write_report

    console = Console()
    result = read_run(run).result or {}
    for table in scores_tables(result, splits or list(result.get("scores", {})), width=console.width):
        console.print(table)
    console.print(f"report: {shown(write_report(run))}", soft_wrap=True, highlight=False)
    return 0

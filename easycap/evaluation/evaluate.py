"""Caption a split, score the captions, and write all of it into the run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from easycap.data.loader import show_images
from easycap.evaluation.attention_maps import pictures, why_no_attention
from easycap.evaluation.evaluation_set import EvaluationSet
from easycap.evaluation.gallery import gallery
from easycap.evaluation.groups import record_groups, score_groups
from easycap.evaluation.pipeline import Pipeline
from easycap.generation.flops import flops_per_caption
from easycap.generation.generate import Refinement, captions_of_batches
from easycap.metrics import (
    DocumentFrequencies,
    Scores,
    caption_health,
    most_frequent_caption,
    score,
    score_baselines,
    score_samples,
)
from easycap.metrics.scoring import DEFAULT_SCORERS
from easycap.runs.run_folder import RunFolder
from easycap.training.distributed import Ranks
from easycap.types import Example, Generator, Scorer
from easycap.utils.segmenters import Segmenter

_WITH_ATTENTION = 4
_ATTENTION_SIDE = 112  # pixels of a panel: a page holds several pictures of many
_RANK_BY = "CIDEr-D"


@dataclass(frozen=True)
class CaptionEvaluator:
    """Captions and scores evaluation sets.

    Captions are decoded by `generator`, in `refinement.rounds` + 1 rounds, each of which
    is scored; `own_rounds` is the number the run itself has. `scorers` come on top of the
    text metrics and those of the data. `document_frequencies` and `training_captions` of
    the training split are asked for by the main process alone; where they are None there
    are no baselines. Several `ranks` share the captioning. Of multiple samples per image
    mean scores and diversity are measured, and no baselines.
    """

    pipeline: Pipeline
    config: Mapping[str, Any]
    generator: Generator
    refinement: Refinement
    own_rounds: int
    scorers: Sequence[str | Scorer]
    segmenter: Segmenter
    document_frequencies: Callable[[], DocumentFrequencies | None]
    training_captions: Callable[[], Mapping[str, int] | None]
    ranks: Ranks

    def __call__(
        self, images: EvaluationSet, folder: RunFolder, *, label: str, batch_size: int, command: str
    ) -> list[str]:
        """Write captions, references, scores per image, scores and samples of a set; return their labels.

        `label` names the scores of as many rounds as the run itself has, others are
        label@round<number>.
        """
        examples = images.examples
        found, seconds = caption_examples(
            self.pipeline, examples, self.generator, batch_size, self.refinement, self.ranks
        )
        rounds = self.refinement.rounds
        labels = [
            label if number == self.own_rounds else f"{label}@round{number}" for number in range(rounds + 1)
        ]
        if not self.ranks.is_main:
            return labels
        for name, captions in zip(labels, found, strict=True):
            scores = self._score(images, folder, name, captions, command)
        own_folder = images.label if images.other else ""
        folder.write_samples(labels[-1], self._samples(examples, found, scores), images=own_folder)
        # The run's cost is that of its own way of captioning the test split.
        if labels[-1] == "test" or images.measures_cost:
            folder.update_result({"cost": self._cost(examples, seconds)})
        return labels

    def _score(
        self,
        images: EvaluationSet,
        folder: RunFolder,
        label: str,
        captions: Mapping[str, Sequence[str]],
        command: str,
    ) -> Scores:
        """Score captions of `images` and write all but samples under `label`."""
        examples = images.examples
        references = {example.id: example.references for example in examples}
        settings: dict[str, Any] = {
            "annotations": {example.id: example.annotations for example in examples},
            "scorers": (*DEFAULT_SCORERS, *images.scorers, *self.scorers),
            "split": images.label,
            "oracles": self.pipeline.conditions.oracles,
            "segmenter": self.segmenter,
        }
        if any(len(texts) > 1 for texts in captions.values()):
            scores, baselines = score_samples(captions, references, **settings), {}
        else:
            single = _first(captions)
            scores, baselines = score(single, references, **settings), self._baselines(images, single)
        record_groups(folder, label, score_groups(images.examples, images.group_by, label, scores))
        texts = list(chain.from_iterable(captions.values()))
        health = caption_health(
            texts, unknown="<unk>", training=self.training_captions(), segmenter=self.segmenter
        )
        write_scores(
            folder,
            label,
            captions=captions,
            references=references,
            scores=scores,
            baselines=baselines,
            diagnostics={**health, **scores.counts},
            command=command,
        )
        return scores

    def _baselines(self, images: EvaluationSet, captions: dict[str, str]) -> dict[str, Scores]:
        df, training = self.document_frequencies(), self.training_captions()
        if df is None or training is None:
            return {}
        return score_baselines(
            captions,
            {example.id: example.references for example in images.examples},
            df=df,
            most_frequent=most_frequent_caption(training),
            scorers=("cider_d",),
            split=images.label,
            segmenter=self.segmenter,
            oracles=self.pipeline.conditions.oracles,
        )

    def _cost(self, examples: Sequence[Example], seconds: float) -> dict[str, float]:
        flops = flops_per_caption(
            self.pipeline.model,
            self.pipeline.inputs(examples[:1]),
            self.generator,
            eos_id=self.pipeline.vocabulary.eos_id,
            rounds=self.refinement.rounds,
        )
        return {"captions_per_second": len(examples) / seconds, "flops_per_caption": flops}

    def _samples(
        self,
        examples: Sequence[Example],
        captions: Sequence[Mapping[str, Sequence[str]]],
        scores: Scores,
    ) -> dict[str, list[dict]]:
        """Some images with their conditioning text, the captions of each round, and the scores of the last."""
        texts = {image_id: " / ".join(found) for image_id, found in captions[-1].items()}
        kinds = gallery(examples, texts, scores, rank_by=_RANK_BY)
        by_id = {example.id: example for example in examples}
        for rows in kinds.values():
            self._add_conditions([by_id[row["id"]] for row in rows], rows, captions)
        drawn = kinds["random"][:_WITH_ATTENTION]
        single = all(len(captions[-1][row["id"]]) == 1 for row in drawn)
        if single and not why_no_attention(self.pipeline, self.config):
            self._add_attention([by_id[row["id"]] for row in drawn], drawn)
        return kinds

    def _add_conditions(
        self,
        examples: Sequence[Example],
        rows: Sequence[dict[str, Any]],
        captions: Sequence[Mapping[str, Sequence[str]]],
    ) -> None:
        """Give each row its conditioning text, {condition: text}, and the captions of the rounds before the last."""
        conditions = self.pipeline.conditions
        texts = {name: conditions.texts(name, examples) for name in conditions}
        for index, row in enumerate(rows):
            if texts:
                row["conditioning"] = {name: of[index] for name, of in texts.items()}
            if len(captions) > 1:
                row["rounds"] = [found[row["id"]][0] for found in captions[:-1]]

    def _add_attention(self, examples: Sequence[Example], rows: Sequence[dict[str, Any]]) -> None:
        """Give each row a picture of where the decoder looked for the words of its caption."""
        captions = [row["caption"] for row in rows]
        given = {"draft": [row["rounds"][-1] for row in rows]} if "rounds" in rows[0] else None
        drawn = pictures(self.pipeline, examples, captions, given=given, side=_ATTENTION_SIDE)
        for row, picture in zip(rows, drawn, strict=True):
            row["attention"] = picture


def write_scores(
    folder: RunFolder,
    label: str,
    *,
    captions: Mapping[str, Sequence[str]],
    references: Mapping[str, Sequence[str]],
    scores: Scores,
    baselines: Mapping[str, Scores],
    diagnostics: Mapping[str, float],
    command: str,
) -> None:
    """Write captions, what they were scored against, scores and scores per image under `label`."""
    folder.write_captions(label, captions)
    folder.write_references(label, references)
    folder.write_per_image(label, {name: one.per_image for name, one in scores.items()})
    absent = {name: {"absent": why} for name, why in scores.absent.items()}
    folder.update_result(
        {
            "scores": {label: scores.to_dict() | absent},
            "baselines": {label: {name: one.to_dict() for name, one in baselines.items()}},
            "diagnostics": {label: dict(diagnostics)},
            "commands": {label: command},
        }
    )


def caption_examples(
    pipeline: Pipeline,
    examples: Sequence[Example],
    generator: Generator,
    batch_size: int,
    refinement: Refinement,
    ranks: Ranks,
) -> tuple[list[dict[str, list[str]]], float]:
    """Return {id: captions} of each round and the seconds it took; several ranks share the batches."""
    started = time.perf_counter()
    pipeline.model.fold_encoder(len(examples))
    batches = pipeline.batches(ranks.shard(examples, batch_size), batch_size)
    captions = captions_of_batches(
        pipeline.model,
        show_images(batches, "captioning", shown=ranks.is_main),
        generator,
        pipeline.vocabulary,
        device=pipeline.device,
        autocast=pipeline.autocast,
        refinement=refinement,
    )
    merged = [ranks.all_gather_dict(found) for found in captions]
    ordered = [{example.id: found[example.id] for example in examples} for found in merged]
    return ordered, time.perf_counter() - started


def _first(captions: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {image_id: texts[0] for image_id, texts in captions.items()}

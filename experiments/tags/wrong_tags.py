"""How often a caption follows a tag of a thing that is not there: python experiments/tags/wrong_tags.py RUN [RUN ...].

On the first 200 test scenes of captioners with tags. Each scene gets one thing that it does not show, drawn by the
scene's id: no thing of it shares a word with that thing. Captions are made three times: with the run's own tags, with
the wrong one put before them, and with the wrong one alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

from easycap.data.scenes.graph import Scene
from easycap.data.scenes.lexicon import NOUNS
from easycap.data.scenes.tables import KINDS
from easycap.data.scenes.truth import judge
from easycap.generation.generate import caption_batch
from easycap.runs.find import checkpoint_of
from easycap.tasks.captioning import CaptioningTask
from easycap.tasks.create import load_task
from easycap.types import Example

SCENES, BATCH = 200, 100


def words_of(kind: str) -> set[str]:
    return {word for names in NOUNS[kind] for name in names for word in [name.split()[0]]}


def wrong_thing(example: Example, known: Sequence[str]) -> str:
    """A thing of the tag vocabulary that the scene does not show."""
    shown = set().union(*(words_of(group["kind"]) for group in example.annotations["groups"]))
    return Random(example.id).choice([kind for kind in KINDS if kind in known and not words_of(kind) & shown])


def captions(task: CaptioningTask, examples: Sequence[Example], tags: Sequence[str]) -> list[str]:
    found: list[str] = []
    for first in range(0, len(examples), BATCH):
        rows = slice(first, first + BATCH)
        inputs = task.pipeline.inputs(examples[rows], given={"tags": tags[rows]})
        found += caption_batch(
            task.model,
            inputs,
            task.generator(),
            task.vocabulary,
            task.pipeline.autocast,
            task.refinement(),
        )[-1]
    return found


def main(runs: Sequence[str]) -> None:
    print("| run | tags | captions that name the wrong thing | wholly true |\n|---|---|---:|---:|")
    for run in map(Path, runs):
        task = load_task(checkpoint_of(run), device="cpu", with_data=True)
        examples = task.examples("test")[:SCENES]
        scenes = [Scene.from_dict(example.annotations) for example in examples]
        own = task.conditions.texts("tags", examples)
        wrong = [wrong_thing(example, task.conditions["tags"].vocabulary.tags) for example in examples]
        both = [f"{thing} {tags}" for thing, tags in zip(wrong, own, strict=True)]
        for name, tags in (("own", own), ("wrong and own", both), ("wrong alone", wrong)):
            generated = captions(task, examples, tags)
            follows = sum(
                bool(words_of(thing) & set(text.split()))
                for thing, text in zip(wrong, generated, strict=True)
            )
            true = sum(judge(text, scene).true for text, scene in zip(generated, scenes, strict=True))
            shares = f"{follows / len(generated):.1%} | {true / len(generated):.1%}"
            print(f"| {task.config['tags']['name']} | {name} | {shares} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

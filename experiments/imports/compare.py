"""What the comparisons share: 50 images with random features and captions, an import, and how two models differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from easycap.releases.imported_run import import_release
from easycap.runs.find import checkpoint_of
from easycap.tasks.create import load_task

torch.set_num_threads(1)  # the models are small
IMAGES = 50
WORDS = [f"word{number}" for number in range(300)]


def write_data(folder: Path, dim: int, regions: tuple[int, int]) -> tuple[Path, Path, list[np.ndarray]]:
    """Write a Karpathy file of 50 images with a random caption each, and their features; return both and the latter."""
    rng = np.random.default_rng(0)
    root, features = folder / "COCO", folder / "features"
    for place in (root / "val2014", root / "train2014", features):
        place.mkdir(parents=True)
    images, arrays = [], []
    for number in range(IMAGES):
        words = rng.choice(WORDS, int(rng.integers(4, 12))).tolist()
        arrays.append(rng.normal(size=(int(rng.integers(*regions)), dim)).astype(np.float32))
        np.savez(features / f"{number}.npz", feat=arrays[-1])
        sentence = {"raw": " ".join(words), "tokens": words}
        images.append(
            {"cocoid": number, "filename": f"{number}.jpg", "filepath": "val2014", "sentences": [sentence]}
            | {"split": ("train", "val", "test")[min(number, 2)]}
        )
    (root / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    return root, features, arrays


def imported(system: str, files: Sequence[Path], folder: Path, overrides: Sequence[str]) -> Any:
    """Import files as a user would; return the run's task."""
    import_release(system, files, overrides, folder=folder / "run", command="compare")
    return load_task(checkpoint_of(folder / "run"), device="cpu", with_data=True)


def randomise(model: torch.nn.Module, seed: int = 0, by: float = 0.3) -> torch.nn.Module:
    """Move every weight, so that none is at a value (0, 1) at which a mistake would not show."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn_like(parameter) * parameter.abs().mean().clamp(min=0.1))
    return model.eval()


@torch.no_grad()
def report(
    name: str,
    task: Any,
    theirs: Callable[[int, list[str]], list[float]],
    greedy: Callable[[int], str],
    beam: Callable[[int], str],
    *,
    greedy_settings: str = "",
) -> None:
    """Print the largest difference of the log-probabilities of 50 captions, word by word, and how many captions agree.

    `theirs(image, words)` are their log-probabilities of the words and the end, `greedy_settings` what their greedy
    search does otherwise than ours.
    """
    # As theirs are: what differs is then the formulas, not the rounding.
    task.model.double()
    torch.set_default_dtype(torch.float64)
    vocabulary, worst, total = task.vocabulary, 0.0, 0
    examples = all_examples(task)
    for example in examples:
        words = example.references[0].split()
        ids = [vocabulary.bos_id, *vocabulary.encode(" ".join(words)), vocabulary.eos_id]
        assert len(ids) == len(words) + 2 or vocabulary.unk_id is None
        inputs = task.pipeline.inputs([example])
        logits = task.model(inputs, torch.tensor([ids[:-1]]), torch.tensor([0])).logits
        ours = logits[0].log_softmax(-1).gather(1, torch.tensor(ids[1:]).unsqueeze(1)).squeeze(1)
        number = int(example.id)
        worst = max(worst, float((ours - torch.tensor(theirs(number, words), dtype=ours.dtype)).abs().max()))
        total += len(ours)
    print(f"{name}: largest difference of {total} log-probabilities {worst:.1e}")
    for kind, caption in (("greedy", greedy), ("beam 5", beam)):
        decoding = None if kind == "beam 5" else f"greedy,max_length=20{greedy_settings}"
        generated = {example.id: captions_of(task, example, decoding)[0] for example in examples}
        same = sum(generated[example.id] == caption(int(example.id)) for example in examples)
        different = {*generated.values()}
        lengths = sorted(len(vocabulary.encode(one)) for one in different)
        print(
            f"{name}: {kind} captions equal {same} of {len(examples)} "
            f"({len(different)} different, {lengths[0]} to {lengths[-1]} tokens)"
        )
    torch.set_default_dtype(torch.float32)


def all_examples(task: Any) -> list[Any]:
    """Return the 50 images of all splits, each once."""
    examples = [example for split in task.data.splits.values() for example in split]
    return list({example.id: example for example in examples}.values())


def captions_of(task: Any, example: Any, decoding: str | None) -> list[str]:
    """Return the captions of one image by a decoding method, or by the run's own."""
    memory = task.model.build_memory(task.pipeline.inputs([example]))
    words = task.generator(decoding)(task.model.decoder, memory).words
    return [task.vocabulary.decode(row) for row in words.tolist()]

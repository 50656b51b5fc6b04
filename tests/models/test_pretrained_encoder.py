"""Released weights of an encoder recognise what is on photographs; skipped where they or the photos are absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from easycap.conditioning.neighbours import Neighbours
from easycap.conditioning.retrieval import encoder_of
from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.train import create_task
from easycap.types import Example

FLICKR8K = Path(os.environ.get("EASYCAP_TEST_FLICKR8K", "no folder"))
WEIGHTS = Path(os.environ.get("EASYCAP_TEST_WEIGHTS", "no file"))  # tf_efficientnet_lite0.safetensors


def shows_a_dog(example: Example) -> bool:
    return sum("dog" in caption.lower() for caption in example.references) > 2


@pytest.mark.skipif(
    not (FLICKR8K / "Flicker8k_Dataset").is_dir() or not WEIGHTS.is_file(),
    reason="EASYCAP_TEST_FLICKR8K with its photos and EASYCAP_TEST_WEIGHTS are not set",
)
def test_the_most_similar_photo_of_a_dog_shows_one(tmp_path: Path) -> None:
    words = ["experiment=easycap/flickr8k", f"data.root={FLICKR8K}", f"encoder.weights={WEIGHTS}"]
    task = create_task(check(compose([*words, "device=cpu", "tracking=none"]).config))
    known, new = task.examples("train")[:200], task.examples("val")[:100]
    settings = f"timm,model=tf_efficientnet_lite0,squash=true,weights={WEIGHTS}"
    encoder = encoder_of(None, settings, torch.device("cpu"))
    Neighbours.store(tmp_path, known, encoder, encoder.transform, 0)
    found = Neighbours(tmp_path, encoder, encoder.transform, 0, count=1)(new)
    captions = {example.references[0]: example for example in known}
    pairs = zip(new, found, strict=True)
    right = [shows_a_dog(captions[caption]) for example, [caption] in pairs if shows_a_dog(example)]
    by_chance = sum(map(shows_a_dog, known)) / len(known)
    assert len(right) > 10
    assert sum(right) / len(right) > 2 * by_chance

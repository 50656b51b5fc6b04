"""Captioners of transformers behind our interface: the same numbers as by their own code."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_image_text_models import KINDS, tiny_model
from PIL import Image

from easycap.data.image_inputs import LoadedImage
from easycap.errors import UserError
from easycap.models.huggingface.image_text_model import Asked, ImageTextModel
from easycap.models.huggingface.model_generation import generate
from easycap.models.huggingface.model_input import ModelInput
from easycap.models.huggingface.model_tokens import ModelTokens
from easycap.types import Inputs
from easycap.utils.image_text_adapter import load_model
from easycap.utils.processed_images import FEATURES, ProcessedImages

LENGTH = 8


class Noise:
    """An image source of random pixels; sizes differ."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def load(self, at_least: int | None = None) -> Image.Image:
        size = (40 + 7 * self.seed, 50, 3)
        return Image.fromarray(np.random.default_rng(self.seed).integers(0, 255, size, dtype=np.uint8))


@cache
def asked(kind: str, prompt: str | None, tiles: bool = True) -> tuple[ImageTextModel, Asked]:
    folder = str(tiny_model(kind))
    tokens = ModelTokens(folder, prompt, tiles=tiles)
    model = load_model(folder, tokens.config, dtype=torch.float32)
    captioner = ImageTextModel(model, tokens, max_length=LENGTH, tune_tower=False).eval()
    view: Any = ModelInput(tokens)
    images: Any = ProcessedImages.joined([view(Noise(seed)) for seed in range(3)])
    return captioner, captioner.build_memory(Inputs(images))


def prompts_of(kind: str) -> list[str | None]:
    return [None] if kind == "pix2struct" else [None, "a photo of"]


CASES = [(kind, prompt) for kind in KINDS for prompt in prompts_of(kind)]
each = pytest.mark.parametrize(("kind", "prompt"), CASES)


def with_start(words: torch.Tensor, bos_id: int) -> torch.Tensor:
    return torch.cat([torch.full_like(words[:, :1], bos_id), words[:, :-1]], 1)


@each
def test_teacher_forcing_finds_the_words_that_their_generation_chooses(kind: str, prompt: str | None) -> None:
    captioner, memory = asked(kind, prompt)
    tokens = captioner.vocabulary
    words = generate(captioner, memory, max_new_tokens=LENGTH, do_sample=False, num_beams=1)
    with torch.no_grad():
        logits = captioner(with_start(words, tokens.bos_id), captioner.start(memory)).logits
    real = words != tokens.pad_id
    assert real.sum() > len(words)
    assert torch.equal(logits.argmax(2)[real], words[real])
    assert len({tuple(row) for row in words.tolist()}) > 1, "captions of different images are the same"


@each
def test_a_word_sees_only_those_before_it(kind: str, prompt: str | None) -> None:
    captioner, memory = asked(kind, prompt)
    words = torch.randint(
        3, captioner.vocabulary.num_own, (3, LENGTH), generator=torch.Generator().manual_seed(1)
    )
    ids = with_start(words, captioner.vocabulary.bos_id)
    state, steps = captioner.start(memory), []
    with torch.no_grad():
        at_once = captioner(ids, captioner.start(memory)).logits
        for column in ids.T:
            logits, state = captioner.step(column, state)
            steps.append(logits)
    num_own = captioner.vocabulary.num_own
    torch.testing.assert_close(
        torch.stack(steps, 1)[..., :num_own], at_once[..., :num_own], atol=2e-5, rtol=1e-4
    )


@each
def test_images_are_seen_once_for_all_their_captions(kind: str, prompt: str | None) -> None:
    captioner, memory = asked(kind, prompt)
    if memory.seen is None:
        pytest.skip("tiles or packed patches: the tower runs for each caption")
    rows = torch.tensor([0, 0, 1, 2, 2])
    words = torch.randint(3, captioner.vocabulary.num_own, (5, 4), generator=torch.Generator().manual_seed(2))
    ids = with_start(words, captioner.vocabulary.bos_id)
    again = Asked(memory.images)
    with torch.no_grad():
        shared = captioner(ids, captioner.start(memory).select(rows)).logits
        alone = captioner(ids, captioner.start(again).select(rows)).logits
    torch.testing.assert_close(shared, alone)
    beams: dict[str, Any] = {"max_new_tokens": LENGTH, "num_beams": 3, "do_sample": False}
    assert torch.equal(generate(captioner, memory, **beams), generate(captioner, again, **beams))


@pytest.mark.parametrize("kind", KINDS)
def test_their_tokenizer_is_a_vocabulary(kind: str, tmp_path: Path) -> None:
    tokens = asked(kind, None)[0].vocabulary
    assert len({tokens.pad_id, tokens.bos_id, *tokens.end_ids}) == 2 + len(tokens.end_ids)
    ids = tokens.encode("a dog  and a cat")
    assert tokens.decode(ids) == tokens.decode([*ids, tokens.eos_id, *ids]) == "a dog and a cat"
    tokens.save(tmp_path)
    again = ModelTokens.load(tmp_path, None)
    assert (len(again), again.pad_id, again.end_ids, again.encode("a dog")) == (
        *(len(tokens), tokens.pad_id, tokens.end_ids, tokens.encode("a dog")),
    )


@pytest.mark.parametrize("kind", ["idefics3", "smolvlm"])
def test_without_tiles_an_image_is_one_view(kind: str) -> None:
    """A photo of 640 x 480 pixels is 2 x 2 tiles and a view of all of it, each of one token in these tiny models."""
    photo = Image.effect_noise((640, 480), 80).convert("RGB")
    found = {}
    for tiles in (True, False):
        captioner, memory = asked(kind, None, tiles)
        processed = ModelInput(captioner.vocabulary)(LoadedImage(photo))
        given = captioner.prompts(processed)
        image_id = captioner.model.config.image_token_id
        found[tiles] = (given["pixel_values"].shape[1], int((given["input_ids"] == image_id).sum()))
        words = generate(captioner, memory, max_new_tokens=LENGTH, do_sample=False, num_beams=1)
        with torch.no_grad():
            logits = captioner(with_start(words, captioner.vocabulary.bos_id), captioner.start(memory)).logits
        real = words != captioner.vocabulary.pad_id
        assert torch.equal(logits.argmax(2)[real], words[real])
    assert found == {True: (5, 5), False: (1, 1)}


def test_a_saved_vocabulary_keeps_images_whole(tmp_path: Path) -> None:
    asked("smolvlm", None, False)[0].vocabulary.save(tmp_path)
    again = ModelInput(ModelTokens.load(tmp_path, None))
    assert again.images.do_image_splitting is False
    assert again(Noise(3)).batch(0)["pixel_values"].shape[:2] == (1, 1)
    assert again.identity() != ModelInput(asked("smolvlm", None)[0].vocabulary).identity()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("idefics3", "smolvlm")])
def test_models_without_tiles_refuse_to_leave_them_out(kind: str) -> None:
    name = ModelTokens(str(tiny_model(kind)), None).config.model_type
    with pytest.raises(UserError, match=f"captioner.tiles=false is for .* a {name} model does not: leave"):
        ModelTokens(str(tiny_model(kind)), None, tiles=False)


def test_cached_features_in_half_precision_are_batched_in_autocast() -> None:
    """torch cannot concatenate them in autocast to bf16, which is the precision of CPUs that multiply it."""
    rows = [{FEATURES: torch.full((1, 2, 3), number, dtype=torch.float16)} for number in (1.0, 2.0)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ProcessedImages(rows).batch(0)[FEATURES]
    assert found.dtype == torch.float32 and found[:, 0, 0].tolist() == [1.0, 2.0]

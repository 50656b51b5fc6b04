"""`easycap.load`: captions from Python, for images in every form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import whole_runs
from helpers.tiny_config import TINY
from PIL import Image

import easycap
from easycap.cli import main
from easycap.predict import Caption, Captioner


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> Path:
    """A run whose decoder attends to a grid of image tokens."""
    folder = tmp_path_factory.mktemp("api") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EASYCAP_CACHE", str(scenes_cache))
        settings = [word for word in TINY if not word.startswith(("image_tokens.", "decoder."))]
        own = ["decoder=updown", "decoder.embed_dim=16", "decoder.hidden_dim=16", "decoder.max_length=8"]
        own += ["image_tokens=grid", "trainer.max_steps=2"]
        assert main(["train", *settings, *own, f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def captioner(run: Path) -> Captioner:
    return easycap.load(run, device="cpu")


@pytest.fixture(scope="module")
def files(run: Path) -> list[Path]:
    return sorted((run / "samples" / "images").glob("*.png"))


def likelihoods(captioner: Captioner, images: Any) -> list[float]:
    return [caption.log_probability for caption in captioner.caption(images, details=True)]


def test_all_forms_of_an_image_give_the_same(captioner: Captioner, files: list[Path]) -> None:
    texts, expected = captioner.caption(files), likelihoods(captioner, files)
    assert all(isinstance(text, str) and text for text in texts)
    assert len({round(value, 6) for value in expected}) == len(files) > 1
    pictures = [Image.open(file) for file in files]
    arrays = [np.asarray(picture.convert("RGB")) for picture in pictures]
    for images in (
        list(map(str, files)),
        [file.read_bytes() for file in files],
        pictures,
        arrays,
        [array / 255 for array in arrays],
        [torch.from_numpy(array.copy()) for array in arrays],
        iter(files),
        np.stack(arrays),
    ):
        assert np.allclose(likelihoods(captioner, images), expected, atol=1e-5)
    assert captioner.caption(files[0].read_bytes()) == texts[0]
    for image, text in zip([files[0], pictures[1], arrays[2]], texts, strict=False):
        assert captioner.caption(image) == text
    assert captioner.caption(files, batch_size=2) == texts
    assert captioner.caption([]) == []


@pytest.mark.parametrize("size", [(32, 32), (20, 31)])
def test_grey_and_transparent_arrays_are_read_as_their_files(
    captioner: Captioner, tmp_path: Path, size: tuple[int, int]
) -> None:
    values = np.random.default_rng(0).integers(0, 256, (*size, 4), dtype=np.uint8)
    for array in (values, values[:, :, 0], values[:, :, :3]):
        Image.fromarray(array).save(tmp_path / "image.png")
        assert likelihoods(captioner, [array]) == likelihoods(captioner, [tmp_path / "image.png"])
    assert likelihoods(captioner, [values[:, :, :1]]) == likelihoods(captioner, [values[:, :, 0]])


def test_details_are_those_of_the_decoder(captioner: Captioner, files: list[Path]) -> None:
    found = captioner.caption(files, details=True, decoding="greedy")
    assert [caption.text for caption in found] == captioner.caption(files, decoding="greedy")
    inputs = captioner.task.pipeline.inputs(captioner_examples(files))
    with torch.no_grad():
        generated = captioner.task.generator("greedy")(
            captioner.task.model.decoder, captioner.task.model.build_memory(inputs)
        )
    for caption, score in zip(found, generated.scores.tolist(), strict=True):
        assert math.isclose(caption.log_probability, score, abs_tol=1e-4)
        count = len(caption.tokens)
        assert caption.log_probabilities.shape == (count,)
        assert caption.attention.shape == (count, *captioner.task.model.image_tokens.grid)
        assert np.allclose(caption.attention.sum((1, 2)), 1, atol=1e-5)
        assert " ".join(token for token in caption.tokens if token != "<eos>") == caption.text
        _check_likeliest(captioner, caption)
    assert captioner.caption(files[0], details=True).text == found[0].text


def _check_likeliest(captioner: Captioner, caption: Caption) -> None:
    """Greedy search takes the likeliest word that it may take."""
    forbidden = {"<bos>", "<pad>", "<unk>"}
    places = zip(caption.tokens, caption.log_probabilities, caption.likeliest, strict=True)
    for place, (token, value, likeliest) in enumerate(places):
        assert len(likeliest) == 5 and likeliest == sorted(likeliest, key=lambda one: -one[1])
        allowed = [one for one in likeliest if one[0] not in forbidden | ({"<eos>"} if place == 0 else set())]
        assert allowed[0][1] == pytest.approx(value, abs=1e-4) and token in [one[0] for one in allowed]


def captioner_examples(files: list[Path]) -> list[Any]:
    from easycap.data.image_inputs import as_examples

    return list(as_examples(files))


def test_decoding_is_chosen_by_name(captioner: Captioner, files: list[Path]) -> None:
    as_text = captioner.caption(files, decoding="beam,num_beams=2,max_length=4")
    assert captioner.caption(files, decoding="beam", num_beams=2, max_length=4) == as_text
    short = captioner.caption(files, max_length=2)  # the run's own decoding, changed
    assert short == [" ".join(text.split()[:2]) for text in captioner.caption(files)]


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        ("nowhere.jpg", {}, "nowhere.jpg does not exist"),
        (["nowhere.jpg"], {}, "nowhere.jpg does not exist"),
        (np.zeros((3, 8, 9), np.uint8), {}, r"shape \(3, 8, 9\) is not an image.*transpose\(1, 2, 0\)"),
        (np.zeros((8, 8, 3)) - 1, {}, "values from -1 to -1 is not an image"),
        (np.full((8, 8), np.nan), {}, "nan is not an image"),
        (3, {}, "int is not an image"),
        ([None], {}, "is not an image"),
        ([], {"beams": 3}, "beams"),
        ([], {"decoding": "beem"}, "did you mean 'beam'"),
        ([], {"tags": "dog"}, "takes no tags"),
        (["x.jpg"], {"batch_size": 0}, "batch_size=0 must be at least 1"),
    ],
)
def test_wrong_input_is_one_sentence(
    captioner: Captioner, images: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        captioner.caption(images, **options)


def test_a_captioner_has_no_tags_and_a_tag_model_no_captions(
    captioner: Captioner, files: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="is a captioner"):
        captioner.tags(files)
    tagger = easycap.load(
        whole_runs.run(tmp_path / "tagger", "task=tags", "tagger=cnn", "tag_vocab.min_count=2"), device="cpu"
    )
    one = tagger.tags(files[0])
    assert list(one.values()) == sorted(one.values(), reverse=True) and len(one) > 1
    assert tagger.tags(files)[0] == one
    with pytest.raises(ValueError, match="is a tag model"):
        tagger.caption(files)

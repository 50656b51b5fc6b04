"""Pictures of attention: the light falls on the part of the photo that was looked at, whatever its shape."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.tiny_config import TINY
from PIL import Image, ImageDraw

from easycap.cli import main
from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.data.images import ImageFile
from easycap.data.transforms import Transform
from easycap.evaluation.attention_maps import why_no_attention
from easycap.generation.attention_weights import by_words, caption_details
from easycap.report import write_report
from easycap.report.attention_figure import attention_picture, heated
from easycap.train import create_task, train
from easycap.training.hardware import Precision, autocast
from easycap.types import Inputs, Memory, Output, Preprocessing

SIDE = 64
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (20, 200, 20)}


def striped(width: int, height: int, along: int) -> Image.Image:
    """A photo of three equal stripes, red, green, blue from left to right (along 0) or from above (along 1)."""
    photo = Image.new("RGB", (width, height))
    pen = ImageDraw.Draw(photo)
    for place, name in enumerate(("red", "green", "blue")):
        start, end = ([width, height][along] * part // 3 for part in (place, place + 1))
        pen.rectangle((start, 0, end, height) if along == 0 else (0, start, width, end), fill=COLOURS[name])
    return photo


def preprocessing(crop: float = 1.0) -> Preprocessing:
    return Preprocessing(size=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3, crop=crop)


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (128, 128), (640, 427), (77, 131)])
@pytest.mark.parametrize("crop", [1.0, 0.875])
def test_the_window_is_what_the_transform_cuts_out(
    size: tuple[int, int], crop: float, tmp_path: Path
) -> None:
    rows, columns = np.mgrid[: size[1], : size[0]]
    ramp = np.stack([255 * columns / size[0], 255 * rows / size[1], 0 * rows], -1).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "photo.png")
    transform = Transform(preprocessing(crop))
    seen = transform(ImageFile(tmp_path / "photo.png")).permute(1, 2, 0).numpy().astype(float)
    window = transform.window(size)
    cut = Image.fromarray(ramp).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=window)
    assert np.abs(seen - np.asarray(cut, dtype=float)).max() <= 3


def panel_of(sheet: Image.Image) -> np.ndarray:
    """The pixels of the only word's panel: on the right, below a line of text."""
    right, above = sheet.width - 8, 25
    return np.asarray(sheet.crop((right - SIDE, above, right, above + SIDE)), dtype=int)


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (120, 120)])
@pytest.mark.parametrize("patch", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_light_falls_on_the_patch_that_was_looked_at(size: tuple, patch: tuple) -> None:
    maps = np.zeros((1, 2, 2), np.float32)
    maps[0][patch] = 0.5
    window = Transform(preprocessing()).window(size)
    panel = panel_of(
        attention_picture(Image.new("RGB", size, COLOURS["red"]), window, ["word"], maps, side=SIDE)
    )
    brightness = panel.sum(-1).reshape(2, SIDE // 2, 2, SIDE // 2).mean((1, 3))
    assert np.unravel_index(brightness.argmax(), (2, 2)) == patch
    assert brightness[patch] > 1.5 * np.median(brightness)


def test_a_wide_photo_shows_only_the_square_that_the_model_saw() -> None:
    photo = striped(300, 100, 0)
    window = Transform(preprocessing()).window(photo.size)
    sheet = attention_picture(photo, window, ["everywhere"], np.full((1, 2, 2), 0.25, np.float32), side=SIDE)
    inner = panel_of(sheet)[4:-4, 4:-4]
    assert np.ptp(inner) <= 1, "an even look has no heat, and red and blue are outside of the square"
    whole = {tuple(pixel) for pixel in np.asarray(sheet.crop((8, 20, 8 + SIDE, 90))).reshape(-1, 3)}
    assert {COLOURS["red"], COLOURS["blue"]} <= whole, "the first panel is the whole photo"


def test_more_attention_is_more_light() -> None:
    image = Image.new("RGB", (50, 10), COLOURS["red"])
    colours = np.asarray(heated(image, np.array([[-0.5, 0.1, 0.4, 0.7, 1.0]])), dtype=int)[5, 5::10]
    assert (np.diff(colours.sum(-1)) > 0).all()
    assert np.ptp(colours[0]) == 0, "less than an even share leaves the photo grey"


# ------------------------------------------------------------------------------------ from the decoder


class Letters:
    """A vocabulary of pieces; "#" joins a piece to the one before it."""

    pad_id, bos_id, eos_id, unk_id = range(4)
    pieces = ["", "", "", "", "a", "dog", "#gy", "runs"]

    def decode(self, ids) -> str:
        return " ".join(self.pieces[i] for i in ids).replace(" #", "")


class LooksAtTheWordBefore:
    """Attends to the image position whose number is the word it reads, of three positions after a tag."""

    max_length = 6

    def start(self, memory: Memory) -> Memory:
        return memory

    def __call__(self, words: torch.Tensor, state: Memory) -> Output:
        attention = torch.nn.functional.one_hot(words, 9).float()
        return Output(torch.zeros(*words.shape, 8), attention)


def test_attention_is_of_the_image_and_of_the_word_that_is_about_to_be_generated() -> None:
    memory = Memory(torch.zeros(2, 9, 4), torch.ones(2, 9, dtype=torch.bool), {"image": slice(1, 9)})
    captioner = SimpleNamespace(build_memory=lambda images: memory, decoder=LooksAtTheWordBefore())
    context = partial(autocast, torch.device("cpu"), Precision.fp32)
    images = Inputs(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    details = caption_details(captioner, images, [[4, 5, 6], [7]], Letters(), context)
    first, second = (found.attention for found in details)
    assert first.shape == (3, 8) and second.shape == (1, 8)
    assert first.argmax(1).tolist() == [0, 3, 4], "bos, a, dog were read, and position 0 is a tag"


def test_pieces_of_a_word_are_one_word() -> None:
    weights = np.arange(8, dtype=np.float32).reshape(4, 2)
    words, maps = by_words([4, 5, 6, 7], weights, Letters())
    assert words == ["a", "doggy", "runs"]
    assert maps.tolist() == [[0, 1], [3, 4], [6, 7]]


def test_an_empty_caption_has_no_maps() -> None:
    words, maps = by_words([], np.zeros((0, 4), np.float32), Letters())
    assert words == [] and maps.shape == (0, 4)
    photo = Image.new("RGB", (30, 20))
    assert attention_picture(photo, (5, 0, 25, 20), words, maps.reshape(0, 2, 2), side=SIDE).width > SIDE


# -------------------------------------------------------------------------------------------- commands


SMALL = [text for text in TINY if not text.startswith(("decoder.", "image_tokens."))]
UPDOWN = ["decoder=updown", "decoder.embed_dim=8", "decoder.hidden_dim=8", "decoder.attention_dim=8"]


def config_of(*overrides: str, cache: Path) -> dict:
    config = compose([*overrides, f"data.cache={cache}"]).config
    return check(config)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> Path:
    """A run of a decoder that attends over a grid of 2 x 2 tokens."""
    run = tmp_path_factory.mktemp("runs") / "run"
    parts = ["image_tokens=grid", "image_tokens.count=4", "trainer.max_steps=1"]
    train(config_of(*SMALL, *UPDOWN, *parts, cache=scenes_cache), run, command="easycap train")
    write_report(run)
    return run


def test_caption_draws_a_picture_per_photo(trained: Path, tmp_path: Path, capsys) -> None:
    for name in ("wide", "other"):
        striped(90, 40, 0).save(tmp_path / f"{name}.png")
    wide, other = str(tmp_path / "wide.png"), str(tmp_path / "other.png")
    capsys.readouterr()
    assert main(["caption", str(trained), wide, "--attention", str(tmp_path / "new" / "out.png")]) == 0
    caption = capsys.readouterr().out.partition(": ")[2].split()
    columns = min(6, len(caption) + 1)
    with Image.open(tmp_path / "new" / "out.png") as sheet:
        assert sheet.width == columns * 168 + 8
    assert main(["caption", str(trained), wide, other, "--json", "--attention", str(tmp_path / "all")]) == 0
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["other.png", "wide.png"]
    assert all("caption" in row for row in json.loads(capsys.readouterr().out))
    assert main(["caption", str(trained), wide, other, "--attention", str(tmp_path / "out.png")]) == 1
    assert "give a folder" in capsys.readouterr().err
    assert main(["caption", str(trained), wide, "--attention", str(tmp_path / "a.gif")]) == 1
    assert "is neither a picture (.png" in capsys.readouterr().err and not (tmp_path / "a.gif").exists()


def test_evaluation_keeps_a_few_pictures_and_the_report_shows_them(trained: Path) -> None:
    rows = json.loads((trained / "samples" / "test.json").read_text())["random"]
    drawn = [row["attention"] for row in rows if "attention" in row]
    assert len(drawn) == 4 and all((trained / name).is_file() for name in drawn)
    page = (trained / "report.html").read_text()
    assert page.count('<figure class="looked"><img src="data:image/') == 8, "four of each test split"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (["decoder=lstm", "decoder.embed_dim=8", "decoder.hidden_dim=8"], "decoder=lstm does not attend"),
        (TINY, "decoder=causal_lm does not attend"),
        (
            [*UPDOWN, "image_tokens=split", "image_tokens.count=4"],
            "image_tokens=split makes tokens that do not stand for places in the image: train with image_tokens=all",
        ),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_sentence(parts: list[str], words: str, scenes_cache: Path) -> None:
    task = create_task(config_of(*SMALL, *parts, cache=scenes_cache))
    assert words in why_no_attention(task.pipeline, task.config)

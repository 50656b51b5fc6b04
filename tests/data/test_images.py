"""Pixels: upright RGB from any file, the square an encoder expects, errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from easycap.data.images import ImageFile, PackedImage
from easycap.data.transforms import Transform
from easycap.types import Preprocessing

SQUARE = Preprocessing(size=8, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "1", "I;16"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new("RGB", (10, 12), "white").convert("L" if mode == "I;16" else mode).save(path)
    image = ImageFile(path).load()
    assert (image.mode, image.size) == ("RGB", (10, 12))
    assert np.asarray(image).min() > 250


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # turn a quarter to the right
    image.save(tmp_path / "x.jpg", exif=exif)
    assert ImageFile(tmp_path / "x.jpg").load().size == (10, 20)
    assert ImageFile(tmp_path / "x.jpg").array().shape == (20, 10, 3)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0 cut off"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.jpg cannot be read"):
        ImageFile(tmp_path / "bad.jpg").load()
    with pytest.raises(ValueError, match=r"gone\.jpg does not exist"):
        ImageFile(tmp_path / "gone.jpg").load()


def test_a_truncated_jpeg_is_an_error_not_a_grey_half(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "x.jpg")
    whole = (tmp_path / "x.jpg").read_bytes()
    (tmp_path / "x.jpg").write_bytes(whole[: len(whole) // 2])
    for read in (ImageFile(tmp_path / "x.jpg").load, ImageFile(tmp_path / "x.jpg").array):
        with pytest.raises(ValueError, match="truncated"):
            read()


def test_packed_images_come_back_as_they_were(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    packed = PackedImage(tmp_path / "x.npy", 2)
    assert np.array_equal(np.asarray(packed.load()), pixels[2])
    tensor = Transform(SQUARE)(packed)
    assert tensor.dtype == torch.uint8
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), pixels[2])


@pytest.mark.parametrize("size", [(8, 8), (9, 30), (30, 9), (1, 1), (500, 8), (7, 7)])
def test_any_image_becomes_the_square(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (10, 200, 30)).save(tmp_path / "x.png")
    tensor = Transform(SQUARE)(ImageFile(tmp_path / "x.png"))
    assert tensor.shape == (3, 8, 8)
    assert tensor[:, 4, 4].tolist() == [10, 200, 30]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(64, 48), (61, 43), (43, 61), (50, 50), (30, 20)])
def test_the_square_is_that_of_torchvision(tmp_path: Path, size: tuple[int, int], interpolation: str) -> None:
    """Pretrained weights were measured with Resize and CenterCrop: the same pixels, up to rounding."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    resize = transforms.Resize(36, transforms.InterpolationMode(interpolation))
    theirs = transforms.Compose([resize, transforms.CenterCrop(32), transforms.PILToTensor()])
    preprocessing = SQUARE._replace(size=32, crop=32 / 36, interpolation=interpolation)
    ours = Transform(preprocessing)(ImageFile(tmp_path / "x.png"))
    difference = (ours.int() - theirs(Image.open(tmp_path / "x.png")).int()).abs()
    assert difference.max() <= 2  # a shift by one pixel would make it 200


def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "x.jpg", quality=95)
    assert ImageFile(tmp_path / "x.jpg").load(at_least=100).size == (160, 120)
    assert ImageFile(tmp_path / "x.jpg").load(at_least=240).size == (320, 240)
    assert ImageFile(tmp_path / "x.jpg").load(at_least=241).size == (640, 480)
    photo.save(tmp_path / "x.png")
    square = Transform(SQUARE._replace(size=64))
    small, whole = (square(ImageFile(tmp_path / name)).float() for name in ("x.jpg", "x.png"))
    assert (small - whole).abs().mean() < 2


def test_the_centre_is_kept(tmp_path: Path) -> None:
    image = Image.new("RGB", (24, 8), "black")
    image.paste("white", (8, 0, 16, 8))
    image.save(tmp_path / "x.png")
    assert Transform(SQUARE)(ImageFile(tmp_path / "x.png")).min() > 200
    cropped = Transform(SQUARE._replace(crop=0.5))(ImageFile(tmp_path / "x.png"))
    assert cropped.shape == (3, 8, 8)


@pytest.mark.parametrize("at_least", [None, 64, 40, 20])
@pytest.mark.parametrize("settings", [{}, {"subsampling": 0}, {"progressive": True}, {"keep_rgb": True}])
def test_a_jpeg_has_the_pixels_that_pillow_reads(
    tmp_path: Path, at_least: int | None, settings: dict
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 121, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((242, 180)).save(tmp_path / "x.jpg", **settings)
    image = ImageFile(tmp_path / "x.jpg")
    assert np.array_equal(image.array(at_least), np.asarray(image.load(at_least)))


def test_a_jpeg_that_is_only_odd_is_read(tmp_path: Path) -> None:
    """Bytes between two segments: libjpeg warns of them and goes on, and so do browsers."""
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "x.jpg")
    whole = (tmp_path / "x.jpg").read_bytes()
    scan = whole.index(b"\xff\xda")
    (tmp_path / "odd.jpg").write_bytes(whole[:scan] + b"\x00\x00" + whole[scan:])
    pixels = ImageFile(tmp_path / "odd.jpg").array()
    assert np.array_equal(pixels, ImageFile(tmp_path / "x.jpg").array())

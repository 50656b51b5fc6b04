"""Pixels: upright RGB from any file, the square an encoder expects, errors that name the file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
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


RAMP = np.linspace(0, 1, 64)[None].repeat(8, axis=0)


def grey(bits: int, kind: str) -> np.ndarray:
    return np.rint(RAMP * (2**bits - 1)).astype(kind)


def assert_a_ramp(path: Path, *, within: int = 2) -> None:
    """From black to white, the same from both ways of reading."""
    for pixels in (ImageFile(path).array(), np.asarray(ImageFile(path).load())):
        assert np.abs(pixels.astype(int) - grey(8, "int")[..., None]).max() <= within


@pytest.mark.parametrize("name", ["x.tif", "x.png"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_values_in_sixteen_bits_are_scaled_by_the_depth_they_have(
    tmp_path: Path, bits: int, name: str
) -> None:
    Image.fromarray(grey(bits, "u2")).save(tmp_path / name)
    assert_a_ramp(tmp_path / name)


def test_a_depth_that_the_file_states_counts(tmp_path: Path) -> None:
    Image.fromarray(grey(8, "u2")).save(tmp_path / "x.tif", tiffinfo={281: 4095})
    assert ImageFile(tmp_path / "x.tif").array().max() == 15


@pytest.mark.parametrize(
    "values",
    [grey(30, "i4"), grey(20, "i4"), grey(12, "i4"), RAMP.astype("f4")]
    + [grey(bits, "f4") for bits in (8, 10, 12, 14, 16)],
    ids=["30", "20", "12", "float1", "float8", "float10", "float12", "float14", "float16"],
)
def test_values_of_thirty_two_bits_are_scaled(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert_a_ramp(tmp_path / "x.tif")


@pytest.mark.parametrize("end", ["<", ">"])
def test_tiffs_of_either_byte_order_and_with_white_as_zero(tmp_path: Path, end: str) -> None:
    write_tiff(tmp_path / "x.tif", grey(16, f"{end}u2"), end)
    assert_a_ramp(tmp_path / "x.tif")
    if end == "<":
        write_tiff(tmp_path / "x.tif", 4095 - grey(12, "<u2"), end, photometric=0)
        assert_a_ramp(tmp_path / "x.tif")
        write_tiff(tmp_path / "x.tif", grey(32, "<u4"), end)
        assert_a_ramp(tmp_path / "x.tif")


@pytest.mark.parametrize("name", ["x.tif", "x.png"])
@pytest.mark.parametrize(("bits", "message"), [(16, None), (14, None), (12, "uses at most 12")])
def test_colours_of_twelve_bits_in_sixteen_are_refused_by_name(
    tmp_path: Path, name: str, bits: int, message: str | None
) -> None:
    colours = np.repeat(grey(bits, "<u2")[..., None], 3, axis=2)
    if name == "x.tif":
        write_tiff(tmp_path / name, colours, "<", photometric=2)
    else:
        write_png(tmp_path / name, colours)
    if message is None:
        # Of 14 bits the upper six are read.
        assert_a_ramp(tmp_path / name, within=2 if bits == 16 else 4)
    else:
        for read in (ImageFile(tmp_path / name).load, ImageFile(tmp_path / name).array):
            with pytest.raises(ValueError, match=rf"{name} cannot be read .*{message}"):
                read()


def test_dark_colours_of_sixteen_bits_stay_dark_if_the_file_states_them(tmp_path: Path) -> None:
    colours = np.repeat(grey(14, "<u2")[..., None], 3, axis=2)
    write_tiff(tmp_path / "x.tif", colours, "<", photometric=2, max_sample=40000)
    assert ImageFile(tmp_path / "x.tif").array().max() == 63


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (grey(12, "i4") - 5, "negative"),
        (1e6 * RAMP.astype("f4"), "floating-point"),
        (RAMP.astype("f4") - 0.5, "floating-point"),
        (np.full((4, 4), np.nan, "f4"), "floating-point"),
    ],
)
def test_values_that_are_no_colours_are_refused_by_name(
    tmp_path: Path, values: np.ndarray, message: str
) -> None:
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match=rf"x\.tif cannot be read .*{message}"):
        ImageFile(tmp_path / "x.tif").array()


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("1", "x.tif"),
        ("LA", "x.png"),
        ("P", "x.gif"),
        ("CMYK", "x.tif"),
        ("CMYK", "x.jpg"),
        pytest.param(
            *("YCbCr", "x.tif"),
            marks=pytest.mark.skipif(PIL.__version__ < "13", reason="this Pillow cannot read what it wrote"),
        ),
    ],
)
def test_other_modes_look_as_they_should(tmp_path: Path, mode: str, name: str) -> None:
    """CMYK JPEGs are written as Adobe does, turned around."""
    Image.fromarray(np.kron([[0, 255], [255, 0]], np.ones((16, 16))).astype("u1")).convert("RGB").convert(
        mode
    ).save(tmp_path / name)
    pixels = ImageFile(tmp_path / name).array()
    assert pixels[8, 8].max() < 20 and pixels[8, 24].min() > 235


def test_a_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), "red").convert("P")
    image.save(tmp_path / "x.png", transparency=image.getpixel((0, 0)))
    assert ImageFile(tmp_path / "x.png").array().min() == 255


def write_tiff(
    path: Path, values: np.ndarray, end: str, *, photometric: int = 1, max_sample: int | None = None
) -> None:
    """Write an uncompressed TIFF of values (H,W) or (H,W,3), unsigned, without Pillow's help."""
    height, width, *colours = values.shape
    samples, bits = (*colours, 1)[0], values.dtype.itemsize * 8
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 0),
    ]
    tags += [(277, 3, samples), (278, 4, height), (279, 4, values.nbytes)]
    tags += [] if max_sample is None else [(281, 3, max_sample)]
    extra = 8 + 2 + 12 * len(tags) + 4
    data = extra + 2 * 3
    body = b""
    for tag, kind, value in tags:
        count = samples if tag == 258 else 1
        if tag == 258 and samples > 1:
            kind, packed = 3, struct.pack(f"{end}I", extra)
        else:
            number = data if tag == 273 else value
            packed = struct.pack(end + ("H" if kind == 3 else "I"), number).ljust(4, b"\0")
        body += struct.pack(f"{end}HHI", tag, kind, count) + packed
    head = (b"II*\0" if end == "<" else b"MM\0*") + struct.pack(f"{end}IH", 8, len(tags))
    path.write_bytes(head + body + bytes(4) + struct.pack(f"{end}3H", *[bits] * 3) + values.tobytes())


def write_png(path: Path, values: np.ndarray) -> None:
    """Write a PNG of colours (H,W,3) with 16 bits each, which Pillow cannot write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)


def test_a_whole_image_is_squashed_to_the_square(tmp_path: Path) -> None:
    """As PIL resizes it, but for the rounding of a level."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize((300, 200), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "x.png")
    transform = Transform(Preprocessing(64, (0.5,) * 3, (0.5,) * 3, squash=True))
    squashed = transform(ImageFile(tmp_path / "x.png")).permute(1, 2, 0).int()
    theirs = torch.from_numpy(np.array(photo.resize((64, 64), Image.Resampling.BILINEAR))).int()
    assert squashed.shape == (64, 64, 3) and (squashed - theirs).abs().max() <= 1
    assert transform.window((300, 200)) == (0, 0, 300, 200)

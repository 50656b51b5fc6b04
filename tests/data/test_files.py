"""Which files of a folder are images: hidden ones are not, links are followed, every format that is read counts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from easycap.data import images
from easycap.data.image_files import image_files, visible_files
from easycap.data.images import ImageFile


def save(path: Path, **settings: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path, **settings)
    return path


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in image_files([folder])]


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.jpg", "sub/b.jpg", "._a.jpg", ".cache/c.jpg", "@eaDir/a.jpg", "sub/__MACOSX/._b.jpg"):
        save(tmp_path / name)
    assert names(tmp_path) == ["a.jpg", "sub/b.jpg"]
    assert names(tmp_path / ".cache") == ["c.jpg"]  # who names a folder wants it


def test_links_to_folders_are_followed_and_a_folder_is_read_once(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "deep" / "a.jpg")
    save(tmp_path / "im" / "real" / "b.jpg")
    (tmp_path / "im" / "part1").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "im" / "again").symlink_to(tmp_path / "im" / "real")
    (tmp_path / "elsewhere" / "deep" / "loop").symlink_to(tmp_path / "im")
    (tmp_path / "im" / "broken").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path / "im") == ["real/b.jpg", "part1/deep/a.jpg"]
    assert len(list(visible_files(tmp_path / "im"))) == 2


@pytest.mark.parametrize("ending", ["jfif", "JPE", "avif", "jp2", "ppm", "tga", "apng", "webp"])
def test_every_format_that_is_read_is_found(tmp_path: Path, ending: str) -> None:
    save(tmp_path / f"a.{ending}")
    (found,) = image_files([tmp_path])
    assert ImageFile(found).array().shape == (8, 8, 3)


def test_heif_without_its_plugin_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    images._what_heif_needs.cache_clear()
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (found,) = image_files([tmp_path])
    with pytest.raises(ValueError, match=r"a\.heic cannot be read .*pip install pillow-heif"):
        ImageFile(found).load()
    images._what_heif_needs.cache_clear()


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.nef").touch()
    with pytest.raises(ValueError, match=r"has no images .*it has 1 \.nef file\)?"):
        list(image_files([tmp_path]))

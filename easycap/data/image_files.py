"""Image files on disk: which of a folder's files are images, and which of them belongs to an id."""

from __future__ import annotations

import os
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator, Sequence
from itertools import starmap
from pathlib import Path

from easycap.data.images import ImageFile
from easycap.errors import UserError

# What Pillow reads of the formats that photos come in; HEIF by its plugin, and without it its files are named as such.
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff .jp2 .j2k .jpx .avif .heic .heif .ppm .pgm .pnm "
    ".tga".split()
)
# Folders that operating systems add: thumbnails, resource forks, trash.
_OF_SYSTEMS = frozenset({"@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "lost+found"})


def is_image(path: Path | str) -> bool:
    """Return whether a file's suffix is that of an image."""
    return os.path.splitext(path)[1].lower() in SUFFIXES


def files_below(folder: Path) -> list[str]:
    """Return the paths below `folder`, with /, of its `visible_files`."""
    start = len(os.fspath(folder)) + 1
    beginning = f"{folder}{os.sep}"
    paths = [(os.fspath(path), path) for path in visible_files(folder)]
    return [
        text[start:].replace(os.sep, "/")
        if text.startswith(beginning)
        else path.relative_to(folder).as_posix()
        for text, path in paths
    ]


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is passed over."""
    return name.startswith(".") or name in _OF_SYSTEMS


def visible_files(folder: Path) -> Iterator[Path]:
    """Yield all files below `folder` except hidden ones and those in hidden folders, in the order of their names.

    Links to folders are followed, after all else. A folder that is reached several times is listed once, under its
    real path if that is below `folder`.
    """
    seen: set[tuple[int, int]] = set()
    linked = deque([folder])
    while linked:
        yield from _visible_files(linked.popleft(), seen, linked)


def _visible_files(folder: Path, seen: set[tuple[int, int]], linked: deque[Path]) -> Iterator[Path]:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        found = sorted((entry.name, _kind(entry)) for entry in entries)
    for name, kind in found:
        if is_hidden(name):
            continue
        if kind == "link":
            linked.append(folder / name)
        elif kind == "folder":
            yield from _visible_files(folder / name, seen, linked)
        elif kind == "file":
            yield folder / name


def _kind(entry: os.DirEntry) -> str:
    if entry.is_dir():
        return "link" if entry.is_symlink() else "folder"
    return "file" if entry.is_file() else "other"


def image_files(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the files, and the images inside the folders, in order; `UserError` names what does not exist."""
    for path in paths:
        if path.is_dir():
            yield from _images_below(path)
        elif path.exists():
            yield path
        else:
            raise UserError(f"{path} does not exist")


def _images_below(folder: Path) -> Iterator[Path]:
    others: Counter[str] = Counter()
    found = False
    for file in visible_files(folder):
        if is_image(file):
            found = True
            yield file
        else:
            others[file.suffix.lower()] += 1
    if not found:
        raise UserError(f"{folder} has no images ({', '.join(sorted(SUFFIXES))}){_others(others)}")


def _others(counts: Counter[str]) -> str:
    """The most frequent kinds of files in a folder without images."""
    return "; it has " + ", ".join(starmap(_counted, counts.most_common(3))) if counts else ""


def _counted(suffix: str, count: int) -> str:
    files = "file" if count == 1 else "files"
    return f"{count} {suffix} {files}" if suffix else f"{count} {files} without a suffix"


def images_by_id(folder: Path, ids: Collection[str]) -> dict[str, ImageFile]:
    """Return the image file of each id: the one named by it, or whose name ends in that number as COCO's do.

    Raises `UserError` naming an id without a file or with two.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of images")
    files: dict[str, list[Path]] = defaultdict(list)
    for path in image_files([folder]):
        for image_id in {path.stem, path.name, _last_number(path.stem)}:
            files[image_id].append(path)
    for image_id in ids:
        found = files.get(image_id, [])
        if len(found) != 1:
            what = f"{len(found)} images ({found[0].name}, {found[1].name})" if found else "no image"
            raise UserError(
                f"{folder} has {what} for id {image_id!r}; one must be named {image_id}.jpg or ..._{image_id}.jpg"
            )
    return {image_id: ImageFile(files[image_id][0]) for image_id in ids}


def _last_number(stem: str) -> str:
    """The number at the end of a name, as text without leading zeros; the name itself if there is none."""
    digits = stem[len(stem.rstrip("0123456789")) :]
    return str(int(digits)) if digits else stem

"""Which shards a data set has: patterns of names, the list that `easycap data shard` writes, or the usual names."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from easycap.data.shards.byte_ranges import NotThere, is_url, read_all
from easycap.data.table_columns import SPLIT_NAMES
from easycap.errors import UserError, json_fault
from easycap.utils.paths import expanded

LIST = "index.json"  # of all shards of a folder
LIST_FORMAT = "easycap shards 1"
_PATTERN = re.compile(r"[*?\[]")
_FIRST_WORD = re.compile(r"[a-z]+(?:_[a-z]+)*")  # of test_novel-000.tar and test_000.tar


def find_shards(root: str, patterns: Mapping[str, str | None]) -> dict[str, list[str]]:
    """Return {split: shards}, paths or addresses; those of no stated split are training images.

    `root` is a folder or an address, `patterns` {split: pattern of names below it, or whole paths or addresses}. If
    there is none, index.json in `root` lists the shards, else a split's name begins the name of each shard or of its
    folder. Raises `UserError` if there are no shards.
    """
    given = {split: pattern for split, pattern in patterns.items() if pattern is not None}
    if not is_url(root) and not expanded(root).is_dir():
        other = ": data.root is a folder, or an address that begins with https://" if ":" in root else ""
        raise UserError(f"data.root={root} is not a folder{other}")
    if given:
        return {split: _matching(root, pattern, f"data.{split}") for split, pattern in given.items()}
    listed = _listed(root)
    return _by_names(expanded(root)) if listed is None else listed


def _matching(root: str, pattern: str, setting: str) -> list[str]:
    from webdataset.shardlists import expand_urls  # the extra has been checked

    if pattern.startswith("pipe:"):
        raise UserError(
            f"{setting}={pattern}: images are read by their position in a shard, which a pipe does not allow; give the "
            "address of the shards (https://), or download them"
        )
    try:
        names = expand_urls(pattern)
    except AssertionError as error:  # ${NAME} without WDS_NAME
        raise UserError(f"{setting}={pattern}: {error}") from None
    except ValueError as error:
        raise UserError(f"{setting}={pattern} has braces that do not fit together ({error})") from None
    found: list[str] = []
    for name in names:
        if is_url(name):
            found.append(name)
        elif is_url(root):
            if _PATTERN.search(name):
                raise UserError(
                    f"{setting}={pattern}: names at an address cannot be listed; use braces, e.g. "
                    "train-{000000..000099}.tar"
                )
            found.append(f"{root.rstrip('/')}/{name}")
        else:
            found += _files(expanded(root), name, f"{setting}={pattern}")
    twice = len(found) - len(set(found))
    if twice:
        raise UserError(f"{setting}={pattern} names {twice} shards twice")
    return found


def _files(root: Path, name: str, setting: str) -> list[str]:
    if "://" in name:
        raise UserError(f"{setting}: addresses begin with https:// or http://")
    path = root / expanded(name)
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        found = sorted(map(str, path.glob("*.tar")))
    else:
        found = sorted(glob.glob(str(Path(glob.escape(str(root))) / name), recursive=True))
    if not found:
        raise UserError(f"{setting}: {root} has no shard {name}")
    return found


def _listed(root: str) -> dict[str, list[str]] | None:
    """The shards that the list in `root` names; None if a folder has no list."""
    place = f"{root.rstrip('/')}/{LIST}"
    try:
        content = read_all(place) if is_url(root) else (expanded(root) / LIST).read_bytes()
    except FileNotFoundError:
        return None
    except NotThere:
        raise UserError(
            f"{place} does not exist: name the shards, e.g. 'data.train=train-{{000000..000099}}.tar', or write them "
            "with `easycap data shard`, which lists them there"
        ) from None
    return {
        split: [f"{root.rstrip('/')}/{one}" if is_url(root) else str(expanded(root) / one) for one in files]
        for split, files in files_listed(content, place).items()
    }


def files_listed(content: bytes, place: str) -> dict[str, list[str]]:
    """Return {split: shards} that the content of a list names; `UserError` if it is damaged or not complete."""
    try:
        stored: dict[str, Any] = json.loads(content)
        if stored["format"] != LIST_FORMAT:
            raise UserError(f"its format is {stored['format']!r}")
        found: dict[str, list[str]] = {}
        for shard in stored["shards"]:
            path = PurePosixPath(shard["file"])
            if not isinstance(shard["split"], str) or path.is_absolute() or ".." in path.parts:
                raise UserError(f"it lists {shard}")
            found.setdefault(shard["split"], []).append(str(path))
        complete = stored["complete"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = json_fault(error) if isinstance(error, json.JSONDecodeError) else error
        raise UserError(f"{place} is not a list of shards ({what}): remove it, or set data.train") from None
    if not complete:
        raise UserError(
            f"{place} is not complete: `easycap data shard` was stopped; run the same command again"
        )
    return found


def _by_names(root: Path) -> dict[str, list[str]]:
    shards = sorted([*root.glob("*.tar"), *root.glob("*/*.tar")])
    if not shards:
        raise UserError(f"{root} has no .tar files: set data.train to the pattern of its shards")
    found: dict[str, list[str]] = {}
    without: list[Path] = []
    for path in shards:
        words = (path.name, path.parent.name if path.parent != root else "")
        begins = (match[0] for word in words if (match := _FIRST_WORD.match(word.lower())))
        split = next((SPLIT_NAMES[word] for word in begins if word in SPLIT_NAMES), None)
        if split is None:
            without.append(path)
        else:
            found.setdefault(split, []).append(str(path))
    if without and found:
        raise UserError(
            f"{without[0]} does not begin with the name of a split, as other shards do: set data.train, data.val and "
            "data.test"
        )
    return found or {"train": [str(path) for path in without]}

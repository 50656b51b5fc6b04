"""The samples of shards as records: each image with its captions, id, tags and fields."""

from __future__ import annotations

import json
import logging
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from easycap.data.cells import texts_of, values_at
from easycap.data.image_files import SUFFIXES
from easycap.data.issues import DataIssues
from easycap.data.record_table import RecordRows, RecordTable
from easycap.data.shards.shard_images import Shard, ShardImages, block_numbers
from easycap.data.shards.shard_settings import JSON, KEY, ShardSettings
from easycap.data.shards.tar_index import HEADER, ShardIndex
from easycap.data.table_columns import guess_caption, samples_of
from easycap.data.table_fields import TableFields
from easycap.errors import UserError, json_fault
from easycap.utils.string_column import StringBuilder

logger = logging.getLogger(__name__)

ID, TAGS = "id", "tags"  # fields of JSON, as `easycap data shard` writes them
_SAMPLES = 200  # that a guess looks at


class ShardSamples:
    """Collects the samples of shards; what is wrong with one goes to `issues`."""

    def __init__(self, shards: Sequence[Shard], settings: ShardSettings, issues: DataIssues) -> None:
        self.shards, self.settings, self.issues = shards, settings, issues
        self.tags: dict[int, tuple[str, ...]] = {}  # of records
        self.ids_are_keys = settings.id_column is None
        self._rows = RecordRows(settings.fields)
        self._fields = TableFields(self._rows, settings.fields)
        self._members = StringBuilder()
        self._columns = {name: array("q") for name in ("shard", "offset", "length", "crc", "block")}
        self._begins, self._ends = array("q"), array("q")
        self._text_suffix, self._caption_column = settings.text_suffix, settings.caption_column
        self._suffixes = set[str]()  # of all files

    def add(self, number: int, split: str, index: ShardIndex) -> None:
        """Add the samples of shard `number`."""
        place = self.shards[number].place
        for fault in index.faults:
            self.issues.malformed(place, fault)
        self._suffixes.update(index.suffixes)
        texts = _texts_of_samples(index)
        self._choose(index, texts, place)
        keys = index.keys
        self._rows.begin_source(str(number), lambda sample: f"{place}, sample {keys[sample]!r}")
        files = self._images(index, split, place)
        blocks = block_numbers(index.offset[files], index.length[files])
        self._add_blocks(index, files, blocks)
        base, seen = len(self._begins) - (int(blocks[-1]) + 1 if len(blocks) else 0), set[str]()
        for file, block in zip(files.tolist(), blocks.tolist(), strict=True):
            sample = int(index.sample[file])
            key = keys[sample]
            if key in seen:  # which is among the faults
                continue
            seen.add(key)
            values = (
                number,
                int(index.offset[file]),
                int(index.length[file]),
                int(index.crc[file]),
                base + block,
            )
            for column, value in zip(self._columns.values(), values, strict=True):
                column.append(value)
            self._members.append(f"{key}.{index.suffixes[int(index.suffix[file])]}")
            self._rows.add(key, None, sample)
            self._add_texts(key, texts.get(sample, {}), f"{place}, sample {key!r}")

    def table(self) -> tuple[RecordTable, ShardImages]:
        """Return the records, and the image of each; nothing can be added from then on.

        Raises `UserError` if `text_suffix` is set and no sample has it.
        """
        chosen = self.settings.text_suffix
        if chosen is not None and self._suffixes and chosen not in self._suffixes:
            raise UserError(
                f"data.text_suffix={chosen}: no sample has it, only {', '.join(sorted(self._suffixes))}"
            )
        table = self._rows.table()
        for where in table.without_id:
            self.issues.malformed(where, f"has no {self.settings.id_column!r} (data.id_column)")
        columns = {name: np.frombuffer(column, np.int64) for name, column in self._columns.items()}
        assert len(table) == len(columns["shard"])
        return table, ShardImages(
            self.shards,
            self._members.column(),
            columns["shard"].astype(np.int32),
            columns["offset"].copy(),
            columns["length"].copy(),
            columns["crc"].astype(np.uint32),
            columns["block"].astype(np.int32),
            np.frombuffer(self._begins, np.int64),
            np.frombuffer(self._ends, np.int64),
        )

    # ------------------------------------------------------------------------------------------- images

    def _images(self, index: ShardIndex, split: str, place: str) -> np.ndarray:
        """The file of the image of each sample that has one, in their order."""
        suffix = self.settings.image_suffix
        files = index.files_with(lambda one: one == suffix if suffix else _is_image(one))
        files = files[np.argsort(index.offset[files], kind="stable")]
        counts = np.bincount(index.sample[files], minlength=len(index.keys))
        for sample in np.flatnonzero(counts == 0).tolist():
            own = np.flatnonzero(index.sample == sample)
            there = ", ".join(sorted(index.suffixes[one] for one in index.suffix[own].tolist()))
            what = f"has no image{f' .{suffix}' if suffix else ''}, only {there}"
            self.issues.drop(split, index.keys[sample], Path(place), what)
        if (counts > 1).any():
            sample = int(np.argmax(counts > 1))
            suffixes = sorted(
                index.suffixes[one] for one in index.suffix[files[index.sample[files] == sample]].tolist()
            )
            raise UserError(
                f"{place} has several images in sample {index.keys[sample]!r}: set data.image_suffix to one of "
                f"{', '.join(suffixes)}"
            )
        return files

    def _add_blocks(self, index: ShardIndex, files: np.ndarray, blocks: np.ndarray) -> None:
        first = np.flatnonzero(np.diff(blocks, prepend=-1))
        last = np.append(first[1:], len(files)) - 1
        self._begins.extend((index.offset[files[first]] - HEADER).tolist())
        self._ends.extend((index.offset[files[last]] + index.length[files[last]]).tolist())

    # ------------------------------------------------------------------------------------------- texts

    def _choose(self, index: ShardIndex, texts: Mapping[int, Mapping[str, str]], place: str) -> None:
        """Choose which file of samples, and which field of JSON, has the captions: once, for all shards."""
        if not len(index.keys):
            return
        if self._text_suffix is None:
            there = {suffix for its in texts.values() for suffix in its}
            usual = [JSON] if self._caption_column else ["txt", JSON]
            self._text_suffix = next((suffix for suffix in usual if suffix in there), None)
            if self._text_suffix is None:
                raise UserError(
                    f"{place} has no captions in {' or '.join(f'.{one}' for one in usual)}, only "
                    f"{', '.join(f'.{one}' for one in sorted(index.suffixes))}: set data.text_suffix to the text file "
                    "with the captions"
                )
            logger.info("captions are taken from the .%s of samples", self._text_suffix)
        if _is_json(self._text_suffix) and self._caption_column is None:
            found = (_parsed(its[self._text_suffix]) for its in texts.values() if self._text_suffix in its)
            entries = [
                {n: v for n, v in one.items() if n not in (ID, TAGS)}
                for one in found
                if isinstance(one, dict)
            ]
            if not entries:
                return
            self._caption_column = guess_caption(
                samples_of(entries[:_SAMPLES]), where=f"{place} (.{self._text_suffix})"
            )
            logger.info("captions are taken from %r of .%s", self._caption_column, self._text_suffix)
        self._fields.use((self._caption_column, self.settings.id_column, ID, TAGS))

    def _add_texts(self, key: str, texts: Mapping[str, str], where: str) -> None:
        """Add captions, id, tags and fields of a sample to the last row."""
        suffix = self._text_suffix or ""
        about = suffix if _is_json(suffix) else JSON
        entry: Any = _parsed(texts[about]) if about in texts else {}
        if not isinstance(entry, dict):
            self.issues.malformed(
                f"{where}, .{about}", entry if isinstance(entry, str) else "is not a JSON object"
            )
            self._rows.mark_unreadable()
            entry = {}
        self._add_id(key, entry, where)
        if _is_json(suffix):
            self._add_captions(entry, where)
        else:
            self._rows.add_captions(line for line in texts.get(suffix, "").split("\n") if line.strip())
        self._fields.keep(entry)

    def _add_id(self, key: str, entry: Mapping[str, Any], where: str) -> None:
        column = self.settings.id_column
        found = [key] if column == KEY else values_at(entry, column or ID)[:1]
        value = found[0] if found and isinstance(found[0], str | int) and found[0] != "" else None
        missing = value is None and column is not None
        image_id = key if value is None else str(value)
        self.ids_are_keys &= value is None
        self._rows.add_id(image_id, where, missing=missing)
        tags = entry.get(TAGS)
        if isinstance(tags, list) and tags and all(isinstance(tag, str) for tag in tags):
            self.tags[len(self._rows) - 1] = tuple(tags)

    def _add_captions(self, entry: Mapping[str, Any], where: str) -> None:
        try:
            cells = values_at(entry, self._caption_column) if self._caption_column else []
            self._rows.add_captions([text for cell in cells for text in texts_of(cell)])
        except ValueError as error:
            self.issues.malformed(where, f"has a caption that {error}")
            self._rows.mark_unreadable()


def _texts_of_samples(index: ShardIndex) -> dict[int, dict[str, str]]:
    """{sample: {suffix: text}}."""
    found: dict[int, dict[str, str]] = {}
    of_files: Iterator[tuple[int, int]] = zip(
        index.sample[index.text].tolist(), index.suffix[index.text].tolist(), strict=True
    )
    for (sample, suffix), text in zip(of_files, index.texts, strict=True):
        found.setdefault(sample, {})[index.suffixes[suffix]] = text
    return found


def _parsed(text: str) -> Any:
    """What JSON holds; a text that says what is wrong with it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"is not valid JSON ({json_fault(error)})"


def _is_image(suffix: str) -> bool:
    return f".{suffix.rpartition('.')[2]}" in SUFFIXES


def _is_json(suffix: str | None) -> bool:
    return suffix is not None and suffix.rpartition(".")[2] == JSON

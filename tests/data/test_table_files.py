"""Tables of captions in every format give the same entries; what is not a table is named with file and place."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.table_columns import TableColumns
from easycap.data.table_files import column_rows, guess_from, table_entries
from easycap.errors import UserError

ROWS = [{"file": f"{n:04d}.jpg", "text": f"a dog, {n} times"} for n in range(3)]
ISSUES = DataIssues(OnBadImage.error)


def separated(separator: str) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["file", "text"], delimiter=separator)
    writer.writeheader()
    writer.writerows(ROWS)
    return out.getvalue()


TEXTS = {
    "c.csv": separated(","),
    "semicolon.csv": separated(";"),
    "c.tsv": separated("\t"),
    "c.psv": separated("|"),
    "c.txt": separated("|"),
    "list.json": json.dumps(ROWS),
    "below.json": json.dumps({"info": {"version": 1}, "dataset_name": "x", "data": ROWS}),
    "splits.json": json.dumps({"train": ROWS[:2], "dev": ROWS[2:]}),
    "coco.json": json.dumps(
        {
            "images": [{"id": f"{n}", "file": row["file"]} for n, row in enumerate(ROWS)],
            "annotations": [{"id": 9 - n, "image_id": n, "text": row["text"]} for n, row in enumerate(ROWS)],
        }
    ),
    "keyed.json": json.dumps({str(n): row for n, row in enumerate(ROWS)}),
    "columns.json": json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}),
    "lines.json": "\n".join(map(json.dumps, ROWS)),
    "c.jsonl": "\n".join(map(json.dumps, ROWS)) + "\n\n",
}


def read(path: Path, **options: Any) -> list[dict[str, Any]]:
    return [dict(entry.values) for entry in table_entries(path, ISSUES, **options)]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", TEXTS)
def test_every_format_gives_the_same_entries(name: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / (f"{name}.gz" if zipped else name)
    data = TEXTS[name].encode()
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert [{key: row[key] for key in ("file", "text")} for row in read(path)] == ROWS


def test_parquet_is_read_without_its_images(tmp_path: Path) -> None:
    rows = [
        row | {"texts": [row["text"]], "bytes": b"x" * 99, "image": {"bytes": b"y", "path": "p"}}
        for row in ROWS
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    assert read(tmp_path / "c.parquet") == [row | {"texts": [row["text"]]} for row in ROWS]


def test_captions_by_image_are_a_table(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"val": {"a.jpg": ["x", "y"]}, "test": {"b.jpg": "z"}}))
    found = [(entry.split, dict(entry.values)) for entry in table_entries(path, ISSUES)]
    assert found == [
        ("val", {"image": "a.jpg", "caption": ["x", "y"]}),
        ("test", {"image": "b.jpg", "caption": "z"}),
    ]


def test_objects_by_image_are_a_table(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    for stored in (
        {"a.jpg": [{"raw": "x y", "n": 1}], "b.jpg": []},
        {"7": [{"raw": "x y"}]},
        {"a.jpg": [{"raw": "x y"}]},
    ):
        for wrapped in (stored, {"train": stored}):
            path.write_text(json.dumps(wrapped))
            found = [dict(entry.values) for entry in table_entries(path, ISSUES)]
            assert found == [{"image": name, "caption": objects} for name, objects in stored.items()]
    guess, _ = guess_from(iter([]), path, image="image", caption="caption[].raw", split=None, is_image=None)
    entries = table_entries(path, ISSUES)
    assert guess_from(entries, path, image=None, caption=None, split=None, is_image=None)[0] == guess
    path.write_text(json.dumps({"images": [{"id": 7}], "texts": [{"image": 7}]}))
    with pytest.raises(
        UserError, match="has several lists of objects: set data.entries to one of images, texts"
    ):
        read(path)


def test_a_list_in_a_cell_is_several_captions(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('raw,filename\n"[""a dog"", ""it runs""]",0.jpg\n"[\'one\', \'two\']",1.jpg\n')
    guess, entries = guess_from(
        table_entries(path, ISSUES), path, image=None, caption=None, split=None, is_image=None
    )
    rows = column_rows(entries, TableColumns(*guess), ISSUES)
    assert [(row.image, row.caption) for row in rows] == [
        *(("0.jpg", "a dog"), ("0.jpg", "it runs"), ("1.jpg", "one"), ("1.jpg", "two"))
    ]


def test_a_table_without_a_header_has_numbered_columns(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("0.jpg,a dog runs\n1.jpg,a cat sleeps\n")
    assert read(tmp_path / "c.csv") == [
        {"1": "0.jpg", "2": "a dog runs"},
        {"1": "1.jpg", "2": "a cat sleeps"},
    ]


def test_one_of_several_lists_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"captions": ROWS, "categories": [{"id": 1}], "deep": {"rows": ROWS[:1]}}))
    with pytest.raises(UserError, match="set data.entries to one of captions, categories"):
        read(path)
    assert read(path, key="captions") == ROWS
    assert read(path, key="deep.rows") == ROWS[:1]
    with pytest.raises(
        UserError, match=r"has no 'rows' \(data.entries=rows\); it has captions, categories, deep"
    ):
        read(path, key="rows")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", "{", "c.json is not valid JSON"),
        ("c.json", "3", "c.json holds no captions"),
        ("c.json", "{}", "c.json holds no captions"),
        ("c.json", "[1]", r"c.json\[0\] is not a JSON object"),
        ("c.json", '{"a.jpg": 3}', "'a.jpg' is neither a caption nor a list"),
        (
            "c.json",
            '{"images": [{"id": 1}], "annotations": [{"image_id": 2}]}',
            r"annotations\[0\] has captions of the unknown image '2'",
        ),
        ("c.json", '{"images": [{"id": 1}], "annotations": [{}]}', r"annotations\[0\] has no 'image_id'"),
        ("c.json", '{"images": [{}], "annotations": []}', r"images\[0\] has no 'id'"),
        ("c.parquet", "no", "c.parquet is not a Parquet file"),
        ("c.csv.gz", "no", "c.csv.gz is not a whole gzip file"),
        ("c.doc", "", "c.doc is not a table: it must be one of .csv, .json"),
    ],
)
def test_what_is_no_table_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)

"""`data=huggingface` on folders: save_to_disk's, Parquet and ImageFolder; what is one image, and what it is called."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from helpers.tiny_config import TINY
from omegaconf import OmegaConf
from PIL import Image

from easycap.commands.caption import main as caption
from easycap.commands.data import main as data_command
from easycap.commands.evaluate import main as evaluate
from easycap.config.compose import compose
from easycap.config.schema import check, config_hash
from easycap.data import arrow_images
from easycap.data.arrow_images import ArrowImage, open_table
from easycap.data.data_splits import hashed_splits
from easycap.data.huggingface import huggingface
from easycap.data.images import BadImage, ImageFile
from easycap.data.issues import OnBadImage
from easycap.data.loader import evaluation_batches
from easycap.data.transforms import Transform
from easycap.data.verify import bad_images
from easycap.train import train
from easycap.types import Dataset, Preprocessing
from easycap.vocab.word import WordVocabulary

COUNT = 24


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path / "cache"))


def content(number: int) -> bytes:
    """A PNG that is the same for the same number."""
    pixels = np.random.default_rng(number).integers(0, 256, (9, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def rows(count: int = COUNT, *, first: int = 0, names: bool = True) -> list[dict[str, Any]]:
    """Rows as sets on the hub have them: an image and a caption."""
    return [
        {"image": {"bytes": content(n), "path": f"{n}.png" if names else None}, "caption": f"a dog {n}"}
        for n in range(first, first + count)
    ]


def hf(entries: list[dict[str, Any]]) -> datasets.Dataset:
    made = datasets.Dataset.from_list(entries)
    return made.cast_column("image", datasets.Image())


def saved(folder: Path, **splits: list[dict[str, Any]]) -> Path:
    datasets.DatasetDict({name: hf(entries) for name, entries in splits.items()}).save_to_disk(folder)
    return folder


def read(path: Path | str, **changes: Any) -> Dataset:
    settings: dict[str, Any] = dict.fromkeys(
        "config revision train val test image_column caption_column id_column".split()
    )
    settings |= {
        "val_share": 0.2,
        "test_share": 0.2,
        "seed": 0,
        "streaming": False,
        "on_bad_image": OnBadImage.error,
    }
    return huggingface(**({"pixels": True} | settings | {"path": str(path)} | changes))


def captions_of(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {e.id: e.references for examples in dataset.splits.values() for e in examples}


EXPECTED = {f"{n}.png": (f"a dog {n}",) for n in range(COUNT)}


def parquet(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    hf(rows()).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    return folder


def image_folder(folder: Path) -> Path:
    for n in range(COUNT):
        split = folder / ("validation" if n % 4 == 0 else "train")
        split.mkdir(parents=True, exist_ok=True)
        (split / f"{n}.png").write_bytes(content(n))
        with (split / "metadata.jsonl").open("a") as file:
            file.write(json.dumps({"file_name": f"{n}.png", "text": f"a dog {n}"}) + "\n")
    return folder


def test_arrow_and_parquet_give_the_same_images_and_splits(tmp_path: Path) -> None:
    arrow, packed = read(saved(tmp_path / "a", train=rows())), read(parquet(tmp_path / "p"))
    assert captions_of(arrow) == EXPECTED and arrow.fingerprint == packed.fingerprint
    shape = {split: [e.id for e in its] for split, its in arrow.splits.items()}
    assert shape == {split: [e.id for e in its] for split, its in packed.splits.items()}
    assert all(shape.values())
    one = arrow.splits["train"][0]
    assert isinstance(one.image, ArrowImage) and one.image.path.parent == tmp_path / "a" / "train"
    wanted = np.asarray(Image.open(io.BytesIO(content(int(one.id.removesuffix(".png"))))))
    assert np.array_equal(one.image.array(), wanted) and np.array_equal(np.asarray(one.image.load()), wanted)


def test_an_image_folder_is_read_where_it_lies(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "f")
    dataset = read(folder)
    val = {f"validation/{n}.png" for n in range(0, COUNT, 4)}
    assert {e.id for e in dataset.splits["val"]} == val and dataset.splits["test"]
    assert captions_of(dataset)["train/1.png"] == ("a dog 1",)
    assert all(e.image == ImageFile(folder / e.id) for its in dataset.splits.values() for e in its)


def test_changed_captions_of_an_image_folder_are_seen(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "f")
    before = read(folder)
    table = folder / "train" / "metadata.jsonl"
    table.write_text(table.read_text().replace("a dog", "one cat"))
    after = read(folder)
    assert captions_of(after)["train/1.png"] == ("one cat 1",)
    assert after.fingerprint != before.fingerprint


def test_rows_with_the_same_image_are_one_image(tmp_path: Path) -> None:
    entries = [row | {"caption": f"{row['caption']} {i}"} for i in range(3) for row in rows()]
    dataset = read(saved(tmp_path / "a", train=entries))
    assert captions_of(dataset) == {i: tuple(f"{t[0]} {n}" for n in range(3)) for i, t in EXPECTED.items()}


def test_lists_nested_and_numbered_captions(tmp_path: Path) -> None:
    def captions(name: str, of: Any) -> dict[str, tuple[str, ...]]:
        entries = [{"image": row["image"], **of(row["caption"])} for row in rows()]
        return captions_of(read(saved(tmp_path / name, train=entries)))

    twice = {image_id: (text, f"{text} too") for image_id, (text,) in EXPECTED.items()}
    assert captions("list", lambda t: {"captions": [t, f"{t} too"]}) == twice
    assert (
        captions("raw", lambda t: {"sentences": [{"raw": t, "id": 1}, {"raw": f"{t} too", "id": 2}]}) == twice
    )
    assert captions("numbered", lambda t: {"caption_0": t, "caption_1": f"{t} too", "caption_id": 7}) == twice


def test_images_without_names_are_called_by_their_content(tmp_path: Path) -> None:
    one = read(saved(tmp_path / "a", train=rows(names=False)))
    other = read(saved(tmp_path / "b", train=rows(names=False)[::-1]))
    assert captions_of(one) == captions_of(other) and len(captions_of(one)) == COUNT
    for split, examples in one.splits.items():
        assert {e.id for e in examples} == {e.id for e in other.splits[split]}
    assert all(len(image_id) == 16 for image_id in captions_of(one))


def test_a_name_of_two_images_is_the_id_of_neither(tmp_path: Path) -> None:
    entries = rows()
    entries[1]["image"]["path"] = "0.png"
    found = captions_of(read(saved(tmp_path / "a", train=entries)))
    assert len(found) == COUNT and "0.png" not in found and "2.png" in found


def test_an_id_column_is_obeyed(tmp_path: Path) -> None:
    entries = [row | {"number": n // 2} for n, row in enumerate(rows())]
    folder = saved(tmp_path / "a", train=entries)
    with pytest.raises(ValueError, match="has this id for another image in row 1"):
        read(folder, id_column="number")
    dataset = read(folder, id_column="number", on_bad_image=OnBadImage.skip)
    assert set(captions_of(dataset)) == {str(n) for n in range(COUNT // 2)}


def test_an_image_of_two_splits_is_told(tmp_path: Path) -> None:
    entries = rows()
    entries[-1] = rows(1)[0] | {"image": {"bytes": content(0), "path": "other.png"}}
    folder = saved(tmp_path / "a", train=entries[:16], test=entries[16:])
    with pytest.raises(ValueError, match="is already in the train split"):
        read(folder)
    dataset = read(folder, on_bad_image=OnBadImage.skip)
    assert len(dataset.splits["test"]) == 7 and len(dataset.issues) == 1


def test_splits_by_usual_and_by_chosen_names(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", train=rows(8), validation=rows(8, first=8), extra=rows(8, first=16))
    dataset = read(folder)
    assert {split: len(its) for split, its in dataset.splits.items() if split != "test"}["val"] == 8
    assert len(dataset.splits["train"]) + len(dataset.splits["test"]) == 8 and dataset.splits["test"]
    assert {e.id for e in read(folder, test="extra").splits["test"]} == {f"{n}.png" for n in range(16, 24)}
    with pytest.raises(ValueError, match=r"data.test=extr is not a split of the set; did you mean 'extra'\?"):
        read(folder, test="extr")
    alone = read(saved(tmp_path / "b", test=rows()))
    assert not alone.splits["train"] and len(alone.splits["test"]) == COUNT
    assert "data.train=NAME" in alone.issues[0].what
    assert captions_of(read(tmp_path / "b", train="test", test=None)) == EXPECTED


def test_damaged_images_and_empty_captions_are_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    entries = rows()
    entries[0]["image"] = {"bytes": content(0)[:60], "path": "0.png"}
    entries[1]["caption"] = " "
    entries[2]["image"] = None
    folder = saved(tmp_path / "a", train=entries)
    assert data_command(["check", "--json", "data=huggingface", f"data.path={folder}"]) == 1
    found = {row["id"]: row["what"] for row in json.loads(capsys.readouterr().out) if row["dropped"]}
    assert "has no image in row 2" in found.values() and "cannot be read as an image" in found["0.png"]
    assert found["1.png"] == "has no caption in row 1"
    with pytest.raises(ValueError, match="row"):
        read(folder)
    image = ArrowImage(folder / "train" / "data-00000-of-00001.arrow", "image", 0, "x")
    with pytest.raises(BadImage, match="data-00000-of-00001.arrow cannot be read as an image"):
        image.load()
    assert set(bad_images([image])) == {image}


def test_a_list_that_is_cut_short_is_told(tmp_path: Path) -> None:
    entries = rows()
    entries[4]["caption"] = "['a dog runs', 'a cat sl"
    entries[5]["caption"] = "['a dog runs', 'a cat sleeps']"
    folder = saved(tmp_path / "a", train=entries)
    message = r"row 4 has a caption that begins like a list .*'a cat sl"
    with pytest.raises(ValueError, match=message):
        read(folder)
    dataset = read(folder, on_bad_image=OnBadImage.skip)
    assert captions_of(dataset).keys() == EXPECTED.keys() - {"4.png"} and len(dataset.issues) == 1
    assert captions_of(dataset)["5.png"] == ("a dog runs", "a cat sleeps")


def test_an_image_is_read_without_the_rest_of_its_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = read(saved(tmp_path / "a", train=rows()))
    monkeypatch.setattr(arrow_images, "contents", None)
    assert dataset.splits["train"][2].image.array().shape == (9, 8, 3)


def test_wrong_settings_name_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "photos", train=rows())
    for settings, message in [
        ({"caption_column": "captoin"}, r"data.caption_column=captoin: .* did you mean 'caption'\?"),
        ({"image_column": "picture"}, "data.image_column=picture: .* allowed: caption, image"),
        ({"path": tmp_path / "photo"}, r"photo is not a folder \(did you mean .*photos\?\)"),
        ({"path": "https://x.org/a"}, "nor a name on the hub, which is NAME or OWNER/NAME"),
        ({"config": "x"}, "data.config=x: .* was saved by save_to_disk"),
        ({"revision": "x"}, "data.revision=x is for data sets on the hub"),
        ({"val_share": 0.9}, "must be positive and below 1 together"),
    ]:
        with pytest.raises(ValueError, match=message):
            read(**({"path": folder} | settings))
    datasets.Dataset.from_list([{"url": "http://x", "caption": "a dog runs"}]).save_to_disk(tmp_path / "urls")
    with pytest.raises(ValueError, match="has no column of images, only url, caption: .* img2dataset"):
        read(tmp_path / "urls")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"data.path=.*empty cannot be opened by the library datasets"):
        read(tmp_path / "empty")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r'pip install "easycap\[huggingface\]"'):
        read(folder)


def test_hashed_splits_leave_out_a_share_of_zero() -> None:
    ids = [str(n) for n in range(400)]
    splits = hashed_splits(ids, seed=0, val_share=0.1, test_share=0)
    assert 20 < list(splits.values()).count("val") < 60 and "test" not in splits.values()
    assert set(hashed_splits(["a", "b"], seed=0, val_share=0.01, test_share=0).values()) == {"train", "val"}


def batches(dataset: Dataset, workers: int) -> list[Any]:
    vocabulary = WordVocabulary(size=100, min_count=1, captions=["a dog"], segmenter="spaces")
    transform = Transform(Preprocessing(8, (0.5,) * 3, (0.5,) * 3))
    loaded = evaluation_batches(
        dataset.splits["train"], transform, vocabulary, {}, batch_size=4, max_length=8, workers=workers
    )
    return [batch.inputs.images.numpy() for batch in loaded]


def test_loader_processes_map_the_file_themselves(tmp_path: Path) -> None:
    dataset = read(saved(tmp_path / "a", train=rows()))
    before = batches(dataset, 0)
    for one, other in zip(before, batches(dataset, 1), strict=True):
        assert np.array_equal(one, other)
    assert len(pickle.dumps(dataset.splits["train"][0])) < 600
    open_table.cache_clear()
    assert pickle.loads(pickle.dumps(dataset.splits["train"]))[0].image.array().shape == (9, 8, 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on an Arrow folder, which is moved afterwards, with cached features."""
    here = tmp_path_factory.mktemp("hf")
    saved(here / "before", train=rows())
    settings = [word for word in TINY if not word.startswith("data.")]
    words = ["data=huggingface", f"data.path={here / 'before'}", "vocab.min_count=1", "trainer.epochs=2"]
    train(check(compose([*settings, *words])[0]), here / "run", command="easycap train")
    return here / "run"


def test_a_run_is_evaluated_where_its_data_has_moved(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    before, after = run.parent / "before", tmp_path / "after"
    before.rename(after)
    try:
        with pytest.raises(ValueError, match=r"data.path=.*before does not exist; .* as data.path=PATH"):
            evaluate([str(tmp_path / "run")])
        captions = (tmp_path / "run" / "captions.test.json").read_bytes()
        assert evaluate([str(tmp_path / "run"), f"data.path={after}"]) == 0
        assert (tmp_path / "run" / "captions.test.json").read_bytes() == captions
    finally:
        after.rename(before)


def test_a_run_captions_photos_without_its_data(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "x.png").write_bytes(content(99))
    assert caption([str(run), str(tmp_path / "x.png")]) == 0
    assert "x.png" in capsys.readouterr().out


def test_the_run_keeps_the_fingerprint(run: Path) -> None:
    data = json.loads((run / "result.json").read_text())["data"]
    assert data["fingerprint"] == read(run.parent / "before", val_share=0.1, test_share=0.1).fingerprint


def test_a_run_is_not_resumed_on_data_that_changed(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    changed = saved(tmp_path / "after", train=[*rows(COUNT - 1), *rows(1, first=99)])
    stored = OmegaConf.load(run / "config.yaml")

    def resume(path: Path) -> None:
        words = {"resume": str(tmp_path / "run"), "data": {"path": str(path)}}
        train(check(OmegaConf.merge(stored, words)), tmp_path / "run", command="")

    before = (tmp_path / "run" / "result.json").read_bytes()
    with pytest.raises(
        ValueError, match=r"the data of .*run has changed since the run started \(fingerprint"
    ):
        resume(changed)
    assert (tmp_path / "run" / "result.json").read_bytes() == before
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "completed"
    resume(run.parent / "before")


def test_a_hub_name_is_no_path_that_could_move() -> None:
    def config(path: str) -> dict[str, Any]:
        return check(compose(["data=huggingface", f"data.path={path}"])[0])

    assert config("owner/name")["data"]["path"] == "owner/name"
    assert config_hash(config("owner/name")) != config_hash(config("other/name"))
    assert config_hash(config("/a/name")) == config_hash(config("/b/name"))

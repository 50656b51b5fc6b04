"""The runs and files that the pages of the documentation name, made small: RUN, photo.jpg, COCO, ..."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from helpers.region_files import write_folder, write_hdf5
from helpers.released_files import write_clipcap, write_m2, write_ruotianluo, write_sgrvinod
from helpers.tiny_image_text_models import tiny_model
from helpers.tiny_tokenizers import tiny_gpt2
from PIL import Image
from run_blocks import run_here

from easycap.data.scenes.draw import draw
from easycap.data.scenes.graph import Scene
from easycap.data.scenes.store import make_record

# What makes any `easycap train` of the pages take seconds. A setting that the command gives itself stays.
SMALL = {
    "trainer.max_steps": "2",
    "trainer.batch_size": "8",
    "trainer.workers": "0",
    "trainer.threads": "1",
    "validation.images": "8",
    "device": "cpu",
    "tracking": "none",
}
SMALL_SCENES = {
    "data.train_images": "32",
    "data.val_images": "8",
    "data.test_images": "8",
    "data.workers": "1",
}
ATTENTION = ["decoder=updown", "decoder.embed_dim=16", "decoder.hidden_dim=16", "image_tokens=grid"]


def small(words: Sequence[str], extra: Sequence[str] = ()) -> list[str]:
    """Return the words of an `easycap train` command with settings that make it small, and `extra` ones."""
    if any(word.startswith("resume=") for word in words):
        return list(words)
    given = {word.partition("=")[0] for word in (*words, *extra)}
    settings = dict(SMALL)
    experiments = [word for word in words if word.startswith("experiment=")]
    if not any(word.startswith("data=") for word in words) and all(
        "=easycap/quick" in e or "=easycap/scenes" in e for e in experiments
    ):
        settings |= SMALL_SCENES
    tracked = any(word.startswith("tracking") for word in words)
    added = [f"{key}={value}" for key, value in settings.items() if key not in given]
    return [*words, *extra, *(word for word in added if not (tracked and word == "tracking=none"))]


def make_runs(outputs: Path) -> None:
    """Train RUN, a small quickstart, and ATTENTION, whose decoder attends. A is RUN, B is ATTENTION, and
    sweeps/example holds both."""
    runs = outputs / "runs"
    for name, settings in {"RUN": ["experiment=easycap/quickstart"], "ATTENTION": ATTENTION}.items():
        before = set(runs.iterdir()) if runs.is_dir() else set()
        code, printed = run_here(["easycap", *small(["train", *settings])])
        assert code == 0, printed
        (made,) = set(runs.iterdir()) - before
        made.rename(runs / name)
    for copy, name in {"A": "RUN", "B": "ATTENTION"}.items():
        shutil.copytree(runs / name, runs / copy)
        shutil.copytree(runs / name, outputs / "sweeps" / "example" / f"of_{name}")


def make_files(folder: Path) -> None:
    """Write the files that pages name into `folder`."""
    (folder / "folder").mkdir()
    scene(0).save(folder / "photo.jpg")
    scene(1).save(folder / "folder" / "one.png")
    _photos(folder)
    _coco(folder / "COCO")
    _flickr8k(folder / "FLICKR8K")
    names = [str(number) for number in range(12)]
    write_folder(folder / "cocobu_att", names)
    write_hdf5(folder / "coco_detections.hdf5", names)
    write_m2(folder)
    shutil.copytree(tiny_model("blip"), folder / "blip")
    write_clipcap(folder, dim=512)
    for file in write_sgrvinod(folder):
        file.rename(file.with_name(file.name.replace("_x.", "_coco.")))
    shutil.copytree(tiny_gpt2(), folder / "GPT2")
    write_folder(folder / "clip_features", names, dim=512)
    write_ruotianluo(folder, "updown")[1].rename(folder / "infos_updown-best.pkl")
    results = [{"image_id": n, "caption": f"a photo of thing {n % 2}"} for n in (10, 11)]
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    captions = [{"image_id": n, "caption": f"a dog number {n % 3} runs"} for n in range(5)]
    references = {
        "images": [{"id": n} for n in range(5)],
        "annotations": [
            {"image_id": n, "id": n, "caption": f"the dog number {n % 3} is running"} for n in range(5)
        ],
    }
    (folder / "captions.json").write_text(json.dumps(captions), encoding="utf-8")
    (folder / "references.json").write_text(json.dumps(references), encoding="utf-8")


def scene(number: int) -> Image.Image:
    """The picture of a generated scene, 64 x 64."""
    return draw(Scene.from_dict(make_record(0, "train", number)["graph"]), 64)


def _photos(folder: Path) -> None:
    """photos/ and photos.csv: ten readable images, one that is cut off, one that is missing."""
    photos = folder / "photos"
    photos.mkdir()
    lines = ["image,caption"]
    for number in range(10):
        scene(number).save(photos / f"{number}.jpg")
        lines += [f"{number}.jpg,a picture of thing {number % 3}"] * 2
    scene(10).save(photos / "truncated.jpg")
    content = (photos / "truncated.jpg").read_bytes()
    (photos / "truncated.jpg").write_bytes(content[: len(content) // 2])
    lines += ["truncated.jpg,a picture", "missing.jpg,a picture"]
    (folder / "photos.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _flickr8k(root: Path) -> None:
    """Twelve images in Flickr8k's own layout; every word of their captions occurs often enough to be known."""
    (root / "Flicker8k_Dataset").mkdir(parents=True)
    captions = []
    for split, numbers in (("train", range(8)), ("dev", range(8, 10)), ("test", range(10, 12))):
        for number in numbers:
            scene(number).save(root / "Flicker8k_Dataset" / f"{number}.jpg")
            captions += [f"{number}.jpg#{k}\tA photo of thing {number % 2} ." for k in range(5)]
        lines = "\n".join(f"{number}.jpg" for number in numbers)
        (root / f"Flickr_8k.{split}Images.txt").write_text(lines, encoding="utf-8")
    (root / "Flickr8k.token.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")


def _coco(root: Path) -> None:
    """Twelve images both in COCO's own layout (train2017, val2017) and with Karpathy's splits (2014)."""
    (root / "annotations").mkdir(parents=True)
    entries = []
    for folder in ("train2017", "val2017", "train2014", "val2014"):
        (root / folder).mkdir()
    for split, numbers in (("train", range(8)), ("val", range(8, 10)), ("test", range(10, 12))):
        year14, year17 = (f"{'train' if split == 'train' else 'val'}{year}" for year in (2014, 2017))
        for number in numbers:
            name = f"COCO_{year14}_{number:012d}.jpg"
            scene(number).save(root / year14 / name)
            scene(number).save(root / year17 / f"{number}.jpg")
            sentences = [{"raw": f"A photo of thing {number % 3}."}] * 5
            entry = {"split": split, "cocoid": number, "filepath": year14, "filename": name}
            entries.append({**entry, "sentences": sentences})
    (root / "dataset_coco.json").write_text(json.dumps({"images": entries}), encoding="utf-8")
    for folder, numbers in (("train2017", range(8)), ("val2017", range(8, 12))):
        images = [{"id": n, "file_name": f"{n}.jpg"} for n in numbers]
        captions = [
            {"image_id": n, "caption": f"A photo of thing {n % 3}."} for n in numbers for _ in range(5)
        ]
        content = json.dumps({"images": images, "annotations": captions})
        (root / "annotations" / f"captions_{folder}.json").write_text(content, encoding="utf-8")

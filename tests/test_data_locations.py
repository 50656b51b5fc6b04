"""Where data lies is not what a run is: it may move, and the same data at two locations is one config."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from helpers.tiny_config import TINY
from PIL import Image

from easycap.commands.evaluate import main as evaluate
from easycap.commands.train import main as launch
from easycap.config.compose import compose
from easycap.config.data_locations import check_locations, split_locations, with_locations
from easycap.config.schema import check, config_hash, to_plain
from easycap.config.validate import validate
from easycap.predict import load
from easycap.report.comparison.settings import differing, flat
from easycap.runs.find import checkpoint_of
from easycap.tasks.captioning import CaptioningTask
from easycap.tasks.create import load_task
from easycap.train import train
from easycap.utils.files import write_json

SETTINGS = [setting for setting in TINY if not setting.startswith("data.")]
COUNT = 8


def make_photos(folder: Path) -> list[str]:
    """Overrides for photos in `folder`/im and their captions in `folder`/c.csv."""
    (folder / "im").mkdir(parents=True)
    for number in range(COUNT):
        Image.effect_noise((8, 8), 10 * number).save(folder / "im" / f"{number}.png")
    rows = "\n".join(f"{number}.png,a dog {number}" for number in range(COUNT))
    (folder / "c.csv").write_text(f"image,caption\n{rows}\n")
    return ["data=folder", f"data.images={folder / 'im'}", f"data.captions={folder / 'c.csv'}"]


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and the folder to which its data has moved since."""
    here = tmp_path_factory.mktemp("locations")
    config = check(compose([*SETTINGS, *make_photos(here / "before"), "vocab.min_count=1"])[0])
    train(config, here / "run", command="easycap train")
    (here / "before").rename(here / "after")
    return here / "run", here / "after"


def test_what_has_moved_is_said_with_the_remedy(moved: tuple[Path, Path]) -> None:
    run, _after = moved
    message = r"data.images=.*before/im does not exist; if the run's data has moved, .* as data.images=PATH"
    with pytest.raises(ValueError, match=message):
        evaluate([str(run)])
    with pytest.raises(ValueError, match=message):
        validate(compose([f"resume={run}"])[0])
    with pytest.raises(ValueError, match=message):
        CaptioningTask.read_data(check(compose([f"init_from={run}"])[0]))
    with pytest.raises(
        ValueError, match=r"data.root=x: the run's data=folder has no root; it has data.images, data"
    ):
        evaluate([str(run), "--data-root", "x"])


def test_evaluate_takes_the_new_place(moved: tuple[Path, Path], capsys: pytest.CaptureFixture) -> None:
    run, after = moved
    before = (run / "captions.test.json").read_bytes()
    assert evaluate([str(run), f"data.images={after / 'im'}", f"data.captions={after / 'c.csv'}"]) == 0
    assert (
        evaluate([str(run), "--data-images", str(after / "im"), "--data-captions", str(after / "c.csv")]) == 0
    )
    assert (run / "captions.test.json").read_bytes() == before


def test_resume_and_init_from_take_the_new_place(moved: tuple[Path, Path]) -> None:
    run, after = moved
    locations = {"data.images": str(after / "im"), "data.captions": str(after / "c.csv")}
    settings = validate(compose([f"resume={run}"])[0], locations)
    assert settings["data"]["images"] == locations["data.images"] and settings["resume"] == str(run)
    words = [f"{key}={path}" for key, path in locations.items()]
    assert CaptioningTask.read_data(check(compose([f"init_from={run}", *words])[0])).splits["test"]
    assert launch([f"resume={run}", *words]) == 0  # completed: nothing left to do, and no word against them
    with pytest.raises(ValueError, match="remove seed=3"):
        launch([f"resume={run}", *words, "seed=3"])


def test_a_stopped_run_is_resumed_at_the_new_place(
    moved: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, after = moved
    shutil.copytree(run, tmp_path / "run")
    write_json(tmp_path / "run" / "status.json", {"status": "interrupted"})
    before = (tmp_path / "run" / "captions.test.json").read_bytes()
    (tmp_path / "run" / "captions.test.json").unlink()
    monkeypatch.setattr(sys, "argv", sys.argv)  # Hydra's
    words = [f"data.images={after / 'im'}", f"data.captions={after / 'c.csv'}"]
    assert launch([f"resume={tmp_path / 'run'}", *words]) == 0
    assert (tmp_path / "run" / "captions.test.json").read_bytes() == before
    assert f"images: {after / 'im'}\n" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_captioner_needs_no_data_and_takes_its_place(moved: tuple[Path, Path]) -> None:
    run, after = moved
    assert load(run, device="cpu").caption(after / "im" / "0.png")
    captioner = load(run, device="cpu", locations={"data.images": str(after / "im")})
    assert captioner.task.config["data"]["images"] == str(after / "im")


def test_paths_are_stored_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: tuple) -> None:
    make_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    relative = ["data=folder", "data.images=photos/im", "data.captions=photos/../photos/c.csv"]
    data = check(compose(relative)[0])["data"]
    assert data["images"] == str(tmp_path / "photos" / "im") and os.path.isabs(data["captions"])
    flickr = check(compose(["data=flickr8k", "data.root=photos"])[0])["data"]
    assert flickr["root"] == str(tmp_path / "photos") and flickr["images"] == "Flicker8k_Dataset"
    config = load_task(checkpoint_of(moved[0]), device="cpu").config
    assert os.path.isabs(config["data"]["images"])


@pytest.mark.parametrize(
    ("data", "one", "other"),
    [
        ("coco", {"data.root": "/a/coco"}, {"data.root": "/b"}),
        ("flickr8k", {"data.root": "/a"}, {"data.root": "b"}),
        (
            "folder",
            {"data.images": "/a/im", "data.captions": "/a/c.csv"},
            {"data.images": "/b/photos", "data.captions": "/b/c.csv"},
        ),
    ],
)
@pytest.mark.parametrize("features", [False, True])
def test_the_same_data_at_two_places_is_one_config(
    data: str, one: dict[str, str], other: dict[str, str], features: bool
) -> None:
    def config(locations: dict[str, str], where: str) -> dict:
        words = [f"data={data}", *(f"{key}={path}" for key, path in locations.items())]
        words += ["encoder=precomputed", f"encoder.features=/{where}/feats"] if features else []
        return check(compose(words)[0])

    first, second = config(one, "a"), config(other, "b")
    assert first != second and config_hash(first) == config_hash(second)
    assert differing([flat(to_plain(first)), flat(to_plain(second))]) == ()
    assert config_hash(with_locations(first, other)) == config_hash(first)


def test_other_captions_are_another_config() -> None:
    words = ["data=folder", "data.images=/a"]
    first, second = (check(compose([*words, f"data.captions={file}"])[0]) for file in ("a.csv", "b.csv"))
    assert config_hash(first) != config_hash(second)
    assert differing([flat(to_plain(first)), flat(to_plain(second))]) == ("data.captions",)


def test_words_that_say_where_data_lies_are_told_from_others() -> None:
    words = ["RUN", "data.root=/a b", "photos/data.root", "++data.images=c=d", "data.seed=3"]
    rest, locations = split_locations(words)
    assert rest == ["RUN", "photos/data.root", "data.seed=3"]
    assert locations == {"data.root": "/a b", "data.images": "c=d"}


def test_an_address_is_not_a_path() -> None:
    config = check(compose(["data=webdataset", "data.root=https://example.org/shards"])[0])
    check_locations(config)
    assert with_locations(config, {})["data"]["root"] == "https://example.org/shards"
    moved = with_locations(config, {"data.root": "http://127.0.0.1:9/shards"})
    assert moved["data"]["root"] == "http://127.0.0.1:9/shards" and config_hash(moved) == config_hash(config)

"""`encoder=precomputed`: features from files under many names, padding that changes nothing, no pixels seen."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.region_files import DIM, ids_of_data, regions, write_folder, write_hdf5
from helpers.tiny_config import TINY, try_out
from PIL import Image

from easycap.commands import data as data_command
from easycap.commands.evaluate import main as evaluate
from easycap.config.compose import compose
from easycap.config.instantiate import build
from easycap.config.options import options
from easycap.config.schema import check
from easycap.data.feature_files import PrecomputedFeatures
from easycap.data.images import BadImage, ImageFile
from easycap.data.issues import OnBadImage
from easycap.data.loader import Collate, collate, evaluation_batches
from easycap.models.build import build_captioner
from easycap.predict import load
from easycap.tasks.datasets import build_dataset
from easycap.tasks.dry_run import PlaceholderVocabulary
from easycap.train import train
from easycap.types import Dataset, Example, PrecomputedSettings

PICTURE = ImageFile(Path("nowhere.jpg"))


def reader(path: Path, **settings: int) -> PrecomputedFeatures:
    numbers = {"region_dim": DIM, "min_regions": 1, "max_regions": 100, "zero_regions": False}
    return PrecomputedFeatures(PrecomputedSettings(features=str(path), **(numbers | settings)))


def dataset(*ids: str) -> Dataset:
    examples = [Example(image_id, PICTURE, ("a dog",)) for image_id in ids]
    return Dataset("some", {"train": examples, "val": examples[:1], "test": examples[:1]})


def read(path: Path, image_id: str, **settings: int) -> torch.Tensor:
    view = reader(path, **settings)
    return view.of(view.attach(dataset(image_id), OnBadImage.error).splits["train"][0])


# --------------------------------------------------------------------------------------------- names and layouts


@pytest.mark.parametrize(
    ("image_id", "name"),
    [
        ("30752", "30752"),
        ("30752", "000000030752"),
        ("30752", "COCO_val2014_000000030752"),
        ("000000030752", "30752"),
        ("COCO_val2014_000000030752.jpg", "30752"),
        ("COCO_val2014_000000030752", "COCO_val2014_000000030752"),
        ("pets/dog (1).JPG", "pets/dog (1)"),
        ("pets/dog.jpg", "pets/dog.jpg"),
        ("dog.2", "dog.2"),
    ],
)
@pytest.mark.parametrize("layout", [".npz", ".npy", ".hdf5"])
def test_features_are_found_under_the_names_tools_give_them(
    image_id: str, name: str, layout: str, tmp_path: Path
) -> None:
    if layout == ".hdf5" and "/" in name:
        pytest.skip("names in an HDF5 file are without folders")
    (tmp_path / "x" / name).parent.mkdir(parents=True)
    names = [name, "1", "other"]
    if layout == ".hdf5":
        path = write_hdf5(tmp_path / "x.hdf5", names)
    else:
        path = write_folder(tmp_path / "x", names, ending=layout)
    assert torch.equal(read(path, image_id), torch.from_numpy(regions(name)))


def test_a_number_at_the_end_of_a_name_is_not_taken_for_the_name(tmp_path: Path) -> None:
    path = write_folder(tmp_path, ["12"])
    with pytest.raises(ValueError, match="holds no features called dog_12 .*image 'dog_12' of train"):
        reader(path).attach(dataset("dog_12"), OnBadImage.error)


def test_two_images_do_not_share_features(tmp_path: Path) -> None:
    view = reader(write_folder(tmp_path, ["1"]))
    with pytest.raises(ValueError, match="1.npz holds the features of image '1.jpg' already .*'0001.jpg'"):
        view.attach(dataset("1.jpg", "0001.jpg"), OnBadImage.error)


def test_of_several_arrays_the_one_of_features_counts(tmp_path: Path) -> None:
    np.savez(tmp_path / "1.npz", bbox=np.zeros((2, 4)), features=regions("1"))
    np.savez(tmp_path / "2.npz", a=regions("2"), b=regions("2"))
    assert torch.equal(read(tmp_path, "1"), torch.from_numpy(regions("1")))
    with pytest.raises(BadImage, match="2.npz .*of its arrays a, b none is called feat or features"):
        read(tmp_path, "2")


def test_the_first_of_many_regions_count(tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", regions("1", 7))
    assert torch.equal(read(tmp_path, "1", max_regions=4), torch.from_numpy(regions("1", 7)[:4]))


def test_workers_read_one_hdf5_file_that_the_main_process_has_read(tmp_path: Path) -> None:
    names = [str(number) for number in range(40)]
    view = reader(write_hdf5(tmp_path / "x.hdf5", names))
    examples = view.attach(dataset(*names), OnBadImage.error).splits["train"]
    view.of(examples[0])
    loaded = evaluation_batches(
        examples, view, PlaceholderVocabulary(), {}, batch_size=5, max_length=4, workers=2
    )
    for _ in range(2):
        rows = [row[~row[:, 0].isnan()] for batch in loaded for row in batch.inputs.images]
        assert all(torch.equal(a, torch.from_numpy(regions(n))) for a, n in zip(rows, names, strict=True))


def test_an_open_hdf5_file_is_closed_before_a_fork_or_a_pickle(tmp_path: Path) -> None:
    view = reader(write_hdf5(tmp_path / "x.hdf5", ["1"]))
    expected = view.store.read("1")
    assert view.store._file is not None
    child = os.fork()
    if child == 0:
        os._exit(0 if view.store._file is None and np.array_equal(view.store.read("1"), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(view.store.read("1"), expected)
    assert np.array_equal(pickle.loads(pickle.dumps(view)).store.read("1"), expected)


# ----------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 5)), r"has the shape \(3, 5\), not \(regions, encoder.region_dim=6\)"),
        (np.zeros(DIM + 1), r"has the shape \(1, 7\)"),
        (np.zeros((1, DIM)), "has 1 regions, fewer than encoder.min_regions=2"),
        (np.full((3, DIM), np.nan), "has values that are not finite"),
        (np.array([{}]), "cannot be read as features"),  # a pickle
        (np.full((3, DIM), "x"), "has values of the type <U1, not numbers"),
    ],
)
def test_features_that_cannot_be_used_are_named(array: np.ndarray, words: str, tmp_path: Path) -> None:
    np.save(tmp_path / "7.npy", array, allow_pickle=True)
    with pytest.raises(BadImage, match=f"7.npy {words}"):
        read(tmp_path, "7", min_regions=2)


@pytest.mark.parametrize("ending", [".npz", ".npy"])
def test_a_truncated_file_is_named(ending: str, tmp_path: Path) -> None:
    file = write_folder(tmp_path, ["7"], ending=ending) / f"7{ending}"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(BadImage, match=f"7{ending} cannot be read as features"):
        read(tmp_path, "7")


@pytest.mark.filterwarnings("ignore")  # of Python's parser, about headers that are no Python
@pytest.mark.parametrize("kind", ["compressed.npz", "plain.npz", "plain.npy"])
def test_a_damaged_file_is_left_out_whichever_byte_is_damaged(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"7{kind[-4:]}"
    write = {"compressed.npz": np.savez_compressed, "plain.npz": np.savez, "plain.npy": np.save}[kind]
    write(file, np.full((2, DIM), 1, dtype=np.float32))
    whole, view = file.read_bytes(), reader(tmp_path)
    found = set()
    for place in range(len(whole)):
        for byte in (0, 9, ord("("), 255):
            file.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            found.add((view._what_is_wrong("7") or "").split(" (")[0])
    assert {"", "cannot be read as features"} <= found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none", "does not exist: it must be a folder"),
        ("text.txt", "neither a folder nor an HDF5"),
        ("empty", "holds no .npz"),
    ],
)
def test_what_holds_no_features_is_named(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"encoder.features={tmp_path / name} .*{words}"):
        reader(tmp_path / name)


def test_images_without_features_are_left_out_and_listed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "att", ["1", "3", "4"])
    np.save(folder / "5.npy", np.full((2, DIM), np.inf))
    attached = reader(folder).attach(dataset("1", "2", "3", "4", "5"), OnBadImage.skip)
    assert [example.id for example in attached.splits["train"]] == ["1", "3", "4"]
    assert {(f.split, f.id, f.what.split(" ")[0]) for f in attached.issues} == {
        ("train", "2", "holds"),
        ("train", "5", "has"),
    }
    few = reader(folder, min_regions=4).attach(dataset("1", "3", "4"), OnBadImage.skip)
    assert {e.id for e in few.splits["train"]} == {n for n in ("1", "3", "4") if len(regions(n)) >= 4}
    np.save(folder / "5.npy", regions("5"))
    assert reader(folder).attach(dataset("5"), OnBadImage.skip).issues == ()


def test_what_is_damaged_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_hdf5(tmp_path / "x.hdf5", ["1", "2"])
    first = reader(file, min_regions=100).attach(dataset("1", "2"), OnBadImage.skip)
    assert {f.id for f in first.issues if f.id} == {"1", "2"} and str(file / "1_features") == first.issues[
        0
    ].file
    monkeypatch.setattr(PrecomputedFeatures, "_read", lambda self, name: pytest.fail("read again"))
    again = reader(file, min_regions=100).attach(dataset("1", "2"), OnBadImage.skip)
    assert again.issues == first.issues


# ------------------------------------------------------------------------------------------------------ padding

OWN = ("decoder.", "image_tokens.", "encoder.", "data.", "tracking")
SIZES = {
    "gpt2_tiny": ["decoder.max_positions=40"],
    "m2": ["decoder.width=16", "decoder.num_heads=2", "decoder.feed_forward_dim=16", "decoder.max_length=8"],
    "transformer": ["decoder.width=16", "decoder.num_heads=2", "decoder.feed_forward_dim=16"],
}


@pytest.fixture
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    ("decoder", "tokens"),
    [(decoder, "all") for decoder in options("decoder") if decoder != "causal_lm"]  # gpt2_tiny, larger
    + [("lstm", tokens) for tokens in options("image_tokens") if tokens not in ("all", "grid")],
)
def test_a_batch_of_mixed_counts_is_its_images_alone(decoder: str, tokens: str) -> None:
    """Loss and its gradient of images with 5, 1 and 3 regions together and one by one."""
    small = [o for o in TINY if not o.startswith(OWN)]
    small += SIZES.get(decoder, ["decoder.embed_dim=8", "decoder.hidden_dim=16"])
    settings = check(
        compose(
            [
                *small,
                f"decoder={decoder}",
                f"image_tokens={tokens}",
                "encoder=precomputed",
                "encoder.features=nowhere",
                f"encoder.region_dim={DIM}",
            ]
        )[0]
    )
    torch.manual_seed(0)
    captioner = build_captioner(settings, PlaceholderVocabulary()).eval()
    objective = build("objective", settings["objective"], pad_id=0, unk_id=None)
    as_batch = Collate(_Letters(), {}, max_length=6, captions_per_image=None, seed=0)
    items = [
        (Example(str(count), PICTURE, ("abc", "dce")), torch.from_numpy(regions(str(count), count)).double())
        for count in (5, 1, 3)
    ]
    together, alone = as_batch(items), [as_batch([item]) for item in items]
    assert together.inputs.images.shape == (3, 5, DIM) and alone[1].inputs.images.shape == (1, 1, DIM)

    def loss_and_gradient(batches: list) -> tuple[torch.Tensor, torch.Tensor]:
        losses = torch.stack([objective(captioner, batch)[0] for batch in batches])
        parameters = [p for p in captioner.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(losses.mean(), parameters, materialize_grads=True)
        return losses.detach(), torch.cat([gradient.flatten() for gradient in gradients])

    (mixed, gradient), (apart, expected) = loss_and_gradient([together]), loss_and_gradient(alone)
    assert apart.std() > 1e-6, "the loss must depend on the image"
    torch.testing.assert_close(mixed[0], apart.mean(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


class _Letters(PlaceholderVocabulary):
    def encode(self, text: str) -> list[int]:
        return [ord(letter) - 80 for letter in text]


def test_pixels_are_stacked_and_features_padded_with_nan() -> None:
    pixels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert torch.equal(collate(list(pixels)), pixels)
    features = collate([torch.ones(1, DIM), torch.ones(3, DIM)])
    assert features.shape == (2, 3, DIM) and features[0, 1:].isnan().all() and not features[1].isnan().any()


# ----------------------------------------------------------------------------------------------------- a whole run

SMALL = [o for o in TINY if not o.startswith(("encoder.", "image_tokens."))]


def overrides(features: Path) -> list[str]:
    return [
        *SMALL,
        "encoder=precomputed",
        f"encoder.features={features}",
        f"encoder.region_dim={DIM}",
        "encoder.min_regions=1",
        "image_tokens=all",
    ]


def trained(path: Path, features: Path, *more: str) -> list[float]:
    train(check(compose([*overrides(features), *more])[0]), path, command="easycap train")
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def test_a_run_from_files_is_one_from_hdf5_is_evaluated_and_sees_no_photo(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids = ids_of_data(SMALL)
    folder, file = write_folder(tmp_path / "att", ids), write_hdf5(tmp_path / "att.hdf5", ids)
    with caplog.at_level("WARNING"):
        losses = trained(tmp_path / "a", folder)
    assert "random weights" not in caplog.text
    assert losses == trained(tmp_path / "b", file, "trainer.workers=1")
    assert evaluate([str(tmp_path / "a"), "--split", "val"]) == 0
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert "CIDEr-D" in result["scores"]["val"] and result["cost"]["flops_per_caption"] > 0
    assert list((tmp_path / "a" / "samples" / "images").glob("*.png"))
    with pytest.raises(ValueError, match="encoder=precomputed .* cannot see raw images"):
        load(tmp_path / "a", device="cpu")


def test_nothing_to_cache_and_no_grid_end_before_any_work(tmp_path: Path) -> None:
    settings = overrides(tmp_path)
    with pytest.raises(
        ValueError, match="trainer.cache_features is for encoders that see images, .*cache_features=false"
    ):
        frozen = ["trainer.cache_features=true", "trainer.unfreeze_encoder_at_epoch=null"]
        try_out(check(compose([*settings, *frozen])[0]))
    with pytest.raises(ValueError, match="trainer.crop is for encoders that see images, .*trainer.crop=null"):
        try_out(check(compose([*settings, "trainer.crop=0.5"])[0]))
    with pytest.raises(ValueError, match="image_tokens=grid needs an encoder whose features form a grid"):
        try_out(check(compose([*settings, "image_tokens=grid"])[0]))
    with pytest.raises(ValueError, match="encoder.min_regions=9 .*encoder.max_regions=8"):
        try_out(check(compose([*settings, "encoder.min_regions=9", "encoder.max_regions=8"])[0]))


@pytest.mark.parametrize("source", ["coco", "coco_karpathy"])
def test_no_picture_is_needed_but_shown_where_it_is(source: str, tmp_path: Path) -> None:
    root, ids = tmp_path / "coco", list(range(12))
    (root / "annotations").mkdir(parents=True)
    for split in ("train2014", "val2014"):
        images = [{"id": n, "file_name": f"{n}.jpg"} for n in ids if (n < 6) == (split == "train2014")]
        captions = [{"image_id": image["id"], "caption": "a dog"} for image in images]
        content = {"images": images, "annotations": captions}
        (root / "annotations" / f"captions_{split}.json").write_text(json.dumps(content))
    entries = [
        {
            "cocoid": n,
            "filename": f"{n}.jpg",
            "filepath": "val2014",
            "split": ("train", "val", "test")[n % 3],
            "sentences": [{"raw": "a dog"}],
        }
        for n in ids
    ]
    (root / "dataset_coco.json").write_text(json.dumps({"images": entries}))
    features = write_folder(tmp_path / "att", map(str, ids))
    layout = ["data.train=train2014", "data.val=val2014"] if source == "coco" else []
    data = [f"data={source}", f"data.root={root}", *layout]
    small = [o for o in overrides(features) if not o.startswith("data.")]

    def pictures(run: Path) -> list[bool]:
        train(check(compose([*small, *data, "trainer.max_steps=1", "vocab.min_count=1"])[0]), run, command="")
        rows = json.loads((run / "samples" / "test.json").read_text())["random"]
        return [row["image"] is not None for row in rows]

    assert not any(pictures(tmp_path / "without"))
    with pytest.raises(ValueError, match="does not exist|is missing|neither train2014"):  # a model sees them
        build_dataset(check(compose([*small, *data, "draft=retrieval"])[0]))
    (root / "val2014").mkdir()
    Image.new("RGB", (8, 8)).save(root / "val2014" / "8.jpg")
    assert sum(pictures(tmp_path / "with")) == 1


def test_data_check_lists_images_without_features(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "photos").mkdir()
    names = [f"{number}" for number in range(12)]
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / f"{name}.png")
        (tmp_path / "photos" / f"{name}.txt").write_text("a dog")
    features = write_folder(tmp_path / "att", names[1:])
    data = ["data=folder", f"data.images={tmp_path / 'photos'}", "data.val_share=0.3", "data.test_share=0.3"]
    encoder = [o for o in overrides(features) if o.startswith("encoder")]
    assert data_command.main(["check", "--json", *data, *encoder]) == 1
    (issue,) = json.loads(capsys.readouterr().out)
    assert issue["id"] == "0.png" and "holds no features called 0.png or 0 or 000000000000" in issue["what"]
    assert data_command.main(["check", *data]) == 0


def test_drafts_are_retrieved_by_the_pixels_of_images_with_features(tmp_path: Path) -> None:
    features = write_folder(tmp_path / "att", ids_of_data(SMALL))
    losses = trained(
        tmp_path / "run", features, "draft=retrieval", "draft.encoder='small'", "trainer.max_steps=2"
    )
    assert len(losses) > 0 and (tmp_path / "run" / "neighbours").is_dir()

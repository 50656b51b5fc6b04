"""CLIPScore with a tiny random CLIP that was saved and loaded, against the formula in plain torch."""

import json
import shutil

import pytest
from helpers.tiny_clip import save_tiny_clip
from PIL import Image

from easycap.commands.score import main
from easycap.data.image_files import images_by_id
from easycap.metrics import score
from easycap.metrics.clip_score import ClipScore

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CAPTIONS = {"1": "a dog", "2": "a cat on a mat"}
REFERENCES = {"1": ["a brown dog", "dog"], "2": ["a cat"]}


class _Picture:
    def __init__(self, color: str) -> None:
        self.color = color

    def load(self, at_least: int | None = None) -> Image.Image:
        return Image.new("RGB", (40, 30), self.color)


IMAGES = {"1": _Picture("brown"), "2": _Picture("gray")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def _expected(folder) -> dict[str, tuple[float, float]]:
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)

    def embed(text: str):
        inputs = tokenizer(["A photo depicts " + text], return_tensors="pt")
        inputs["pixel_values"] = torch.zeros(1, 3, 32, 32)
        return model(**inputs).text_embeds[0]

    def look(image: Image.Image):
        inputs = tokenizer(["a"], return_tensors="pt")
        return model(**inputs, **processor(images=[image], return_tensors="pt")).image_embeds[0]

    found = {}
    with torch.no_grad():
        for i, caption in CAPTIONS.items():
            clip = 2.5 * max(0.0, float(look(IMAGES[i].load()) @ embed(caption)))
            best = max(0.0, *(float(embed(r) @ embed(caption)) for r in REFERENCES[i]))
            found[i] = (clip, 2 * clip * best / (clip + best) if clip + best else 0.0)
    return found


@pytest.mark.parametrize("batch_size", [1, 64])
def test_equals_the_formula(folder, batch_size: int) -> None:
    found = score(
        CAPTIONS, REFERENCES, scorers=[ClipScore(model=folder, images=IMAGES, batch_size=batch_size)]
    )
    for image_id, (clip, both) in _expected(folder).items():
        assert found["CLIPScore"].per_image[image_id] == pytest.approx(clip, abs=1e-5)
        assert found["RefCLIPScore"].per_image[image_id] == pytest.approx(both, abs=1e-5)
    assert any(clip > 0 for clip, _ in _expected(folder).values()), "the test needs a positive cosine"


def test_without_weights_it_is_absent(tmp_path) -> None:
    found = score(CAPTIONS, REFERENCES, scorers=["rouge_l", ClipScore(model=tmp_path, images=IMAGES)])
    assert set(found) == {"ROUGE-L"}
    assert (
        set(found.absent) == {"CLIPScore", "RefCLIPScore"} and "no config.json" in found.absent["CLIPScore"]
    )


def test_an_image_that_was_not_given_is_named(folder) -> None:
    with pytest.raises(ValueError, match="1 captioned images were not given, e.g. '2'"):
        score(CAPTIONS, REFERENCES, scorers=[ClipScore(model=folder, images={"1": IMAGES["1"]})])


def test_from_the_command_line(folder, tmp_path, capsys) -> None:
    (tmp_path / "photos").mkdir()
    for image_id, name in (("1", "COCO_val2014_000000000001.png"), ("2", "2.png")):
        IMAGES[image_id].load().save(tmp_path / "photos" / name)
    (tmp_path / "c.json").write_text(json.dumps(CAPTIONS))
    (tmp_path / "r.json").write_text(json.dumps(REFERENCES))
    files = [str(tmp_path / "c.json"), str(tmp_path / "r.json")]
    options = [
        "--clip",
        str(folder),
        "--images",
        str(tmp_path / "photos"),
        "--json",
        str(tmp_path / "out.json"),
    ]
    assert main([*files, *options]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    expected = _expected(folder)
    for image_id, (clip, both) in expected.items():
        assert found["per_image"][image_id]["CLIPScore"] == pytest.approx(clip, abs=1e-5)
        assert found["per_image"][image_id]["RefCLIPScore"] == pytest.approx(both, abs=1e-5)
    assert "RefCLIPScore" in capsys.readouterr().out
    assert f"clip:{folder.name}" in found["scores"]["CLIPScore"]["signature"]


def test_images_are_found_by_their_ids(tmp_path) -> None:
    for name in ("COCO_val2014_000000000042.png", "a 7.png", "x.png"):
        IMAGES["1"].load().save(tmp_path / name)
    found = images_by_id(tmp_path, ["42", "a 7", "x.png"])
    assert [found[i].path.name for i in found] == ["COCO_val2014_000000000042.png", "a 7.png", "x.png"]
    with pytest.raises(ValueError, match="has no image for id '43'"):
        images_by_id(tmp_path, ["43"])
    IMAGES["1"].load().save(tmp_path / "42.png")
    with pytest.raises(ValueError, match="has 2 images .*42.png.* for id '42'"):
        images_by_id(tmp_path, ["42"])
    with pytest.raises(ValueError, match="is not a folder of images"):
        images_by_id(tmp_path / "nowhere", ["42"])


def test_the_signature_tells_weights_apart(folder, tmp_path) -> None:
    other = tmp_path / folder.name
    shutil.copytree(folder, other)
    model = transformers.CLIPModel.from_pretrained(other)
    model.text_projection.weight.data.add_(1)
    model.save_pretrained(other)
    first, second = (
        score(CAPTIONS, REFERENCES, scorers=[ClipScore(model=where, images=IMAGES)])["CLIPScore"].signature
        for where in (folder, other)
    )
    assert first != second and f"clip:{folder.name}," in first and f"clip:{folder.name}," in second

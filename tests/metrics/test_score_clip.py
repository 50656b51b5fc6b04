"""CLIPScore with a tiny random CLIP that was saved and loaded, against the formula in plain torch."""

import json

import pytest
from PIL import Image

from easycap.metrics import score
from easycap.metrics.clip_score import ClipScore

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CAPTIONS = {"1": "a dog", "2": "a cat on a mat"}
REFERENCES = {"1": ["a brown dog", "dog"], "2": ["a cat"]}


class _Picture:
    def __init__(self, color: str) -> None:
        self.color = color

    def load(self) -> Image.Image:
        return Image.new("RGB", (40, 30), self.color)


IMAGES = {"1": _Picture("brown"), "2": _Picture("gray")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved CLIP of width 16 with a vocabulary of letters."""
    path = tmp_path_factory.mktemp("clip")
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(path / "vocab.json"), str(path / "merges.txt"))
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
    text = transformers.CLIPTextConfig(vocab_size=len(tokens), max_position_embeddings=40, **size, **ends)
    vision = transformers.CLIPVisionConfig(image_size=32, patch_size=16, **size)
    torch.manual_seed(2)
    config = transformers.CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8
    )
    transformers.CLIPModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(path)
    return path


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

"""BLEU, ROUGE-L and CIDEr-D against pycocoevalcap itself."""

import contextlib
import io
import random

import pytest

from easycap.metrics import score

WORDS = "a man woman dog cat ball park red big on in with two the of sits runs holds plays near".split()


def _made_up(num_images: int, seed: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Captions and references with repeats, empty captions, long ones, single words and uneven references."""
    rng = random.Random(seed)

    def sentence(most: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, most)))

    references = {str(i): [sentence(12) for _ in range(rng.randint(1, 7))] for i in range(num_images)}
    captions = {
        i: rng.choice([sentence(9), texts[0], "", "a a a a a", sentence(60)])
        for i, texts in references.items()
    }
    return captions, references


def _published(
    captions: dict[str, str], references: dict[str, list[str]]
) -> dict[str, tuple[float, list[float]]]:
    """pycocoevalcap's own scorers, without its Java tokeniser: the words here need none."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    results = {image_id: [text] for image_id, text in captions.items()}
    with contextlib.redirect_stdout(io.StringIO()):
        values, per_image = Bleu(4).compute_score(references, results)
    found = {f"BLEU-{n + 1}": (values[n], per_image[n]) for n in range(4)}
    found["ROUGE-L"] = Rouge().compute_score(references, results)
    found["CIDEr-D"] = Cider().compute_score(references, results)
    return found


@pytest.mark.parametrize("num_images", [2, 5, 150])
def test_scores_equal_pycocoevalcap(num_images: int) -> None:
    captions, references = _made_up(num_images, seed=num_images)
    ours = score(captions, references, intervals=False)
    for name, (value, per_image) in _published(captions, references).items():
        assert ours[name].value == pytest.approx(value, abs=1e-9), name
        for image_id, expected in zip(references, per_image, strict=True):
            assert ours[name].per_image[image_id] == pytest.approx(expected, abs=1e-9), (name, image_id)

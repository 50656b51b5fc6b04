"""pycocoevalcap, run as it is meant to be run; `python reference_tool.py` writes goldens.json anew (needs Java)."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

GOLDENS = Path(__file__).with_name("goldens.json")
HAS_JAVA = shutil.which("java") is not None
_LINE_ENDS = "[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]"


def tokenize(texts: Sequence[str]) -> list[str]:
    """Tokenise with Java: one joined line per text.

    Java looks from a final "K." into the next line, so each text is followed by a line written like it.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    lines = []
    for text in texts:
        text = re.sub(_LINE_ENDS, " ", text)
        lines += [text, "A" if re.match(r"\s*[A-Z]", text) else "a"]
    rows = {number: [{"caption": line}] for number, line in enumerate(lines)}
    return [found[0] for found in PTBTokenizer().tokenize(rows).values()][::2]


def overlap_scores(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, tuple[float, list[float]]]:
    """Corpus value and per-image values, in the order of references, of texts that are tokenised already."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    results = {image_id: [captions[image_id]] for image_id in references}
    wanted = {image_id: list(texts) for image_id, texts in references.items()}
    with contextlib.redirect_stdout(io.StringIO()):
        values, per_image = Bleu(4).compute_score(wanted, results)
    found = {f"BLEU-{n + 1}": (values[n], per_image[n]) for n in range(4)}
    found["ROUGE-L"] = Rouge().compute_score(wanted, results)
    found["CIDEr-D"] = Cider().compute_score(wanted, results)
    return {name: (float(value), [float(v) for v in values]) for name, (value, values) in found.items()}


def meteor_scores(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[float, list[float]]:
    """The same for METEOR, with Java."""
    from pycocoevalcap.meteor.meteor import Meteor

    results = {image_id: [captions[image_id]] for image_id in references}
    return Meteor().compute_score({i: list(texts) for i, texts in references.items()}, results)


def _main() -> None:
    goldens = json.loads(GOLDENS.read_text(encoding="utf-8"))
    texts = [row["text"] for row in goldens["tokens"]]
    rows = zip(texts, tokenize(texts), strict=True)
    goldens["tokens"] = [{"text": text, "tokens": tokens} for text, tokens in rows]
    captions, references = goldens["captions"], goldens["references"]
    plain = dict(zip(captions, tokenize(list(captions.values())), strict=True))
    wanted = {image_id: tokenize(group) for image_id, group in references.items()}
    scores = overlap_scores(plain, wanted) | {"METEOR": meteor_scores(plain, wanted)}
    goldens["scores"] = {name: {"value": value, "per_image": list(v)} for name, (value, v) in scores.items()}
    GOLDENS.write_text(json.dumps(goldens, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _main()

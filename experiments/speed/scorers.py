"""Seconds, peak memory and agreement of easycap's scorers and pycocoevalcap's, on the same generated captions.

    python experiments/speed/scorers.py [--images 5000] [--references 5] [--repeats 3] [--meteor] [--out FILE]

    python experiments/speed/scorers.py --agreement captions_val2017.json

The second compares tokens and scores only, on a file in COCO's format: each image's first caption against its others.

Each step of each side runs in a fresh process, the two sides in turn; the table shows medians. Memory is the peak
of the whole process, with Python, the captions and their tokens, plus Java where it has ended by itself. Needs Java.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS = ("tokenise", "BLEU", "ROUGE-L", "CIDEr-D", "all", "reward")
SIDES = ("easycap", "pycocoevalcap")
SUBJECTS = (
    "man woman child dog cat horse bird girl boy surfer skier chef elephant zebra giraffe bus train".split()
)
COLORS = "red blue green brown white black yellow striped small large young old wooden".split()
VERBS = "riding holding watching eating near wearing throwing catching looking_at standing_by".split()
OBJECTS = "ball kite frisbee surfboard bench table plate sandwich phone umbrella car fence tree hat".split()
PLACES = "park beach street kitchen field room city station mountain river zoo yard market".split()
ENDS = ["", ".", " .", ", and it's sunny.", " on a Sunday", "; the sky isn't clear.", ' with a "sale" sign.']


def make_captions(num_images: int, num_references: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Captions of a small grammar with COCO's lengths and punctuation; equal on any machine."""
    rng = random.Random(0)

    def sentence(topic: tuple[str, str, str]) -> str:
        subject, thing, place = (
            word if rng.random() < 0.7 else rng.choice(group)
            for word, group in zip(topic, (SUBJECTS, OBJECTS, PLACES), strict=True)
        )
        verb = rng.choice(VERBS).replace("_", " ")
        colors = [rng.choice(COLORS) for _ in range(2)]
        words = f"{rng.choice(['a', 'the', 'one'])} {colors[0]} {subject} {verb} a {colors[1]} {thing}"
        return (words + f" in the {place}" * (rng.random() < 0.7) + rng.choice(ENDS)).capitalize()

    topics = {
        str(i): (rng.choice(SUBJECTS), rng.choice(OBJECTS), rng.choice(PLACES)) for i in range(num_images)
    }
    references = {i: [sentence(topic) for _ in range(num_references)] for i, topic in topics.items()}
    return {i: sentence(topic) for i, topic in topics.items()}, references


# ------------------------------------------------------------------------------- one step in its own process


def easycap_step(step: str, captions: dict, references: dict) -> Callable[[], Any]:
    """Return what to time; what the step needs is prepared before."""
    from easycap.metrics import Bleu, CiderD, CiderReward, DocumentFrequencies, Meteor, RougeL, prepare, score

    if step == "tokenise":
        return lambda: prepare(captions, references)
    if step == "all":
        return lambda: score(captions, references, intervals=False)
    if step == "intervals":
        return lambda: score(captions, references)
    if step == "reward":
        df = DocumentFrequencies.from_references(references.values(), source="bench")
        reward = CiderReward(references=references, df=df, eos=False)
        some = list(captions)[:250]
        return lambda: reward(some, [captions[i] for i in some])
    corpus = prepare(captions, references)
    scorer = {"BLEU": Bleu, "ROUGE-L": RougeL, "CIDEr-D": CiderD, "METEOR": Meteor}[step]()
    return lambda: scorer.score_corpus(corpus)


def pycocoevalcap_step(step: str, captions: dict, references: dict) -> Callable[[], Any]:
    """The same work; its reward is its CIDEr of 250 captions, as self-critical training usually calls it."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    def tokenise() -> tuple[dict, dict]:
        wanted = {i: [{"caption": text} for text in texts] for i, texts in references.items()}
        return PTBTokenizer().tokenize(wanted), PTBTokenizer().tokenize(
            {i: [{"caption": t}] for i, t in captions.items()}
        )

    if step == "tokenise":
        return tokenise
    if step == "all":
        return lambda: _all_scores(*tokenise(), (Bleu(4), Rouge(), Cider()))
    wanted, results = tokenise()
    if step == "reward":
        some = list(captions)[:250]
        return lambda: Cider().compute_score({i: wanted[i] for i in some}, {i: results[i] for i in some})
    scorer = {"BLEU": lambda: Bleu(4), "ROUGE-L": Rouge, "CIDEr-D": Cider, "METEOR": Meteor}[step]()
    return lambda: _all_scores(wanted, results, (scorer,))


def _all_scores(wanted: dict, results: dict, scorers: tuple) -> list:
    with contextlib.redirect_stdout(io.StringIO()):
        return [scorer.compute_score(wanted, results) for scorer in scorers]


def worker(side: str, step: str, path: Path) -> None:
    """Time one step and print its seconds and the process's peak memory in MiB."""
    captions, references = json.loads(path.read_text(encoding="utf-8"))
    run = {"easycap": easycap_step, "pycocoevalcap": pycocoevalcap_step}[side](step, captions, references)
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    own, java = (
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps({"seconds": seconds, "mib": (own + java) / 1024}))


# ------------------------------------------------------------------------------------------- the comparison


def measure(path: Path, steps: tuple[str, ...], repeats: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return {step: {side: {"seconds", "mib"}}}, medians over repeats that alternate between the sides."""
    found: dict[str, dict[str, list[dict]]] = {step: {side: [] for side in SIDES} for step in steps}
    for _ in range(repeats):
        for step in steps:
            for side in SIDES:
                command = [sys.executable, __file__, "--worker", side, step, str(path)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found[step][side].append(json.loads(done.stdout.splitlines()[-1]))
    return {
        step: {
            side: {key: round(statistics.median(row[key] for row in rows), 4) for key in ("seconds", "mib")}
            for side, rows in sides.items()
        }
        for step, sides in found.items()
    }


def agreement(captions: dict, references: dict) -> dict[str, Any]:
    """Compare every caption's tokens, and every metric's corpus and per-image values."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "metrics"))
    import reference_tool

    from easycap.metrics import score, tokenize

    texts = [*captions.values(), *(text for group in references.values() for text in group)]
    java = reference_tool.tokenize(texts)
    equal = sum(" ".join(tokenize(text)) == line for text, line in zip(texts, java, strict=True))
    plain = dict(zip(captions, java, strict=False))
    rest = iter(java[len(captions) :])
    wanted = {i: [next(rest) for _ in group] for i, group in references.items()}
    ours = score(captions, references, intervals=False)
    differences = {}
    for name, (value, per_image) in reference_tool.overlap_scores(plain, wanted).items():
        images = (abs(ours[name].per_image[i] - v) for i, v in zip(wanted, per_image, strict=True))
        differences[name] = {"corpus": abs(ours[name].value - value), "per_image": max(images)}
    return {"captions": len(texts), "tokenised_equally": equal, "largest_difference": differences}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--meteor", action="store_true", help="METEOR too, once (a minute or two)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "scorers.json")
    parser.add_argument(
        "--agreement", type=Path, metavar="FILE", help="compare on these captions, measure no time"
    )
    parser.add_argument("--worker", nargs=3, metavar=("SIDE", "STEP", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker[0], arguments.worker[1], Path(arguments.worker[2]))
        return
    if arguments.agreement:
        print("\n".join(_agreement_lines(agreement(*_first_against_others(arguments.agreement)))))
        return
    captions, references = make_captions(arguments.images, arguments.references)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.json"
        path.write_text(json.dumps([captions, references]), encoding="utf-8")
        steps = measure(path, STEPS, arguments.repeats)
        if arguments.meteor:
            steps |= measure(path, ("METEOR",), 1)
    result = {
        "images": arguments.images,
        "references_per_image": arguments.references,
        "repeats": arguments.repeats,
        "steps": steps,
        "intervals": _interval_seconds(captions, references),
        "agreement": agreement(captions, references),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))


def _first_against_others(path: Path) -> tuple[dict, dict]:
    from easycap.metrics.caption_files import read_references

    references = {i: texts for i, texts in read_references(path).items() if len(texts) > 1}
    return {i: texts[0] for i, texts in references.items()}, {i: texts[1:] for i, texts in references.items()}


def _interval_seconds(captions: dict, references: dict) -> dict[str, float]:
    from easycap.metrics import score
    from easycap.metrics.intervals import with_intervals

    scores = score(captions, references, intervals=False)
    start = time.perf_counter()
    with_intervals(scores, resamples=1000)
    return {"resamples": 1000, "metrics": len(scores), "seconds": round(time.perf_counter() - start, 3)}


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = [
        "| step | easycap s | pycocoevalcap s | times faster | easycap MiB | pycocoevalcap MiB |",
        "|---|---|---|---|---|---|",
    ]
    for step, sides in result["steps"].items():
        ours, theirs = (sides[side] for side in SIDES)
        ratio = theirs["seconds"] / ours["seconds"]
        lines.append(
            f"| {step} | {ours['seconds']:.3f} | {theirs['seconds']:.3f} | {ratio:.1f} "
            f"| {ours['mib']:.0f} | {theirs['mib']:.0f} |"
        )
    lines += ["", *_agreement_lines(result["agreement"])]
    spent = result["intervals"]
    lines.append(
        f"\nIntervals of {spent['metrics']} metrics, {spent['resamples']} resamples: {spent['seconds']} s."
    )
    return "\n".join(lines)


def _agreement_lines(same: dict[str, Any]) -> list[str]:
    lines = [
        f"{same['tokenised_equally']} of {same['captions']} captions tokenised equally. Largest differences:"
    ]
    for name, gaps in same["largest_difference"].items():
        lines.append(f"- {name}: corpus {gaps['corpus']:.1e}, per image {gaps['per_image']:.1e}")
    return lines


if __name__ == "__main__":
    main()

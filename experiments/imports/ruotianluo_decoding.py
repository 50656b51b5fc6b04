"""Diverse beam search and ensembles: what ruotianluo's code and ours write with the same random weights.

usage: python experiments/imports/ruotianluo_decoding.py CHECKOUT [newfc updown att2in2 transformer]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from compare import all_examples, captions_of
from ruotianluo import CLASSES, ENSEMBLE, Drawn, draw

from easycap.tasks.load_ensemble import as_ensemble

GROUPS, BEAMS, STRENGTH = 3, 6, 0.5
DIVERSE = (
    f"diverse_beam,num_beams={BEAMS},num_groups={GROUPS},diversity_strength={STRENGTH},num_samples={GROUPS}"
)
SAME = "length_penalty=0,min_length=0,max_length=20"  # both rank by the plain sum; captions may be empty
OURS = "bos_idx", "eos_idx", "pad_idx", "unk_idx", "vocab"  # which AttEnsemble uses and does not set


def diverse(name: str, drawn: Drawn, kind: str, beams: int) -> None:
    """The best caption of each group."""
    same = [0] * (GROUPS + 1)
    for example in all_examples(drawn.task):
        ours = captions_of(drawn.task, example, f"{DIVERSE},num_beams={beams},{SAME}")
        options = {"beam_size": beams, "group_size": GROUPS, "diversity_lambda": STRENGTH, "sample_n": 1}
        drawn.model(*drawn.image(int(example.id)), None, opt={"suppress_UNK": 1, **options}, mode="sample")
        found = drawn.model.done_beams[0][:: beams // GROUPS]
        theirs = [drawn.caption(beam["seq"].tolist()) for beam in found]
        for number, caption in enumerate(theirs):
            same[number] += caption in ours
        same[-1] += sorted(theirs) == sorted(ours)
    of_groups = ", ".join(f"{count} of group {number}" for number, count in enumerate(same[:-1], 1))
    print(
        f"{name}: {GROUPS} groups of {beams // GROUPS}, {kind}, of 50 images: {of_groups} equal; all three: {same[-1]}"
    )


def ensemble(name: str, drawn: Sequence[Drawn]) -> None:
    """Two models together, by greedy search and by beam search."""
    together = ENSEMBLE([one.model for one in drawn]).double().eval()
    for attribute in OURS:
        setattr(together, attribute, getattr(drawn[0].model, attribute))
    task: Any = as_ensemble([one.task for one in drawn])
    for kind, beams, decoding in (
        ("greedy", 1, "greedy,allow_unk=true"),
        ("beam 5", 5, "beam,num_beams=5,length_penalty=0"),
    ):
        same, different = 0, set()
        for example in all_examples(task):
            options = {"suppress_UNK": 1, "beam_size": beams, "sample_n": 1}
            sequence, _ = together(*drawn[0].image(int(example.id)), None, opt=options, mode="sample")
            (ours,) = captions_of(task, example, f"{decoding},min_length=0,max_length=20")
            same += ours == drawn[0].caption(sequence[0].tolist())
            different.add(ours)
        print(f"{name}: two models, {kind} captions equal {same} of 50 ({len(different)} different)")


@torch.no_grad()
def main() -> None:
    for name in sys.argv[2:] or CLASSES:
        with tempfile.TemporaryDirectory() as path:
            drawn = []
            for seed, endless in ((0, False), (1, False), (0, True)):
                (folder := Path(path) / f"{seed}{endless}").mkdir()
                drawn.append(draw(name, folder, seed, endless=endless))
                drawn[-1].task.model.double()
            torch.set_default_dtype(torch.float64)
            for beams in (GROUPS, 2 * GROUPS):
                diverse(name, drawn[2], "captions of 20 words", beams)
                diverse(name, drawn[0], "captions that end", beams)
            if name != "transformer":
                ensemble(name, drawn[:2])
            torch.set_default_dtype(torch.float32)


main()

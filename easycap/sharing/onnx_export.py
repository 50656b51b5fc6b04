"""A captioner as two ONNX graphs, from images to the decoder's state and from a word to the next, checked by running
them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from easycap.errors import UserError
from easycap.sharing.model_folder import check_target, written_whole
from easycap.sharing.onnx_decoder import ENCODER, STEP, OnnxDecoder
from easycap.tasks.base import Task
from easycap.tasks.captioning import CaptioningTask
from easycap.types import Decoder, Inputs, Memory
from easycap.utils.extras import check_extra
from easycap.utils.files import write_json

DESCRIPTION = "onnx.json"
TOLERANCE = 1e-4  # of logits
_OPSET = 18
# Images of the example and of the check: a graph that holds for one number of images only fails on the other.
_TRACED, _CHECKED = 2, 3


@dataclass(frozen=True)
class Exported:
    """What `export_onnx` found: the largest difference of a logit, and the captions that were compared."""

    difference: float
    captions: list[str]


def check_exportable(task: Task) -> CaptioningTask:
    """Return the task; `UserError` for a model that is not exported: a tag model, or one that reads tags or drafts."""
    if not isinstance(task, CaptioningTask):
        raise UserError("a tag model cannot be exported to ONNX: only captioners can")
    if task.is_ensemble:
        raise UserError("an ensemble cannot be exported to ONNX: export its runs one by one")
    if task.conditions:
        names = " and ".join(task.conditions)
        raise UserError(
            f"a captioner that reads {names} cannot be exported to ONNX: only captioners without text conditions can"
        )
    return task


def check_packages() -> None:
    """Raise `UserError` unless the packages of the extra `onnx` are installed."""
    check_extra("onnx", "the export")


def export_onnx(task: Task, folder: Path, *, overwrite: bool = False) -> Exported:
    """Write encoder.onnx, decoder_step.onnx, onnx.json and the vocabulary of a captioner on the CPU into `folder`.

    Both graphs take any number of images. They are run by onnxruntime on random images before they are saved: raises
    `UserError` if a logit differs by more than 1e-4 or a greedy caption differs, and for what `check_target`,
    `check_packages` and `check_exportable` refuse.
    """
    check_packages()
    task = check_exportable(task)
    folder = check_target(folder, overwrite=overwrite)
    with written_whole(folder) as partial:
        graphs = _Graphs(task.model, _images(task, _TRACED))
        graphs.write(partial)
        found = _check(task, OnnxDecoder(partial, graphs.kept, task.model.decoder.max_length))
        task.vocabulary.save(partial)
        write_json(partial / DESCRIPTION, _description(task, graphs, found.difference))
    return found


def _images(task: Task, count: int) -> torch.Tensor:
    """Random images (N,3,S,S) uint8 of the model's own size."""
    size = task.model.encoder.preprocessing.size
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


class _FromImages(nn.Module):
    """images (N,3,S,S) uint8 -> the tensors of the decoder's state before the first word."""

    def __init__(self, captioner: Any) -> None:
        super().__init__()
        self.captioner = captioner

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return pytree.tree_leaves(self.captioner.decoder.start(self.captioner.build_memory(Inputs(images))))


class _FromWord(nn.Module):
    """words (N,) and the tensors of a state -> logits (N,V) and those tensors of the next state that `changed`."""

    def __init__(self, decoder: Any, spec: Any, changed: Sequence[int]) -> None:
        super().__init__()
        self.decoder, self.spec, self.changed = decoder, spec, changed

    def forward(self, words: torch.Tensor, state: list[torch.Tensor]) -> list[torch.Tensor]:
        logits, following = self.decoder.step(words, pytree.tree_unflatten(state, self.spec))
        leaves = pytree.tree_leaves(following)
        return [logits, *(leaves[number] for number in self.changed)]


class _Graphs:
    """The graphs of a captioner, traced with `images`.

    `leaves` are the tensors of a state after two words, `changed` the numbers of those that a step replaces. Raises
    `UserError` for a decoder whose state has other parts after a step than before.
    """

    @torch.no_grad()
    def __init__(self, captioner: Any, images: torch.Tensor) -> None:
        self.captioner, self.images = captioner, images
        states = self._states(images)
        _register(states[0])
        flat = [pytree.tree_flatten(state) for state in states]
        self.spec = flat[0][1]
        if any(spec != self.spec for _, spec in flat):
            raise UserError(
                "this decoder's state changes its parts with the first word (decoder.bos=false does that), so it is "
                "not exported to ONNX"
            )
        before, self.leaves = flat[1][0], flat[2][0]
        pairs = list(zip(before, self.leaves, strict=True))
        self.changed = [number for number, (old, new) in enumerate(pairs) if old is not new]
        more = pytree.tree_leaves(self._states(torch.cat([images, images[:1]]))[2])
        # A dimension that differs after another word, or with another number of images, is left open.
        self.open = [
            {
                d: torch.export.Dim.DYNAMIC
                for d in range(new.ndim)
                if len({x.shape[d] for x in (old, new, other)}) > 1
            }
            for (old, new), other in zip(pairs, more, strict=True)
        ]

    @property
    def kept(self) -> list[int | None]:
        """For each tensor of a state its place among the outputs of a step, None where it stays as it is."""
        return [self.changed.index(n) if n in self.changed else None for n in range(len(self.leaves))]

    def _states(self, images: torch.Tensor) -> list[Any]:
        """The states before the first word, and after one and two."""
        decoder = self.captioner.decoder
        states = [decoder.start(self.captioner.build_memory(Inputs(images)))]
        for word in (1, 2):
            states.append(decoder.step(torch.full((len(images),), word), states[-1])[1])
        return states

    @torch.no_grad()
    def write(self, folder: Path) -> None:
        """Write both graphs."""
        names = [f"state_{number}" for number in range(len(self.leaves))]
        traced = torch.export.export(
            _FromImages(self.captioner).eval(),
            (self.images,),
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        )
        _save(traced, folder / ENCODER, ["images"], names)
        words = torch.full((len(self.images),), 3)
        traced = torch.export.export(
            _FromWord(self.captioner.decoder, self.spec, self.changed).eval(),
            (words, self.leaves),
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC}, self.open),
        )
        following = [f"next_state_{number}" for number in self.changed]
        _save(traced, folder / STEP, ["words", *names], ["logits", *following])


def _save(traced: Any, file: Path, inputs: list[str], outputs: list[str]) -> None:
    program = torch.onnx.export(
        traced, dynamo=True, opset_version=_OPSET, verbose=False, input_names=inputs, output_names=outputs
    )
    assert program is not None  # as dynamo=True returns it
    program.save(str(file))


def _register(state: Any) -> None:
    """Let torch take the tensors out of the dataclasses that a state is made of."""
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        if type(state) not in pytree.SUPPORTED_NODES:
            torch.export.register_dataclass(type(state))
        for field in dataclasses.fields(state):
            _register(getattr(state, field.name))
    elif isinstance(state, tuple | list):
        for part in state:
            _register(part)


@torch.no_grad()
def _check(task: CaptioningTask, exported: OnnxDecoder) -> Exported:
    """Compare greedy captions of random images, and the logits at each of their words."""
    images = _images(task, _CHECKED)
    model, generator = task.model, task.generator("greedy")
    memory = model.build_memory(Inputs(images))
    of_images = Memory(images, memory.mask, memory.segments)
    words = generator(model.decoder, memory).words
    decoder: Decoder | Any = exported
    if not torch.equal(words, generator(decoder, of_images).words):
        raise UserError(
            "the exported graphs caption random images differently from the model: nothing was saved"
        )
    state, other, largest = model.decoder.start(memory), exported.start(of_images), 0.0
    bos = torch.full((len(images), 1), task.vocabulary.bos_id)
    for column in torch.cat([bos, words], 1)[:, :-1].unbind(1):
        logits, state = model.decoder.step(column, state)
        theirs, other = exported.step(column, other)
        largest = max(largest, float((logits - theirs).abs().max()))
    if not largest <= TOLERANCE:
        raise UserError(f"a logit of the exported graphs differs by {largest:.1e}: nothing was saved")
    return Exported(largest, [task.vocabulary.decode(row) for row in words.tolist()])


def _description(task: CaptioningTask, graphs: _Graphs, difference: float) -> dict[str, Any]:
    vocabulary, changed = task.vocabulary, graphs.changed
    greedy: Any = task.generator("greedy")
    size = task.model.encoder.preprocessing.size
    state = [
        {"name": f"state_{number}", "next": f"next_state_{number}" if number in changed else None}
        for number in range(len(graphs.leaves))
    ]
    return {
        "preprocessing": task.model.encoder.preprocessing._asdict(),
        "encoder": {
            "file": ENCODER,
            "inputs": {
                "images": f"uint8 (N,3,{size},{size}), RGB, resized and cropped; the graph normalises them"
            },
            "outputs": [one["name"] for one in state],
        },
        "decoder_step": {
            "file": STEP,
            "inputs": {"words": "int64 (N,), at first bos_id", "state": state},
            "outputs": {"logits": f"float32 (N,{len(vocabulary)}) of the next word"},
            "next": "an input takes the output named as its `next`; where that is null it stays as it is",
        },
        **{name: getattr(vocabulary, name) for name in ("pad_id", "bos_id", "eos_id", "unk_id")},
        "suppressed_ids": list(greedy.logits_processor.forbidden),
        "max_length": task.model.decoder.max_length,
        "largest_difference_of_a_logit": difference,
    }

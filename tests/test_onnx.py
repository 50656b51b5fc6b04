"""ONNX graphs of captioners, run by onnxruntime alone as onnx.json describes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_config import TINY

import easycap
from easycap.cli import main
from easycap.data.image_inputs import as_examples
from easycap.sharing import onnx_export
from easycap.types import Inputs

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

_LSTM = ["decoder=lstm", "decoder.embed_dim=16", "decoder.hidden_dim=16", "image_tokens=split"]


def train(folder: Path, own: list[str]) -> Path:
    # an LSTM has sizes of other names, and `split` no heads
    renamed = ("decoder.", "image_tokens.num_heads") if own[0] == "decoder=lstm" else ()
    settings = [word for word in TINY if not (renamed and word.startswith(renamed))]
    assert main(["train", *settings, *own, "trainer.max_steps=2", f"hydra.run.dir={folder}"]) == 0
    return folder


def greedy(folder: Path, images: np.ndarray) -> tuple[list[list[int]], list[np.ndarray]]:
    """The ids of greedy captions without an end, and the logits of each step (N,V)."""
    said: dict[str, Any] = json.loads((folder / "onnx.json").read_text())
    encoder, step = (
        onnxruntime.InferenceSession(str(folder / said[name]["file"])) for name in ("encoder", "decoder_step")
    )
    state = dict(zip(said["encoder"]["outputs"], encoder.run(None, {"images": images}), strict=True))
    words = np.full(len(images), said["bos_id"])
    columns, logits = [], []
    outputs = [one.name for one in step.get_outputs()]
    reads = {one.name for one in step.get_inputs()}
    for _ in range(said["max_length"]):
        given = {name: value for name, value in state.items() if name in reads}
        found = dict(zip(outputs, step.run(None, {"words": words} | given), strict=True))
        state = {
            one["name"]: found[one["next"]] if one["next"] else state[one["name"]]
            for one in said["decoder_step"]["inputs"]["state"]
        }
        logits.append(found["logits"].copy())
        found["logits"][:, said["suppressed_ids"]] = -np.inf
        if not columns:  # decoding.min_length=1
            found["logits"][:, said["eos_id"]] = -np.inf
        words = found["logits"].argmax(1)
        columns.append(words)
    rows = np.stack(columns, 1).tolist()
    return [row[: row.index(said["eos_id"])] if said["eos_id"] in row else row for row in rows], logits


@pytest.mark.parametrize(
    "own",
    [
        _LSTM,
        pytest.param(["decoder=transformer"], marks=pytest.mark.slow),
        pytest.param(["decoder=gpt2_tiny"], marks=pytest.mark.slow),
    ],
    ids=lambda own: own[0].partition("=")[2],
)
def test_the_graphs_caption_as_the_model(
    own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tmp_path / "run", own)
    assert main(["export", str(run), "--onnx", str(tmp_path / "onnx")]) == 0
    assert "greedy captions of 3 random images are equal" in capsys.readouterr().out
    captioner = easycap.load(run, device="cpu")
    photos = sorted((run / "samples" / "images").glob("*.png"))[:5]
    pixels = torch.stack([captioner.task.pipeline.transform(one.image) for one in as_examples(photos)])
    rows, logits = greedy(tmp_path / "onnx", pixels.numpy())
    decode = captioner.task.vocabulary.decode
    assert [decode(row) for row in rows] == captioner.caption(photos, decoding="greedy")
    model = captioner.task.model
    first = torch.full((len(photos),), captioner.task.vocabulary.bos_id)
    expected, _ = model.decoder.step(first, model.decoder.start(model.build_memory(Inputs(pixels))))
    assert np.abs(expected.numpy() - logits[0]).max() < 1e-4


def test_what_is_not_exported_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tmp_path / "run", ["draft=own"])
    assert main(["export", str(run), "--onnx", str(tmp_path / "onnx")]) == 1
    assert "a captioner that reads draft cannot be exported" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", str(run), "--onnx", str(tmp_path / "onnx")]) == 1
    assert 'the export needs onnxscript: pip install "easycap[onnx]"' in capsys.readouterr().err
    assert not (tmp_path / "onnx").exists()


def test_graphs_that_differ_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tmp_path / "run", _LSTM)
    monkeypatch.setattr(onnx_export, "TOLERANCE", 0.0)
    assert main(["export", str(run), "--onnx", str(tmp_path / "onnx")]) == 1
    assert "a logit of the exported graphs differs by" in capsys.readouterr().err
    assert not (tmp_path / "onnx").exists()

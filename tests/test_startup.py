"""What light commands do not import: each of these costs a tenth of a second to several seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_config import TINY

from easycap.cli import main
from easycap.utils.cpu_threads import VARIABLES

# Each takes a tenth of a second to several seconds; transformers imports most of them.
SLOW_PACKAGES = {
    "transformers",
    "timm",
    "torchvision",
    "wandb",
    "peft",
    "datasets",
    "pyarrow",
    "h5py",
    "jinja2",
}
SLOW = SLOW_PACKAGES | {"simplemma", "hydra", "accelerate"}
SLOW |= {"sympy", "triton", "torch._dynamo", "torch._inductor", "torch.distributed.tensor"}


_CODE = """
import json, sys
from easycap.cli import main
code = main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
sys.exit(code)
"""
HEAVY = {
    "torch", "torchvision", "transformers", "timm", "peft", "hydra", "omegaconf", "wandb", "huggingface_hub",
    "datasets", "pyarrow", "pandas", "optuna",
    "tokenizers", "pycocoevalcap", "h5py", "simplemma", "scipy", "matplotlib", "submitit", "triton", "safetensors",
}  # fmt: skip
PAGES = {"jinja2", "PIL"}  # what pages are made with


def modules_after(*argv: str, cwd: Path) -> set[str]:
    """The top packages, and easycap's modules, that a command has loaded when it is done."""
    command = [sys.executable, "-c", _CODE, *argv]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)
    assert done.returncode == 0, done.stderr
    modules = json.loads(done.stderr.splitlines()[-1])
    return {name for name in modules if name.startswith("easycap.")} | {
        name.partition(".")[0] for name in modules
    }


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "c.json").write_text(json.dumps([{"image_id": 1, "caption": "a dog"}]))
    (tmp_path / "r.json").write_text(json.dumps({"1": ["a dog runs", "the dog"]}))
    return ["c.json", "r.json"]


def test_help_loads_next_to_nothing(tmp_path: Path) -> None:
    loaded = modules_after("--help", cwd=tmp_path)
    assert not loaded & (HEAVY | PAGES | {"rich", "numpy", "yaml", "ctypes", "logging"})
    assert {name for name in loaded if name.startswith("easycap.")} == {"easycap.cli", "easycap.commands"}


def test_score_loads_no_model_and_no_page(tmp_path: Path, files: list[str]) -> None:
    assert not modules_after("score", *files, cwd=tmp_path) & (HEAVY | PAGES | {"yaml"})


def test_the_list_of_runs_loads_no_model_and_no_page(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 1")
    (run / "status.json").write_text('{"status": "completed"}')
    assert not modules_after("runs", "runs", cwd=tmp_path) & (HEAVY | PAGES)


def test_comparing_two_files_loads_no_model(tmp_path: Path, files: list[str]) -> None:
    (tmp_path / "d.json").write_text(json.dumps([{"image_id": 1, "caption": "a dog runs"}]))
    loaded = modules_after("compare", "c.json", "d.json", "--references", "r.json", cwd=tmp_path)
    assert not loaded & HEAVY


def test_training_loads_what_only_some_runs_need_later() -> None:
    """transformers takes seconds, and recipes with decoders of our own have no part of it."""
    code = "import easycap.train, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & (SLOW_PACKAGES | {"huggingface_hub", "triton"})


def test_captioning_a_photo_loads_nothing_slow_and_uses_one_thread(tmp_path: Path) -> None:
    """Of a run with the decoder of the quickstart, in a process of its own."""
    run = tmp_path / "run"
    assert main(["train", *TINY, "trainer.max_steps=1", f"hydra.run.dir={run}"]) == 0
    photo = next((run / "samples" / "images").glob("*.png"))
    code = (
        "import sys; from easycap.cli import main; code = main(sys.argv[1:]); import torch;"
        "print('threads', torch.get_num_threads()); print(*sys.modules); sys.exit(code)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-c", code, "caption", str(run), str(photo)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    *_, threads, loaded = done.stdout.splitlines()
    assert f"{photo.name}:" in done.stdout and not SLOW & set(loaded.split())
    assert threads == "threads 1"

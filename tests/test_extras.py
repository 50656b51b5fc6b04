"""What is installed only on request: who needs it says how to get it, and nothing else imports it."""

from __future__ import annotations

import ast
import configparser
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import easycap
from easycap.config.instantiate import build
from easycap.config.schema import option_from_text
from easycap.data.feature_files import precomputed_features
from easycap.data.hub_datasets import library
from easycap.data.parquet_tables import parquet_batches
from easycap.errors import UserError
from easycap.metrics.java import Absent, bundled_jar
from easycap.models.decoders.language_models import Tune, set_tuning
from easycap.sharing.onnx_export import check_packages
from easycap.sweeps.search import _optuna
from easycap.utils.extras import MODULES
from easycap.utils.segmenters import segmenter
from easycap.vocab.tags import _content_lemma, _lemmatize, content_lemmas

ROOT = Path(__file__).parents[1]
# Imported by what has got its rows or its table from those who checked.
AFTER_A_CHECK = {
    "arrow_images.py", "arrow_rows.py", "hub_columns.py", "parquet_images.py", "guess.py", "onnx_decoder.py",
    "find_shards.py", "tar_index.py",
}  # fmt: skip


def extras() -> dict[str, str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return dict(config["options.extras_require"])


def test_the_extras_are_those_of_the_setup() -> None:
    found = extras()
    assert set(found) - {"all", "dev"} == set(MODULES)
    assert set(found["all"].removeprefix("easycap[").removesuffix("]").split(",")) == set(MODULES)
    assert "easycap[all]" in found["dev"].split()


@pytest.mark.parametrize("extra", MODULES)
def test_an_extra_brings_its_modules(extra: str) -> None:
    """By the name of a distribution; `mlflow-skinny` brings mlflow."""
    names = {line.partition(">")[0].replace("-", "_") for line in extras()[extra].split()}
    wanted = {"mlflow_skinny" if module == "mlflow" else module for module in MODULES[extra]}
    assert names == wanted


def test_imports_are_late_and_after_the_check() -> None:
    """An import at the top of a module would be an error of Python's wherever that module is imported."""
    extra_of = {module: extra for extra, modules in MODULES.items() for module in modules}
    for path in Path(easycap.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node, depth in imports_of(ast.parse(text)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            for extra in {extra_of.get((module or "").partition(".")[0]) for module in modules} - {None}:
                assert depth, f"{path.name} imports {modules} at its top"
                checked = f'check_extra("{extra}"' in text or path.name in AFTER_A_CHECK
                assert checked, f"{path.name} imports {modules} without check_extra"


def imports_of(node: ast.AST, depth: int = 0) -> Iterator[tuple[ast.Import | ast.ImportFrom, int]]:
    """Each import, and in how many functions it is; those for type checkers do not count."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield node, depth
    for child in ast.iter_child_nodes(node):
        yield from imports_of(child, depth + isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _lora() -> None:
    import torch

    set_tuning(torch.nn.Linear(1, 1), Tune.lora, new_words=False, rank=1, alpha=1.0)


def _hdf5(tmp_path: Path) -> None:
    file = tmp_path / "features.hdf5"
    file.touch()
    precomputed_features(option_from_text("encoder", f"precomputed,features={file}"))


def _tags() -> None:
    for cached in (_lemmatize, _content_lemma):
        cached.cache_clear()
    content_lemmas("a dog runs")


def _segmenter(name: str) -> None:
    segmenter.cache_clear()
    segmenter(name)


def _tracker(name: str) -> None:
    build("tracking", option_from_text("tracking", name), folder=None, config={})


USES: dict[str, Callable[[Path], object]] = {
    "chinese": lambda folder: _segmenter("jieba"),
    "hdf5": _hdf5,
    "huggingface": lambda folder: library(),
    "japanese": lambda folder: _segmenter("fugashi"),
    "lora": lambda folder: _lora(),
    "meteor": lambda folder: bundled_jar("meteor/meteor-1.5.jar"),
    "mlflow": lambda folder: _tracker("mlflow"),
    "onnx": lambda folder: check_packages(),
    "optuna": lambda folder: _optuna(),
    "parquet": lambda folder: next(parquet_batches(folder / "x.parquet", ())),
    "slurm": lambda folder: build("launcher", option_from_text("launcher", "slurm")),
    "tags": lambda folder: _tags(),
    "tensorboard": lambda folder: _tracker("tensorboard"),
    "wandb": lambda folder: _tracker("wandb"),
    "webdataset": lambda folder: build(
        "data", option_from_text("data", f"webdataset,root={folder}"), pixels=True, with_tags=False
    ),
}


@pytest.mark.parametrize("extra", MODULES)
def test_who_needs_a_missing_extra_names_it(
    extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = MODULES[extra][-1]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises((UserError, Absent), match=rf'needs .*{module}: pip install "easycap\[{extra}\]"'):
        USES[extra](tmp_path)


# Runs a command in a Python that finds nothing but its own modules, easycap and the packages named first.
_ALONE = """
import sys

allowed = {*sys.argv[1].split(","), "easycap"}

finders = list(sys.meta_path)

class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in allowed or top in sys.stdlib_module_names:
            return next((spec for one in finders if (spec := one.find_spec(name, path, target))), None)

sys.meta_path[:] = [Only()]
from easycap.cli import main
sys.exit(main(sys.argv[2:]))
"""


def alone(folder: Path, allowed: str, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _ALONE, allowed, *argv]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "c.json").write_text(json.dumps([{"image_id": 1, "caption": "a dog"}]))
    (tmp_path / "r.json").write_text(json.dumps({"1": ["a dog runs", "the dog"]}))
    return ["c.json", "r.json"]


def test_score_needs_numpy_alone(tmp_path: Path, files: list[str]) -> None:
    done = alone(
        tmp_path, "numpy", "score", *files, "--training", "r.json", "--df", "r.json", "--json", "out.json"
    )
    assert done.returncode == 0, done.stderr
    assert "CIDEr-D" in done.stdout and "distinct captions" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["scores"]["BLEU-1"]["value"] > 0


def test_meteor_without_its_jar_is_absent_with_the_remedy(tmp_path: Path, files: list[str]) -> None:
    done = alone(tmp_path, "numpy", "score", *files, "--metrics", "bleu,meteor")
    assert done.returncode == 0, done.stderr
    assert 'METEOR is absent: it needs pycocoevalcap: pip install "easycap[meteor]"' in done.stdout

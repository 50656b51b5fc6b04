"""What is installed only on request: the packages of each extra, and the sentence that names the extra to install.

Code that needs one of these packages calls `check_extra` first and imports it inside a function.
"""

from __future__ import annotations

import importlib.util

from easycap.errors import UserError

# extra in setup.cfg -> the modules that it brings
MODULES = {
    "chinese": ("jieba",),
    "hdf5": ("h5py",),
    "huggingface": ("datasets",),
    "japanese": ("fugashi", "unidic_lite"),
    "lora": ("peft",),
    "meteor": ("pycocoevalcap",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "optuna": ("optuna",),
    "parquet": ("pyarrow",),
    "slurm": ("submitit",),
    "tags": ("simplemma",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "webdataset": ("webdataset",),
}


def without_extra(extra: str, what: str) -> str | None:
    """Return None if an extra is installed, else a sentence: what `what` needs, and how to install it."""
    missing = [name for name in MODULES[extra] if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return f'{what} needs {" and ".join(missing)}: pip install "easycap[{extra}]"'


def check_extra(extra: str, what: str) -> None:
    """Raise `UserError` unless an extra is installed, which `what` ("tracking=wandb") needs; imports nothing."""
    if sentence := without_extra(extra, what):
        raise UserError(sentence)

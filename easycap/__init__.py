"""easycap trains and compares image captioners from one command line.

In Python: `easycap.load(RUN).caption(images)` captions images with a trained run; `easycap.train`, `evaluate`,
`average` and `compare` do what the commands do; `easycap.score(captions, references)` scores the captions of any
system; `easycap.score_samples` takes several captions per image.
Components of your own: `@easycap.register(GROUP, NAME)`, for text conditions `@easycap.register_condition`.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if sys.argv[:1] == ["-m"] and sys.path[:1] == [os.getcwd()]:
    # `python -m easycap.cli` puts the current folder first: a file called queue.py or types.py there would be taken for
    # Python's own.
    sys.path.append(sys.path.pop(0))

if TYPE_CHECKING:
    from easycap.api import Run, average, compare, evaluate, train
    from easycap.metrics import score, score_samples
    from easycap.predict import Captioner, load
    from easycap.registry import register, register_condition

__all__ = [
    "Captioner",
    "Run",
    "average",
    "compare",
    "evaluate",
    "load",
    "register",
    "register_condition",
    "score",
    "score_samples",
    "train",
]
__version__ = "0.1.0"


# Loaded when they are first used, so that `import easycap` stays instant.
_MODULES = {
    "Captioner": "easycap.predict",
    "Run": "easycap.api",
    "average": "easycap.api",
    "compare": "easycap.api",
    "evaluate": "easycap.api",
    "load": "easycap.predict",
    "register": "easycap.registry",
    "register_condition": "easycap.registry",
    "score": "easycap.metrics",
    "score_samples": "easycap.metrics",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    if name == "train":  # a module that can be called, see train.py
        return importlib.import_module("easycap.train")
    raise AttributeError(f"module 'easycap' has no attribute {name!r}")

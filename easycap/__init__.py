"""easycap trains and compares image captioners from one command line.

In Python, `easycap.score(captions, references)` scores the captions of any system.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easycap.metrics import score

__all__ = ["score"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Loaded when it is first used, so that `import easycap` stays instant.
    if name == "score":
        from easycap.metrics import score

        return score
    raise AttributeError(f"module 'easycap' has no attribute {name!r}")

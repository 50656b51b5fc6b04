"""easycap trains and compares image captioners from one command line.

In Python, `easycap.score(captions, references)` scores the captions of any system; `easycap.score_several` takes
several captions per image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easycap.metrics import score, score_several

__all__ = ["score", "score_several"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Loaded when it is first used, so that `import easycap` stays instant.
    if name in __all__:
        import easycap.metrics

        return getattr(easycap.metrics, name)
    raise AttributeError(f"module 'easycap' has no attribute {name!r}")

"""The protocol of a score: its signature, and the images and references it was computed on.

Scores under different protocols are shown but never ranked together.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from easycap.metrics.paired import signature_mismatch


@dataclass(frozen=True)
class References:
    """What a split was scored against; `digest` is equal where images and references are, whatever their order."""

    digest: str
    texts: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Protocol:
    """The protocol most runs share in one metric; `reasons` {run number: in what it differs} are the others."""

    signature: str
    reasons: Mapping[int, str]


class ReferenceReader:
    """Reads references, files of equal bytes once: all runs of a sweep have the same."""

    def __init__(self) -> None:
        self._known: dict[str, References] = {}

    def read(self, path: Path) -> References | None:
        """Return the references in a file, None if there are none that can be read."""
        try:
            content = path.read_bytes()
        except OSError:
            return None
        key = hashlib.sha256(content).hexdigest()
        if key not in self._known:
            try:
                texts = {str(image): sorted(map(str, found)) for image, found in json.loads(content).items()}
            except (ValueError, AttributeError, TypeError):
                return None
            canonical = json.dumps(texts, sort_keys=True).encode()
            self._known[key] = References(hashlib.sha256(canonical).hexdigest(), texts)
        return self._known[key]


def differing_images(a: Mapping[str, Sequence[str]], b: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the ids of images that only one side has, or that have other references, in order."""
    return sorted(
        image for image in a.keys() | b.keys() if sorted(a.get(image, [])) != sorted(b.get(image, []))
    )


def common_protocol(scored: Mapping[int, tuple[str, References | None]]) -> Protocol | None:
    """Return the protocol of {run number: (signature, references)} that most runs share, None without any run."""
    if not scored:
        return None
    kinds = {run: (signature, of.digest if of else None) for run, (signature, of) in scored.items()}
    usual = Counter(kinds.values()).most_common(1)[0][0]
    first = next(run for run, kind in kinds.items() if kind == usual)
    reasons = {run: _reason(scored[first], scored[run]) for run, kind in kinds.items() if kind != usual}
    return Protocol(scored[first][0], reasons)


def _reason(usual: tuple[str, References | None], other: tuple[str, References | None]) -> str:
    parts = list(signature_mismatch(usual[0], other[0]))
    ours, theirs = usual[1], other[1]
    if ours is None or theirs is None:
        if ours is not theirs:
            parts.append("references are known of one side only")
    elif ours.digest != theirs.digest:
        odd = differing_images(ours.texts, theirs.texts)
        images = f"{len(odd):,} image{'s' * (len(odd) > 1)}"
        parts.append(f"other images or references ({images}, e.g. {odd[0]!r})")
    return "; ".join(parts)

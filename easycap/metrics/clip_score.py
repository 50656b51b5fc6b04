"""CLIPScore and RefCLIPScore (Hessel et al., EMNLP 2021), from CLIP weights on disk.

The only metric that needs images and torch, so torch is loaded when it is used and not before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easycap.errors import UserError
from easycap.metrics.corpus import prepare
from easycap.metrics.java import Absent
from easycap.metrics.signature import signature
from easycap.types import ImageSource, Score

if TYPE_CHECKING:
    import torch

_PREFIX = "A photo depicts "
_WEIGHT = 2.5


class ClipScore:
    """CLIPScore, 2.5 * max(cos, 0) of image and caption, and RefCLIPScore, its harmonic mean with the best
    reference's cosine. `model` is a folder that transformers saved; absent if it cannot be loaded.
    """

    names = ("CLIPScore", "RefCLIPScore")

    def __init__(
        self,
        *,
        model: str | Path,
        images: Mapping[str, ImageSource],
        device: str = "cpu",
        batch_size: int = 64,
    ) -> None:
        self.model, self.images, self.device, self.batch_size = Path(model), images, device, batch_size

    def __call__(
        self,
        captions: Mapping[str, str],
        references: Mapping[str, Sequence[str]],
        annotations: Mapping[str, Any] | None = None,
    ) -> dict[str, Score]:
        """Raises `Absent` without the weights, `UserError` naming an image that `images` lacks."""
        corpus = prepare(captions, references)
        lacking = [image_id for image_id in corpus.ids if image_id not in self.images]
        if lacking:
            raise UserError(f"{len(lacking)} captioned images were not given, e.g. {lacking[0]!r}")
        clip = _Clip(self.model, self.device, self.batch_size)
        pictures = clip.pictures([self.images[image_id] for image_id in corpus.ids])
        texts = clip.texts(corpus.texts)
        seen = _WEIGHT * (pictures * texts).sum(dim=1).clamp(min=0)
        reference_texts = clip.texts([text for group in corpus.reference_texts for text in group])
        groups = reference_texts.split([len(group) for group in corpus.reference_texts])
        best = [float((group @ text).max().clamp(min=0)) for group, text in zip(groups, texts, strict=True)]
        both = [_harmonic(x, y) for x, y in zip(seen.tolist(), best, strict=True)]
        return {
            name: Score(
                value=sum(values) / len(values),
                per_image=dict(zip(corpus.ids, values, strict=True)),
                signature=signature(name, corpus, clip=clip.name, w=_WEIGHT, prefix="A photo depicts"),
            )
            for name, values in zip(self.names, (seen.tolist(), both), strict=True)
        }


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


class _Clip:
    """A CLIP on one device; its vectors have length 1."""

    def __init__(self, folder: Path, device: str, batch_size: int) -> None:
        if not (folder / "config.json").is_file():
            raise Absent(f"{str(folder)!r} holds no CLIP weights (no config.json)")
        from easycap.utils.transformers_adapter import Clip

        try:
            self.clip = Clip(folder, device)
        except (OSError, ValueError) as error:
            raise Absent(f"no CLIP could be loaded from {str(folder)!r}: {error}") from None
        self.batch_size = batch_size
        # Two folders of one name may hold different weights; a score must say which it is from.
        projection = self.clip.projection.detach().cpu().float().numpy()
        digest = hashlib.blake2b(projection.tobytes(), digest_size=4).hexdigest()
        self.name = f"{folder.resolve().name},{digest}"

    def pictures(self, sources: Sequence[ImageSource]) -> torch.Tensor:
        """Return vectors (N, D) of N images."""
        return self._in_batches(sources, lambda group: self.clip.images([one.load() for one in group]))

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return vectors (N, D) of N captions, cut where CLIP's text ends."""
        return self._in_batches(texts, lambda group: self.clip.texts([_PREFIX + text for text in group]))

    def _in_batches(self, items: Sequence[Any], vectors: Any) -> torch.Tensor:
        import torch

        parts = [vectors(group) for group in _groups(items, self.batch_size)]
        return torch.nn.functional.normalize(torch.cat(parts).float(), dim=1).cpu()


def _groups(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))

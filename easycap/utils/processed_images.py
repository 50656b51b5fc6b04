"""Images as a model's own processor leaves them: named tensors of any shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional as F

# Tensors with one element per token of the prompt: padded on the left, as the caption follows on the right.
OF_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")

FEATURES = "image_features"  # in the place of pixels: what the vision tower made of them before, (N,R,C)


class ProcessedImages:
    """What a processor made of N images, {name: tensor} for each, the first dimension as the model batches it.

    Stands in for pixels (N,3,H,W) in `Inputs`; models that take it ask for `batch`.
    """

    def __init__(self, rows: Sequence[Mapping[str, torch.Tensor]]) -> None:
        self.rows = tuple(rows)

    @classmethod
    def joined(cls, parts: Sequence[ProcessedImages]) -> ProcessedImages:
        """Return the images of all parts, in order."""
        return cls([row for part in parts for row in part.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, some: slice) -> ProcessedImages:
        return ProcessedImages(self.rows[some])

    @property
    def device(self) -> torch.device:
        """Return where the tensors are."""
        return next(iter(self.rows[0].values())).device

    @property
    def nbytes(self) -> int:
        """Return the bytes of all tensors."""
        return sum(tensor.nbytes for row in self.rows for tensor in row.values())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ProcessedImages:
        """Return the same on a device."""
        return ProcessedImages(
            [{k: t.to(device, non_blocking=non_blocking) for k, t in row.items()} for row in self.rows]
        )

    def pin_memory(self) -> ProcessedImages:
        """Return the same in page-locked memory."""
        return ProcessedImages([{name: t.pin_memory() for name, t in row.items()} for row in self.rows])

    def roll(self, shifts: int, dims: int) -> ProcessedImages:
        """Return the images in another order, as `torch.Tensor.roll` does along dimension 0."""
        assert dims == 0
        return self.select([(index - shifts) % len(self) for index in range(len(self))])

    def select(self, rows: Sequence[int]) -> ProcessedImages:
        """Return the images of these indices, which may repeat."""
        return ProcessedImages([self.rows[index] for index in rows])

    def batch(self, pad_id: int) -> dict[str, torch.Tensor]:
        """Return the tensors of all images by name, concatenated, padded where their shapes differ."""
        names = self.rows[0]
        return {name: _together(name, [row[name] for row in self.rows], names, pad_id) for name in names}


def _together(
    name: str, tensors: list[torch.Tensor], names: Mapping[str, torch.Tensor], pad_id: int
) -> torch.Tensor:
    """Concatenate along the first dimension; the others are padded with zeros, prompts on the left with `pad_id`.

    Cached features in half precision become fp32: torch's autocast to bf16 cannot concatenate them.
    """
    prompt = names.get("input_ids")
    of_tokens = name in OF_TOKENS and prompt is not None and names[name].shape == prompt.shape
    sizes = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        missing = [wanted - size for wanted, size in zip(sizes, tensor.shape[1:], strict=True)]
        if any(missing):
            pairs = [(count, 0) if of_tokens else (0, count) for count in reversed(missing)]
            fill = pad_id if name == "input_ids" else 0
            tensor = F.pad(tensor, [side for pair in pairs for side in pair], value=fill)
        padded.append(tensor.float() if tensor.dtype == torch.float16 else tensor)
    return torch.cat(padded)

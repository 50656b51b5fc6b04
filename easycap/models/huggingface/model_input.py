"""From an image to what a captioner of transformers gets of it, its prompt included."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from PIL import Image

from easycap.errors import UserError
from easycap.models.huggingface.model_tokens import ModelTokens
from easycap.types import Example, ImageSource
from easycap.utils.image_text_adapter import image_processor_of
from easycap.utils.processed_images import FEATURES, ProcessedImages

_FOR_THEIR_LOSS = ("labels",)  # PaliGemma's processor makes them of the prompt


class ModelInput:
    """An image source -> what the model's own processor makes of it, and the prompt, as `ProcessedImages` of one.

    Raises `UserError` for a prompt that the model does not take.
    """

    def __init__(self, tokens: ModelTokens) -> None:
        self.tokens, self.processor = tokens, tokens.processor
        self.images = image_processor_of(tokens.processor)

    def begin_epoch(self, epoch: int) -> None:
        """The same in every epoch."""

    def of(self, example: Example) -> Any:
        """Return what the model gets of an example."""
        return self(example.image)

    def of_features(self, features: torch.Tensor) -> ProcessedImages:
        """Return what the model gets of features (R,C) that its vision tower made before, with its prompt."""
        return ProcessedImages([{FEATURES: features[None], "input_ids": self.tokens.start_ids()}])

    def blank(self) -> ProcessedImages:
        """Return what the model gets of a black image."""
        return self._processed(Image.new("RGB", (64, 64)))

    def identity(self) -> tuple[str, ...]:
        """Return what features depend on besides the vision tower: how transformers processes images."""
        return (version("transformers"), self.images.to_json_string())

    def __call__(self, source: ImageSource) -> ProcessedImages:
        """Return the processed image with its prompt."""
        return self._processed(source.load())

    def _processed(self, image: Image.Image) -> ProcessedImages:
        try:
            made = self._made_of(image)
        except (ValueError, IndexError, TypeError) as error:
            raise UserError(
                f"captioner.prompt={self.tokens.prompt!r}: the model's processor cannot use it ({error})"
            ) from error
        used = {
            name: value
            for name, value in made.items()
            if torch.is_tensor(value) and name not in _FOR_THEIR_LOSS
        }
        return ProcessedImages([used])

    def _made_of(self, image: Any) -> dict[str, Any]:
        tokens = self.tokens
        if tokens.kind.continues:
            return {**self.images(images=image, return_tensors="pt"), "input_ids": tokens.start_ids()}
        if not tokens.chats:
            return dict(self.processor(images=image, text=tokens.prompt, return_tensors="pt"))
        return dict(
            self.processor.apply_chat_template(
                tokens.asked(image=image),
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        )

"""Captioning with a whole captioner of transformers: `captioner=huggingface`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from easycap.conditioning.conditions import ConditionSet
from easycap.config.schema import option_from_text
from easycap.data.example_table import Captions
from easycap.data.transforms import Transform
from easycap.errors import UserError
from easycap.evaluation.pipeline import Pipeline
from easycap.models.decoders.language_models import Tune
from easycap.models.huggingface.build_model import build_image_text_model, settings_of
from easycap.models.huggingface.image_text_model import CACHING
from easycap.models.huggingface.model_generation import ModelGeneration, settings_of_generation
from easycap.models.huggingface.model_input import ModelInput
from easycap.models.huggingface.model_tokens import ModelTokens
from easycap.models.huggingface.whole_captioner import Generation
from easycap.runs.find import checkpoint_of
from easycap.tasks.base import NO_DATA
from easycap.tasks.captioning import CaptioningTask
from easycap.tasks.preflight import INFO, MANY_CUT, WARNING, Notice, about_scripts
from easycap.training.distributed import SINGLE_PROCESS
from easycap.training.hardware import Precision, inference_precision, pick_device
from easycap.types import Dataset, Generator, Vocabulary
from easycap.utils.image_text_adapter import check_weights_are_safe, read_model_config


@dataclass(frozen=True)
class ImageTextPipeline(Pipeline):
    """A pipeline whose view is the model's own processor."""

    @property
    def transform(self) -> Transform:
        """Return the model's own processing of images."""
        return cast(Transform, self.view)


class ImageTextTask(CaptioningTask):
    """Evaluates and fine-tunes an `ImageTextModel`, which has a processor and a tokenizer of its own."""

    build_from_config = staticmethod(cast(Any, build_image_text_model))

    @classmethod
    def of_pretrained(cls, config: dict[str, Any], data: Dataset) -> ImageTextTask:
        """Return the task of a pretrained model as it is, ready to predict.

        Raises `UserError` if the model cannot be loaded or does not caption.
        """
        vocabulary = cls.build_vocabulary(config, data, None)
        model = build_image_text_model(config, cast(ModelTokens, vocabulary))
        device = pick_device(config["device"])
        return cls(
            config,
            data,
            vocabulary,
            model.eval().requires_grad_(False).to(device),
            ConditionSet({}, loaded=True),
            device=device,
            precision=inference_precision(Precision(config["trainer"]["precision"]), device),
            ranks=SINGLE_PROCESS,
        )

    def _pipeline(self, model: Any, precision: Precision) -> Pipeline:
        return ImageTextPipeline(
            model=model,
            vocabulary=self.vocabulary,
            view=cast(Any, ModelInput(self.vocabulary)),
            conditions=self.conditions,
            max_length=self.max_length(model),
            device=self.device,
            precision=precision,
            workers=self.config["trainer"]["workers"],
        )

    @classmethod
    def build_vocabulary(cls, config: dict[str, Any], data: Dataset, saved: Path | None) -> Vocabulary:
        """Return the model's own tokenizer, from the folder `saved` if that has it."""
        if saved is not None:
            return cls.load_vocabulary(config, saved)
        settings = settings_of(config)
        return ModelTokens(settings.model, settings.prompt, tiles=settings.tiles)

    @classmethod
    def load_vocabulary(cls, config: dict[str, Any], folder: Path) -> Vocabulary:
        """Return the tokenizer that a checkpoint has."""
        return ModelTokens.load(folder, settings_of(config).prompt)

    @classmethod
    def vocabulary_without_data(cls, config: dict[str, Any]) -> Any:
        """Return the model's own tokenizer; of a run to resume that of its checkpoint."""
        if config["resume"]:
            return cls.load_vocabulary(config, checkpoint_of(Path(config["resume"])))
        return cls.build_vocabulary(config, NO_DATA, None)

    @classmethod
    def check_vocabulary(cls, config: dict[str, Any]) -> None:
        """Raise `UserError` for tune=none, pickled weights, and settings that the model's generation lacks."""
        settings = settings_of(config)
        if settings.tune is Tune.none:
            raise UserError(
                "captioner.tune=none trains nothing: set captioner.tune=lora or all; `easycap evaluate "
                f"hf:{settings.model}` scores the model as it is"
            )
        _generator(config, config["decoding"])
        _check_caching(config, settings.model)
        if config["init_from"] is None:
            check_weights_are_safe(settings.model)

    def generator(self, decoding: str | None = None) -> Generator:
        """Return the generator of `decoding` (e.g. beam,num_beams=3), by default the config's."""
        settings = self.config["decoding"]
        if decoding is not None:
            settings = option_from_text("decoding", decoding, seed=self.config["seed"])
        return _generator(self.config, settings) or super().generator(decoding)

    def preflight_warnings(self, *, resumed: bool) -> Iterator[Notice]:
        """Yield nothing: the model is pretrained."""
        return iter(())

    def data_warnings(self) -> Iterator[Notice]:
        """Yield what the tokenizer or the maximum length loses of the training captions."""
        if cut := self.surveys["train"].truncated:
            longest = f"captioner.max_length={self.pipeline.max_length}"
            yield (
                WARNING if cut > MANY_CUT else INFO,
                f"{100 * cut:.2f}% of the training captions are cut to {longest} tokens; a higher "
                "captioner.max_length keeps them whole",
            )
        captions = Captions(self.examples("train"))
        yield from about_scripts(self.config, self.vocabulary, captions)


def _check_caching(config: dict[str, Any], model: str) -> None:
    if config["trainer"]["cache_features"] is not True or config["init_from"] is not None:
        return
    kind = read_model_config(model).model_type
    if kind not in CACHING:
        raise UserError(
            f"trainer.cache_features=true is for models of the types {', '.join(CACHING)}, and {model!r} is of "
            f"{kind}: leave it out"
        )


def _generator(config: dict[str, Any], decoding: dict[str, Any]) -> ModelGeneration | None:
    """The model's own generation; None where easycap's is wanted."""
    settings = settings_of(config)
    if settings.generation is Generation.easycap:
        return None
    return ModelGeneration(settings_of_generation(decoding, settings.max_length), seed=decoding.get("seed"))

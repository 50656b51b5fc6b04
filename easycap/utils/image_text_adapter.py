"""Image-text models of transformers: which of them caption, their weights, processors and tokenizers.

One of the few modules that use transformers (the adapters), which is imported inside functions.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError

from easycap.errors import UserError
from easycap.utils.hub import hub, in_one_line
from easycap.utils.paths import expanded
from easycap.utils.transformers_adapter import quiet, why_not_loaded

SETTING = "captioner.model"
FOLDER = "huggingface"  # of a checkpoint, for the model's config, processor and tokenizer
_INDEX = ("model.safetensors", "model.safetensors.index.json")
DESCRIBE = "Describe the image in one short sentence."


class Kind(NamedTuple):
    """How a type of model is asked for a caption.

    The `prompt` is text that the caption continues where `continues`, else what the model's own processor puts beside
    the image. `tower` is the vision tower: its path in the model.
    """

    prompt: str
    continues: bool
    tower: str


KINDS = {
    "vision-encoder-decoder": Kind("", True, "encoder"),
    "pix2struct": Kind("", True, "encoder"),
    "blip": Kind("", True, "vision_model"),
    "git": Kind("", True, "git.image_encoder"),
    "blip-2": Kind("", False, "vision_model"),
    "florence2": Kind("<CAPTION>", False, "model.vision_tower"),
    "paligemma": Kind("caption en", False, "model.vision_tower"),
}
_TOWERS = (
    "model.vision_tower",
    "model.vision_model",
    "model.visual",
    "vision_tower",
    "vision_model",
    "visual",
)


def kind_of(model_type: str) -> Kind:
    """Return how models of a type are asked; of those not in `KINDS` as chat models are."""
    return KINDS.get(model_type, Kind(DESCRIBE, False, ""))


def read_model_config(source: str) -> Any:
    """Return the config of the captioner `source`, a name on the hub or a folder.

    Raises `UserError` if it cannot be had and if it is of a model that does not caption images.
    """
    import transformers

    try:
        with hub(), quiet():
            config = transformers.AutoConfig.from_pretrained(_place(source), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise _cannot_load(source, error) from error
    check_captions(source, config)
    return config


def check_captions(source: str, config: Any) -> None:
    """Raise `UserError` unless a model of this config writes text about images."""
    import transformers

    if type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return
    family = config.model_type
    if type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"{SETTING}={source!r} is a {family} model, which reads text alone: use it as the decoder of a captioner, "
            f"decoder=causal_lm decoder.pretrained={source}"
        )
    raise UserError(
        f"{SETTING}={source!r} is a {family} model, which writes no captions: use one that does, such as BLIP, GIT, "
        "ViT-GPT2 (VisionEncoderDecoder) or SmolVLM"
    )


def check_weights_are_safe(source: str) -> None:
    """Raise `UserError` if the model `source` has no weights as safetensors; those on the hub are downloaded."""
    from transformers.utils import cached_file

    place = _place(source)
    for name in _INDEX:
        try:
            with hub():
                found = cached_file(
                    place,
                    name,
                    _raise_exceptions_for_missing_entries=False,
                    _raise_exceptions_for_connection_errors=False,
                )
        except (OSError, ValueError) as error:
            raise _cannot_load(source, error) from error
        if found is not None:
            return
    raise UserError(
        f"{SETTING}={source!r} has no model.safetensors, and weights in other files are pickles, which can run code: "
        "use a model with safetensors, or convert it on the hub (huggingface.co/spaces/safetensors/convert)"
    )


def load_model(source: str, config: Any, *, dtype: torch.dtype) -> Any:
    """Return the captioner `source` with its weights in `dtype`; `UserError` if they cannot be loaded."""
    check_weights_are_safe(source)
    try:
        with hub(), quiet():
            model, found = _model_class(config).from_pretrained(
                _place(source),
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _cannot_load(source, error) from error
    if missing := sorted(found["missing_keys"]):  # transformers would initialise them at random
        other = next(iter(getattr(config, "architectures", None) or ()), type(model).__name__)
        if other != type(model).__name__:
            raise UserError(
                f"{SETTING}={source!r} is a {other}, which writes no captions: use a {type(model).__name__}"
            )
        raise UserError(
            f"{SETTING}={source!r} lacks {len(missing)} of its model's tensors, e.g. {missing[0]}; download "
            "model.safetensors again"
        )
    return model


def build_model(config: Any, *, dtype: torch.dtype) -> Any:
    """Return a captioner of a config with random weights."""
    return _model_class(config)._from_config(config, dtype=dtype)


def _model_class(config: Any) -> Any:
    import transformers

    models: Any = transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    found = models[type(config)]
    return found[0] if isinstance(found, (list, tuple)) else found


def read_processor(source: str, config: Any) -> Any:
    """Return a model's own processor, or (image processor, tokenizer) of one that has no joint one.

    Raises `UserError` if its files are missing.
    """
    import transformers

    place: Any = _place(source)
    try:
        with hub(), quiet():
            if config.model_type == "vision-encoder-decoder":  # its repositories have no joint one
                return (
                    transformers.AutoImageProcessor.from_pretrained(place, trust_remote_code=False),
                    transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=False),
                )
            found: Any = transformers.AutoProcessor.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise _without_processor(source, in_one_line(error)) from error
    if not hasattr(found, "tokenizer") or not hasattr(found, "image_processor"):
        raise _without_processor(source, f"it has only a {type(found).__name__}")
    return found


def read_generation_config(source: str, config: Any) -> Any:
    """Return how `source` ends its captions: its generation_config.json, or what its config says."""
    import transformers

    try:
        with hub(), quiet():
            return transformers.GenerationConfig.from_pretrained(_place(source), trust_remote_code=False)
    except (OSError, ValueError):
        return transformers.GenerationConfig.from_model_config(config)


def save_parts(folder: Path, config: Any, generation: Any, parts: Any) -> None:
    """Write config, generation config and processor into `folder`/huggingface: all but the weights."""
    target = folder / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    config.save_pretrained(target)
    _save_beside(target, generation, parts)


def save_model(folder: Path, model: Any, generation: Any, parts: Any) -> None:
    """Write a model into `folder` as its repository has it: weights, config, generation config and processor."""
    import transformers

    model.generation_config = transformers.GenerationConfig()  # the real one is written below
    with quiet():
        model.save_pretrained(folder)
    _save_beside(folder, generation, parts)


def _save_beside(folder: Path, generation: Any, parts: Any) -> None:
    # Not its save_pretrained, which refuses what some released files say.
    text = json.dumps(generation.to_diff_dict(), indent=1)
    (folder / "generation_config.json").write_text(text, encoding="utf-8")
    for part in parts if isinstance(parts, tuple) else (parts,):
        part.save_pretrained(folder)


def image_processor_of(parts: Any) -> Any:
    """Return the image processor of what `read_processor` returned."""
    return parts[0] if isinstance(parts, tuple) else parts.image_processor


def tokenizer_of(parts: Any) -> Any:
    """Return the tokenizer of what `read_processor` returned."""
    return parts[1] if isinstance(parts, tuple) else parts.tokenizer


def tower_output(patches: torch.Tensor) -> Any:
    """Return patches (N,R,C) as the output of a vision tower, whose other parts are missing."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    return BaseModelOutputWithPooling(last_hidden_state=patches)


def tower_of(model: Any) -> tuple[str, torch.nn.Module]:
    """Return the path and the module of a model's vision tower; `UserError` if none is known."""
    own = kind_of(model.config.model_type).tower
    for path in (own,) if own else _TOWERS:
        try:
            return path, model.get_submodule(path)
        except AttributeError:
            continue
    raise UserError(f"a {model.config.model_type} model is not supported: its vision tower is not known")


def _place(source: str) -> str:
    folder = expanded(source)
    return str(folder) if folder.exists() else source


def _cannot_load(source: str, error: Exception) -> UserError:
    if not expanded(source).exists() and "gated" in str(error).lower():
        return UserError(
            f"{SETTING}={source!r} is gated: request access on its hub page, then log in with `hf auth login`, or set "
            "HF_TOKEN"
        )
    if why := why_not_loaded(source, error):
        return UserError(f"{SETTING}={source!r} cannot be loaded{why}")
    return UserError(
        f"{SETTING}={source!r} cannot be loaded ({in_one_line(error)}): pass a captioner's name on the hub, e.g. "
        "Salesforce/blip-image-captioning-base, or a folder that holds its files"
    )


def _without_processor(source: str, why: str) -> UserError:
    return UserError(
        f"{SETTING}={source!r} has no processor ({why}): the folder must hold preprocessor_config.json (or "
        "processor_config.json) and the tokenizer's files, as the model's repository does"
    )

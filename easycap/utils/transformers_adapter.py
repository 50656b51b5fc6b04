"""Language models of transformers. Only the adapters use transformers, so that differences between versions stay there.

transformers is imported inside functions, as that takes a second or more and not every model needs it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from easycap.errors import UserError
from easycap.utils.hub import can_be_reached, hub, in_one_line, is_hub_name
from easycap.utils.native_parts import KeyValueCache, Native
from easycap.utils.paths import expanded

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# For causal language modelling, of transformers, whose classes share no typed interface, or our GPT-2, called likewise.
LanguageModel = Any
# (keys, values) of each layer, (B,heads,L,d) both
Layers = tuple[tuple[torch.Tensor, torch.Tensor], ...]

_DROPOUTS = ("embd_pdrop", "attn_pdrop", "resid_pdrop", "attention_dropout", "hidden_dropout")
# Some forwards are annotated with the tuples that came before transformers' cache objects.
_CACHE_ARGUMENTS = ("past_key_values", "cache")
_LAYER_TYPES = {"full_attention", "sliding_attention"}


def read_config(source: str) -> PretrainedConfig:
    """Return the config of `source`, a name on the hub or a folder; `UserError` if it cannot be loaded."""
    import transformers

    try:
        with hub(), quiet():
            return transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _cannot_load(source, error) from error


def word_table_name(source: str) -> str:
    """Return what the weights of `source`, of whatever kind of model, call its input embeddings, less a prefix.

    Raises `OSError`, `ValueError`, `KeyError` or `NotImplementedError` if it has no config of a model that reads words.
    """
    import transformers

    with hub(), quiet(), torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
        model = transformers.AutoModel.from_config(config, trust_remote_code=False)
        words = model.get_input_embeddings()
    return next(f"{name}.weight" for name, module in model.named_modules() if module is words)


def untrained(
    architecture: dict[str, Any], *, vocab_size: int, special: dict[str, int], dropout: float
) -> LanguageModel:
    """Return a language model with random weights for `vocab_size` words; `special` are the ids of pad, bos and eos."""
    import transformers

    try:
        config = transformers.AutoConfig.for_model(**architecture)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"decoder.architecture must be the config of a transformers language model ({in_one_line(error)}), "
            "e.g. {model_type: llama, hidden_size: 64, ...}"
        ) from error
    config.update({"vocab_size": vocab_size, **special})
    _prepare(config, dropout)
    return transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.get_default_dtype(), trust_remote_code=False
    )


def load(source: str, *, dropout: float) -> LanguageModel:
    """Return the pretrained language model `source` in fp32, whatever dtype it was saved in."""
    import transformers

    config = read_config(source)
    _prepare(config, dropout)
    try:
        with hub(), quiet():
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                source,
                config=config,
                dtype=torch.get_default_dtype(),
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _cannot_load(source, error) from error
    lm, found = loaded
    if found["missing_keys"]:  # transformers would initialise them at random
        missing = sorted(found["missing_keys"])
        raise UserError(
            f"decoder.pretrained={source!r} lacks {len(missing)} of its model's tensors, e.g. {missing[0]}; download "
            "model.safetensors again"
        )
    return lm


def why_not_loaded(source: str, error: Exception) -> str:
    """Return the end of "... cannot be loaded" where transformers' own words would mislead; else ""."""
    if "trust_remote_code" in str(error):
        return ": it comes with code of its own, and code from models is not run; use one of a type in transformers"
    if isinstance(error, SafetensorError):
        return f" ({in_one_line(error)}): model.safetensors is damaged or cut off; download it again"
    if expanded(source).exists():
        return ""
    if not is_hub_name(source):
        return ": there is no such folder"
    return "" if can_be_reached() else ": there is no such folder here, and the hub cannot be reached"


def _cannot_load(source: str, error: Exception) -> UserError:
    if why := why_not_loaded(source, error):
        return UserError(f"decoder.pretrained={source!r} cannot be loaded{why}")
    return UserError(
        f"decoder.pretrained={source!r} cannot be loaded ({in_one_line(error)}): pass a folder with config.json and "
        "model.safetensors (e.g. a download of huggingface.co/openai-community/gpt2), or train from scratch with "
        "decoder.pretrained=null"
    )


def _prepare(config: PretrainedConfig, dropout: float) -> None:
    """Check that the decoder can use this kind of model, and adapt its config."""
    import transformers

    family = config.model_type
    models: Any = transformers.MODEL_FOR_CAUSAL_LM_MAPPING  # {config class: model class}
    if type(config) not in models:
        raise UserError(
            f"a {family} model is not a causal language model; use one such as GPT-2, Llama or Qwen"
        )
    accepted = set(inspect.signature(models[type(config)].forward).parameters)
    takes = {"position_ids", "inputs_embeds"} <= accepted and cache_argument(models[type(config)]) is not None
    if not takes or not _keeps_keys_and_values(config):
        raise UserError(
            f"a {family} model cannot be used: the decoder needs position ids and a key-value cache in every layer; "
            "use one such as GPT-2, Llama or Qwen"
        )
    if getattr(config, "is_decoder", None) is False:
        config.is_decoder = True  # BERT-like models attend to later words by default
    for name in _DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, dropout)
    if getattr(config, "activation_function", None) == "gelu_new":
        config.activation_function = "gelu_pytorch_tanh"  # the same formula in one kernel


def _keeps_keys_and_values(config: PretrainedConfig) -> bool:
    """Whether every layer has full or sliding-window attention and a key-value cache."""
    import transformers

    try:
        layers = transformers.DynamicCache(config=config).layers
    except AttributeError:  # a composite config of several models
        return False
    types = set(getattr(config, "layer_types", None) or ())
    kinds = (transformers.cache_utils.DynamicLayer, transformers.cache_utils.DynamicSlidingWindowLayer)
    is_one_model = config.get_text_config(decoder=True) is config
    return is_one_model and types <= _LAYER_TYPES and all(type(layer) in kinds for layer in layers)


def max_positions(config: PretrainedConfig) -> int | None:
    """Return how many positions a model can read: its maximum, limited by its narrowest attention window.

    A window counts masked positions too, so beyond it the output would depend on padding.
    """
    if isinstance(config, Native):
        return config.max_position_embeddings
    import transformers

    layers = transformers.DynamicCache(config=config).layers
    windows = [layer.sliding_window for layer in layers if hasattr(layer, "sliding_window")]
    limits = [getattr(config, "max_position_embeddings", None), *windows]
    return min((limit for limit in limits if limit is not None), default=None)


def initial_std(config: PretrainedConfig) -> float:
    """Return the standard deviation of a model's weight initialisation."""
    return config.initializer_range if hasattr(config, "initializer_range") else config.init_std


def cache_argument(model: type) -> str | None:
    """Return the name of the argument of `model.forward` for the key-value cache; None if it has none.

    Found by its type, as the name changed: past_key_values until transformers 5.23, cache since.
    """
    parameters = inspect.signature(getattr(model, "forward")).parameters  # noqa: B009  of a `type`
    annotations = {name: str(parameter.annotation) for name, parameter in parameters.items()}
    typed = [name for name, annotation in annotations.items() if "Cache" in annotation]
    known = [name for name in _CACHE_ARGUMENTS if "Tensor" in annotations.get(name, "")]
    lists = [name for name in known if "dict" not in annotations[name]]
    return next(iter(typed + lists), None)


def read(
    model: LanguageModel,
    layers: Layers,
    *,
    argument: str | None,
    mask: torch.Tensor,
    positions: torch.Tensor,
    **inputs: torch.Tensor,
) -> tuple[Any, Layers]:
    """Read `inputs` (input_ids (B,T) or inputs_embeds (B,T,D)) after what `layers` hold, L long.

    mask (B,L+T) is False for what is not looked at, positions (B,T). Returns the model's output and the keys and
    values of all L+T; those passed are not written to. `argument` is the model's `cache_argument`.
    """
    assert argument is not None  # `_prepare` refuses a model without a cache
    cache = _empty_cache(model)
    for index, (keys, values) in enumerate(layers):
        cache.update(keys, values, index)
    further = {"attention_mask": mask.long(), "position_ids": positions, argument: cache}
    output = model(**inputs, **further, use_cache=True)
    return output, tuple((layer.keys, layer.values) for layer in cache.layers)


def _empty_cache(model: LanguageModel) -> Any:
    if isinstance(model, Native):
        return KeyValueCache()
    import transformers

    return transformers.DynamicCache()


def checkpoint_gradients(lm: LanguageModel) -> None:
    """Turn on gradient checkpointing in `lm`, which then has no key-value cache in training."""
    # newer versions of transformers warn of the old name
    enable = getattr(lm, "activation_checkpointing_enable", lm.gradient_checkpointing_enable)
    enable({"use_reentrant": False})


def _of_folder(cls: Any, folder: Path, **options: Any) -> Any:
    return cls.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)


class Clip:
    """A CLIP that transformers saved to `folder`, on one device. `OSError` or `ValueError` if it cannot be loaded."""

    def __init__(self, folder: Path, device: str) -> None:
        import transformers

        self.model = _of_folder(transformers.CLIPModel, folder, weights_only=True).to(device).eval()
        self.tokenizer = _of_folder(transformers.AutoTokenizer, folder)
        self.processor = _of_folder(transformers.AutoImageProcessor, folder)
        self.device = device

    @property
    def projection(self) -> torch.Tensor:
        """Return the weights (D,C) of the text's projection."""
        return self.model.text_projection.weight

    @torch.no_grad()
    def images(self, images: Sequence[Any]) -> torch.Tensor:
        """Return vectors (N,D) of N PIL images."""
        inputs = self.processor(images=list(images), return_tensors="pt")
        return _projected(self.model.get_image_features(**inputs.to(self.device)))

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return vectors (N,D) of N texts, truncated to CLIP's text length."""
        length = self.model.config.text_config.max_position_embeddings
        inputs = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        return _projected(self.model.get_text_features(**inputs.to(self.device)))


def _projected(output: Any) -> torch.Tensor:
    # Newer transformers wrap the projected vectors.
    return getattr(output, "pooler_output", output)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what transformers logs and draws; what matters is raised."""
    from transformers.utils import logging as of_transformers

    found = logging.getLogger("transformers")
    before, bars = found.level, of_transformers.is_progress_bar_enabled()
    found.setLevel(logging.ERROR)
    of_transformers.disable_progress_bar()
    try:
        yield
    finally:
        found.setLevel(before)
        if bars:
            of_transformers.enable_progress_bar()

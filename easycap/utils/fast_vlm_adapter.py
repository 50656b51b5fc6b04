"""FastVLM of transformers as a container for our captioners: a network of timm, a projection of each patch, a language
model that reads the patches as words.

One of the few modules that use transformers (the adapters), which is imported inside functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from easycap.utils.native_parts import Native
from easycap.utils.transformers_adapter import quiet

LANGUAGE_MODEL, HEAD = "model.language_model.", "lm_head.weight"
TOWER, PROJECTOR = "model.vision_tower.timm_model.", "model.multi_modal_projector."
_TIED = "embed_tokens"  # the word table that FastVLM ties its output layer to


@dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """Ids of special tokens, and of the one that stands for a patch; `bos` None: words follow the patches at once."""

    image: int
    bos: int | None
    eos: int


def can_tie(lm: Any) -> bool:
    """Whether the output layer of a language model is its word table, and FastVLM finds it under that name."""
    table, head = lm.get_input_embeddings().weight, lm.get_output_embeddings().weight
    return table is head and getattr(lm.base_model, _TIED, None) is lm.get_input_embeddings()


def text_config(lm: Any) -> dict[str, Any]:
    """Return the config of a language model, one of transformers or our own GPT-2, as FastVLM takes it."""
    config: Any = lm.config
    if isinstance(lm, Native):
        found = {
            "model_type": "gpt2",
            "vocab_size": config.vocab_size,
            "n_embd": config.hidden_size,
            "n_layer": config.num_hidden_layers,
            "n_head": config.num_attention_heads,
            "n_positions": config.max_position_embeddings,
            "n_inner": config.inner_size,
            "layer_norm_epsilon": config.layer_norm_epsilon,
            "activation_function": "gelu_pytorch_tanh",
        }
    else:
        found = config.to_diff_dict()
    of_files = ("architectures", "dtype", "transformers_version", "_name_or_path", "is_decoder")
    kept = {name: value for name, value in found.items() if name not in of_files}
    return kept | {"tie_word_embeddings": can_tie(lm)}


def fast_vlm(
    *,
    network: str,
    channels: int,
    text: Mapping[str, Any],
    num_patches: int,
    ids: SpecialIds,
    weights: Mapping[str, torch.Tensor],
) -> Any:
    """Return FastVLM in fp32 with these weights; `network` is timm's name, with C `channels`.

    Raises `RuntimeError` or `ValueError` if the weights or the parts do not fit into it.
    """
    import transformers

    vision = {
        "model_type": "timm_wrapper",
        "architecture": network,
        "do_pooling": False,
        "hidden_size": channels,
    }
    special: dict[str, Any] = {"bos_token_id": ids.bos, "eos_token_id": ids.eos, "pad_token_id": ids.eos}
    config = transformers.FastVlmConfig(
        vision_config=vision,
        text_config={**text, **special},
        image_token_index=ids.image,
        image_seq_length=num_patches,
        projector_hidden_act="linear",
        tie_word_embeddings=text["tie_word_embeddings"],
        **special,
    )
    with quiet():
        model = transformers.FastVlmForConditionalGeneration._from_config(config, dtype=torch.float32)
    model.load_state_dict(weights)
    return model.eval()


def set_generation(model: Any, ids: SpecialIds, *, never: Sequence[int], longest: int, shortest: int) -> None:
    """Make greedy search the model's default, with captions of `shortest` to `longest` tokens, without ids `never`."""
    import transformers

    model.generation_config = transformers.GenerationConfig(
        bos_token_id=ids.bos,
        eos_token_id=ids.eos,
        pad_token_id=ids.eos,
        suppress_tokens=list(never),
        max_new_tokens=longest,
        min_new_tokens=shortest,
        do_sample=False,
    )


def save(model: Any, folder: Path) -> None:
    """Write the weights as safetensors, the config and the generation config."""
    with quiet():
        model.save_pretrained(folder)


def save_processor(
    folder: Path,
    tokenizer: Tokenizer,
    ids: SpecialIds,
    *,
    network: str,
    pixels: Mapping[str, Any],
    num_patches: int,
) -> None:
    """Write a LlavaProcessor: a `tokenizer` that has all special tokens, and timm's image transform.

    `pixels` are timm's settings of images. Written by hand, as transformers does not save timm's transform.
    """
    import transformers

    def text_of(index: int) -> str:
        return str(tokenizer.id_to_token(index))

    image, eos = text_of(ids.image), text_of(ids.eos)
    start = {} if ids.bos is None else {"bos_token": text_of(ids.bos)}
    whole = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=eos,
        pad_token=eos,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **start,
    )
    whole.save_pretrained(folder)
    size = pixels["input_size"][-1]
    described = {
        "processor_class": "LlavaProcessor",
        "image_token": image,
        # an image of this size is one patch for it: the number of tokens does not depend on how a network pads
        "patch_size": size,
        "num_additional_image_tokens": num_patches - 1,
        "vision_feature_select_strategy": "full",
        "image_processor": {
            "image_processor_type": "TimmWrapperImageProcessor",
            "architecture": network,
            "pretrained_cfg": dict(pixels),
        },
    }
    (folder / "processor_config.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    template = json.dumps(image + start.get("bos_token", ""), ensure_ascii=False)
    (folder / "chat_template.jinja").write_text(f"{{{{ {template} }}}}", encoding="utf-8")


def load_processor(folder: Path) -> Any:
    """Return the processor that a folder holds, as anybody loads it."""
    import transformers

    with quiet():
        return transformers.AutoProcessor.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )

"""Random captioners of transformers, small enough to be made in a test, in folders as the hub has them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from helpers.tiny_prompted_models import (
    SIDE,
    SIZE,
    TEXT,
    VISION,
    byte_level,
    florence2,
    idefics3,
    llava,
    qwen2_vl,
    smolvlm,
)
from helpers.tiny_tokenizers import tiny_bert


def save_tiny(kind: str, folder: Path) -> Path:
    """Save a random model of a kind, its processor and tokenizer in `folder`, and return it."""
    torch.manual_seed(3)
    model, *parts = _MADE[kind]()
    # Larger than as initialised, so that captions differ between images.
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)
    return folder


def _vision_encoder_decoder() -> tuple[Any, ...]:
    tokenizer = byte_level(eos_token="<|endoftext|>", bos_token="<|endoftext|>", pad_token="<|endoftext|>")
    end = tokenizer.eos_token_id
    decoder = transformers.GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=32,
        bos_token_id=end,
        eos_token_id=end,
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**VISION),
        decoder,
        decoder_start_token_id=end,
        pad_token_id=end,
        eos_token_id=end,
    )
    return (
        transformers.VisionEncoderDecoderModel(config),
        transformers.ViTImageProcessor(size=SIZE),
        tokenizer,
    )


def _blip() -> tuple[Any, ...]:
    tokenizer = _bert(bos_token="[DEC]")
    text = transformers.BlipTextConfig(
        vocab_size=len(tokenizer),
        **TEXT,
        encoder_hidden_size=16,
        max_position_embeddings=40,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.sep_token_id,
        sep_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = transformers.BlipVisionConfig(**VISION)
    config = transformers.BlipConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16
    )
    images = transformers.BlipImageProcessor(size=SIZE)
    return transformers.BlipForConditionalGeneration(config), transformers.BlipProcessor(images, tokenizer)


def _git() -> tuple[Any, ...]:
    tokenizer = _bert()
    config = transformers.GitConfig(
        vision_config=VISION,
        vocab_size=len(tokenizer),
        **TEXT,
        max_position_embeddings=40,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    images = transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIZE)
    return transformers.GitForCausalLM(config), transformers.GitProcessor(images, tokenizer)


def _pix2struct() -> tuple[Any, ...]:
    tokenizer = byte_level(eos_token="</s>", pad_token="<pad>")
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {
        "hidden_size": 16,
        "d_kv": 8,
        "d_ff": 16,
        "num_layers": 1,
        "num_heads": 2,
        "vocab_size": len(tokenizer),
    }
    vision = {"hidden_size": 16, "patch_embed_hidden_size": 768, "d_ff": 16, "d_kv": 8, "seq_len": 16}
    vision |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    start = {"decoder_start_token_id": tokenizer.pad_token_id}
    config = transformers.Pix2StructConfig(
        text_config=text | ends | start, vision_config=vision, **ends, **start
    )
    images = transformers.Pix2StructImageProcessor(max_patches=16)
    return transformers.Pix2StructForConditionalGeneration(config), transformers.Pix2StructProcessor(
        images, tokenizer
    )


def _blip2() -> tuple[Any, ...]:
    tokenizer = byte_level(bos_token="</s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = transformers.OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        **ends,
    )
    queries = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Blip2Config(
        vision_config=VISION,
        qformer_config=queries | {"encoder_hidden_size": 16, "vocab_size": 30},
        text_config=text.to_dict(),
        num_query_tokens=3,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = transformers.BlipImageProcessor(size=SIZE)
    processor = transformers.Blip2Processor(images, tokenizer, num_query_tokens=3)
    return transformers.Blip2ForConditionalGeneration(config), processor


def _bert(**special: str) -> Any:
    tokenizer = transformers.BertTokenizerFast(vocab=str(tiny_bert() / "vocab.txt"))
    tokenizer.add_special_tokens(special)
    return tokenizer


_MADE = {
    "vision-encoder-decoder": _vision_encoder_decoder,
    "blip": _blip,
    "git": _git,
    "pix2struct": _pix2struct,
    "blip-2": _blip2,
    "llava": llava,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "qwen2_vl": qwen2_vl,
    "florence2": florence2,
}
KINDS = tuple(_MADE)


@cache
def tiny_model(kind: str) -> Path:
    """Return the folder of a random model of a kind, made once per process."""
    folder = Path(tempfile.mkdtemp(prefix=f"easycap-{kind}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return save_tiny(kind, folder)

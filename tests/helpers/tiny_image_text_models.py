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
from helpers.tiny_tokenizers import CAPTIONS, tiny_bert
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SIDE = 32
_VISION = {"image_size": SIDE, "patch_size": 16, "hidden_size": 16, "intermediate_size": 16} | {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_SIZE = {"height": SIDE, "width": SIDE}


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
    tokenizer = _byte_level(eos_token="<|endoftext|>", bos_token="<|endoftext|>", pad_token="<|endoftext|>")
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
        transformers.ViTConfig(**_VISION),
        decoder,
        decoder_start_token_id=end,
        pad_token_id=end,
        eos_token_id=end,
    )
    return (
        transformers.VisionEncoderDecoderModel(config),
        transformers.ViTImageProcessor(size=_SIZE),
        tokenizer,
    )


def _blip() -> tuple[Any, ...]:
    tokenizer = _bert(bos_token="[DEC]")
    text = transformers.BlipTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        encoder_hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=40,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.sep_token_id,
        sep_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = transformers.BlipVisionConfig(**_VISION)
    config = transformers.BlipConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16
    )
    images = transformers.BlipImageProcessor(size=_SIZE)
    return transformers.BlipForConditionalGeneration(config), transformers.BlipProcessor(images, tokenizer)


def _git() -> tuple[Any, ...]:
    tokenizer = _bert()
    config = transformers.GitConfig(
        vision_config=_VISION,
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=40,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    images = transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=_SIZE)
    return transformers.GitForCausalLM(config), transformers.GitProcessor(images, tokenizer)


def _bert(**special: str) -> Any:
    tokenizer = transformers.BertTokenizerFast(vocab=str(tiny_bert() / "vocab.txt"))
    tokenizer.add_special_tokens(special)
    return tokenizer


def _byte_level(*more: str, **special: str) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    made.add_special_tokens({"additional_special_tokens": list(more)})
    return made


_MADE = {"vision-encoder-decoder": _vision_encoder_decoder, "blip": _blip, "git": _git}
KINDS = tuple(_MADE)


@cache
def tiny_model(kind: str) -> Path:
    """Return the folder of a random model of a kind, made once per process."""
    folder = Path(tempfile.mkdtemp(prefix=f"easycap-{kind}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return save_tiny(kind, folder)

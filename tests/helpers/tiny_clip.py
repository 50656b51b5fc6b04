"""A CLIP small enough to be made in a test."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers


def save_tiny_clip(path: Path) -> Path:
    """Save a random CLIP of width 16 with a vocabulary of letters in the folder `path`, and return it."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(path / "vocab.json"), str(path / "merges.txt"))
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
    text = transformers.CLIPTextConfig(vocab_size=len(tokens), max_position_embeddings=40, **size, **ends)
    vision = transformers.CLIPVisionConfig(image_size=32, patch_size=16, **size)
    torch.manual_seed(2)
    config = transformers.CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8
    )
    transformers.CLIPModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(path)
    return path

"""A GPT-2 of two layers with random weights, and a byte-level BPE of the captions at hand, as a folder that
decoder.pretrained= and vocab.path= take: for trying recipes that start from GPT-2 where it cannot be fetched.

Usage: python tiny_gpt2.py CAPTIONS.json FOLDER (COCO's format)
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel


def main(captions: Path, folder: Path) -> None:
    texts = [row["caption"] for row in json.loads(captions.read_text(encoding="utf-8"))["annotations"]]
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=1000, special_tokens=["<|endoftext|>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id("<|endoftext|>")
    torch.manual_seed(0)
    sizes = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_embd=64, n_layer=2, n_head=4, n_positions=128,
        bos_token_id=end, eos_token_id=end,
    )  # fmt: skip
    GPT2LMHeadModel(sizes).save_pretrained(folder)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

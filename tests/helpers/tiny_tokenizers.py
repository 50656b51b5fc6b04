"""Tiny tokenizers, trained in the test, as they lie on disk after a download."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer

CAPTIONS = [
    "A dog runs on the grass.",
    "a dog and a cat sit on the grass",
    "The cat's hat, a T-shirt and a dog's ball!",
    "two cats running after a red ball",
] * 3


@cache
def tiny_gpt2() -> Path:
    """A folder with vocab.json and merges.txt: 256 bytes, merges of CAPTIONS, then <|endoftext|>, as in GPT-2."""
    folder = _new_folder()
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(CAPTIONS, vocab_size=300, min_frequency=2, show_progress=False)
    tokenizer.save_model(str(folder))
    ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    ids["<|endoftext|>"] = len(ids)
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    return folder


@cache
def tiny_bert() -> Path:
    """A folder with vocab.txt, BERT's special tokens in it."""
    folder = _new_folder()
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(CAPTIONS, vocab_size=80, min_frequency=1, show_progress=False)
    tokenizer.save_model(str(folder))
    return folder


def _new_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="easycap-tokenizer-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder

"""Tokenizers of any kind, read by transformers."""

from __future__ import annotations

from typing import Any

from easycap.errors import UserError
from easycap.utils.hub import hub, in_one_line


def read_fast_tokenizer(source: str) -> tuple[str, dict[str, int | None]]:
    """Return the tokenizer of `source`, a folder or a name on the hub, as the text of a tokenizer.json.

    Also its special tokens {bos, eos, pad, unk: id or None}; a BERT's [CLS] and [SEP] are bos and eos. Raises
    `UserError` if there is none.
    """
    import transformers

    try:
        with hub():
            found: Any = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source!r} has no readable tokenizer ({in_one_line(error)})") from error
    if not found.is_fast:
        raise UserError(
            f"{source!r} has a tokenizer implemented only in Python; a tokenizer.json is required"
        )
    special = {
        "bos": found.bos_token_id if found.bos_token_id is not None else found.cls_token_id,
        "eos": found.eos_token_id if found.eos_token_id is not None else found.sep_token_id,
        "pad": found.pad_token_id,
        "unk": found.unk_token_id,
    }
    return found.backend_tokenizer.to_str(), special

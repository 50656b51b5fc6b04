"""The vocabulary of a captioner of transformers: its tokenizer, with its processor and config beside it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from tokenizers import Tokenizer

from easycap.errors import UserError
from easycap.utils.image_text_adapter import (
    DESCRIBE,
    FOLDER,
    Kind,
    image_processor_of,
    kind_of,
    read_generation_config,
    read_model_config,
    read_processor,
    save_parts,
    tokenizer_of,
)


class ModelTokens:
    """Text <-> ids of a model's own tokenizer; a `Vocabulary`.

    `config` and `processor` are transformers' own. Captions end with `eos_id`, the first of the `end_ids` at which
    the model's generation stops. A pad that is missing or that is an end gets a new id after all others, as does bos,
    which is never read: a caption continues the model's own start and the `prompt` (None: what models of this kind are
    usually asked). Unless `tiles`, the processor leaves images whole that it would cut. Raises `UserError` for a
    tokenizer without words or an end, for a prompt where the model takes none, and for a processor that cuts nothing.
    """

    def __init__(self, source: str, prompt: str | None, *, tiles: bool = True) -> None:
        self.config = read_model_config(source)
        self.processor = read_processor(source, self.config)
        if not tiles:
            self._leave_images_whole()
        self.generation = read_generation_config(source, self.config)
        self.tokenizer = tokenizer_of(self.processor)
        size = getattr(self.config.get_text_config(decoder=True), "vocab_size", 0)
        _check_has_words(source, self.tokenizer, size)
        self.prompt = self.kind.prompt if prompt is None else prompt
        if self.prompt and self.config.model_type == "pix2struct":
            raise UserError(f"captioner.prompt={self.prompt!r}: a pix2struct model takes none; leave it out")
        self.end_ids = self._end_ids()
        if not self.end_ids:
            raise UserError(f"captioner.model={source!r} has no end token, so its captions would never end")
        self.eos_id = self.end_ids[0]
        self.num_own = max(len(self.tokenizer), size)
        self.bos_id = self.num_own
        self.unk_id: int | None = None
        pad = self.tokenizer.pad_token_id
        self.pad_id = self.num_own + 1 if pad is None or pad in self.end_ids else pad
        special = set(self.tokenizer.all_special_ids) | set(self.end_ids)
        self.never_ids = tuple(sorted(special - {self.eos_id, self.pad_id}))

    def _leave_images_whole(self) -> None:
        images = image_processor_of(self.processor)
        if not hasattr(images, "do_image_splitting"):
            raise UserError(
                "captioner.tiles=false is for models that cut images into tiles, such as SmolVLM and Idefics3; a "
                f"{self.config.model_type} model does not: leave it out"
            )
        images.do_image_splitting = False

    def _end_ids(self) -> list[int]:
        """Where the model's own generation stops; BLIP's code names the separator, whatever its config says."""
        if self.config.model_type == "blip":
            return [self.config.text_config.sep_token_id]
        ends = self.generation.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        ends = [end for end in ends if end is not None]
        return (
            ends
            or [end for end in (self.tokenizer.eos_token_id, self.tokenizer.sep_token_id) if end is not None][
                :1
            ]
        )

    @property
    def kind(self) -> Kind:
        """Return how models of this type are asked."""
        return kind_of(self.config.model_type)

    @property
    def chats(self) -> bool:
        """Whether the prompt is a turn of a conversation."""
        templates = (getattr(part, "chat_template", None) for part in (self.processor, self.tokenizer))
        return not self.kind.continues and self.kind.prompt == DESCRIBE and any(templates)

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether captions have a decoder of their own, so that a prompt that is not continued is not in it."""
        return self.config.is_encoder_decoder or not getattr(
            self.config, "use_decoder_only_language_model", True
        )

    def start_ids(self) -> torch.Tensor:
        """Return the ids (1,P) that captions continue: the model's start, then the prompt where it `continues`."""
        ids = self._ids(self.prompt) if self.kind.continues and self.prompt else []
        return torch.tensor([[self._start_id(), *ids]])

    def _start_id(self) -> int:
        if self.config.model_type == "blip":
            return self.config.text_config.bos_token_id
        text = self.config.get_text_config(decoder=True)
        asked = ("decoder_start_token_id",) if self.is_encoder_decoder else ()
        for name in (*asked, "bos_token_id"):
            for config in (self.generation, self.config, text):
                if (found := getattr(config, name, None)) is not None:
                    return found
        own = (self.tokenizer.cls_token_id, self.tokenizer.bos_token_id)
        return next(index for index in (*own, self.eos_id) if index is not None)

    def asked(self, **image: Any) -> list[dict[str, Any]]:
        """Return the conversation that captions of an image answer, for a processor's chat template."""
        content = [{"type": "image", **image}, {"type": "text", "text": self.prompt}]
        return [{"role": "user", "content": content}]

    @cached_property
    def _follows_text(self) -> bool:
        """Whether the caption's first word comes after text without a space between them."""
        if not self.chats:
            return bool(self.prompt) and self.kind.continues
        before = self.processor.apply_chat_template(self.asked(), add_generation_prompt=True, tokenize=False)
        return not before.endswith((" ", "\n", *self.tokenizer.all_special_tokens))

    def __len__(self) -> int:
        return self.num_own + 2

    def encode(self, text: str) -> list[int]:
        """Return the ids of the tokens of `text`, without special ids."""
        text = " ".join(text.split())
        if not text:
            return []
        if self._follows_text:
            before = self._ids(":")
            return self._ids(f": {text}")[len(before) :]
        return self._ids(text)

    def _ids(self, text: str) -> list[int]:
        skipped = {*self.never_ids, self.eos_id, self.pad_id}
        found = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [index for index in found if index not in skipped]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text up to the first end; special tokens are skipped."""
        kept = []
        for index in ids:
            if index in self.end_ids:
                break
            if index < self.num_own:
                kept.append(index)
        return " ".join(self.tokenizer.decode(kept, skip_special_tokens=True).split())

    def subword_ids(self, tokenizer: Tokenizer) -> list[list[int]]:
        """Raise `UserError`: the model is whole, and no other reads its words."""
        raise UserError(
            "captioner=huggingface has its own tokenizer: no other language model reads its tokens"
        )

    def save(self, folder: Path) -> None:
        """Write the model's config, processor and tokenizer into `folder`/huggingface."""
        save_parts(Path(folder), self.config, self.generation, self.processor)

    @classmethod
    def load(cls, folder: Path, prompt: str | None) -> Self:
        """Return what `save` wrote into `folder`; the processor there says whether it cuts images into tiles."""
        return cls(str(Path(folder) / FOLDER), prompt)


def _check_has_words(source: str, tokenizer: Any, size: int) -> None:
    """Raise `UserError` if a model of `size` tokens got an empty tokenizer, which transformers makes of no files.

    Tables may be padded, so a tokenizer that is a little smaller is the model's own.
    """
    if len(tokenizer) > max(len(tokenizer.all_special_ids), size // 2):
        return
    raise UserError(
        f"{source} has no tokenizer (of the model's {size:,} tokens its files name {len(tokenizer)}): put "
        "tokenizer.json and tokenizer_config.json of the model's repository into the folder"
    )

"""Config, processor and tokenizer of the models that the recipes huggingface/* name, at their published sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

GPT2_VOCAB, BERT_VOCAB, SMOL_VOCAB = 50_257, 30_524, 49_280
VIT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def tokenizer_of(size: int, *more: str, **special: str) -> Any:
    """Return a tokenizer of `size` words, made up but for the special ones and `more`."""
    words = dict.fromkeys(["[UNK]", ":", *special.values(), *more])
    words = [*words, *(f"word{index}" for index in range(size - len(words)))]
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    image = {"extra_special_tokens": {"image_token": "<image>"}} if "<image>" in more else {}
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", **special, **image)
    found.add_special_tokens({"additional_special_tokens": list(more)})
    return found


def blip(quick: bool) -> tuple[Any, ...]:
    """BLIP base: a ViT-B/16 of 384 pixels, and BERT with cross-attention (config of blip-image-captioning-base)."""
    tokenizer = tokenizer_of(
        BERT_VOCAB, bos_token="[DEC]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    )
    side, sizes = (32, SMALL) if quick else (384, VIT)
    ends = {"bos_token_id": tokenizer.bos_token_id, "sep_token_id": tokenizer.sep_token_id}
    ends |= {"eos_token_id": tokenizer.sep_token_id, "pad_token_id": tokenizer.pad_token_id}
    width = sizes["hidden_size"]
    text = transformers.BlipTextConfig(vocab_size=BERT_VOCAB, encoder_hidden_size=width, **sizes, **ends)
    vision = transformers.BlipVisionConfig(image_size=side, patch_size=16, **sizes)
    config = transformers.BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    images = transformers.BlipImageProcessor(size={"height": side, "width": side})
    return config, transformers.BlipProcessor(images, tokenizer)


def vit_gpt2(quick: bool) -> tuple[Any, ...]:
    """ViT-B/16 of 224 pixels, and GPT-2 small with cross-attention."""
    end = "<|endoftext|>"
    tokenizer = tokenizer_of(GPT2_VOCAB, bos_token=end, eos_token=end, pad_token=end)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2} if quick else {}
    decoder = transformers.GPT2Config(vocab_size=GPT2_VOCAB, add_cross_attention=True, **sizes)
    ends = {f"{name}_token_id": tokenizer.eos_token_id for name in ("decoder_start", "pad", "eos")}
    vision = transformers.ViTConfig(image_size=224, patch_size=16, **(SMALL if quick else VIT))
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, decoder, **ends)
    return config, transformers.ViTImageProcessor(size={"height": 224, "width": 224}), tokenizer


def smolvlm(quick: bool) -> tuple[Any, ...]:
    """SmolVLM-256M: a SigLIP-B/16 of 512 pixels per tile, and SmolLM2-135M."""
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    own = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *places)
    tokenizer = tokenizer_of(
        SMOL_VOCAB, *own, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<pad>"
    )
    side, vision = (64, SMALL) if quick else (512, VIT)
    text = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
    text |= {"num_key_value_heads": 3}
    if quick:
        text = SMALL | {"num_key_value_heads": 2}
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = transformers.SmolVLMConfig(
        vision_config=vision | {"image_size": side, "patch_size": 16},
        text_config=transformers.LlamaConfig(
            vocab_size=SMOL_VOCAB, tie_word_embeddings=False, max_position_embeddings=8192, **text, **ends
        ).to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=4,
    )
    tiles = {"size": {"longest_edge": 4 * side}, "max_image_size": {"longest_edge": side}}
    processor = transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(**tiles),
        tokenizer,
        transformers.SmolVLMVideoProcessor(**tiles),
        image_seq_len=(side // 16 // 4) ** 2,
        chat_template=_CHAT,
    )
    return config, processor


_CHAT = (
    "{% for message in messages %}User: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %} Assistant:"
)
MODELS: dict[str, Callable[[bool], tuple[Any, ...]]] = {
    "blip_lora": blip,
    "vit_gpt2": vit_gpt2,
    "smolvlm_lora": smolvlm,
}

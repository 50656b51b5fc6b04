"""Random captioners of transformers that are asked by a prompt beside the image, small enough to be made in a test."""

from __future__ import annotations

from typing import Any

import transformers
from helpers.tiny_tokenizers import CAPTIONS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SIDE = 32
VISION = {"image_size": SIDE, "patch_size": 16, "hidden_size": 16, "intermediate_size": 16} | {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
SIZE = {"height": SIDE, "width": SIDE}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def llava() -> tuple[Any, ...]:
    tokenizer = byte_level("<image>", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION, projection_dim=16).to_dict(),
        text_config=_llama(tokenizer).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIZE),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=_chat("<image>"),
        num_additional_image_tokens=1,
    )
    return transformers.LlavaForConditionalGeneration(config), processor


def idefics3() -> tuple[Any, ...]:
    tokenizer = _idefics_tokenizer()
    config = transformers.Idefics3Config(
        vision_config=VISION,
        text_config=_llama(tokenizer).to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    images = transformers.Idefics3ImageProcessor(
        size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}
    )
    processor = transformers.Idefics3Processor(
        images, tokenizer, image_seq_len=1, chat_template=_chat("<image>")
    )
    return transformers.Idefics3ForConditionalGeneration(config), processor


def smolvlm() -> tuple[Any, ...]:
    tokenizer = _idefics_tokenizer()
    config = transformers.SmolVLMConfig(
        vision_config=VISION,
        text_config=_llama(tokenizer).to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    sizes = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    processor = transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(**sizes),
        tokenizer,
        transformers.SmolVLMVideoProcessor(**sizes),
        image_seq_len=1,
        chat_template=_chat("<image>"),
    )
    return transformers.SmolVLMForConditionalGeneration(config), processor


def qwen2_vl() -> tuple[Any, ...]:
    own = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = byte_level(*own, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in own}
    text = _llama(tokenizer).to_dict() | {"model_type": "qwen2_vl_text", "num_key_value_heads": 2}
    text |= {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8}
    config = transformers.Qwen2VLConfig(
        text_config={key: value for key, value in text.items() if key not in ("head_dim", "architectures")},
        vision_config=vision | {"spatial_merge_size": 2, "temporal_patch_size": 2},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    sizes = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    images = transformers.Qwen2VLImageProcessor(min_pixels=32 * 32, max_pixels=48 * 48, **sizes)
    videos = transformers.Qwen2VLVideoProcessor(**sizes)
    processor = transformers.Qwen2VLProcessor(
        images, tokenizer, videos, chat_template=_chat("<|vision_start|><|image_pad|><|vision_end|>")
    )
    return transformers.Qwen2VLForConditionalGeneration(config), processor


def florence2() -> tuple[Any, ...]:
    tokenizer = byte_level("<image>", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    layers = {
        f"{part}_{name}": 1 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")
    }
    layers |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    text = transformers.BartConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        max_position_embeddings=64,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=None,
        **layers,
        **ids,
    )
    vision = {"depths": (1, 1), "patch_size": (7, 3), "patch_stride": (4, 2), "patch_padding": (3, 1)}
    vision |= {
        "patch_prenorm": (False, True),
        "embed_dim": (8, 16),
        "num_heads": (1, 2),
        "num_groups": (1, 2),
    }
    vision |= {"window_size": 4, "projection_dim": 16, "drop_path_rate": 0.0}
    config = transformers.Florence2Config(
        vision_config=vision,
        text_config=text.to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = transformers.CLIPImageProcessor(size=SIZE, crop_size=SIZE)
    images.image_seq_length = 17  # 4 x 4 patches and their mean
    return transformers.Florence2ForConditionalGeneration(config), transformers.Florence2Processor(
        images, tokenizer
    )


def _idefics_tokenizer() -> Any:
    places = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    own = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    return byte_level(*own, *places, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def _llama(tokenizer: Any) -> Any:
    return transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        **TEXT,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _chat(image: str) -> str:
    """A template of conversations with one turn."""
    part = f"{{% if part['type'] == 'image' %}}{image}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}"
    turn = f"{{% for part in message['content'] %}}{part}{{% endfor %}}"
    return f"{{% for message in messages %}}User: {turn}{{% endfor %}}\nAssistant:"


def byte_level(*more: str, **special: str) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    image = {"extra_special_tokens": {"image_token": "<image>"}} if "<image>" in more else {}
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, **image)
    made.add_special_tokens({"additional_special_tokens": list(more)})
    return made

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


def _pix2struct() -> tuple[Any, ...]:
    tokenizer = _byte_level(eos_token="</s>", pad_token="<pad>")
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
    tokenizer = _byte_level("<image>", bos_token="</s>", eos_token="</s>", pad_token="<pad>")
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
        vision_config=_VISION,
        qformer_config=queries | {"encoder_hidden_size": 16, "vocab_size": 30},
        text_config=text.to_dict(),
        num_query_tokens=3,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = transformers.BlipImageProcessor(size=_SIZE)
    processor = transformers.Blip2Processor(images, tokenizer, num_query_tokens=3)
    return transformers.Blip2ForConditionalGeneration(config), processor


def _llava() -> tuple[Any, ...]:
    tokenizer = _byte_level("<image>", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**_VISION, projection_dim=16).to_dict(),
        text_config=_llama(tokenizer).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=_SIZE),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=_chat("<image>"),
        num_additional_image_tokens=1,
    )
    return transformers.LlavaForConditionalGeneration(config), processor


def _idefics3() -> tuple[Any, ...]:
    places = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    own = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    tokenizer = _byte_level(*own, *places, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    config = transformers.Idefics3Config(
        vision_config=_VISION,
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


def _qwen2_vl() -> tuple[Any, ...]:
    own = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = _byte_level(*own, eos_token="<|im_end|>", pad_token="<|endoftext|>")
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


def _llama(tokenizer: Any) -> Any:
    return transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
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
    image = {"extra_special_tokens": {"image_token": "<image>"}} if "<image>" in more else {}
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, **image)
    made.add_special_tokens({"additional_special_tokens": list(more)})
    return made


_MADE = {
    "vision-encoder-decoder": _vision_encoder_decoder,
    "blip": _blip,
    "git": _git,
    "pix2struct": _pix2struct,
    "blip-2": _blip2,
    "llava": _llava,
    "idefics3": _idefics3,
    "qwen2_vl": _qwen2_vl,
}
KINDS = tuple(_MADE)


@cache
def tiny_model(kind: str) -> Path:
    """Return the folder of a random model of a kind, made once per process."""
    folder = Path(tempfile.mkdtemp(prefix=f"easycap-{kind}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return save_tiny(kind, folder)

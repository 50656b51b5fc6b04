"""A captioner as a folder that plain transformers loads: an encoder of timm, a projection of each patch, a language
model.

    timm's feature map   (N,R,C)  ->  linear_1 (C,D), linear_2 = the identity  ->  R image tokens in front of the words

transformers' FastVLM is this net with a second linear layer in its projection.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from tokenizers import AddedToken, Tokenizer

from easycap.errors import UserError
from easycap.models.decoders.merged_lora import merged_lora
from easycap.sharing.model_folder import check_target, written_whole
from easycap.sharing.whole_model_export import save_whole_model
from easycap.tasks.base import Task
from easycap.tasks.captioning import CaptioningTask
from easycap.tasks.image_text_task import ImageTextTask
from easycap.types import Inputs, Preprocessing
from easycap.utils import fast_vlm_adapter as adapter
from easycap.utils.fast_vlm_adapter import HEAD, LANGUAGE_MODEL, PROJECTOR, TOWER, SpecialIds
from easycap.utils.hub import in_one_line

TOLERANCE = 1e-4  # of log-probabilities
_VOCABULARIES = ("pretrained", "gpt2")
_CHECKED, _WORDS = 2, 6  # images, and words of each, of the check
_CAPTION = "A dog's ball and two (2) cats, in Übergröße."


@dataclass(frozen=True)
class ExportedFolder:
    """What `export_transformers` found: the largest difference of a log-probability, and the `prompt` if any."""

    difference: float
    prompt: str


def check_expressible(task: Task) -> CaptioningTask:
    """Return the task; `UserError`, naming the setting, for a captioner that FastVLM is not."""
    config = task.config
    if not isinstance(task, CaptioningTask) or task.is_ensemble or task.conditions:
        _refuse("it is no captioner of images alone: tag models, ensembles, tags and drafts are not")
    encoder, decoder, vocab = config["encoder"], config["decoder"], config["vocab"]
    if encoder["name"] != "timm":
        _refuse(f"encoder={encoder['name']} is not a network of timm (encoder=timm)")
    for name in ("pooled", "pool"):
        if encoder[name]:
            _refuse(f"encoder.{name}={str(encoder[name]).lower()} changes the network's map of features")
    if config["image_tokens"]["name"] != "all":
        _refuse(
            f"image_tokens={config['image_tokens']['name']} is not a projection of each patch (image_tokens=all)"
        )
    if decoder["name"] != "causal_lm":
        _refuse(f"decoder={decoder['name']} does not read image tokens as words (decoder=causal_lm)")
    if not decoder["predict_special"]:
        _refuse("decoder.predict_special=false changes probabilities after the language model")
    if vocab["name"] not in _VOCABULARIES:
        _refuse(
            f"vocab={vocab['name']} is not the tokenizer of a language model (vocab=pretrained or vocab=gpt2)"
        )
    if vocab.get("end"):
        _refuse(f"vocab.end={vocab['end']!r} ends captions with a word")
    if task.model.decoder.lm.get_output_embeddings().bias is not None:
        _refuse("the output layer of its language model (decoder.pretrained) has biases")
    return task


def _refuse(why: str) -> NoReturn:
    raise UserError(f"transformers has no class for this captioner: {why}")


@torch.no_grad()
def export_transformers(task: Task, folder: Path, *, overwrite: bool = False) -> ExportedFolder:
    """Write a captioner on the CPU into `folder` for AutoModelForImageTextToText and AutoProcessor of transformers.

    A fine-tuned model of transformers is saved as its own class. Log-probabilities of words about random images are
    compared first: raises `UserError` if one differs by more than 1e-4, and for what `check_target` and
    `check_expressible` refuse.
    """
    folder = check_target(folder, overwrite=overwrite)
    if isinstance(task, ImageTextTask):
        with written_whole(folder) as partial:
            difference = _checked(save_whole_model(task, partial))
        return ExportedFolder(difference, task.vocabulary.prompt)
    task = check_expressible(task)
    vocabulary, decoder = task.vocabulary, task.model.decoder
    # Padding is never read: its place in the word table is that of image tokens, and the end pads.
    bos = vocabulary.bos_id if decoder.bos else None
    ids = SpecialIds(image=vocabulary.pad_id, bos=bos, eos=vocabulary.eos_id)
    images = _images(task.model.encoder.preprocessing.size)
    num_patches = _patches(task, images)
    model, difference = _built(task, images, num_patches, ids)
    with written_whole(folder) as partial:
        adapter.save(model, partial)
        adapter.save_processor(
            partial,
            _tokenizer(task),
            ids,
            network=task.config["encoder"]["model"],
            pixels=_timm_settings(task.model.encoder.preprocessing),
            num_patches=num_patches,
        )
        prompt = _check_processor(partial, task, ids, num_patches)
    return ExportedFolder(difference, prompt)


def _built(task: Any, images: torch.Tensor, num_patches: int, ids: SpecialIds) -> tuple[Any, float]:
    """FastVLM with the captioner's weights and greedy search, and the largest difference of a log-probability."""
    try:
        model = adapter.fast_vlm(
            network=task.config["encoder"]["model"],
            channels=task.model.encoder.channels,
            text=adapter.text_config(task.model.decoder.lm),
            num_patches=num_patches,
            ids=ids,
            weights=_weights(task.model),
        )
        difference = _difference(task, model, images, num_patches, ids)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            "transformers has no class for this captioner: its FastVLM does not take these parts "
            f"({in_one_line(error)})"
        ) from error
    family = getattr(task.model.decoder.lm.config, "model_type", "")
    _checked(difference, f"; FastVLM reads its logits as they are, and a {family} model may scale them")
    greedy = task.generator("greedy").logits_processor
    adapter.set_generation(
        model,
        ids,
        never=sorted(set(greedy.forbidden)),
        longest=task.model.decoder.max_length,
        shortest=greedy.min_length,
    )
    return model, difference


def _checked(difference: float, why: str = "") -> float:
    """Return a difference of log-probabilities; `UserError` if it is too large."""
    if not difference <= TOLERANCE:
        raise UserError(
            f"the model of transformers that would be saved gives a log-probability that differs by {difference:.1e}: "
            f"nothing was saved{why}"
        )
    return difference


def _images(size: int) -> torch.Tensor:
    """Random images (N,3,S,S) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (_CHECKED, 3, size, size), dtype=torch.uint8, generator=generator)


def _patches(task: Any, images: torch.Tensor) -> int:
    """The number of patches R; `UserError` unless the network makes maps (N,C,h,w)."""
    encoder = task.model.encoder
    maps = encoder.network.forward_features(images.float())
    if maps.ndim != 4 or maps.shape[1] != encoder.channels:
        _refuse(
            f"encoder.model={task.config['encoder']['model']} makes no map (channels, height, width) of features, as "
            "convolutional networks do"
        )
    return int(maps.shape[2] * maps.shape[3])


def _weights(captioner: Any) -> dict[str, torch.Tensor]:
    """The weights of a captioner by FastVLM's names, LoRA merged into the layers that it adds to."""
    lm, project = captioner.decoder.lm, captioner.image_tokens.project
    found = {f"{TOWER}{name}": tensor for name, tensor in captioner.encoder.network.state_dict().items()}
    width = captioner.decoder.memory_dim
    one, zero = torch.eye(width), torch.zeros(width)
    linear = isinstance(project, torch.nn.Linear)  # else the features are as wide as the words already
    found[f"{PROJECTOR}linear_1.weight"] = project.weight if linear else one
    found[f"{PROJECTOR}linear_1.bias"] = project.bias if linear else zero
    found[f"{PROJECTOR}linear_2.weight"], found[f"{PROJECTOR}linear_2.bias"] = one.clone(), zero.clone()
    with merged_lora(lm):
        for name, tensor in lm.base_model.state_dict().items():
            found[f"{LANGUAGE_MODEL}{name}"] = tensor
    found[HEAD] = lm.get_output_embeddings().weight
    return {name: tensor.detach() for name, tensor in found.items()}


def _difference(task: Any, model: Any, images: torch.Tensor, num_patches: int, ids: SpecialIds) -> float:
    """The largest difference of log-probabilities of the words after random ones."""
    captioner, vocabulary = task.model, task.vocabulary
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(0, len(vocabulary), (len(images), _WORDS), generator=generator)
    words = words.masked_fill(words == ids.image, vocabulary.eos_id)
    words[:, 0] = vocabulary.bos_id
    ours = captioner(Inputs(images), words, torch.arange(len(images))).logits
    patches = torch.full((len(images), num_patches), ids.image)
    read = words if ids.bos is not None else words[:, 1:]
    pixels = (images.float() - captioner.mean) / captioner.std
    theirs = model(pixel_values=pixels, input_ids=torch.cat([patches, read], 1)).logits[:, -_WORDS:]
    return float((ours.log_softmax(-1) - theirs.log_softmax(-1)).abs().max())


def _tokenizer(task: Any) -> Tokenizer:
    """The vocabulary's tokenizer with every special token, and none that it adds by itself."""
    vocabulary = task.vocabulary
    with tempfile.TemporaryDirectory() as folder:
        vocabulary.save(Path(folder))
        tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.post_processor = None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    names = {vocabulary.eos_id: "eos", vocabulary.bos_id: "bos", vocabulary.pad_id: "image"}
    for index in sorted(names):  # new ids come after all others, in order
        text = tokenizer.id_to_token(index) or _free(tokenizer, names[index])
        tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False)])
        if tokenizer.token_to_id(text) != index:
            _refuse(
                f"its tokenizer (vocab.path) has gaps between its ids, so that {names[index]} cannot be {index}"
            )
    return tokenizer


def _free(tokenizer: Tokenizer, name: str) -> str:
    """A special token's text that the tokenizer does not have."""
    text = f"<{name}>"
    while tokenizer.token_to_id(text) is not None:
        text = f"<{text}>"
    return text


def _timm_settings(pixels: Preprocessing) -> dict[str, Any]:
    """What an encoder expects of images in timm's words."""
    return {
        "input_size": [3, pixels.size, pixels.size],
        "mean": list(pixels.mean),
        "std": list(pixels.std),
        "crop_pct": pixels.crop,
        "crop_mode": "squash" if pixels.squash else "center",
        "interpolation": "bilinear" if pixels.interpolation == "bilinear" else "bicubic",
    }


def _check_processor(folder: Path, task: Any, ids: SpecialIds, num_patches: int) -> str:
    """Return the prompt of a caption; `UserError` unless the saved processor makes of it what the model reads, and of a
    caption the vocabulary's ids.
    """
    from PIL import Image

    processor = adapter.load_processor(folder)
    prompt = str(processor.image_token) + (processor.tokenizer.bos_token if ids.bos is not None else "")
    made = processor(images=Image.new("RGB", (70, 50)), text=prompt, return_tensors="pt")["input_ids"]
    wanted = [ids.image] * num_patches + ([] if ids.bos is None else [ids.bos])
    words = processor.tokenizer(_CAPTION, add_special_tokens=False)["input_ids"]
    if made.tolist() != [wanted] or words != task.vocabulary.encode(_CAPTION):
        _refuse("the processor of transformers reads its tokenizer (vocab.path) otherwise")
    return prompt

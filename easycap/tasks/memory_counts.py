"""Bytes of the tensors that a training step and a validation make, counted on the meta device."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from easycap.models.captioner import Captioner
from easycap.models.image_model import ImageModel
from easycap.models.tag_model import TagModel
from easycap.tasks.meta_device import tensors_in, without_values
from easycap.training.hardware import Precision, has_bf16
from easycap.types import Inputs

TYPICAL_WORDS = 10  # of a caption; in most data the longest caption of a batch has more


def saved_of_step(
    config: dict[str, Any], model: ImageModel, device: torch.device, images: int, words: int
) -> int:
    """Bytes that autograd saves in the forward pass of a batch; views of one storage count once."""
    if config["trainer"]["gradient_checkpointing"]:
        return 0
    own = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
    saved: dict[int, tuple[torch.UntypedStorage, float]] = {}
    half = _is_half(config["trainer"]["precision"], device)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage, 0.5 if half and tensor.dtype == torch.float32 else 1.0
        return tensor

    model.train()
    with without_values(device), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        kept_alive = _forward(config, model, images, words)
    del kept_alive
    return int(sum(storage.nbytes() * share for storage, share in saved.values()))


def _forward(config: dict[str, Any], model: ImageModel, images: int, words: int) -> torch.Tensor:
    """The loss of one batch on meta."""
    if not isinstance(model, (Captioner, TagModel)):
        raise NotImplementedError("a whole captioner: what its step keeps is not known")
    inputs = _inputs(config, model, images)
    if isinstance(model, TagModel):
        ids = torch.zeros(images, min(words, model.tagger.max_length), dtype=torch.long)
        return model(inputs, ids, ids)
    assert isinstance(model, Captioner)
    rewarded = config["objective"]["name"] == "scst"
    per_image = config["objective"]["num_samples"] if rewarded else config["trainer"]["captions_per_image"]
    count = images * (per_image or 1)
    if rewarded:
        count = min(count, config["objective"]["rows_per_pass"] or count)
    ids = torch.zeros(count, min(words, model.decoder.max_length), dtype=torch.long)
    output = model(inputs, ids, torch.zeros(count, dtype=torch.long))
    return nn.functional.cross_entropy(output.logits.flatten(0, 1).float(), ids.flatten())


def _inputs(config: dict[str, Any], model: ImageModel, images: int) -> Inputs:
    pixels = model.encoder.preprocessing
    if pixels is None:
        seen = torch.zeros(images, config["encoder"]["min_regions"], model.encoder.channels)
    else:
        seen = torch.zeros(images, 3, pixels.size, pixels.size, dtype=torch.uint8)
    names = model.context if isinstance(model, Captioner) else ()
    lengths = {name: min(TYPICAL_WORDS, config[name]["max_length"]) for name in names}
    context = {name: torch.zeros(images, length, dtype=torch.long) for name, length in lengths.items()}
    return Inputs(seen, context)


def generation_memory(config: dict[str, Any], model: ImageModel) -> int:
    """Bytes of the decoder state of a validation batch, for all its beams."""
    if not isinstance(model, Captioner):
        return 0
    model.eval()
    images = images_validated(config)
    beams = config["decoding"].get("num_beams") or config["decoding"].get("num_samples") or 1
    with without_values(torch.device("cpu")), torch.no_grad():
        state = model.decoder.start(model.build_memory(_inputs(config, model, images)))
        rows = state.select(torch.zeros(images * beams, dtype=torch.long))
    storages = {t.untyped_storage()._cdata: t.untyped_storage() for t in tensors_in([state, rows])}
    own = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
    return sum(storage.nbytes() for key, storage in storages.items() if key not in own)


def images_validated(config: dict[str, Any]) -> int:
    """Return how many images a validation takes at a time."""
    validation = config["validation"]
    sizes = (validation["batch_size"], validation["images"], config["data"].get("val_images"))
    return min(size for size in sizes if size)


def _is_half(precision: Precision, device: torch.device) -> bool:
    if precision is Precision.fp32:
        return False
    return precision is not Precision.auto or has_bf16(device)


def bytes_of(tensors: list[Any]) -> int:
    """Return the bytes of all tensors together."""
    return sum(t.numel() * t.element_size() for t in tensors)

"""Regions that a detector finds in an image: torchvision's Faster R-CNN."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn

from easycap.errors import UserError
from easycap.models.checks import check_regions
from easycap.registry import register
from easycap.types import Features, Preprocessing
from easycap.utils.hub import in_one_line
from easycap.utils.paths import expanded

_STRIDE = 32  # of the backbone's coarsest maps but for the pooled one
_NUM_CLASSES = 91  # COCO's, background included
_NUM_PROPOSALS = 300  # as in bottom-up attention
_NMS_OVERLAP = 0.5


class Found(NamedTuple):
    """The regions of one image: boxes (R,4) as left, top, right, bottom in pixels, confidences (R,), vectors (R,C)."""

    boxes: torch.Tensor
    confidences: torch.Tensor
    vectors: torch.Tensor


@register("encoder", "regions")
class Regions(nn.Module):
    """images (N,3,S,S) -> Features: of each image the regions that most surely show something, C = 1024.

    Regions are the proposals of torchvision's Faster R-CNN with ResNet-50-FPN (1506.01497, 1612.03144), and the whole
    image; their vectors are those its box head classifies. As in bottom-up attention (1707.07998, section 3.1), a
    region counts by the probability of its most probable class, none if a surer region of that class overlaps it
    (non-maximum suppression). Those of at least `confidence` are taken, the surest first, but never fewer than
    `min_regions` or more than `max_regions`; the rest of the `max_regions` patches is masked.

    `pretrained` loads torchvision's COCO weights, downloaded, or from the file `weights` (.pth or .safetensors).
    BatchNorm is part of the weights and frozen, with eps 0, as they were trained; where boxes are and which are taken
    gets no gradient. Raises `UserError` for settings out of range, and weights that cannot be had.

    These are not the features of the papers: their detector is a ResNet-101 trained on 1,600 classes and 400 attributes
    of Visual Genome, with vectors of 2,048 numbers, and it sees the whole image at its own ratio, not a square of it.
    """

    grid = None
    channels = 1024

    def __init__(
        self,
        *,
        pretrained: bool,
        weights: str | None,
        image_size: int,
        min_regions: int,
        max_regions: int,
        confidence: float,
    ) -> None:
        super().__init__()
        if image_size < _STRIDE or image_size % _STRIDE:
            raise UserError(
                f"encoder.image_size={image_size} must be a positive multiple of {_STRIDE}, e.g. 800"
            )
        check_regions(min_regions, max_regions)
        if max_regions > _NUM_PROPOSALS:
            raise UserError(f"encoder.max_regions={max_regions} must be at most {_NUM_PROPOSALS}")
        if not 0 <= confidence <= 1:
            raise UserError(f"encoder.confidence={confidence} must be in [0, 1], e.g. 0.2")
        if weights is not None and not pretrained:
            raise UserError(f"encoder.weights={weights} is set but encoder.pretrained=false: set it to true")
        self.min_regions, self.max_regions, self.confidence = min_regions, max_regions, confidence
        self.preprocessing = Preprocessing(
            size=image_size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        )
        self.network: Any = _network()  # torchvision ships no types
        if pretrained:
            _load(self.network, weights)
        self.requires_grad_()

    def train(self, mode: bool = True) -> Regions:
        """Nothing in it behaves otherwise in training, but torchvision's detectors then ask for true boxes."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Regions:
        """What says where boxes are and which are taken gets no gradient, and is never among what is trained."""
        super().requires_grad_(requires_grad)
        for untrained in (self.network.rpn, self.network.roi_heads.box_predictor):
            untrained.requires_grad_(False)
        return self

    def forward(self, images: torch.Tensor) -> Features:
        found = self.find(images)
        patches = [
            nn.functional.pad(one.vectors, (0, 0, 0, self.max_regions - len(one.vectors))) for one in found
        ]
        counts = torch.tensor([len(one.vectors) for one in found], device=images.device)
        mask = torch.arange(self.max_regions, device=images.device) < counts.unsqueeze(1)
        return Features(torch.stack(patches), mask, None)

    def find(self, images: torch.Tensor) -> list[Found]:
        """images (N,3,S,S), normalised -> the regions of each, the surest first."""
        heads = self.network.roi_heads
        sizes = [(images.shape[-2], images.shape[-1])] * len(images)
        maps = self.network.backbone(images)
        proposals = self._propose(images, maps, sizes)
        vectors = heads.box_head(heads.box_roi_pool(maps, proposals, sizes))
        with torch.no_grad():
            probabilities = heads.box_predictor(vectors)[0].float().softmax(1)[:, 1:]  # without background
        counts = [len(boxes) for boxes in proposals]
        parts = zip(proposals, probabilities.split(counts), vectors.split(counts), strict=True)
        return [self._surest(*part) for part in parts]

    @torch.no_grad()
    def _propose(
        self, images: torch.Tensor, maps: dict[str, torch.Tensor], sizes: list[tuple[int, int]]
    ) -> list[torch.Tensor]:
        """Return the boxes (P,4) of each image to look at, the whole image last."""
        from torchvision.models.detection.image_list import ImageList

        with torch.autocast(images.device.type, enabled=False):  # boxes in bf16 are off by pixels
            precise = {name: values.float() for name, values in maps.items()}
            boxes, _ = self.network.rpn(ImageList(images, sizes), precise)
        height, width = sizes[0]
        whole = images.new_tensor([[0, 0, width, height]], dtype=torch.float32)
        return [torch.cat([one, whole]) for one in boxes]

    def _surest(self, boxes: torch.Tensor, probabilities: torch.Tensor, vectors: torch.Tensor) -> Found:
        """boxes (P,4), probabilities (P,classes) and vectors (P,C) of all proposals -> those taken."""
        from torchvision.ops import batched_nms

        best, classes = probabilities.max(1)
        confidences = torch.zeros_like(best)
        alone = batched_nms(boxes, best, classes, _NMS_OVERLAP)
        confidences[alone] = best[alone]
        sure = int((confidences >= self.confidence).sum())
        count = min(max(sure, self.min_regions), self.max_regions)
        taken = confidences.argsort(descending=True, stable=True)[:count]
        return Found(boxes[taken], confidences[taken], vectors[taken])


def _network() -> Any:
    from torchvision.models.detection import FasterRCNN  # it costs a second to import: who uses it pays
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d

    backbone = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=partial(FrozenBatchNorm2d, eps=0.0),
        trainable_layers=5,
    )
    return FasterRCNN(backbone, _NUM_CLASSES, rpn_post_nms_top_n_test=_NUM_PROPOSALS).eval()


def _load(network: Any, weights: str | None) -> None:
    try:
        network.load_state_dict(_read(weights))
    except (
        Exception
    ) as error:  # neither downloads nor torch.load have one class for 'offline', 'missing', 'damaged'
        where = f"encoder.weights={weights}" if weights else "torchvision's server"
        raise UserError(
            f"the weights of Faster R-CNN cannot be loaded from {where} ({in_one_line(error)}): download "
            "https://download.pytorch.org/models/fasterrcnn_resnet50_fpn_coco-258fb6c6.pth and pass "
            "encoder.weights=FILE, or train from scratch with encoder.pretrained=false"
        ) from error


def _read(weights: str | None) -> dict[str, torch.Tensor]:
    if weights is None:
        from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

        return FasterRCNN_ResNet50_FPN_Weights.COCO_V1.get_state_dict(progress=True, check_hash=True)
    path = expanded(weights)
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)

"""What `easycap data get` can fetch: archives, their sizes, checksums and what they unpack to.

Checksums and sizes: tensorflow/datasets url_checksums/coco.txt (sha256, bytes of COCO); flickr8k_dataset of torch for R
(md5 of Flickr8k); public manifests of caption_datasets.zip (sha256).
"""

from __future__ import annotations

from dataclasses import dataclass

_COCO = "http://images.cocodataset.org"
_FLICKR8K = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"


@dataclass(frozen=True)
class Archive:
    """A zip file: where it is, how many bytes it has, its checksum ("sha256:..." or "md5:...").

    `unpacks_to` is what it holds: {folder: number of files in it} or {file: 1}.
    """

    url: str
    size: int
    checksum: str
    unpacks_to: dict[str, int]

    @property
    def name(self) -> str:
        """Return the file's name, the end of its address."""
        return self.url.rpartition("/")[2]


def _photos(name: str, size: int, sha256: str, count: int) -> Archive:
    return Archive(f"{_COCO}/zips/{name}.zip", size, f"sha256:{sha256}", {name: count})


def _annotations(name: str, size: int, sha256: str, *files: str) -> Archive:
    places = {f"annotations/{file}": 1 for file in files}
    return Archive(f"{_COCO}/annotations/{name}.zip", size, f"sha256:{sha256}", places)


_TRAIN_2014 = _photos(
    "train2014", 13510573713, "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775", 82783
)
_VAL_2014 = _photos(
    "val2014", 6645013297, "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0", 40504
)
_ANNOTATIONS_2014 = _annotations(
    "annotations_trainval2014",
    252872794,
    "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
    "captions_train2014.json",
    "captions_val2014.json",
    "instances_val2014.json",
)
_KARPATHY = Archive(
    "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
    36745453,
    "sha256:4cfd70132527b80933105e5829dc9034eaab9573482e2e680abbab6130244817",
    {f"dataset_{name}.json": 1 for name in ("coco", "flickr8k", "flickr30k")},
)

COLLECTIONS: dict[str, tuple[Archive, ...]] = {
    "coco": (
        _photos(
            "train2017",
            19336861798,
            "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            118287,
        ),
        _photos(
            "val2017", 815585330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05", 5000
        ),
        _annotations(
            "annotations_trainval2017",
            252907541,
            "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            "captions_train2017.json",
            "captions_val2017.json",
            "instances_val2017.json",
        ),
    ),
    "coco2014": (_TRAIN_2014, _VAL_2014, _ANNOTATIONS_2014),
    "coco_karpathy": (_TRAIN_2014, _VAL_2014, _ANNOTATIONS_2014, _KARPATHY),
    "coco_test2014": (
        _photos(
            "test2014", 6660437059, "ead40c62230cb2cf70ff4c8b4c70abdc260a7556e77b3282621d06d8e2e35bdf", 40775
        ),
    ),
    "flickr8k": (
        Archive(
            f"{_FLICKR8K}/Flickr8k_Dataset.zip",
            1115419746,
            "md5:f18a1e2920de5bd84dae7cf08ec78978",
            {"Flicker8k_Dataset": 8091},
        ),
        Archive(
            f"{_FLICKR8K}/Flickr8k_text.zip",
            2340801,
            "md5:bf6c1abcb8e4a833b7f922104de18627",
            {f"Flickr_8k.{split}Images.txt": 1 for split in ("train", "dev", "test")}
            | {"Flickr8k.token.txt": 1},
        ),
    ),
    "karpathy_splits": (_KARPATHY,),
}

# The photos of these come on request only.
ON_REQUEST = {
    "flickr30k": "the photos of Flickr30k come on request (https://shannon.cs.illinois.edu/DenotationGraph): unpack "
    "them to ROOT/flickr30k-images, and `easycap data get karpathy_splits ROOT` brings the captions"
}

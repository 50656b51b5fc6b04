"""The settings of `data=webdataset`."""

from __future__ import annotations

from dataclasses import dataclass

from easycap.data.data_splits import check_shares
from easycap.data.shards.tar_index import TEXTS
from easycap.errors import UserError
from easycap.registry import SharedSettings

JSON = "json"
KEY = "__key__"  # as data.id_column: the name of a sample, as the library webdataset calls it
_LEAST_GB = 0.1


@dataclass(frozen=True)
class ShardSettings(SharedSettings):
    """Shards, and what in them is image, caption and id; conf/data/webdataset.yaml says what each setting means."""

    root: str
    train: str | None
    val: str | None
    test: str | None
    image_suffix: str | None
    text_suffix: str | None
    caption_column: str | None
    id_column: str | None
    fields: list[str] | None
    val_share: float
    test_share: float
    seed: int
    cache_gb: float

    def __post_init__(self) -> None:
        check_shares(self.val_share, self.test_share)
        if not self.cache_gb >= _LEAST_GB:
            raise UserError(f"data.cache_gb={self.cache_gb:g} must be at least {_LEAST_GB} (GB of disk)")
        if self.text_suffix is not None and self.text_suffix.rpartition(".")[2] not in TEXTS:
            raise UserError(f"data.text_suffix={self.text_suffix} must end in {' or '.join(TEXTS)}")

    def patterns(self) -> dict[str, str | None]:
        """Return {split: pattern of its shards}."""
        return {"train": self.train, "val": self.val, "test": self.test}

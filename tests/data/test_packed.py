"""What worker processes share: examples in one array of bytes, the same when looked at as those they were made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from easycap.data.images import ImageFile, PackedImage
from easycap.data.packed import PackedExamples
from easycap.types import Example


def test_packed_examples_come_back_as_they_were(tmp_path: Path) -> None:
    examples = [
        Example("1", ImageFile(tmp_path / "é.jpg"), ("a café\u2028here", "two"), ("dog",), {"graph": [1, 2]}),
        Example("2", PackedImage(tmp_path / "x.npy", 7), ()),
    ]
    packed = PackedExamples(examples)
    assert list(packed) == examples and len(packed) == 2
    assert packed[1].image == examples[1].image and hash(packed[0].image) == hash(examples[0].image)
    assert list(PackedExamples([])) == []
    assert packed[-1] == examples[-1] and packed[:1] == examples[:1] and packed[::-1] == examples[::-1]
    with pytest.raises(IndexError):
        packed[2]

"""Every search space in conf/sweep: each of its combinations is a config of the recipe that it is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from easycap.config.compose import Composer
from easycap.config.schema import check, config_hash
from easycap.sweeps.space import combinations, products
from easycap.utils.paths import config_dir

FILES = sorted(path for path in (config_dir() / "sweep").glob("*.yaml") if path.stem != "none")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_combination_is_a_config_of_its_own(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    header = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    asked = re.search(r"For (experiment=\S+(?: \w+\.run=[A-Z]+)?(?: [\w.]+=\d+)?)", header)
    common = asked[1].rstrip(".;,").split() if asked else []
    if any("flickr8k" in word for word in common):
        common.append("data.root=somewhere")
    assert bool(asked) == path.stem.startswith("flickr8k")
    compose = Composer(common)
    runs = [
        [f"{key}={value}" for key, value in combination.items()]
        for space in products(yaml.safe_load(text)["axes"], {}, ())
        for combination in combinations(space)
    ]
    hashes = {config_hash(check(compose(words))) for words in runs}
    assert len(hashes) == len(runs) > 1

"""Packages and modules as users write them, and the registry as it was before them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

from easycap import registry
from easycap.utils import plugins

PART = """
import easycap


@easycap.register("decoder", "{name}")
class Part:
    def __init__(self, vocab_size: int, *, width: int, max_length: int = 20) -> None:
        self.memory_dim = width
"""


def write_package(site: Path, name: str, code: str, **options: str) -> Path:
    """Write a package as pip installs one with an entry point; `options` {"decoder__mine": text} go to its conf/."""
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text(code)
    about = site / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[easycap.components]\n{name} = {name}\n")
    for option, text in options.items():
        path = site / name / "conf" / f"{option.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return site


@contextmanager
def searched(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let Python find what is in a folder; afterwards nothing of it is imported or registered."""
    importlib.import_module("easycap.components")
    components = {group: dict(options) for group, options in registry._COMPONENTS.items()}
    conditions, modules = set(registry._CONDITION_GROUPS), set(sys.modules)
    patch.syspath_prepend(str(folder))
    patch.setattr(plugins, "_loaded", set())
    patch.setattr(plugins, "_failures", [])
    patch.setattr(plugins, "_imported", {})
    _forget()
    yield
    patch.undo()
    _forget()
    registry._COMPONENTS.clear()
    registry._COMPONENTS.update(components)
    registry._CONDITION_GROUPS.intersection_update(conditions)
    for name in set(sys.modules) - modules:
        if (file := getattr(sys.modules[name], "__file__", None)) and Path(file).is_relative_to(folder):
            del sys.modules[name]
    for nodes in ConfigStore.instance().repo.values():
        if isinstance(nodes, dict):
            for name in [name for name, node in nodes.items() if getattr(node, "provider", "") == "easycap"]:
                del nodes[name]


def _forget() -> None:
    plugins.installed.cache_clear()
    plugins._conf_dir.cache_clear()

"""Hydra: composes a config, describes itself, and runs a job. Only this file touches what Hydra does not document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import hydra
from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from easycap.config.options import options_without_yaml
from easycap.config.overrides import quoted
from easycap.utils.paths import config_dir, own_config_dirs

T = TypeVar("T")

_ROOT = "train"  # conf/train.yaml


def compose_all(overrides: Sequence[str]) -> DictConfig:
    """Return the composed config with Hydra's own settings under `hydra`, nothing resolved, open for changes.

    Raises `HydraException` or `OmegaConfBaseException` for overrides that do not fit.
    """
    with hydra.initialize_config_dir(str(config_dir()), job_name=_ROOT, version_base="1.3"):
        _store_options_without_yaml()
        config = hydra.compose(_ROOT, [*overrides, *_search_path()], return_hydra_config=True)
    OmegaConf.set_struct(config, False)
    OmegaConf.set_readonly(config.hydra, False)
    return config


def show_info(kind: str, overrides: Sequence[str]) -> None:
    """Print what Hydra knows of itself: all, config, defaults, defaults-tree, plugins or searchpath."""
    with hydra.initialize_config_dir(str(config_dir()), job_name=_ROOT, version_base="1.3"):
        shown = GlobalHydra.instance().hydra
        assert shown is not None
        shown.show_info(kind, _ROOT, [*overrides, *_search_path()])


def _search_path() -> list[str]:
    """The override that lets Hydra search the user's own folders, if there are any."""
    own = [quoted(f"file://{folder}") for folder in own_config_dirs()]
    return [f"hydra.searchpath=[{','.join(own)}]"] if own else []


def _store_options_without_yaml() -> None:
    for (group, name), values in options_without_yaml().items():
        ConfigStore.instance().store(name, values, group, provider="easycap")


def run_in(config: DictConfig, work: Callable[[], T]) -> T:
    """Return `work()`, called as Hydra calls a job: in the folder `hydra.run.dir`, with logging as `hydra.job_logging`
    says, and with what `hydra.output_subdir`, `hydra.job` and `hydra.callbacks` ask for.
    """
    # Launchers need the loader, and there is none here.
    callbacks, loader = Callbacks(config), cast(ConfigLoader, None)
    callbacks.on_run_start(config=config, config_name=_ROOT)
    results: list[T] = []
    failures: list[BaseException] = []

    def task(_: DictConfig) -> None:
        try:
            results.append(work())
        except Exception as error:  # Hydra would announce it in words of its own
            failures.append(error)
            raise

    done = run_job(
        task_function=task,
        config=config,
        job_dir_key="hydra.run.dir",
        job_subdir_key=None,
        hydra_context=HydraContext(config_loader=loader, callbacks=callbacks),
    )
    callbacks.on_run_end(config=config, config_name=_ROOT, job_return=done)
    if failures:
        raise failures[0]
    return results[0]


def set_hydra_config(config: DictConfig) -> None:
    """Let `${hydra:...}` in a config refer to `config.hydra`."""
    HydraConfig.instance().set_config(config)

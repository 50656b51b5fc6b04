"""Where things are on this machine: the config folder, the outputs folder, the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def config_dir() -> Path:
    """Return the absolute folder of the Hydra configs: inside an installed wheel, or beside the package."""
    for folder in (_PACKAGE / "conf", _PACKAGE.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"easycap's conf/ folder is missing beside {_PACKAGE}: reinstall easycap")


def outputs_dir() -> Path:
    """Return the folder for runs: EASYCAP_OUTPUTS, else outputs/ of the checkout, else of the current folder."""
    if override := os.environ.get("EASYCAP_OUTPUTS"):
        return Path(override).expanduser().absolute()
    checkout = _PACKAGE.parent / "outputs"
    return checkout if (_PACKAGE.parent / "setup.cfg").is_file() else Path.cwd() / "outputs"


def experiments_dirs() -> list[Path]:
    """Return the folders of studies there are: experiments/ of the current folder and of the checkout."""
    folders = (Path.cwd() / "experiments", _PACKAGE.parent / "experiments")
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def cache_dir() -> Path:
    """Return the folder for generated data: EASYCAP_CACHE, else XDG_CACHE_HOME/easycap, else ~/.cache/easycap."""
    if override := os.environ.get("EASYCAP_CACHE"):
        return Path(override).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser().absolute() / "easycap"

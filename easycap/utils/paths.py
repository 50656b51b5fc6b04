"""Where things are on this machine: the config folder, the outputs folder, the user's cache."""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from easycap.errors import UserError
from easycap.utils.plugins import conf_dirs

_ADDRESS = re.compile(r"^(https?|hf):/(?!/)")
_PACKAGE = Path(__file__).resolve().parents[1]


def expanded(path: str | Path) -> Path:
    """Return `path` with a leading ~ or ~user replaced by that home folder, as it is where no such user exists."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def path_text(path: Path) -> str:
    """Return a path as text, and an address that was made a path, which drops a slash, as the address."""
    return _ADDRESS.sub(r"\1://", str(path))


def config_dir() -> Path:
    """Return the absolute folder of the Hydra configs: inside an installed wheel, or next to the package."""
    for folder in (_PACKAGE / "conf", _PACKAGE.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"easycap's conf/ folder is missing next to {_PACKAGE}: reinstall easycap")


def own_config_dirs() -> list[Path]:
    """Return the user's own folders of Hydra configs: those of EASYCAP_CONFIG_DIR, then `conf` of users' packages.

    `--config-dir` sets the variable for the command and the processes of a sweep. Raises `UserError` for what is not a
    folder.
    """
    own = os.environ.get("EASYCAP_CONFIG_DIR", "")
    folders = [own] if expanded(own).is_dir() else own.split(os.pathsep)
    named = [expanded(folder).absolute() for folder in folders if folder]
    for folder in named:
        if not folder.is_dir():
            raise UserError(f"EASYCAP_CONFIG_DIR={own}: {folder} is not a folder")
    return list(dict.fromkeys([*named, *conf_dirs()]))


def config_files(group: str) -> dict[str, Path]:
    """Return {option: its YAML} of a config group, sorted; options in folders have their path, easycap/quickstart.

    As with Hydra, of several files of one name easycap's own counts, then that of the first folder.
    """
    found: dict[str, Path] = {}
    for folder in reversed([config_dir(), *own_config_dirs()]):
        root = folder / group
        found |= {path.relative_to(root).with_suffix("").as_posix(): path for path in root.rglob("*.yaml")}
    return dict(sorted(found.items()))


def outputs_dir() -> Path:
    """Return the folder for runs: EASYCAP_OUTPUTS, else outputs/ of the checkout, else of the current folder."""
    if override := os.environ.get("EASYCAP_OUTPUTS"):
        return expanded(override).absolute()
    checkout = _PACKAGE.parent / "outputs"
    return checkout if (_PACKAGE.parent / "setup.cfg").is_file() else Path.cwd() / "outputs"


def experiments_dirs() -> list[Path]:
    """Return the existing experiments/ folders: of the current folder, the checkout, or an installed wheel."""
    folders = (Path.cwd() / "experiments", _PACKAGE.parent / "experiments", _PACKAGE / "experiments")
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def cache_dir() -> Path:
    """Return the folder for generated data: EASYCAP_CACHE, else XDG_CACHE_HOME/easycap, else ~/.cache/easycap."""
    if override := os.environ.get("EASYCAP_CACHE"):
        return expanded(override).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return expanded(base).absolute() / "easycap"


def share_as_usual(*paths: Path) -> None:
    """Give files or folders the mode that the umask implies, as libraries make them private (0600, 0700)."""
    for kind in {(path.parent, path.is_dir()) for path in paths}:
        probe = kind[0] / f".mode-{os.getpid()}-{secrets.token_hex(4)}"
        probe.mkdir() if kind[1] else probe.touch()
        mode = stat.S_IMODE(probe.stat().st_mode)
        probe.rmdir() if kind[1] else probe.unlink()
        for path in paths:
            if (path.parent, path.is_dir()) == kind:
                path.chmod(mode)

"""Opening data sets with the library datasets: from the hub or a folder, as Arrow files on this disk."""

from __future__ import annotations

import contextlib
import difflib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easycap.errors import UserError
from easycap.registry import describe_choices
from easycap.utils.extras import check_extra
from easycap.utils.hub import hub, in_one_line, is_hub_name
from easycap.utils.paths import expanded

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)


def library() -> Any:
    """Return the module datasets; `UserError` says how to install it."""
    check_extra("huggingface", "data=huggingface")
    import datasets

    return datasets


def open_splits(path: str, config: str | None, revision: str | None) -> dict[str, datasets.Dataset]:
    """Return {split: data set} of a folder or a name on the hub; nothing of a set is ever run as code.

    Arrow files that `save_to_disk` wrote are read where they are. The library unpacks Parquet files, which have no
    single rows, into Arrow files in its cache, HF_DATASETS_CACHE, once. Raises `UserError` for what cannot be opened.
    """
    module = library()
    folder = expanded(path)
    with _opening(module, path, config, revision):
        if is_saved(folder):
            found = module.load_from_disk(str(folder.absolute()), keep_in_memory=False)
        elif folder.is_dir():
            found = module.load_dataset(str(folder.absolute()), name=config, keep_in_memory=False)
        else:
            found = module.load_dataset(path, name=config, revision=revision, keep_in_memory=False)
    return dict(found) if isinstance(found, module.DatasetDict) else {str(found.split or "train"): found}


def parquet_files(path: str, config: str | None, revision: str | None) -> dict[str, list[str]]:
    """Return {split: Parquet files} of a folder or a name on the hub, of which no file is downloaded.

    A file is a path, or hf://datasets/OWNER/NAME@COMMIT/PATH. Raises `UserError` for what cannot be opened.
    """
    module = library()
    folder = expanded(path)
    with _opening(module, path, config, revision):
        source = str(folder.absolute()) if folder.is_dir() else path
        data_files = {}
        if not is_saved(folder):
            data_files = module.load_dataset_builder(source, name=config, revision=revision).config.data_files
    files = {str(split): list(map(str, its)) for split, its in (data_files or {}).items()}
    if not files or not all(file.endswith(".parquet") for its in files.values() for file in its):
        raise UserError(
            f"data.streaming=true reads Parquet files, and {path} has others; data.streaming=false reads them, or "
            "data.revision=refs/convert/parquet if the hub has converted the set"
        )
    return files


@contextlib.contextmanager
def _opening(module: Any, path: str, config: str | None, revision: str | None) -> Iterator[None]:
    """Within this context the library opens a set, and what is wrong with it becomes `UserError`."""
    folder = expanded(path)
    if not folder.is_dir():
        _check_name(path, folder)
    elif revision is not None:
        raise UserError(f"data.revision={revision} is for data sets on the hub; data.path={path} is a folder")
    if is_saved(folder) and config is not None:
        raise UserError(
            f"data.config={config}: {path} was saved by save_to_disk and has one configuration; null"
        )
    reachable = contextlib.nullcontext() if folder.is_dir() else reachable_hub(module)
    with _quiet(module), _as_user_errors(path, config, revision), reachable:
        yield


def is_saved(folder: Path) -> bool:
    """Return whether `save_to_disk` wrote a folder."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _check_name(path: str, folder: Path) -> None:
    """Raise `UserError` for what is neither a folder nor a name on the hub, or for a likely slip in a folder's name."""
    if not is_hub_name(path):
        near = _similar(folder)
        raise UserError(
            f"data.path={path} is not a folder{near}, nor a name on the hub, which is NAME or OWNER/NAME"
        )


def _similar(folder: Path) -> str:
    """Name, in brackets, the folder with a similar name next to one that does not exist, if there is one."""
    if not folder.parent.is_dir():
        return ""
    there = [one.name for one in folder.parent.iterdir() if one.is_dir()]
    near = difflib.get_close_matches(folder.name, there, n=1)
    return f" (did you mean {folder.with_name(near[0])}?)" if near else ""


@contextlib.contextmanager
def reachable_hub(module: Any) -> Iterator[None]:
    """Within this context the library uses its cache alone if the hub cannot be reached."""
    from huggingface_hub import constants

    before = module.config.HF_HUB_OFFLINE
    with hub():
        module.config.HF_HUB_OFFLINE = before or constants.HF_HUB_OFFLINE
        try:
            yield
        finally:
            module.config.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _quiet(module: Any) -> Iterator[None]:
    """No bars of the library where nobody watches."""
    shown = module.are_progress_bars_disabled() or sys.stderr.isatty()
    if not shown:
        module.disable_progress_bars()
    try:
        yield
    finally:
        if not shown:
            module.enable_progress_bars()


@contextlib.contextmanager
def _as_user_errors(path: str, config: str | None, revision: str | None) -> Iterator[None]:
    """What the library says about a set that cannot be opened, with the remedy."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # OSError, ValueError, RuntimeError or its own for the same faults
        if (
            isinstance(error, OSError)
            and error.errno is not None
            and not isinstance(error, FileNotFoundError)
        ):
            raise  # the disk's trouble
        raise UserError(_fault(path, config, revision, error)) from error


def _fault(path: str, config: str | None, revision: str | None, error: Exception) -> str:
    said = in_one_line(error)
    if type(error).__name__ == "ConnectionError":
        near = _similar(expanded(path))
        return f"data.path={path} is not a folder here{near}, and the hub cannot be reached for a set of this name"
    if "Dataset scripts are no longer supported" in said:
        return (
            f"data.path={path} is a program that makes the data, which is not run; use a set in Parquet, e.g. "
            "data.revision=refs/convert/parquet if the hub has converted it"
        )
    if type(error).__name__ == "DatasetNotFoundError" and revision is None:
        near = _similar(expanded(path))
        return (
            f"data.path={path} is not a folder here{near}, and the hub has no such data set, or not for you "
            f"(private and gated ones need `hf auth login`): {said}"
        )
    if (names := _config_names(error)) is not None:
        if config is None:
            return f"{path} has several configurations: set data.config to one of {', '.join(sorted(names))}"
        return f"data.config={config} does not exist; {describe_choices(config, names)}"
    return f"data.path={path} cannot be opened by the library datasets: {said}"


def _config_names(error: Exception) -> list[str] | None:
    """The names of configurations that the library lists in an error about one that is missing or unknown."""
    text = str(error)
    start, end = text.find("["), text.find("]")
    if "onfig name is missing" in text or ("BuilderConfig" in text and "not found" in text):
        return [name.strip(" '\"") for name in text[start + 1 : end].split(",")]
    return None

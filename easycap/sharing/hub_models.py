"""Models on the Hugging Face hub: find, download, upload; errors are one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from easycap.errors import UserError
from easycap.models.checkpoint import PREPROCESSING
from easycap.runs.find import find_run
from easycap.utils.hub import hub, in_one_line, is_hub_name

# What a shared model consists of; other files of its repository are not downloaded.
_FILES = ["*.json", "*.txt", "*.safetensors", "*.npy", "README.md"]
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def find_model(
    name: str | os.PathLike[str], *, revision: str | None = None, token: str | None = None
) -> Path:
    """Return the folder of a run or of a saved model: a path, a run's name, else USER/MODEL on the hub, downloaded.

    `revision` is a branch, tag or commit there. A name that is not found anywhere is
    returned unchanged. Raises `UserError` if the model cannot be downloaded.
    """
    name = os.fspath(name)
    found = find_run(Path(name))
    if found.exists() or name.count("/") != 1 or not is_hub_name(name):
        if revision is not None:
            raise UserError(
                f"revision {revision!r} only applies to models on the hub (USER/MODEL), and {name} is not one"
            )
        return found
    nowhere = f"{name} is not a run or folder here"
    with hub(), _in_one_sentence(name, revision, before=f"{nowhere}, and "):
        from huggingface_hub import hf_hub_download, snapshot_download

        # First whether it is a model of easycap: others may have gigabytes.
        hf_hub_download(name, PREPROCESSING, revision=revision, token=token)
        return Path(snapshot_download(name, revision=revision, token=token, allow_patterns=_FILES))


def check_model_id(name: str) -> None:
    """Raise `UserError` unless `name` can be a model's on the hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"{name!r} is not a valid model name on the hub: {in_one_line(error)}") from None


def upload_model(folder: Path, name: str, *, private: bool | None, message: str, token: str | None) -> str:
    """Upload `folder` as the model `name` in one commit and return its address, creating the repository if needed.

    `private` is for a new repository; None: as the account has it. Raises `UserError` if the hub refuses.
    """
    with hub(), _in_one_sentence(name, None, before=f"{name} is not uploaded: "):
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        url = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message=message)
        return str(url)


@contextmanager
def _in_one_sentence(name: str, revision: str | None, *, before: str) -> Iterator[None]:
    """Raise what the hub's client raises as `UserError`, of which some begin with `before`."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise UserError(f"{name} is gated: request access on its hub page, then {_LOG_IN}") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{before}model {name} was not found on the hub; to access a private one or to upload, {_LOG_IN}"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{name} on the hub has no revision {revision!r}") from None
    except errors.OfflineModeIsEnabled:
        raise UserError(f"{before}the hub cannot be reached, or HF_HUB_OFFLINE is set") from None
    except errors.LocalEntryNotFoundError:
        raise UserError(
            f"{before}the hub cannot be reached, or HF_HUB_OFFLINE is set, and its cache does not have {name}"
        ) from None
    except errors.EntryNotFoundError:
        raise UserError(
            f"{name} on the hub is not a model that easycap saved: it has no {PREPROCESSING}"
        ) from None
    except errors.HfHubHTTPError as error:
        raise UserError(
            f"{before}the hub returned an error: {in_one_line(error)}; if access is missing, {_LOG_IN}"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{before}the hub cannot be used: {in_one_line(error)}") from None

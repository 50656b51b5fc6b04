"""Fetching from the Hugging Face hub, or saying at once that it cannot be reached."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from easycap.utils.paths import expanded

_SECONDS = 3.0
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def is_hub_name(source: str) -> bool:
    """Return whether `source` is NAME or OWNER/NAME, and not a path that exists here."""
    return _NAME.fullmatch(source) is not None and not expanded(source).exists()


@contextlib.contextmanager
def hub() -> Iterator[None]:
    """Within this context the hub's client uses its cache alone if the hub cannot be reached.

    Left to itself it tries every file five times, for half a minute and more, before it gives up.
    """
    from huggingface_hub import constants  # here and below: half of all runs fetch nothing

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def fetch(source: str, *names: str) -> list[Path]:
    """Return the files `names` of `source`: a local folder, else a name on the hub, from its cache if it is there.

    Raises `OSError` if one cannot be had.
    """
    folder = expanded(source)
    if folder.exists():
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"{source} holds no {missing[0]}")
        return [folder / name for name in names]
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        with hub():
            return [Path(hf_hub_download(source, name)) for name in names]
    except (OSError, ValueError, EntryNotFoundError) as error:
        reason = f"{source} is not a local folder and cannot be fetched from the hub: {in_one_line(error)}"
        raise FileNotFoundError(reason) from error


def in_one_line(error: Exception) -> str:
    """Return the beginning of what an error says, as one line."""
    return shortened(str(error)) or type(error).__name__


def shortened(text: str, longest: int = 200) -> str:
    """Return a text as one line of at most `longest` characters, cut after a word."""
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    kept = line[: longest - 1]
    return (kept.rpartition(" ")[0] or kept).rstrip(" ,;:(") + "…"


def can_be_reached() -> bool:
    """Return whether the hub may be asked: it answers, and HF_HUB_OFFLINE is not set."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and _reachable()


def _reachable() -> bool:
    from urllib.request import getproxies  # here: it loads a client for HTTP

    if getproxies().get("https"):  # only the client knows how to ask through a proxy
        return True
    from huggingface_hub import constants

    url = urlsplit(constants.ENDPOINT)
    try:
        port = url.port or (80 if url.scheme == "http" else 443)
        with socket.create_connection((url.hostname, port), timeout=_SECONDS):
            return True
    except OSError:
        return False

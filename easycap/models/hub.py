"""Fetching from the Hugging Face hub, or saying at once that it cannot be reached."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

_SECONDS = 3.0


@contextlib.contextmanager
def hub() -> Iterator[None]:
    """Within this context the hub's client uses its cache alone if the hub cannot be reached.

    Left to itself it tries every file five times, for half a minute and more, before it says so.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable() -> bool:
    if getproxies().get("https"):  # only the client knows how to ask through a proxy
        return True
    url = urlsplit(constants.ENDPOINT)
    try:
        port = url.port or (80 if url.scheme == "http" else 443)
        with socket.create_connection((url.hostname, port), timeout=_SECONDS):
            return True
    except OSError:
        return False

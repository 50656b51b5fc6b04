"""Running a Java program that must not hang: a time limit, both pipes read, and a named reason if it fails."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from easycap.utils.extras import without_extra


class Absent(Exception):
    """Raised by a scorer that cannot run here (no Java, no weights); its message is the reason."""


def bundled_jar(relative: str) -> Path:
    """Return the path of a jar inside the installed pycocoevalcap; raises `Absent` if it is not there."""
    if sentence := without_extra("meteor", "it"):
        raise Absent(sentence)
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (Path(folder) / relative).is_file():
            return Path(folder) / relative
    raise Absent(f"the installed pycocoevalcap has no {Path(relative).name}: reinstall it")


def run_java(
    arguments: Sequence[str], *, java: str, seconds: float, folder: Path | None = None, text: str = ""
) -> str:
    """Run `java arguments` with `text` as input and return its output; raises `Absent` with the reason.

    `folder` is the working directory; after `seconds` the program is killed.
    """
    # The language fixes the decimal point, the encoding what the bytes of both pipes mean.
    fixed = ["-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8", "-Djava.awt.headless=true"]
    found = shutil.which(java)
    if found is None:
        raise Absent(f"{java!r} was not found; install Java 8 or later")
    try:
        done = subprocess.run(
            [found, *fixed, *arguments],
            input=text.encode("utf-8", "replace"),
            capture_output=True,
            timeout=seconds,
            cwd=folder,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Absent(f"Java did not finish within {seconds:g} seconds") from None
    except OSError as error:
        raise Absent(f"Java could not be started: {error}") from None
    if done.returncode:
        raise Absent(f"Java stopped with exit status {done.returncode}: {_last_line(done.stderr)}")
    return done.stdout.decode("utf-8", "replace")


def java_version(java: str) -> int:
    """Return the major version, 8 for "1.8"; raises `Absent` without Java."""
    found = shutil.which(java)
    if found is None:
        raise Absent(f"{java!r} was not found; install Java 8 or later")
    try:
        done = subprocess.run([found, "-version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Absent(f"Java could not be started: {error}") from None
    match = re.search(rb'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(match[1]) if match else 8


def _last_line(output: bytes) -> str:
    r"""The last line that Java printed, without the stack trace ("\tat ...")."""
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if line[:1].strip()]
    return lines[-1][:200] if lines else "it printed nothing"

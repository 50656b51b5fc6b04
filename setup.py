"""What setup.cfg cannot say: on a package index README.md is alone, so links into the repository are rewritten.

With `url` in setup.cfg they lead there; without one only their text is left, and pictures are left out.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from setuptools import setup

_CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- .*? -->\n")  # notes for the tests
_PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)\s]+)\)\n*")
_CAPTION = r"(?:\*[^*\n]+\*\n\n)?"  # the line in italics below a picture
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:)([^)\s]+)\)")


def long_description(readme: str, repository: str) -> str:
    """Return README.md for a package index; `repository` is its address on a code host, "" if it has none."""
    parts = _CODE.split(_COMMENT.sub("", readme))
    return "".join(
        part if part.startswith("```") else _rewritten(part, repository.rstrip("/")) for part in parts
    )


def _rewritten(text: str, repository: str) -> str:
    if not repository:
        return _LINK.sub(r"\1", re.sub(_PICTURE.pattern + _CAPTION, "", text))
    text = _PICTURE.sub(rf"![\1]({repository}/raw/main/\2)\n\n", text)
    return _LINK.sub(rf"[\1]({repository}/blob/main/\2)", text)


if __name__ == "__main__":
    here = Path(__file__).parent
    config = configparser.ConfigParser()
    config.read(here / "setup.cfg", encoding="utf-8")
    setup(
        long_description=long_description(
            (here / "README.md").read_text(encoding="utf-8"), config["metadata"].get("url", "")
        ),
        long_description_content_type="text/markdown",
    )

"""Links from pages to files of the repository outside docs/, on the site.

On a code host such a link opens the file. The site has no such files: with `repo_url` in mkdocs.yml the
link leads to the code host, without it only its text is shown.
"""

from __future__ import annotations

import re

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)\s]+)\)")


def on_page_markdown(markdown: str, *, config: dict, **_: object) -> str:
    """Rewrite links to `../PATH`; called by MkDocs for every page."""
    repository = (config["repo_url"] or "").rstrip("/")
    target = rf"[\1]({repository}/blob/main/\2)" if repository else r"\1"
    return _OUTSIDE.sub(target, markdown)

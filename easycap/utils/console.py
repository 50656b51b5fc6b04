"""The terminal: text printed as it is, and log lines that do not break a progress bar."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from easycap.utils.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console, ConsoleOptions, RenderableType

# The console of the progress bars that are shown now, if any; progress_bar.py says so.
live: Console | None = None


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return a console that prints text as it is, in `width` columns (None: those of the terminal).

    By default rich reads [brackets] as markup and :names: as emoji, and colours numbers; captions, file names and other
    text of users must be printed unchanged. For styles use `rich.text.Text` or `style=`.
    """
    from rich.console import Console
    from rich.segment import Segment

    class Terminal(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

        def on_broken_pipe(self) -> None:
            raise  # as print does, where rich would end the program

    return Terminal(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def say(text: str, *, stderr: bool = False) -> None:
    """Print a line, above any progress bars on this terminal, with control characters written out."""
    text = printable(text)
    stream = sys.stderr if stderr else sys.stdout
    if live is not None and stream.isatty():
        live.print(text, soft_wrap=True)
    else:
        print(text, file=stream, flush=True)


class LogHandler(logging.Handler):
    """Writes log messages to standard error by `say`."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record above the bars that are shown."""
        try:
            say(self.format(record), stderr=True)
        except Exception:
            self.handleError(record)

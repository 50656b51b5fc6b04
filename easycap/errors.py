"""What users did wrong: the only errors that the command line shows as a sentence of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Wrong input, settings or files: the message names the value, what is allowed and the remedy.

    Any other exception that reaches the command line is reported as unexpected, with its type.
    """


class OutOfTime(UserError):
    """`trainer.max_hours` are over; the run is saved."""


@contextmanager
def while_reading(what: str) -> Iterator[None]:
    """Add `what` (a file, or a file and its entry) as a note to unexpected exceptions raised inside."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        error.add_note(f"while reading {what}")
        raise


def json_fault(error: Exception) -> str:
    """Return in a few words what is wrong with a file that json could not read."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON, or cut off: line {error.lineno}, {error.msg}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text (byte {error.start}); save it as UTF-8"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if "integer string conversion" in str(error):  # Python's limit of 4,300 digits
        return "it has a number of thousands of digits"
    return str(error)

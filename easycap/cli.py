"""The `easycap` command: finds the entry point, and turns errors into one sentence.

Two grammars. `easycap train`, `data check` and `data show` take Hydra overrides (GROUP=OPTION, GROUP.FIELD=VALUE); all
other commands take paths and flags, some also data.root=DIR and its like for data that has moved. Commands are imported
when they are called, so that --help answers at once.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import select
import sys
from collections.abc import Callable, Sequence

import easycap
from easycap.commands import COMMANDS

_BROKEN_PIPE = 141  # 128 + SIGPIPE, the exit code of a program that the signal ends

_HELP = f"""easycap {easycap.__version__}: train and compare image captioners.

usage: easycap COMMAND ...

{chr(10).join(f"  {name:<12}{text}" for name, (_, text) in COMMANDS.items())}

`easycap COMMAND --help` explains a command; with --debug, an error shows its traceback.
Start with: easycap train experiment=easycap/quickstart
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 for an error (one sentence on stderr), 2 for wrong flags, 130 for Ctrl-C, and 141,
    silently, if the reader of the output has exited (`easycap runs | head -1`).
    """
    _let_all_text_be_printed()
    try:
        try:
            return _dispatch(list(sys.argv[1:] if argv is None else argv))
        finally:  # also after SystemExit: --help prints to a buffer
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
    except BrokenPipeError:
        if not _without_reader():
            raise
        for file in _without_reader():  # Python flushes them again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), file)
        return _BROKEN_PIPE


def _let_all_text_be_printed() -> None:
    """File names may contain what the encoding cannot: print it escaped rather than fail after hours of work."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _dispatch(argv: list[str]) -> int:
    debug = "--debug" in argv
    argv = [arg for arg in argv if arg != "--debug"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_HELP)
        return 0
    if argv[0] == "--version":
        print(easycap.__version__)
        return 0
    if argv[0] not in COMMANDS:
        from easycap.registry import describe_choices

        print(f"easycap: no command {argv[0]!r}; {describe_choices(argv[0], COMMANDS)}", file=sys.stderr)
        return 2
    return _run(COMMANDS[argv[0]][0], argv[1:], debug=debug)


def _run(module: str, argv: list[str], *, debug: bool) -> int:
    from easycap.utils.allocator import keep_freed_memory

    keep_freed_memory()
    # The fork of tokenizers' threads warns otherwise; without it transformers also logs every line twice.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        _refuse_empty(argv)
        entry: Callable[[list[str]], int] = importlib.import_module(module).main
        return entry(argv)
    except KeyboardInterrupt:
        print("easycap: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if debug or (isinstance(error, BrokenPipeError) and _without_reader()):
            raise
        from easycap.utils.console import say

        say(f"easycap: {_sentence(error)}", stderr=True)
        return 1


# --flag= and setting=, but not a file that is called so.
_WITHOUT_VALUE = re.compile(r"--?[\w-]+=|[~+]{0,2}[\w@/]+(\.[\w/-]+)*=")


def _refuse_empty(argv: Sequence[str]) -> None:
    """Raise `UserError` for arguments without text: a path would be the current folder, a run a new one."""
    from easycap.errors import UserError

    for before, word in zip(("", *argv), argv, strict=False):
        name = before if before.startswith("-") and "=" not in before else "an argument"
        if not word.strip() or (_WITHOUT_VALUE.fullmatch(word) and not os.path.exists(word)):
            raise UserError(f"{word or name} is empty; is a shell variable unset?")


def _without_reader() -> list[int]:
    """The descriptors of standard output and error that are pipes whose reader has gone."""
    found = []
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            file = stream.fileno()
        except (OSError, ValueError):  # replaced by a stream that is not a file
            continue
        poll = select.poll()
        poll.register(file, 0)
        found += [file for _, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)]
    return found


def _sentence(error: Exception) -> str:
    from easycap.errors import UserError

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError) and error.name:  # installed with --no-deps
        package = error.name.partition(".")[0]
        return (
            f"this needs the package {package}, which is not installed: pip install easycap brings it along"
        )
    text = " ".join(str(error).split())[:300]
    where = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
    return f"unexpected {type(error).__name__}{where}: {text} (run again with --debug for the traceback)"


if __name__ == "__main__":
    raise SystemExit(main())

"""The `easycap` command: finds the entry point, and turns errors into one sentence.

Two grammars. `easycap train`, `data check` and `data show` take Hydra overrides (GROUP=OPTION, GROUP.FIELD=VALUE); all
other commands take paths and flags, some also data.root=DIR and its like for data that has moved. Commands are imported
when they are called, so that --help answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

import easycap

_COMMANDS = {
    "train": (
        "easycap.commands.train",
        "train a captioner: GROUP=OPTION GROUP.FIELD=VALUE ..., experiment=NAME",
    ),
    "data": (
        "easycap.commands.data",
        "download, find, list, check or show data: get coco ROOT, guess DIR, check data=coco data.root=ROOT",
    ),
    "evaluate": (
        "easycap.commands.evaluate",
        "caption a split with a run's best weights and score it: RUN [--split test]",
    ),
    "caption": ("easycap.commands.caption", "caption photos: RUN FILE|FOLDER ..."),
    "score": ("easycap.commands.score", "score any captions: captions.json references.json"),
    "compare": (
        "easycap.commands.compare",
        "compare runs in a table and on a page, two runs also image by image: RUN|SWEEP ...",
    ),
    "table": ("easycap.commands.table", "show a paper's published scores next to your runs: PAPER RUN ..."),
    "runs": ("easycap.commands.runs", "list runs"),
    "new": (
        "easycap.commands.new",
        "write a package with a component of your own: decoder|encoder|metric|data|objective|condition NAME",
    ),
}

_HELP = f"""easycap {easycap.__version__}: train and compare image captioners.

usage: easycap COMMAND ...

{chr(10).join(f"  {name:<10}{text}" for name, (_, text) in _COMMANDS.items())}

`easycap COMMAND --help` explains a command; with --debug, an error shows its traceback.
Start with: easycap train experiment=easycap/quickstart
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 for an error (one sentence on stderr), 2 for wrong flags, 130 for Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [arg for arg in argv if arg != "--debug"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_HELP)
        return 0
    if argv[0] == "--version":
        print(easycap.__version__)
        return 0
    if argv[0] not in _COMMANDS:
        from easycap.registry import describe_choices

        print(f"easycap: no command {argv[0]!r}; {describe_choices(argv[0], _COMMANDS)}", file=sys.stderr)
        return 2
    return _run(_COMMANDS[argv[0]][0], argv[1:], debug=debug)


def _run(module: str, argv: list[str], *, debug: bool) -> int:
    from easycap.utils.allocator import keep_freed_memory

    keep_freed_memory()
    # The fork of tokenizers' threads warns otherwise; without it transformers also logs every line twice.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        entry: Callable[[list[str]], int] = importlib.import_module(module).main
        return entry(argv)
    except KeyboardInterrupt:
        print("easycap: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        print(f"easycap: {_sentence(error)}", file=sys.stderr)
        return 1


def _sentence(error: Exception) -> str:
    from easycap.errors import UserError

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = " ".join(str(error).split())[:300]
    where = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
    return f"unexpected {type(error).__name__}{where}: {text} (run again with --debug for the traceback)"


if __name__ == "__main__":
    raise SystemExit(main())

"""`easycap completion SHELL`: the script that completes commands, settings and runs in a shell."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence

from easycap.commands import COMMANDS
from easycap.config.options import option_values
from easycap.config.schema import GROUPS, ROOT
from easycap.registry import describe_choices
from easycap.utils.paths import config_files, outputs_dir

_HELP = """easycap completion: complete easycap's commands, settings and runs with the tab key.

usage: easycap completion bash|zsh|fish      print a script for the shell

Add to the shell's start-up file:
  bash (~/.bashrc)                       eval "$(easycap completion bash)"
  zsh (~/.zshrc, after compinit)         eval "$(easycap completion zsh)"
  fish (~/.config/fish/config.fish)      easycap completion fish | source
"""

# Bash takes = for the end of a word (COMP_WORDBREAKS), so it gets only what follows the last one.
_BASH = """_easycap() {
  local line="${COMP_LINE:0:$COMP_POINT}" IFS=$'\\n'
  local word="${line##* }"
  local before=""
  [[ $word == *=* && $COMP_WORDBREAKS == *=* ]] && before="${word%=*}="
  COMPREPLY=($(easycap completion --line "$line" 2>/dev/null))
  COMPREPLY=("${COMPREPLY[@]#"$before"}")
  [[ ${COMPREPLY[0]} == *= || ${COMPREPLY[0]} == *. ]] && compopt -o nospace 2>/dev/null
}
complete -o default -F _easycap easycap
"""
_ZSH = """_easycap() {
  local -a found
  found=("${(@f)$(easycap completion --line "$LBUFFER" 2>/dev/null)}")
  if [[ -n ${found[1]} ]]; then
    if [[ ${found[1]} == *= || ${found[1]} == *. ]]; then compadd -S '' -- $found; else compadd -- $found; fi
  else
    _files
  fi
}
compdef _easycap easycap
"""
_FISH = """complete -c easycap -a '(easycap completion --line (commandline -cp | string collect) 2>/dev/null)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

_DATA = ("get", "guess", "list", "check", "show", "shard")
_WITH_SETTINGS = (["data", "check"], ["data", "show"], ["data", "shard"])
# Groups that only the command line has.
_FURTHER = ("experiment", "sweep", "launcher")


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap completion`."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_HELP, end="")
        return 0
    if argv[0] == "--line" and len(argv) == 2:
        for candidate in candidates(argv[1]):
            print(candidate)
        return 0
    if argv[0] not in _SCRIPTS:
        print(
            f"easycap: no completion for {argv[0]!r}; {describe_choices(argv[0], _SCRIPTS)}", file=sys.stderr
        )
        return 2
    print(_SCRIPTS[argv[0]], end="")
    return 0


def candidates(line: str) -> list[str]:
    """Return the completions of the last word of a command line, which begins with "easycap" and may be cut off.

    A candidate that ends with "=" or "." is to be continued. Files are left to the shell.
    """
    words = line.split()
    last = "" if line[-1:].isspace() or not words else words.pop()
    return sorted({word for word in _possible(words[1:], last) if word.startswith(last) and word != last})


def _possible(before: Sequence[str], last: str) -> Iterator[str]:
    """All words that can follow `before`, the words after "easycap"."""
    if not before:
        yield from COMMANDS
        return
    command = before[0]
    if command == "data" and len(before) == 1:
        yield from _DATA
    elif command == "train" or before[:2] in _WITH_SETTINGS:
        yield from _settings(before, last)
    elif command == "completion":
        yield from _SCRIPTS
    elif command in COMMANDS and last.startswith("-"):
        yield from _flags(COMMANDS[command][0])
    elif command in ("evaluate", "caption", "demo", "compare", "table"):
        yield from _runs()


def _settings(before: Sequence[str], last: str) -> Iterator[str]:
    """Words GROUP=OPTION, GROUP.FIELD= and KEY= as far as `last` asks for them."""
    key, equals, _ = last.partition("=")
    group, dot, _ = key.partition(".")
    if equals and not dot:
        yield from (f"{key}={option}" for option in _options(group))
    elif dot:
        for option in _chosen(group, before):
            yield from (
                f"{group}.{field}=" for field in map(str, option_values(group, option)) if field != "name"
            )
    else:
        yield from (f"{name}=" for name in (*GROUPS, *_FURTHER, *ROOT))
        if last in GROUPS:  # all other letters are there
            yield f"{last}."


def _options(group: str) -> list[str]:
    """The options on disk: importing users' packages for others would take seconds."""
    return list(config_files(group)) if group in (*GROUPS, *_FURTHER) else []


def _chosen(group: str, before: Sequence[str]) -> list[str]:
    """The option of a group that a command line names, else all there are."""
    known = _options(group)
    named = [word.partition("=")[2] for word in before if word.lstrip("+").startswith(f"{group}=")]
    return [named[-1]] if named and named[-1] in known else known


def _flags(module: str) -> Iterator[str]:
    """The flags of a command's parser; its imports may take a second."""
    make = getattr(importlib.import_module(module), "_parser", None)
    parser = make() if make is not None else argparse.ArgumentParser()
    for action in parser._actions:
        yield from action.option_strings


def _runs() -> Iterator[str]:
    """The names of runs and sweeps in the outputs folder."""
    for kind in ("runs", "sweeps"):
        folder = outputs_dir() / kind
        if folder.is_dir():
            yield from (path.name for path in folder.iterdir() if path.is_dir())

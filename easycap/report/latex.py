"""Text for LaTeX tables."""

from __future__ import annotations

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "±": r"$\pm$",
    "–": "--",
    "×": r"$\times$",
}


def escape(text: str) -> str:
    """Return text as LaTeX prints it, on one line."""
    return "".join(_ESCAPED.get(character, character) for character in " ".join(text.split()))


def tabular(align: str, head: list[str], rows: list[list[str]], comments: list[str]) -> str:
    """Return a booktabs table; cells are LaTeX, comments are plain text."""
    lines = [r"% needs \usepackage{booktabs}", *(f"% {line}" for line in comments)]
    lines += [rf"\begin{{tabular}}{{{align}}}", r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
    lines += [" & ".join(row) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"

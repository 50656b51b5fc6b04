"""Penn Treebank tokenisation of captions, equal to what pycocoevalcap gets from Java's PTBTokenizer.

A caption is cut by the longest match over a list of patterns, lower-cased, and freed of punctuation tokens.
The patterns were found by comparing outputs with Java's, not from its grammar; the tests hold goldens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

VERSION = "ptb1"

# What the COCO evaluation removes. Its list also has -LRB- and friends in capitals, which lower-casing made
# unreachable: brackets survive there as tokens, and so they do here.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# Every character that some tool takes for the end of a line, and so for the end of a caption.
_LINE_ENDS = re.compile("[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")

_L = r"[^\W\d_]"  # a letter
_W = r"[^\W_]"  # a letter or a digit

# Words that keep their full stop.
_ABBREVIATIONS = """
    al cf co ct dr ft ga jr ky lt md mo mr ms mt ph rd rt sq sr st va vs vt wm adj adm adv ala apr
    aug ave bhd cie col cos cpl dak dec det drs ens esq est etc ext feb fla fri gen gov hon inc ind
    jan jos jul jun kan ltd maj mar mfg mme mon mrs mtg neb nev nov oct pfc plc pte pty pvt rep rev
    sen sep seq sfc sgt spc ste sys tel thu tue wed wis wyo alex ariz assn asst atty bldg blvd brig
    bros capt cmdr colo conn corp dept elec govs insp intl invt kans mich minn mlle mont msgr natl
    okla penn ppte ppty pres prof ptes ptys reps sens sept supt tenn tues univ wisc assoc attys
    calif lieut profs supts thurs treas messrs
""".split()
_CAPITAL_ABBREVIATIONS = "ark az del ill la mass miss ore pa tex wash".split()
_NUMBER_ABBREVIATIONS = "art ca fig figs no nos op pp prop".split()

# After an initial ("Vitamin A. The ...") these begin a sentence, and the initial loses its full stop.
_SENTENCE_STARTS = """
    A About According Additionally After An As At But Earlier He Her Here However If In It Many More
    Now Once One Other Our She Since So Some Such That The Their Then There These They This We What
    When While Yet You
""".split()


def _either(words: Iterable[str]) -> str:
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


_PART = f"(?:[dlnoDLNO]'{_W})?{_W}+"
_CAPITALISED = (
    _either(w.capitalize() for w in _CAPITAL_ABBREVIATIONS)
    + "|"
    + _either(w.upper() for w in _CAPITAL_ABBREVIATIONS)
)

# The longest match wins, then the earlier pattern; a group "token" ends before what its pattern looks at.
_PATTERNS = [
    # cannot, gonna, 'tis: two tokens
    rf"(?P<token>can)(?=not(?!{_W}))(?:not)",
    rf"(?P<token>gon|wan)na(?!{_W})",
    rf"(?P<token>got)ta(?!{_W})",
    rf"(?P<token>gim|lem)me(?!{_W})",
    r"(?P<token>'t)(?:is|was)",
    # contractions
    rf"(?P<token>{_L}+)n['’`]t",
    rf"n['’`]t(?!{_W})",
    rf"['’](?:[smd]|re|ve|ll)(?!{_L})",
    r"'(?:em|til|n'|n|cause)",
    r"'[2-9]0s|'\d\d(?!\d)",
    rf"[dl]'(?!{_W})|ol'(?!{_W})|[yj]'",
    rf"(?:{_L}*[aeiouy]'(?=[aeiou])|e'er|c'mon|o'o|li'l){_L}*",
    # words
    rf"{_W}+",
    rf"{_PART}(?:[-_]{_PART})*",
    rf"{_W}+(?:/{_W}+){{1,2}}",
    rf"{_W}+[.,]{_W}+(?:-{_W}+)+",
    rf"{_L}{_W}*(?:[.!?]{_L}{_W}*)+",
    # abbreviations
    rf"{_L}(?:\.{_L})+\.(?:-{_W}+)*",
    rf"(?P<token>{_L})\.(?= {_either(_SENTENCE_STARTS)}(?!{_W}))|{_L}\.(?!{_L}{_W})",
    rf"{_either(_ABBREVIATIONS)}\.(?!{_L})",
    rf"(?-i:{_CAPITALISED})\.(?!{_L})",
    rf"{_either(_NUMBER_ABBREVIATIONS)}\.(?=\s*\d)",
    r"(?-i:[A-Z]+(?:&[A-Z]+)+|[A-Z]{1,3}\$)",
    r"c\+\+|[cf]#",
    # numbers
    r"[-+]?\d+(?:[.,:]\d+)*|[-+]?(?:[.,:]\d+)+",
    r"(?:\d{1,4}[- \xa0])?\d{1,4}/\d{1,4}(?!\d)",
    # addresses
    rf"[^\s<>\"(){{}}\[\]@]++@[^\s<>\"(){{}}\[\]@.,;:]+(?:\.{_W}+)*",
    r"https?://[^\s<>\"()]*[^\s<>\"().,;:!?]",
    rf"www\.{_W}+(?:[-.]{_W}+)*",
    rf"#{_L}+|@[A-Za-z_]\w*",
    r"[!?]+|-{2}(?=-{0,2}(?!-))-{0,2}|-+|\*+|__+",
    r"&(?:amp|lt|gt|quot|apos|nbsp|mdash|ndash);",
    r"\S",
]
_RULES = [re.compile(p, re.IGNORECASE) for p in _PATTERNS]

_REWRITES = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
    '"': "''",
    "–": "--",
    "—": "--",
    "…": "...",
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
    "&quot;": "''",
    "&apos;": "'",
    "&nbsp;": "",
    "&mdash;": "--",
    "&ndash;": "--",
    "---": "--",
    "----": "--",
    "½": "1/2",
    "¼": "1/4",
    "¾": "3/4",
    "£": "#",
    "€": "$",
    "¢": "cents",
}


def _longest(text: str, start: int) -> tuple[str, int]:
    best, token = 0, ""
    for rule in _RULES:
        match = rule.match(text, start)
        if match and match.end() - start > best:
            best = match.end() - start
            token = match.groupdict().get("token") or match[0]
    return token, start + len(token)


def _scan(text: str) -> list[str]:
    """Return the tokens of one line by longest match; the slow, general way."""
    tokens, start, size = [], 0, len(text)
    while start < size:
        if text[start].isspace():
            start += 1
            continue
        token, start = _longest(text, start)
        token = _REWRITES.get(token, token).lower().replace("’", "'")
        if token and token not in PUNCTUATION:
            tokens.append(token)
    return tokens


# A chunk between spaces whose tokens cannot depend on its neighbours: 99 % of the words of captions.
_SIMPLE = re.compile(r"[aAI]|[A-Za-z]{2,30}(?:-[A-Za-z]{2,30})?(?:'s)?[.,]?|[.,]")


class _Chunks(dict[str, "list[str] | None"]):
    """Remembers the tokens of simple chunks; None stands for a chunk that needs its whole line."""

    limit = 200_000

    def __missing__(self, chunk: str) -> list[str] | None:
        if len(self) >= self.limit:
            self.clear()
        simple = not chunk or _SIMPLE.fullmatch(chunk)
        self[chunk] = result = _scan(chunk) if simple else None
        return result


_CHUNKS = _Chunks()


def tokenize(caption: str) -> list[str]:
    """Return the tokens of one caption as the COCO evaluation sees them: lower case, punctuation removed.

    Any line separator counts as a space. Time is linear in the length of the caption.
    """
    text = _LINE_ENDS.sub(" ", caption)
    tokens: list[str] = []
    for chunk in text.split(" "):
        found = _CHUNKS[chunk]
        if found is None:
            return _scan(text)
        tokens += found
    return tokens


Tokenizer = Callable[[str], list[str]]

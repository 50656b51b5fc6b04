"""Penn Treebank tokenisation of captions, equal to what pycocoevalcap gets from Java's PTBTokenizer.

A caption is cut by the longest match over a list of patterns, lower-cased, and freed of punctuation tokens.
The patterns were found by comparing outputs with Java's, not from its grammar; the tests hold goldens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from easycap.metrics.java_patterns import (
    ANY_APOSTROPHE,
    APOSTROPHE,
    IN_WORD,
    QUOTE,
    RULES,
    SHAPES,
    TAG,
    either,
)
from easycap.metrics.java_words import ABBREVIATIONS, SENTENCE_STARTS

# "ptb2" splits scripts with combining marks as Java does, "ptb3" also rare abbreviations, numbers and tags. All other
# text has the same tokens as with "ptb1" and keeps that name in its signatures, so that scores stored earlier stay
# comparable.
_VERSION, _VERSION_OF_MARKS, _VERSION_OF_ABBREVIATIONS = "ptb1", "ptb2", "ptb3"

# What the COCO evaluation removes. Its list also has -LRB- and friends in capitals, which lower-casing made
# unreachable: brackets survive there as tokens, and so they do here.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# Every character that some tool takes for the end of a line, and so for the end of a caption.
_LINE_ENDS = re.compile("[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")

_REWRITES = {
    **dict(zip("()[]{}", ["-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"], strict=True)),
    **dict.fromkeys("\x92’›", "'"),
    **dict.fromkeys("\x91‘‛‹", "`"),
    **dict.fromkeys(["\x93", "“", "«", "''"], "``"),
    **dict.fromkeys(["\x94", "”", "»", '"', "&quot;"], "''"),
    **dict.fromkeys(["\x96", "\x97", "–", "—", "―", "---", "----", "&mdash;", "&ndash;", "\xad"], "--"),
    **dict.fromkeys(["…", "....", "....."], "..."),
    **dict.fromkeys("\x80¤₠€", "$"),
    **{"¢": "cents", "£": "#", "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "&nbsp;": ""},
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">", "&apos;": "'", "&QUOT;": "&quot;"},
}


# A single letter keeps its full stop unless one of these begins the next sentence.
_SENTENCE_START = re.compile(rf"\s+(?:{TAG}|{either(map(re.escape, SENTENCE_STARTS))})(?!\S)")

_BLANK_END, _CAPITAL_START = re.compile(r"\s*\Z"), re.compile(r"\s*[A-Z]")


def _longest(shape: str, start: int) -> tuple[int, int]:
    """Return the length of the token at `start`, 0 if none begins there, and where to continue."""
    best, size = 0, 0
    for rule in RULES:
        match = rule.match(shape, start)
        if match and match.end() - start > best:
            best = match.end() - start
            size = len(match.groupdict().get("token") or match[0])
    return size, start + max(1, size)


def _scan(text: str) -> list[str]:
    """Return the tokens of one line by longest match; the slow, general way."""
    shape = text if text.isascii() else text.translate(SHAPES)
    tokens, start, end = [], 0, len(text)
    while start < end:
        if text[start].isspace():
            start += 1
            continue
        size, after = _longest(shape, start)
        token, start = text[start : start + size], after
        if len(token) == 2 and token[1] == "." and _sentence_follows(text, start):
            token = token[0]
        token = _written(token)
        if token and token not in PUNCTUATION:
            tokens.append(token)
    return tokens


def _sentence_follows(text: str, end: int) -> bool:
    # Java looks beyond the line, where another caption is; we take that one to be written like this one.
    if _BLANK_END.match(text, end):
        return bool(_CAPITAL_START.match(text))
    return bool(_SENTENCE_START.match(text, end))


_CONTRACTED = re.compile(
    rf"(?:{APOSTROPHE}|\x92)(?:[smd]|re|ve|ll)|n(?:{ANY_APOSTROPHE}|[\x91\x92])t", re.IGNORECASE
)
_PLAIN_QUOTES = str.maketrans("’\x92‘‛\x91", "''```")
_QUOTES = re.compile(QUOTE + "+")

# Tags, mail and web addresses keep their soft hyphens; words and numbers do not have these characters.
_ADDRESS = re.compile(rf"(?!{IN_WORD}|[-+_.,:!?'’‘`\u058a\u2010\u2011\u066b\u066c]).", re.DOTALL)


def _written(token: str) -> str:
    found = _REWRITES.get(token) or _REWRITES.get(token.lower())
    if found is not None or len(token) < 2:
        return (token if found is None else found).lower()
    if _CONTRACTED.fullmatch(token):
        token = token.replace("&apos;", "'").translate(_PLAIN_QUOTES)
    if _QUOTES.fullmatch(token):
        return "".join(_REWRITES.get(mark, mark) for mark in token)
    token = token.replace(" ", "\xa0")
    if not (token.startswith("<") and token.endswith(">")):
        token = token.replace("(", "-lrb-").replace(")", "-rrb-")
    if "\xad" in token or "&" in token:
        if _ADDRESS.search(token.translate(SHAPES).replace("&amp;", "")):
            return token.lower()
        token = token.replace("\xad", "")
    token = token.replace("&amp;", "&")
    return _lower_sigma(token) if "Σ" in token and "@" not in token else token.lower()


def _lower_sigma(token: str) -> str:
    """Lower-case with final sigma only at the token's end, as in Java; Python also ends a word at a hyphen."""
    cased = [index for index, letter in enumerate(token) if letter.lower() != letter.upper()]
    final = cased[-1] if len(cased) > 1 else None
    return "".join(
        ("ς" if index == final else "σ") if letter == "Σ" else letter.lower()
        for index, letter in enumerate(token)
    )


# Text that "ptb1" split differently: marks, other hyphens, letters unknown to Java, and non-ASCII letters at a
# slash or before n't.
_NEW = re.compile(
    rf"[\u0301\u058a\u2010\u2011]|é\S*/|/\S*é|én{ANY_APOSTROPHE}t"
    r"|(?![a-z0-9é٣])[^\W_\xb2\xb3\xb9\xbc-\xbe\u2070-\u209f\u2150-\u218f\u2460-\u24ff\u2776-\u2793"
    r"\U00010000-\U0010ffff]",
    re.IGNORECASE,
)


# Text that "ptb1" and "ptb2" split differently: Ph.D., an abbreviation or a dotted word that something follows without
# a space, three hyphens beside a slash, telephone numbers, tags and entities.
_NEWER = re.compile(
    rf"(?:ed|ph)\.d\.|(?<!\w){either(ABBREVIATIONS)}\.[^\s,;:.?!]|-[a-z]\.[a-z]|-\S*\.[,;:]|[.?!]\w+{APOSTROPHE}"
    r"|(?:-[a-z]+){3}\S*/|/\S*(?:-[a-z]+){3}|\([0-9]{2,3}\)-|\(.-.\)|[<&]",
    re.IGNORECASE,
)


# What all of these have; few captions do.
_MAYBE_NEWER = re.compile(r"[.?!]\S|[</&(]")


# A chunk between spaces whose tokens cannot depend on its neighbours. Digits may join the next chunk ("3 1/2"),
# tags may span chunks, and a final initial ("A.") looks at the next one.
_WORD_END = r"[A-Za-z-]*[A-Za-z]{2}\."
_ALONE = re.compile(rf"{_WORD_END}|(?!.*[A-Za-z]\.\Z)[^\s\d<]{{0,40}}")
_INITIAL = re.compile(rf"(?<!\S)(?!{_WORD_END}\s)\S*[A-Za-z]\.\s")


class _Chunks(dict[str, list[str]]):
    """Remembers the tokens of chunks that stand alone; None stands for a chunk that does not."""

    limit = 200_000

    def __missing__(self, chunk: str) -> list[str] | None:
        if len(self) >= self.limit:
            self.clear()
        if not _ALONE.fullmatch(chunk):
            return None
        self[chunk] = tokens = _scan(chunk)
        return tokens


_CHUNKS = _Chunks()


def version(texts: Iterable[str]) -> str:
    """Return the tokeniser's name in signatures for `texts`: that of the first version with these tokens."""
    found = _VERSION
    for text in texts:
        if _MAYBE_NEWER.search(text) and _NEWER.search(text):
            return _VERSION_OF_ABBREVIATIONS
        if found == _VERSION and not text.isascii() and _NEW.search(text.translate(SHAPES)):
            found = _VERSION_OF_MARKS
    return found


def tokenize(caption: str) -> list[str]:
    """Return the tokens of one caption as the COCO evaluation sees them: lower case, punctuation removed.

    Any line separator counts as a space. Time is linear in the length of the caption.
    """
    text = _LINE_ENDS.sub(" ", caption)
    if "<" in text or _INITIAL.search(text + " "):
        return _scan(text)
    tokens: list[str] = []
    run: list[str] = []
    previous = ""
    for chunk in text.split(" "):
        found = _CHUNKS[chunk]
        if found is None:
            # "no." is one token before a number only, so it is scanned with the number.
            if not run and previous.endswith("."):
                del tokens[len(tokens) - len(_CHUNKS[previous]) :]
                run.append(previous)
            run.append(chunk)
        else:
            if run:
                tokens += _scan(" ".join(run))
                run = []
            tokens += found
        previous = chunk
    return tokens + _scan(" ".join(run))

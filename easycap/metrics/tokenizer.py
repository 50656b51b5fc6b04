"""Penn Treebank tokenisation of captions, equal to what pycocoevalcap gets from Java's PTBTokenizer.

A caption is cut by the longest match over a list of patterns, lower-cased, and freed of punctuation tokens.
The patterns were found by comparing outputs with Java's, not from its grammar; the tests hold goldens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from easycap.metrics.java_letters import DIGITS, LETTERS, MARKS
from easycap.metrics.java_words import (
    ABBREVIATIONS,
    CAPITAL_ABBREVIATIONS,
    FILES,
    NUMBER_ABBREVIATIONS,
    SENTENCE_STARTS,
    TITLES,
)

# "ptb2" splits scripts with combining marks as Java does. All other text has the same tokens as with "ptb1" and keeps
# that name in its signatures, so that scores stored earlier stay comparable.
_VERSION, _VERSION_OF_MARKS = "ptb1", "ptb2"

# What the COCO evaluation removes. Its list also has -LRB- and friends in capitals, which lower-casing made
# unreachable: brackets survive there as tokens, and so they do here.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# Every character that some tool takes for the end of a line, and so for the end of a caption.
_LINE_ENDS = re.compile("[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")

# Patterns match the shape of a text: each letter beyond ASCII is "é" there, each mark of a word the acute
# accent, each digit of another script "٣". This keeps their classes short.
_SHAPES = {
    **dict.fromkeys(LETTERS, "é"),
    **dict.fromkeys(MARKS, "\u0301"),
    **dict.fromkeys(DIGITS, "٣"),
    **{0x91: "‘", 0x92: "’"},  # the quotes of Windows
}
_LETTER = "[A-Za-zé]"
_L = "[A-Za-zé\u0301\xad]"
_D = "[0-9٣]"
_W = "[A-Za-z0-9é٣\u0301\xad]"  # a letter, a mark or a digit
_BARE = "[A-Za-z0-9é٣]"
_PLAIN = "[A-Za-z0-9\xad]"
_A = "(?:['’]|&apos;)"
_Q = "(?:['’‘‛`]|&apos;)"
_QUOTE = "[`\x91-\x94«»\u2018-\u201f‹›]"

# Marks that are tokens of their own; any other character that is neither mark nor letter is dropped.
_MARK = (
    "[!-~\x80\x91-\x94\x96\x97\xa1-\xa9\xab\xac\xae-\xb4\xb6-\xb9\xbb-\xbf\xd7\xf7"
    "\u037e\u0387\u0589\u05be\u05c0\u05c3\u05c6\u05f3\u05f4\u0600-\u0603\u0606-\u060c\u0614\u061b\u061e\u061f"
    "\u066a\u066d\u06d4\u0700-\u070d\u07f6-\u07f8\u0964\u0965\u0e3f\u0e4f\u1fbd"
    "\u2013-\u2023\u2026\u2030-\u203b\u203e-\u2042\u2044\u2070\u2074-\u207e\u2080-\u208e\u20a0\u20a4\u20ac"
    "\u2100\u2101\u2103-\u2106\u2108\u2109\u2114\u2116-\u2118\u211e-\u2123\u2125\u2127\u2129\u212e\u213a\u213b"
    "\u2140-\u2144\u214a-\u214d\u214f\u2153-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0\uffe1\uffe5\uffe6]"
)


def _either(words: Iterable[str]) -> str:
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


_CAPITALISED = _either(form(w) for w in CAPITAL_ABBREVIATIONS for form in (str.capitalize, str.upper))
_PART = f"(?:[dlo]{_Q}{_BARE})?{_BARE}+"  # o'clock, l'eau
_THING = f"{_PART}(?:[-_\u058a\u2010\u2011]{_PART})*"
_JOINED_CAPITALS = r"(?-i:[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+)"
_DOTTED = rf"{_L}{_W}*(?:[.!?]{_L}{_W}*)*"
_HYPHENED = "[A-Za-z0-9]+(?:-[A-Za-z]+)*"
_GAP = "[- \xa0]"
_POINT = "[.,:\xad\u066b\u066c]"
_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
_PATH_END = r"[^\t !\"(),\-.<>?{|}]"
_PATH = rf"(?:/[^\t \"()<>|]+{_PATH_END})"
_MOUTH = r"(?-i:[()@[\]{|\\DdPpO])"

# The longest match wins, then the earlier pattern; a group "token" ends before what its pattern looks at.
_PATTERNS = [
    # Words of two tokens: cannot, gonna, 'tis.
    rf"(?P<token>can)not(?!{_W})",
    rf"(?P<token>gon|wan)na(?!{_W})",
    rf"(?P<token>got)ta(?!{_W})",
    rf"(?P<token>gim|lem)me(?!{_W})",
    r"(?P<token>'t)(?:is|was)",
    # Contractions and words with an apostrophe.
    rf"(?P<token>[A-Za-z]*[A-MO-Za-mo-z])n{_Q}t",
    rf"(?P<token>{_L}+){_A}(?:[smd]|re|ve|ll)",
    rf"n{_Q}t(?![A-Za-z])",
    r"'(?:[smd]|re|ve|ll)(?![A-Za-z])|(?:’|&apos;)(?:[smd]|re|ve|ll)",
    rf"{_A}(?:em|till?|n{_A}|cause)|(?:’|&apos;)n|'n(?=\s|$)",
    rf"{_A}[2-9]0s|{_A}[0-9][0-9](?=\s|$)",
    rf"(?:ol|dunkin|somethin|[djl]){_A}|y{_A}(?={_LETTER})",
    rf"{_LETTER}+[aeiouy]{_Q}(?-i:[aeiouA-Z]){_LETTER}*",
    rf"c'mon|s'mores|e'er|li'l|ev'ry|nat'l|c{_A}est|cap{_A}n|o{_Q}o",
    rf"(?-i:[A-HJ-XZn]){_Q}{_LETTER}{{2,}}",
    rf"(?P<token>(?:{_either(ABBREVIATIONS)}|(?-i:{_CAPITALISED}))\.)(?:.|$)",
    # Words, and words that a mark inside does not split.
    _THING,
    rf"{_HYPHENED}(?:\\?/{_HYPHENED}){{1,2}}",
    rf"[A-Za-z0-9][A-Za-z0-9.,\xad]{{0,60}}(?:-{_PLAIN}+)+",
    _DOTTED,
    rf"{_JOINED_CAPITALS}|(?-i:[A-Z]+\$)",
    r"c\+\+|[cf]#",
    # Abbreviations.
    rf"(?:[A-Za-z0-9][A-Za-z0-9.,\xad]{{0,60}}-(?:{_PLAIN}+-)*)?[A-Za-z](?:\.[A-Za-z])+\.(?:-{_PLAIN}+)*",
    r"[A-Za-z]\.",
    rf"{_either(TITLES)}\.",
    rf"{_either(NUMBER_ABBREVIATIONS)}\.(?=\s?{_D})",
    rf"(?P<token>(?:{_THING}|{_DOTTED}|{_JOINED_CAPITALS})\.)[,;:]",
    # Names of files.
    rf"(?P<token>{_W}+(?:\.{_W}+)*\.{_either(FILES)})(?:[\s!,.?]|$)",
    # Numbers: amounts and times, fractions, dates, telephone numbers.
    rf"[-+]?{_D}+(?:{_POINT}{_D}+)*|[-+]?(?:{_POINT}{_D}+)+",
    rf"(?:{_D}{{1,4}}{_GAP})?{_D}{{1,4}}(?:\\?/|⁄){_D}{{1,4}}",
    rf"{_D}{_D}?[-/]{_D}{_D}?[-/]{_D}{{2,4}}",
    rf"(?:\([0-9][0-9][0-9]?\){_GAP}?|\+{{0,2}}(?:[0-9]{{2,4}}{_GAP})?[0-9]{{2,4}}{_GAP})[0-9]{{3,4}}{_GAP}?[0-9]{{3,5}}",
    # Addresses and tags.
    r"(?:<|&lt;)?[A-Za-z0-9][^ \t\"<>|(){}\xa0]{0,99}@(?:[^ \t\"<>|(){}.\xa0]+\.)*[^ \t\"<>|(){}.\xa0]+(?:>|&gt;)?",
    rf"(?:(?-i:[^\t !\"$'(),-_`{{|}}]){{1,60}}\.){{1,9}}(?:com|net|org|edu){_PATH}?",
    rf"www\.(?:[^\t !\"(),.<>?{{|}}]+\.)+[A-Za-z]{{2,4}}{_PATH}?",
    rf"https?://[^\t \"()<>{{|}}]+{_PATH_END}",
    rf"#{_L}+|@[A-Za-z_][A-Za-z0-9_]*",
    rf"<{_NAME}(?: {{1,9}}{_NAME}(?: ?= ?(?:'[^'<>]*'|\"[^\"<>]*\"))?){{0,20}} {{0,9}}/?>",
    rf"</{_NAME} ?>|<[!?][A-Za-z-][^>]{{0,200}}>",
    rf"(?-i:&(?:nbsp|[mn]dash|[AEIOUaeiou](?:acute|grave|uml)|apos|quot|QUOT);)|&(?:amp|lt|gt);|&#{_D}+;",
    # Marks.
    rf"[<>]?[:;=](?-i:[-o*'])?{_MOUTH}(?![A-Za-z0-9])|(?-i:[-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\))",
    rf"[!?]+|-+|\*+|__+|##+|@@+|''|{_QUOTE}{{2}}|[⁺⁻]?[¹²³⁰⁴-⁹]+|[₊₋]?[₀-₉]+|<<|>>|\\\*|\.{{3,5}}",
    _MARK,
]
_RULES = [re.compile(p, re.IGNORECASE) for p in _PATTERNS]

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
_SENTENCE_START = re.compile(
    rf"\s+(?:</?[A-Za-z][^>]{{0,200}}>|{_either(map(re.escape, SENTENCE_STARTS))})(?!\S)"
)

_BLANK_END, _CAPITAL_START = re.compile(r"\s*\Z"), re.compile(r"\s*[A-Z]")


def _longest(shape: str, start: int) -> tuple[int, int]:
    """Return the length of the token at `start`, 0 if none begins there, and where to continue."""
    best, size = 0, 0
    for rule in _RULES:
        match = rule.match(shape, start)
        if match and match.end() - start > best:
            best = match.end() - start
            size = len(match.groupdict().get("token") or match[0])
    return size, start + max(1, size)


def _scan(text: str) -> list[str]:
    """Return the tokens of one line by longest match; the slow, general way."""
    shape = text if text.isascii() else text.translate(_SHAPES)
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


_CONTRACTED = re.compile(rf"(?:{_A}|\x92)(?:[smd]|re|ve|ll)|n(?:{_Q}|[\x91\x92])t", re.IGNORECASE)
_PLAIN_QUOTES = str.maketrans("’\x92‘‛\x91", "''```")
_QUOTES = re.compile(_QUOTE + "+")

# Tags, mail and web addresses keep their soft hyphens; words and numbers do not have these characters.
_ADDRESS = re.compile(rf"(?!{_W}|[-+_.,:!?'’‘`\u058a\u2010\u2011\u066b\u066c]).", re.DOTALL)


def _written(token: str) -> str:
    found = _REWRITES.get(token) or _REWRITES.get(token.lower())
    if found is not None or len(token) < 2:
        return (token if found is None else found).lower()
    if _CONTRACTED.fullmatch(token):
        token = token.replace("&apos;", "'").translate(_PLAIN_QUOTES)
    if _QUOTES.fullmatch(token):
        return "".join(_REWRITES.get(mark, mark) for mark in token)
    for mark, written in (("(", "-lrb-"), (")", "-rrb-"), (" ", "\xa0")):
        token = token.replace(mark, written)
    if "\xad" in token or "&" in token:
        if _ADDRESS.search(token.translate(_SHAPES).replace("&amp;", "")):
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
    rf"[\u0301\u058a\u2010\u2011]|é\S*/|/\S*é|én{_Q}t"
    r"|(?![a-z0-9é٣])[^\W_\xb2\xb3\xb9\xbc-\xbe\u2070-\u209f\u2150-\u218f\u2460-\u24ff\u2776-\u2793"
    r"\U00010000-\U0010ffff]",
    re.IGNORECASE,
)


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
    """Return the tokeniser's name in signatures for `texts`: "ptb2" if "ptb1" split any of them differently."""
    beyond = (text for text in texts if not text.isascii())
    return _VERSION_OF_MARKS if any(_NEW.search(text.translate(_SHAPES)) for text in beyond) else _VERSION


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

"""Penn Treebank tokenisation of captions, equal to what pycocoevalcap gets from Java's PTBTokenizer.

A caption is cut by the longest match over a list of patterns, lower-cased, and freed of punctuation tokens.
The patterns were found by comparing outputs with Java's, not from its grammar; the tests hold goldens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

VERSION = "ptb1"

# What the COCO evaluation removes. Its list also has -LRB- and friends in capitals, which lower-casing made
# unreachable: brackets survive there as tokens, and so they do here.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# Every character that some tool takes for the end of a line, and so for the end of a caption.
_LINE_ENDS = re.compile("[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")

# A letter: also a combining mark, a soft hyphen and a hyphen that forbids a break; nothing beyond U+FFFF.
_BARE = (
    r"[^\W_\xb2\xb3\xb9\xbc-\xbe\u2070-\u209f\u2150-\u218f\u2460-\u24ff\u2776-\u2793\U00010000-\U0010ffff]"
)
_L = rf"(?:(?!\d){_BARE}|[\xad\u0300-\u036f\u2010\u2011])"
_W = rf"(?:{_BARE}|[\xad\u0300-\u036f\u2010\u2011])"  # a letter or a digit
_Q = "['’‘`]"

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
    A About According Additionally After An As At But Earlier He Her Here However If In It Last Many
    More Mr. Ms. Now Once One Other Our She Since So Some Such That The Their Then There These They
    This We What When While Yet You
""".split()


def _either(words: Iterable[str]) -> str:
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


_CAPITALISED = _either(form(w) for w in _CAPITAL_ABBREVIATIONS for form in (str.capitalize, str.upper))
_PART = f"(?:(?:[dlo]{_Q}|n{_Q}(?!t\\d)){_W})?{_W}+"  # o'clock, l'eau
_THING = f"{_PART}(?:[-_]{_PART})*"
_JOINED_CAPITALS = r"(?-i:[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+)"
_DOTTED = rf"{_L}{_W}*(?:[.!?]{_L}{_W}*)+"
_HYPHENED = f"{_W}+(?:-{_L}+)*"
_GAP = "[- \xa0]"
_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
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
    rf"(?P<token>{_L}+)n['’`]t",
    rf"(?P<token>{_L}+)['’](?:[smd]|re|ve|ll)(?!{_L})",
    rf"n['’`]t(?!{_L})",
    rf"'(?:[smd]|re|ve|ll)(?!{_L})|’(?:[smd]|re|ve|ll)",
    r"&apos;(?:[smd]|re|ve|ll)",
    rf"['’](?:em|till?|n{_Q}|cause)|’n|'n(?=\s|$)",
    r"['’][2-9]0s|['’][1-9]\d(?=\s|$)",
    rf"(?:ol|dunkin|somethin|[djl])['’]|y['’](?={_L})",
    rf"(?:{_L}+[aeiouy]['’`](?-i:[aeiouA-Z])|e'e(?=r)|c['’]m(?=on)|o['`](?=o)|li'(?=l)){_L}*",
    rf"(?-i:[A-HJ-XZ])['’`]{_L}{{2,}}",
    r"(?P<token>etc\.)[A-Za-z](?![A-Za-z.])",
    # Words, and words that a mark inside does not split.
    _THING,
    rf"{_HYPHENED}(?:\\?/{_HYPHENED}){{1,2}}",
    rf"{_W}(?:{_W}|[.,]){{0,60}}(?:-{_W}+)+",
    _DOTTED,
    rf"{_JOINED_CAPITALS}|(?-i:[A-Z]+\$)",
    r"c\+\+|[cf]#",
    # Abbreviations.
    rf"(?:{_W}(?:{_W}|[.,]){{0,60}}-(?:{_W}+-)*)?[A-Za-z](?:\.[A-Za-z])+\.(?:-{_W}+)*",
    r"[A-Za-z]\.",
    rf"{_either(_ABBREVIATIONS)}\.",
    rf"(?-i:{_CAPITALISED})\.",
    rf"{_either(_NUMBER_ABBREVIATIONS)}\.(?=\s?\d)",
    rf"(?P<token>(?:{_THING}|{_DOTTED}|{_JOINED_CAPITALS})\.)[,;:]",
    # Numbers: amounts and times, fractions, dates, telephone numbers.
    r"[-+]?\d+(?:[.,:]\d+)*|[-+]?(?:[.,:]\d+)+",
    rf"(?:\d{{1,4}}{_GAP})?\d{{1,4}}\\?/\d{{1,4}}",
    r"\d\d?[-/]\d\d?[-/]\d{2,4}",
    rf"(?:\(\d\d\d?\){_GAP}?|\+{{0,2}}(?:\d{{2,4}}{_GAP})?\d{{2,4}}{_GAP})\d{{3,4}}{_GAP}?\d{{3,5}}",
    # Addresses and tags.
    r"<?[A-Za-z0-9][^\s\"<>|(){}]{0,99}@(?:[^\s\"<>|(){}.]+\.)*[^\s\"<>|(){}.]+>?",
    r"[%&~][%&~A-Za-z]{0,30}\.(?:com|net|org|edu)",
    rf"{_DOTTED}\.com/(?:[^\s\"<>|(){{}}]*[^\s\"<>|(){{}}.,;:!?])?",
    r"https?://[^\s<>\"()|]*[^\s<>\"().,;:!?|]",
    rf"www\.{_L}{_W}*(?:[-.]{_W}+)*",
    rf"#{_L}+|@[A-Za-z_][A-Za-z0-9_]*",
    rf"<{_NAME}(?: {{1,9}}{_NAME}(?: ?= ?(?:'[^'<>]*'|\"[^\"<>]*\"))?){{0,20}} {{0,9}}/?>",
    rf"</{_NAME} ?>|<[!?][A-Za-z-][^>]{{0,200}}>",
    r"(?-i:&(?:nbsp|[mn]dash|[AEIOUaeiou](?:acute|grave|uml)|apos|quot|QUOT);)|&(?:amp|lt|gt);|&#\d+;",
    # Marks.
    rf"[<>]?[:;=](?-i:[-o*'])?{_MOUTH}(?!{_W})|(?-i:[-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\))",
    r"[!?]+|-+|\*+|__+|##+|@@+|''|[‘’“”`]{2}|<<|>>|\\\*|\.{3,5}",
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
_SENTENCE_START = re.compile(rf"\s+(?:<[A-Za-z]|{_either(map(re.escape, _SENTENCE_STARTS))}(?!\S))")

_BLANK_END, _CAPITAL_START = re.compile(r"\s*\Z"), re.compile(r"\s*[A-Z]")


def _longest(text: str, start: int) -> tuple[str, int]:
    best, token = 0, ""
    for rule in _RULES:
        match = rule.match(text, start)
        if match and match.end() - start > best:
            best = match.end() - start
            token = match.groupdict().get("token") or match[0]
    return token, start + max(1, len(token))


def _scan(text: str) -> list[str]:
    """Return the tokens of one line by longest match; the slow, general way."""
    tokens, start, size = [], 0, len(text)
    while start < size:
        if text[start].isspace():
            start += 1
            continue
        token, start = _longest(text, start)
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


def _written(token: str) -> str:
    found = _REWRITES.get(token) or _REWRITES.get(token.lower())
    if found is not None or len(token) < 2:
        return (token if found is None else found).lower()
    if token[0] in "'’n" and token[1:].lower() in ("s", "m", "d", "re", "ve", "ll", "’t"):
        token = token.replace("’", "'")
    if token[0] in "‘’“”`" and token[1] in "‘’“”`":
        return "".join(_REWRITES.get(mark, mark) for mark in token)
    for mark, written in (("(", "-lrb-"), (")", "-rrb-"), (" ", "\xa0"), ("\xad", "")):
        token = token.replace(mark, written)
    return token.replace("&amp;", "&").replace("&apos;", "'").lower()


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

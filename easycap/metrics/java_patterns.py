"""What the Java tokenizer takes for one token, as regular expressions: found by comparing outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from easycap.metrics.java_letters import DIGITS, LETTERS, MARKS
from easycap.metrics.java_words import (
    ABBREVIATIONS,
    CAPITAL_ABBREVIATIONS,
    FILES,
    NUMBER_ABBREVIATIONS,
    TITLES,
)

# Patterns match the shape of a text: each letter beyond ASCII is "é" there, each mark of a word the acute
# accent, each digit of another script "٣". This keeps their classes short.
SHAPES = {
    **dict.fromkeys(LETTERS, "é"),
    **dict.fromkeys(MARKS, "\u0301"),
    **dict.fromkeys(DIGITS, "٣"),
    **{0x91: "‘", 0x92: "’"},  # the quotes of Windows
}
_LETTER = "[A-Za-zé]"
_L = "[A-Za-zé\u0301\xad]"
_D = "[0-9٣]"
IN_WORD = "[A-Za-z0-9é٣\u0301\xad]"  # a letter, a mark or a digit
_BARE = "[A-Za-z0-9é٣]"
_PLAIN = "[A-Za-z0-9\xad]"
APOSTROPHE = "(?:['’]|&apos;)"
ANY_APOSTROPHE = "(?:['’‘‛`]|&apos;)"
QUOTE = "[`\x91-\x94«»\u2018-\u201f‹›]"

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


def either(words: Iterable[str]) -> str:
    """Return a pattern of any of some patterns, the longest that matches."""
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


_CAPITALISED = either(form(w) for w in CAPITAL_ABBREVIATIONS for form in (str.capitalize, str.upper))
_ABBREVIATION = rf"(?P<token>(?:{either(ABBREVIATIONS)}|(?-i:{_CAPITALISED}))\.)"
_PART = f"(?:[dlo]{ANY_APOSTROPHE}{_BARE})?{_BARE}+"  # o'clock, l'eau
_THING = f"{_PART}(?:[-_\u058a\u2010\u2011]{_PART})*"
_JOINED_CAPITALS = r"(?-i:[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+)"
_ENTITY = "(?-i:&[AEIOUaeiou](?:acute|grave|uml);)"  # a letter
_LETTERED = rf"(?:{_L}|{_ENTITY})(?:{IN_WORD}|{_ENTITY})*"
_DOTTED = rf"{_LETTERED}(?:[.!?]{_LETTERED})*"
_HYPHENED = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_ACRONYM = r"[A-Za-z](?:\.[A-Za-z])+\."
_JOINED = rf"[A-Za-z0-9][A-Za-z0-9.,\xad]{{0,60}}(?:-(?:{_ACRONYM}|{_PLAIN}+))+"
_GAP = "[- \xa0]"
_TELEPHONE = f"[0-9]{{3,4}}{_GAP}?[0-9]{{3,5}}"
_POINT = "[.,:\xad\u066b\u066c]"
_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
_ATTRIBUTE = rf"{_NAME}(?: ?= ?(?:'[^'<>]*'|\"[^\"<>]*\"))?"
TAG = rf"(?:<{_NAME}(?: {{1,9}}{_ATTRIBUTE}){{0,20}} {{0,9}}/? ?>|</{_NAME} ?>|<[!?][A-Za-z-][^>]{{0,200}}>)"
_PATH_END = r"[^\t !\"(),\-.<>?{|}]"
_PATH = rf"(?:/[^\t \"()<>|]+{_PATH_END})"
_MOUTH = r"(?-i:[()@[\]{|\\DdPpO])"

# The longest match wins, then the earlier pattern; a group "token" ends before what its pattern looks at.
_PATTERNS = [
    # Words of two tokens: cannot, gonna, 'tis.
    rf"(?P<token>can)not(?!{IN_WORD})",
    rf"(?P<token>gon|wan)na(?!{IN_WORD})",
    rf"(?P<token>got)ta(?!{IN_WORD})",
    rf"(?P<token>gim|lem)me(?!{IN_WORD})",
    r"(?P<token>'t)(?:is|was)",
    # Contractions and words with an apostrophe.
    rf"(?P<token>[A-Za-z]*[A-MO-Za-mo-z])n{ANY_APOSTROPHE}t",
    rf"(?P<token>{_DOTTED}){APOSTROPHE}(?:[smd]|re|ve|ll)",
    rf"n{ANY_APOSTROPHE}t(?![A-Za-z])",
    r"'(?:[smd]|re|ve|ll)(?![A-Za-z])|(?:’|&apos;)(?:[smd]|re|ve|ll)",
    rf"{APOSTROPHE}(?:em|till?|n{APOSTROPHE}|cause)|(?:’|&apos;)n|'n(?=\s|$)",
    rf"{APOSTROPHE}[2-9]0s|{APOSTROPHE}[0-9][0-9](?=\s|$)",
    rf"(?:ol|dunkin|somethin|[djl]){APOSTROPHE}|y{APOSTROPHE}(?={_LETTER})",
    rf"{_LETTER}+[aeiouy]{ANY_APOSTROPHE}(?-i:[aeiouA-Z]){_LETTER}*",
    rf"c'mon|s'mores|e'er|li'l|ev'ry|nat'l|c{APOSTROPHE}est|cap{APOSTROPHE}n|o{ANY_APOSTROPHE}o",
    rf"(?-i:[A-HJ-XZn]){ANY_APOSTROPHE}{_LETTER}{{2,}}",
    # Words, and words that a mark inside does not split. Abbreviations count with the two characters after them, which
    # at the end of the text are those of the next line.
    rf"{_ABBREVIATION}.?\Z",
    _THING,
    rf"{_HYPHENED}(?:\\?/{_HYPHENED}){{1,2}}",
    _DOTTED,
    rf"{_ABBREVIATION}..",
    _JOINED,
    rf"{_JOINED_CAPITALS}|(?-i:[A-Z]+\$)",
    r"c\+\+|[cf]#",
    # Abbreviations.
    _ACRONYM,
    r"[A-Za-z]\.",
    rf"{either(TITLES)}\.",
    rf"{either(NUMBER_ABBREVIATIONS)}\.(?=\s?{_D})",
    rf"(?P<token>(?:{_THING}|{_DOTTED}|{_JOINED_CAPITALS})\.)[,;:]",
    rf"(?P<token>{_JOINED}\.)[,;:]",
    # Names of files.
    rf"(?P<token>{IN_WORD}+(?:\.{IN_WORD}+)*\.{either(FILES)})(?:[\s!,.?]|$)",
    # Numbers: amounts and times, fractions, dates, telephone numbers.
    rf"[-+]?{_D}+(?:{_POINT}{_D}+)*|[-+]?(?:{_POINT}{_D}+)+",
    rf"(?:{_D}{{1,4}}{_GAP})?{_D}{{1,4}}(?:\\?/|⁄){_D}{{1,4}}",
    rf"{_D}{_D}?[-/]{_D}{_D}?[-/]{_D}{{2,4}}",
    r"\([0-9][0-9][0-9]?\)[ \xa0]?" + _TELEPHONE,
    rf"\+{{0,2}}(?:[0-9]{{2,4}}{_GAP})?[0-9]{{2,4}}{_GAP}{_TELEPHONE}",
    # Addresses and tags.
    r"(?:<|&lt;)?[A-Za-z0-9][^ \t\"<>|(){}\xa0]{0,99}@(?:[^ \t\"<>|(){}.\xa0]+\.)*[^ \t\"<>|(){}.\xa0]+(?:>|&gt;)?",
    rf"(?:(?-i:[^\t !\"$'(),-_`{{|}}]){{1,60}}\.){{1,9}}(?:com|net|org|edu){_PATH}?",
    rf"www\.(?:[^\t !\"(),.<>?{{|}}]+\.)+[A-Za-z]{{2,4}}{_PATH}?",
    rf"https?://[^\t \"()<>{{|}}]+{_PATH_END}",
    rf"#(?:{_L}|{_ENTITY})+|@[A-Za-z_][A-Za-z0-9_]*",
    TAG,
    rf"(?-i:&(?:[mn]dash|apos|quot|QUOT);)|&(?:amp|lt|gt|nbsp);|&#{_D}+;",
    # Marks.
    rf"[<>]?[:;=](?-i:[-o*'])?{_MOUTH}(?![A-Za-z0-9])|(?-i:[-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\)|\([x^=~<>']-[x^=~<>']\))",
    rf"[!?]+|-+|\*+|__+|##+|@@+|''|{QUOTE}{{2}}|[⁺⁻]?[¹²³⁰⁴-⁹]+|[₊₋]?[₀-₉]+|<<|>>|\\\*|\.{{3,5}}",
    _MARK,
]
RULES = [re.compile(p, re.IGNORECASE) for p in _PATTERNS]

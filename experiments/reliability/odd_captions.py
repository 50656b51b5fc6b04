"""Odd captions, tokenised by easycap and by pycocoevalcap's PTBTokenizer: what differs, by kind.

    python experiments/reliability/odd_captions.py --count 20000 [--seed 1] [--show 5] [--store FILE --stored 40]

Needs Java. Prints a line per kind and examples of what differs, and with --store writes some captions of each kind with
Java's tokens: tests/metrics/odd_captions.json was made so.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from easycap.metrics.tokenizer import tokenize

WORDS = (
    "a an the dog dogs man men woman's child children's runs riding on of with and near wearing T-shirt red-and-white "
    "two 2 10 1,000 3.5 1/2 '90s 1990s 5pm 12:30 can't won't it's she'll they've I'm o'clock ma'am d'art cannot gonna "
    "Dog I A B K NYC USA café naïve résumé jalapeño AT&T R&D rock-n-roll x-ray and/or km/h $5 10% #1 @home c++ :-) ;) "
    "http://a.com/b www.b.org photo.jpg a@b.com e-mail"
).split()
ABBREVIATIONS = (
    "Ph.D. Ph.D ph.d. M.D. M.Sc. B.A. Ph. D. U.S. U.S U.S.A. U.K. U.N. e.g. i.e. etc. etc Mr. Mrs. Ms. Dr. St. Jr. Sr. "
    "vs. No. no. p.m. a.m. P.M. Inc. Co. Corp. Ltd. Ave. Blvd. Rd. Jan. Dec. Mon. Sat. Prof. Gen. Sgt. J. J.R.R. D.C. "
    "L.A. ft. in. lb. oz. approx. fig. vol. pp. al. E.T. O.K. ok. N.Y. N.Y.C. R.I.P. D.I.Y. Esq. Rev. Hon. Lt. Capt."
).split()
FORMS = (
    "http://www.a-b.com/c?d=e#f https://x.org www.dogs.co.uk me@home.com <me@home.com> @dog #dogs2 <b> </b> <br/> "
    "<a href='x'> <!--x--> &nbsp; &eacute; caf&eacute;s &Uuml;ber &#39; (>-<) :-) ;-P :o( =] <3 ^_^ (>_<) "
    "12/25/2019 1/2 10-1/2 2-1/2 "
    "(555)-555-1234 555-1234 +1-800-555-1234 10:30 10:30am 1,000,000.50 $5.99 5% 50% 3x4 10k +5 -5 1.5e3 .5 2nd 1st "
    "'60s 1960's 60's 5' 6\" mp3 a.jpg b.tar.gz C# F# C++ rock'n'roll y'all d'you 'tis 'em o'er A&E B&B S.O.S. A-1 B2B "
    "10\u20442 m\u00b2 20\u00b0C no.5 No.5 pp.5 vs.me"
).split()
QUOTES = [*"'\"`´‘’‚‛“”„‟«»‹›′″", "''", "``", "&apos;", "&quot;"]
MARKS = [*".,;:!?-–—…/\\()[]{}<>*&%$#@+=~^_|°©®™•·½¼×÷€£¥", *"... -- .... !! ?! &amp; &lt; &gt;".split()]
# Not assigned, surrogates, private use, control characters, ends of lines and paragraphs.
_NOT_IN_CAPTIONS = ("Cn", "Cs", "Co", "Cc", "Zl", "Zp")
ALPHABET = "abAB5--__//..,''!?@#&$ "


def _separated(draw: random.Random, pieces: Sequence[str], most: int) -> str:
    return " ".join(draw.choices(pieces, k=draw.randint(1, most)))


def _captions(draw: random.Random) -> str:
    return _separated(draw, [*WORDS, *WORDS, *ABBREVIATIONS, *MARKS, *QUOTES[:4]], 10)


def _quotes(draw: random.Random) -> str:
    """Words with marks of quotation, of all kinds and in rows, before, after, inside and between them."""
    words = []
    for _ in range(draw.randint(1, 4)):
        word = draw.choice(WORDS)
        for _ in range(draw.randint(1, 3)):
            place = draw.choice([0, len(word), draw.randint(0, len(word))])
            row = "".join(draw.choices(QUOTES, k=draw.choice([1, 1, 1, 2, 2, 3, 4, 5])))
            word = word[:place] + row + word[place:]
        words.append(word)
    return " ".join(words)


def _abbreviations(draw: random.Random) -> str:
    pieces = [*ABBREVIATIONS, *ABBREVIATIONS, *WORDS, "The", "In", ",", ".", "?", "'s"]
    text = _separated(draw, pieces, 6)
    return re.sub(" ", lambda _: draw.choice([" ", " ", " ", "", "-", ", "]), text)


def _joined(draw: random.Random) -> str:
    pieces = [*ALPHABET, *ALPHABET, *MARKS, *QUOTES, "dog", "U.S.", "5"]
    return "".join(draw.choices(pieces, k=draw.randint(1, 10)))


def _forms(draw: random.Random) -> str:
    """Addresses, dates, numbers, tags and smileys with a few characters changed."""
    words = []
    for _ in range(draw.randint(1, 3)):
        word = list(draw.choice(FORMS))
        for _ in range(draw.randint(0, 3)):
            place = draw.randrange(len(word) + 1)
            word[place : place + draw.randint(0, 2)] = draw.choice(ALPHABET + '().:;<>="\u201d\u2019 ')
        words.append("".join(word))
    return " ".join(words)


def _unicode(draw: random.Random) -> str:
    """Characters of all planes that Unicode has assigned, alone and in words of one script, with what joins words."""
    found = []
    for _ in range(draw.randint(1, 6)):
        block = draw.choice(
            [0x80, 0x100, 0x250, 0x370, 0x2000, *range(0x80, 0x3400, 0x80), *range(0xA000, 0x20000, 0x400)]
        )
        size = draw.randint(1, 5)
        found += [draw.choice(["a", "B", "5", " ", " ", ".", "-", "'", "’", "“", ",", "/", "_", "&"])]
        found += [chr(block + draw.randrange(0x80)) for _ in range(size)]
    return "".join(c for c in found if unicodedata.category(c) not in _NOT_IN_CAPTIONS)


KINDS: dict[str, Callable[[random.Random], str]] = {
    "captions": _captions,
    "quotes": _quotes,
    "abbreviations": _abbreviations,
    "joined": _joined,
    "forms": _forms,
    "unicode": _unicode,
}


def odd_captions(count: int, seed: int) -> list[tuple[str, str]]:
    """Return `count` pairs (kind, caption), all kinds equally often."""
    draw, kinds = random.Random(seed), list(KINDS)
    pairs = []
    while len(pairs) < count:
        kind = kinds[len(pairs) % len(kinds)]
        pairs.append((kind, KINDS[kind](draw)))
    return pairs


def java_tokens(texts: Sequence[str]) -> list[str]:
    """Return Java's tokens of each text, joined by spaces.

    Java looks from a final "K." into the next line, so each text is followed by a line written like it.
    """
    lines: list[str] = []
    for text in texts:
        lines += [text, "A" if re.match(r"\s*[A-Z]", text) else "a"]
    found = PTBTokenizer().tokenize({number: [{"caption": line}] for number, line in enumerate(lines)})
    return [found[number][0] for number in range(0, len(lines), 2)]


def main() -> None:
    """Compare, and print what differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=5, help="examples of each kind")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--stored", type=int, default=40, help="captions of each kind in --store")
    args = parser.parse_args()
    pairs = odd_captions(args.count, args.seed)
    wanted = java_tokens([text for _, text in pairs])
    tried, differ = Counter(kind for kind, _ in pairs), Counter[str]()
    for (kind, text), theirs in zip(pairs, wanted, strict=True):
        ours = " ".join(tokenize(text))
        if ours == theirs:
            continue
        differ[kind] += 1
        if differ[kind] <= args.show:
            print(f"{kind}: {text!r}\n  Java    {theirs!r}\n  easycap {ours!r}")
    for kind, count in tried.items():
        print(f"{kind:<14} tried {count:>6,}  equal {count - differ[kind]:>6,}  different {differ[kind]:>6,}")
    print(
        f"{'all':<14} tried {len(pairs):>6,}  equal {len(pairs) - differ.total():>6,}  different {differ.total():>6,}"
    )
    if args.store:
        rows = [{"kind": k, "text": t, "tokens": w} for (k, t), w in zip(pairs, wanted, strict=True)]
        kept = [row for kind in KINDS for row in [r for r in rows if r["kind"] == kind][: args.stored]]
        args.store.write_text(json.dumps(kept, indent=0, ensure_ascii=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

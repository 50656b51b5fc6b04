"""What a score needs besides its number to be comparable: metric, version, tokeniser, references, images."""

from __future__ import annotations

from easycap.metrics.corpus import Corpus

# Raised when any scorer here would give another number for the same captions.
VERSION = 1


def signature(metric: str, corpus: Corpus, **settings: object) -> str:
    """Return e.g. `CIDEr-D|v:1|tok:ptb1|df:refs,N=5000|refs:5|images:5000|data:1f0c2a9b` (after sacreBLEU's).

    `data` is a digest of ids and references; a partial score says how many images it is of.
    """
    counts = [len(references) for references in corpus.references]
    fewest, most = min(counts), max(counts)
    total = len(corpus.ids) + corpus.missing
    parts = {
        "v": VERSION,
        "tok": corpus.tokenizer,
        **settings,
        "refs": fewest if fewest == most else f"{fewest}-{most}",
        "images": len(corpus.ids),
        "data": corpus.digest,
        **({"partial": f"{len(corpus.ids)}/{total}"} if corpus.missing else {}),
    }
    return "|".join([metric, *(f"{key}:{value}" for key, value in parts.items())])

"""Tags: words for things and actions in an image, and the vocabulary of those that are frequent in the training data.

What an image's own tags are, is one of two rules (the group tag_vocab):

captions   the lemmas (simplemma's, English) of the content words of its references. A content word has two letters or
           more, no digit, and is not on the stop list, nor is its lemma: articles, prepositions, pronouns, auxiliaries,
           numerals, words for amounts, for places within the picture and for the picture itself.
data       what the data annotates: the things and actions of a scene, the objects annotated in a COCO image.

Of these the `size` that most training images have are kept, each in `min_count` images or more; equal counts go in
alphabetical order. As a text condition a lemma is written in the form that training captions use most (ride as
riding): a captioner need not know the lemma as a word.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import cache, lru_cache
from pathlib import Path

from easycap.errors import UserError
from easycap.registry import register
from easycap.types import Example
from easycap.utils.extras import check_extra
from easycap.utils.files import write_json
from easycap.vocab.word import split_words

FILE = "tags.json"
_NUM_SPECIAL = 3

STOP_WORDS = frozenset(
    """
    a an the this that these those some any each every all both either neither another other others such same own
    i you he she it we they me him her us them my your his its our their one ones someone something somebody anyone
    who whom whose which what where when why how there here
    of in on at by for with without from to into onto over under above below behind beside besides between among
    through across along around about near next against toward towards off out up down upon within inside outside
    before after during while until since past amid atop underneath beneath beyond like as than
    and or but nor so if then because though although
    be am is are was were been being have has had having do does did doing done will would can could may might must
    shall should get gets getting got go goes going went come comes coming came make makes making made let
    use uses using used try tries trying tried seem appear look looks looking show shows showing shown
    see sees seen seeing be contain contains containing include includes including feature featuring
    two three four five six seven eight nine ten eleven twelve dozen first second third few several many much more most
    lot lots bunch couple pair group number variety various multiple single different very too also just only not no
    together away back forward still well really quite almost already ready apart alone
    left right top bottom front side sides middle center edge corner end part area place way kind type piece pieces
    background foreground picture image photo photograph view scene shot photography
    """.split()
)
# Where simplemma 2.0 errs on words that captions use.
_LEMMAS = {"sitting": "sit", "playing": "play", "people": "person"}


class TagSource(Enum):
    """Where an image's own tags come from."""

    captions = "captions"
    data = "data"


class TagVocabulary:
    """Tags <-> ids; ids 0..2 are pad, bos and eos, then tags by falling number of training images.

    Text is tags with ", " between them. Raises `UserError` for senseless settings, and if no training image has tags.
    """

    pad_id, bos_id, eos_id = range(_NUM_SPECIAL)

    def __init__(
        self, *, source: TagSource, size: int, min_count: int, examples: Iterable[Example] = ()
    ) -> None:
        for name, value in (("size", size), ("min_count", min_count)):
            if value < 1:
                raise UserError(f"tag_vocab.{name}={value} must be at least 1")
        examples = list(examples)
        counts = Counter(tag for example in examples for tag in set(own_tags(example, source)))
        if not counts and source is TagSource.data:
            raise UserError(
                "the training images have no tags of their own: use tag_vocab=captions, or place COCO's "
                "instances_<split>.json next to its captions"
            )
        kept = sorted((-count, tag) for tag, count in counts.items() if count >= min_count)[:size]
        if not kept:
            raise UserError(f"no tag occurs in {min_count} training images: lower tag_vocab.min_count")
        tags = [tag for _, tag in kept]
        self._number(source, tags, tags if source is TagSource.data else _forms(tags, examples))

    def _number(self, source: TagSource, tags: list[str], forms: list[str]) -> None:
        self.source, self.tags, self.forms = source, tags, forms
        self._places = {tag: place for place, tag in enumerate(tags)}

    def __len__(self) -> int:
        return _NUM_SPECIAL + len(self.tags)

    def of(self, example: Example) -> list[str]:
        """Return an image's own tags that are in the vocabulary.

        Those that most of its references name come first, then the more frequent ones; the data's own are in its order.
        """
        found = [tag for tag in own_tags(example, self.source) if tag in self._places]
        if self.source is TagSource.data:
            return list(dict.fromkeys(found))
        counts = Counter(found)
        return sorted(counts, key=lambda tag: (-counts[tag], self._places[tag]))

    def form_of(self, tag: str) -> str:
        """Return the word for a tag that captions use most; a tag outside of the vocabulary as it is."""
        return self.forms[self._places[tag]] if tag in self._places else tag

    def by_frequency(self, tags: Iterable[str]) -> list[str]:
        """Return tags of the vocabulary in its order, those of most training images first."""
        return sorted(tags, key=self._places.__getitem__)

    def encode(self, text: str) -> list[int]:
        """Return the ids of "dog, bark", without special ids."""
        return [self._places[tag] + _NUM_SPECIAL for tag in text.split(", ") if tag]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the tags up to the first eos as "dog, bark"; pad and bos are skipped."""
        ids = list(ids)
        ids = ids[: ids.index(self.eos_id)] if self.eos_id in ids else ids
        return ", ".join(self.tags[index - _NUM_SPECIAL] for index in ids if index >= _NUM_SPECIAL)

    def save(self, folder: Path) -> None:
        """Write tags.json into `folder`."""
        content = {"source": self.source.name, "tags": self.tags, "forms": self.forms}
        write_json(Path(folder) / FILE, content)

    @classmethod
    def load(cls, folder: Path) -> TagVocabulary:
        """Return the vocabulary that `save` wrote into `folder`; `UserError` if it is not there."""
        vocabulary = cls.__new__(cls)  # its tags are chosen already
        try:
            stored = json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))
            vocabulary._number(TagSource[stored["source"]], stored["tags"], stored["forms"])
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{Path(folder) / FILE} holds no tags ({error}); use another run") from None
        return vocabulary


@register("tag_vocab", "captions")
def from_captions(examples: Iterable[Example], *, size: int, min_count: int) -> TagVocabulary:
    """The frequent content words of the training captions."""
    return TagVocabulary(source=TagSource.captions, size=size, min_count=min_count, examples=examples)


@register("tag_vocab", "data")
def from_data(examples: Iterable[Example], *, size: int, min_count: int) -> TagVocabulary:
    """The data's own tags: things and actions of scenes, COCO's annotated objects."""
    return TagVocabulary(source=TagSource.data, size=size, min_count=min_count, examples=examples)


def own_tags(example: Example, source: TagSource) -> list[str]:
    """Return all tags of an image, once for each of its references that names it."""
    if source is TagSource.data:
        return list(example.tags)
    return [tag for text in example.references for tag in dict.fromkeys(content_lemmas(text))]


def content_lemmas(text: str) -> list[str]:
    """Return the lemmas of the content words of a caption, in order; `UserError` if simplemma is not installed."""
    return [lemma for word in split_words(text) if (lemma := _content_lemma(word))]


def _forms(tags: Sequence[str], examples: Iterable[Example]) -> list[str]:
    """The most frequent word that each of `tags` is the lemma of; of equally frequent ones the first by alphabet."""
    words = Counter(word for e in examples for text in e.references for word in split_words(text))
    best: dict[str, str] = {}
    for word, _ in sorted(words.items(), key=lambda item: (-item[1], item[0])):
        if lemma := _content_lemma(word):
            best.setdefault(lemma, word)
    return [best[tag] for tag in tags]


@cache
def _lemmatize() -> Callable[..., str]:
    check_extra("tags", "tag_vocab=captions")
    import simplemma  # here, as its word list takes a second to load

    return simplemma.lemmatize


@lru_cache(maxsize=200_000)
def _content_lemma(word: str) -> str | None:
    if len(word) < 2 or word in STOP_WORDS or any(letter.isdigit() for letter in word):
        return None
    lemma = _LEMMAS.get(word) or _lemmatize()(word, lang="en").lower()
    return None if lemma in STOP_WORDS else lemma

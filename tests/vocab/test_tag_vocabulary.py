"""Which words are tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from easycap.types import Example
from easycap.vocab.tags import TagSource, TagVocabulary, content_lemmas


def image(image_id: str, *references: str, tags: tuple[str, ...] = ()) -> Example:
    return Example(image_id, None, references, tags)


EXAMPLES = [
    image("1", "Two dogs are barking in the park.", "A dog is running.", tags=("dog", "tree")),
    image("2", "A man sits on the left.", "The men were sitting near a dog", tags=("man", "dog")),
    image("3", "a cat", tags=("cat",)),
]


def vocabulary(source: TagSource = TagSource.captions, size: int = 100, min_count: int = 1) -> TagVocabulary:
    return TagVocabulary(source=source, size=size, min_count=min_count, examples=EXAMPLES)


def test_content_words_are_lemmas_without_function_words() -> None:
    assert content_lemmas("Two dogs are running to the left of 3 children, playing in the picture") == [
        "dog",
        "run",
        "child",
        "play",
    ]


def test_tags_are_counted_once_an_image_and_sorted() -> None:
    assert vocabulary().tags == ["dog", "bark", "cat", "man", "park", "run", "sit"]
    assert vocabulary(min_count=2).tags == ["dog"]
    assert vocabulary(size=2).tags == ["dog", "bark"]
    assert vocabulary(TagSource.data).tags == ["dog", "cat", "man", "tree"]


def test_an_images_own_tags_come_in_order_of_how_often_they_are_mentioned() -> None:
    assert vocabulary().of(EXAMPLES[1]) == ["man", "sit", "dog"]
    assert vocabulary(size=1).of(EXAMPLES[1]) == ["dog"]
    assert vocabulary(TagSource.data).of(EXAMPLES[1]) == ["man", "dog"]


def test_a_lemma_is_said_as_captions_say_it_most() -> None:
    form_of = vocabulary().form_of
    assert [form_of(tag) for tag in ("run", "man", "dog", "sit", "zeppelin")] == [
        "running",
        "man",
        "dog",
        "sits",
        "zeppelin",
    ]
    assert vocabulary(TagSource.data).form_of("tree") == "tree"


def test_round_trip(tmp_path: Path) -> None:
    own = vocabulary()
    own.save(tmp_path)
    loaded = TagVocabulary.load(tmp_path)
    assert (loaded.tags, loaded.source, len(loaded)) == (own.tags, own.source, 7 + 3)
    assert loaded.form_of("run") == "running"
    ids = loaded.encode("man, dog")
    assert ids == [6, 3] and loaded.decode([loaded.bos_id, *ids, loaded.eos_id, 4]) == "man, dog"
    assert loaded.encode("") == [] and loaded.decode([]) == ""


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tag_vocab.size=0"):
        vocabulary(size=0)
    with pytest.raises(ValueError, match="lower tag_vocab.min_count"):
        vocabulary(min_count=9)
    with pytest.raises(ValueError, match="instances_<split>.json next to"):
        TagVocabulary(source=TagSource.data, size=5, min_count=1, examples=[image("1", "a dog")])
    with pytest.raises(ValueError, match="holds no tags"):
        TagVocabulary.load(tmp_path)

import itertools
import random
import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from easycap.data.scenes.grammar import references
from easycap.data.scenes.lexicon import NOUNS
from easycap.data.scenes.sample_scene import sample
from easycap.data.scenes.truth import judge

seeds = st.integers(0, 2**32)


def captions(seed: int, *, novel: bool = False) -> tuple[str, ...]:
    rng = random.Random(seed)
    return references(sample(rng, novel=novel), rng)


@given(seeds)
def test_five_different_captions_of_six_to_sixteen_words(seed):
    described = captions(seed)
    assert len(set(described)) == 5
    for caption in described:
        assert 6 <= len(caption.split()) <= 16
        assert caption[0].isupper() and caption.endswith(".")
        assert not re.search(r"  |\d|None|_", caption)


@given(seeds)
def test_articles_and_plurals_are_right(seed):
    plurals = {p for forms in NOUNS.values() for s, p in forms if s != p}
    for caption in captions(seed):
        words = caption.lower().rstrip(".").split()
        for first, second in itertools.pairwise(words):
            if first in ("a", "an"):
                assert (first == "an") == (second[0] in "aeiou"), caption
                assert second not in plurals, caption
            if first in ("two", "three", "four"):
                assert second not in {s for forms in NOUNS.values() for s, p in forms if s != p}, caption


def test_plain_scenes_too_have_five_different_captions():
    for i in range(2000):
        assert len(set(captions(i))) == 5


def test_no_word_is_repeated_in_a_row_and_captions_differ_in_structure():
    for i in range(300):
        openings = {" ".join(caption.split()[:2]) for caption in captions(i)}
        assert len(openings) >= 2, captions(i)
        for caption in captions(i):
            words = caption.split()
            assert all(a != b for a, b in itertools.pairwise(words))


def test_the_vocabulary_has_150_to_400_words_each_used():
    words = Counter(w for i in range(4000) for c in captions(i) for w in c.lower().rstrip(".").split())
    assert 150 <= len(words) <= 400
    assert min(words.values()) >= 5, words.most_common()[-5:]


def test_every_reference_is_true_and_the_five_tell_most_of_the_scene():
    described, facts = 0, 0
    for i in range(1500):
        rng = random.Random(i)
        scene = sample(rng, novel=i % 4 == 0)
        told_five = references(scene, rng)
        verdicts = [judge(caption, scene) for caption in told_five]
        for caption, verdict in zip(told_five, verdicts, strict=True):
            assert verdict.true, (caption, scene)
        known = {claim.fact for verdict in verdicts for claim in verdict.claims}
        described, facts = described + len(known & verdicts[0].facts), facts + len(verdicts[0].facts)
    assert described / facts > 0.9

import random
from dataclasses import replace

import numpy as np
import pytest

from easycap.data.scenes.draw import draw
from easycap.data.scenes.graph import Group, Scene, Spot
from easycap.data.scenes.sample_scene import sample
from easycap.data.scenes.tables import COLOURS, KINDS

SEEN = 24  # a pixel differs when one of its channels does by this much of 255


def seen_pixels(scene: Scene, index: int, size: int = 64) -> int:
    """How many pixels the things of a group change."""
    without = list(scene.groups)
    without[index] = replace(without[index], spots=())
    empty = draw(replace(scene, groups=tuple(without)), size)
    change = np.abs(np.asarray(draw(scene, size)).astype(int) - np.asarray(empty).astype(int))
    return int((change.max(axis=2) > SEEN).sum())


@pytest.mark.parametrize("size", [16, 64, 100])
def test_a_picture_has_the_size_asked_for(size):
    image = draw(sample(random.Random(0)), size)
    assert image.size == (size, size) and image.mode == "RGB"


def test_the_same_scene_gives_the_same_pixels():
    for i in range(20):
        scene = sample(random.Random(i))
        assert draw(scene, 64).tobytes() == draw(scene, 64).tobytes()


def test_everything_in_a_scene_is_seen_at_64_pixels():
    for i in range(400):
        scene = sample(random.Random(i))
        for index, group in enumerate(scene.groups):
            if scene.relation in ("holding", "flying") and index < 2:
                continue  # the string ends at the person's hand
            assert seen_pixels(scene, index) >= 30 * group.count, (i, group)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_in_every_colour_shows_on_snow_and_on_a_night_street(kind):
    for setting, weather in (("snow", "cloudy"), ("street", "night")):
        for colour in KINDS[kind].colours or (None,):
            group = Group(kind, 1, colour, None, None, False, (Spot(128, 230, 0, 0),))
            scene = Scene(setting, weather, 0, None, (group,))
            assert seen_pixels(scene, 0) >= 60, (setting, colour)


def test_colours_are_far_apart():
    names = list(COLOURS)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            distance = np.abs(np.subtract(COLOURS[first], COLOURS[second])).sum()
            assert distance >= 90, (first, second)


@pytest.mark.parametrize("kind", [kind for kind, entry in KINDS.items() if len(entry.actions) > 1])
def test_actions_look_different(kind):
    pictures = []
    for action in KINDS[kind].actions:
        group = Group(
            kind, 1, (KINDS[kind].colours or (None,))[0], None, action, False, (Spot(128, 236, 0, 0),)
        )
        pictures.append(np.asarray(draw(Scene("park", "sunny", 0, None, (group,)), 64)).astype(int))
    for i, first in enumerate(pictures):
        for second in pictures[i + 1 :]:
            assert (np.abs(first - second).max(axis=2) > SEEN).sum() >= 25


def test_a_size_too_small_to_draw_is_refused():
    with pytest.raises(ValueError, match="size=8 is too small"):
        draw(sample(random.Random(0)), 8)

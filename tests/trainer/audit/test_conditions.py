"""What is left of an image in each condition."""

import numpy as np
import pytest

from trainer.audit import conditions


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(1, 256, (40, 40, 1)).astype(np.uint8)


@pytest.fixture
def mask():
    lungs = np.zeros((40, 40), bool)
    lungs[10:30, 6:16] = lungs[12:28, 24:34] = True
    lungs[0:6, 6:8] = True  # a tip that reaches the outer 10%
    return lungs


def test_parts_are_taken_away_with_a_rim_and_the_rest_is_untouched(image, mask):
    wide = conditions.widened(mask)
    assert wide[9, 10]
    assert not wide[20, 20], "what lies between the lungs is no lung"
    for left, kept in (
        (conditions.without_lungs(image, mask), ~wide),
        (conditions.only_lungs(image, mask), mask),
        (conditions.border(image, mask), ~conditions.middle(40) & ~wide),
        (conditions.only_middle(image, mask), conditions.middle(40)),
    ):
        np.testing.assert_array_equal(left[kept], image[kept])
        assert not left[~kept].any()
    outer = ~conditions.middle(40)
    assert outer[:, :4].all()
    assert not outer[4:-4, 4:-4].any()


def test_the_rectangle_hides_the_outline(image, mask):
    left = conditions.without_box(image, mask)[:, :, 0] > 0
    rows, columns = np.flatnonzero((~left).any(axis=1)), np.flatnonzero((~left).any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (0, 30, 5, 34)
    assert not left[0:31, 5:35].any()
    np.testing.assert_array_equal(conditions.without_box(image, np.zeros_like(mask)), image)


@pytest.mark.parametrize("fill", [0, 60, 70, 128, 255])
def test_the_outline_is_the_same_whatever_the_image_and_can_be_seen(image, mask, fill):
    left = conditions.outline(image, mask, "", fill)
    np.testing.assert_array_equal(left, conditions.outline(255 - image, mask, "", fill))
    assert (left[~mask] == fill).all()
    assert abs(int(left[mask][0, 0]) - fill) > 30


def test_what_is_taken_away_gets_the_given_gray(image, mask):
    assert (conditions.only_lungs(image, mask, "", 77)[~mask] == 77).all()


@pytest.mark.parametrize("size", [40, 43])
def test_patches_are_all_there_in_an_order_of_the_images_own(size):
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
    mixed = conditions.shuffled(image, None, "a.png")
    assert mixed.shape == image.shape
    np.testing.assert_array_equal(mixed, conditions.shuffled(image, None, "a.png"))
    assert (mixed != conditions.shuffled(image, None, "b.png")).any()
    if size == 40:
        patches = image.reshape(8, 5, 8, 5, 3).swapaxes(1, 2).reshape(64, -1)
        after = mixed.reshape(8, 5, 8, 5, 3).swapaxes(1, 2).reshape(64, -1)
        assert sorted(map(bytes, after)) == sorted(map(bytes, patches))
        assert (after != patches).any()


def test_blurring_keeps_sixty_four_values(image):
    left = conditions.blurred(image, None)
    assert left.shape == image.shape
    cells = image.reshape(8, 5, 8, 5).mean(axis=(1, 3))
    np.testing.assert_allclose(left[2::5, 2::5, 0], cells, atol=1)


def test_masks_decide_which_conditions_are_shown():
    names = [[one.name for one in conditions.conditions_for(known)] for known in (True, False)]
    assert names[0] == [
        *("image", "no_lungs", "no_box", "border", "only_lungs"),
        *("lung_outline", "blurred", "shuffled"),
    ]
    assert names[1] == ["image", "border", "only_middle", "blurred", "shuffled"]

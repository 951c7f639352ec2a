"""Each enhancement does what its name says."""

import numpy as np
import pytest

from cxr_tfrecords import enhance
from tests.helpers import tiny_image

GRAY = tiny_image(1, np.random.default_rng(0), 64, 1)


def test_formulas():
    np.testing.assert_array_equal(enhance.enhance(GRAY, "none"), GRAY)
    np.testing.assert_array_equal(enhance.enhance(GRAY, "complement"), 255 - GRAY)
    lifted = enhance.enhance(GRAY, "gamma")
    np.testing.assert_allclose(lifted, np.sqrt(GRAY / 255.0) * 255, atol=0.51)


def test_equalisation_flattens_the_histogram_and_clahe_raises_local_contrast():
    dim = (GRAY // 3).astype(np.uint8)
    flat = enhance.enhance(dim, "histogram")
    quarters = np.histogram(flat, bins=4, range=(0, 256))[0] / flat.size
    np.testing.assert_allclose(quarters, 0.25, atol=0.05)
    tile = (slice(8, 16), slice(8, 16))
    assert enhance.enhance(dim, "clahe")[tile].std() > 1.5 * dim[tile].std()


def test_bcet_gives_the_full_range_and_a_mean_of_110_by_a_rising_parabola():
    dim = (40 + GRAY // 2).astype(np.uint8)
    result = enhance.enhance(dim, "bcet")
    assert (result.min(), result.max()) == (0, 255)
    assert abs(result.mean() - 110) < 0.5
    # Guo's own formula, of the smallest and largest value, the mean and the mean of the squares.
    x = dim.astype(float)
    low, high, mean, square = x.min(), x.max(), x.mean(), (x**2).mean()
    vertex = (high**2 * 110 - square * 255 + low**2 * 145) / (
        2 * (high * 110 - mean * 255 + low * 145)
    )
    scale = 255 / ((high - low) * (high + low - 2 * vertex))
    expected = scale * (x - vertex) ** 2 - scale * (low - vertex) ** 2
    np.testing.assert_allclose(result, expected, atol=0.51)


def test_bcet_turns_no_grey_levels_round():
    mostly_white = np.full((8, 8, 1), 250, np.uint8)
    mostly_white[0, :, 0] = np.arange(0, 160, 20)
    result = enhance.enhance(mostly_white, "bcet")
    assert (np.diff(result[0, :, 0].astype(int)) >= 0).all()
    flat = np.full((4, 4, 1), 7, np.uint8)
    np.testing.assert_array_equal(enhance.enhance(flat, "bcet"), flat)


@pytest.mark.parametrize("method", enhance.METHODS)
def test_channels_are_treated_alike(method):
    colour = np.repeat(GRAY, 3, axis=2)
    result = enhance.enhance(colour, method)
    assert result.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(
            result[:, :, channel : channel + 1], enhance.enhance(GRAY, method)
        )

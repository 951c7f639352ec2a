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


@pytest.mark.parametrize("method", enhance.METHODS)
def test_channels_are_treated_alike(method):
    colour = np.repeat(GRAY, 3, axis=2)
    result = enhance.enhance(colour, method)
    assert result.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(
            result[:, :, channel : channel + 1], enhance.enhance(GRAY, method)
        )

"""A patch is found, whatever its contrast; noise is told from a match."""

import numpy as np
import pytest
from scipy import ndimage

from l1bsr_geo.registration.patches import match_patch

KNOWN = np.ones((96, 96), bool)


def ground(dx=0.0, dy=0.0):
    """A hundred metres of fields, seen at p + (dx, dy)."""
    rng = np.random.default_rng(0)
    fields = ndimage.gaussian_filter(rng.normal(0, 1, (140, 140)), 2) > 0
    fine = 300 + 200 * ndimage.gaussian_filter(fields.astype(float), 1.2)
    y, x = np.mgrid[22:118, 22:118].astype(float)
    return ndimage.map_coordinates(fine, [y + dy, x + dx], order=3).astype(np.float32)


@pytest.mark.parametrize("gain", [1.0, 7.0, -0.5])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.4, -0.3), (7.0, 11.0)])
def test_shift_under_any_gain(gain, shift):
    reference = 1000 + np.float32(gain) * ground(*shift)
    dx, dy, significance = match_patch(reference, KNOWN, ground(), KNOWN)
    assert (dx, dy) == pytest.approx(shift, abs=0.1)
    assert significance > 10


def test_noise_is_not_significant():
    rng = np.random.default_rng(1)
    a, b = rng.normal(300, 10, (2, 96, 96)).astype(np.float32)
    assert match_patch(a, KNOWN, b, KNOWN)[2] < 6

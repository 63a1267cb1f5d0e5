"""Phase correlation of gradient orientation."""

import numpy as np
import pytest
from scipy import ndimage

from l1bsr_geo.registration.phase import band_pass, block_starts, correlate_blocks, orientation


@pytest.fixture(scope="module")
def ground():
    rng = np.random.default_rng(0)
    return 300 * np.exp(0.3 * ndimage.gaussian_filter(rng.standard_normal((220, 260)), 1.5) * 5)


def seen(image):
    return orientation(band_pass(image, np.ones(image.shape, bool)))


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (7.25, -9.5), (-12.0, 3.4)])
def test_shift_is_found_whatever_the_contrast(ground, shift, invert):
    moved = ndimage.shift(ground, (-shift[1], -shift[0]), order=5, mode="reflect")
    other = 9e4 / moved if invert else moved
    window = np.s_[20:200, 20:240]
    y0, x0 = block_starts(180, 96, 64), block_starts(220, 96, 64)
    guess = np.zeros((len(y0), len(x0), 2))
    found = correlate_blocks(seen(ground[window]), seen(other[window]), guess, y0, x0, (96, 96), 15)
    # content at p of the reference is at p - shift here
    np.testing.assert_allclose(
        found.shift, np.broadcast_to(-np.array(shift), guess.shape), atol=0.2
    )
    assert found.significance.min() > 12


def test_noise_is_not_significant():
    rng = np.random.default_rng(1)
    a, b = (seen(rng.uniform(200, 210, (400, 400))) for _ in range(2))
    y0 = block_starts(400, 96, 64)
    found = correlate_blocks(a, b, np.zeros((len(y0), len(y0), 2)), y0, y0, (96, 96), 12)
    assert found.significance.max() < 6


def test_unknown_pixels_leave_nothing(ground):
    valid = np.ones(ground.shape, bool)
    valid[50:90, 60:120] = False
    holes = np.where(valid, ground, np.nan)
    passed = band_pass(holes, valid)
    assert np.isfinite(passed).all()
    assert np.all(passed[56:84, 66:114] == 0)
    np.testing.assert_allclose(passed[:20], band_pass(ground, np.ones_like(valid))[:20], atol=0.02)


@pytest.mark.parametrize(
    ("length", "expected"), [(96, [0]), (97, [0, 1]), (352, [0, 64, 128, 192, 256])]
)
def test_blocks_reach_both_ends(length, expected):
    assert block_starts(length, 96, 64).tolist() == expected

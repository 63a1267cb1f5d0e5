"""Motion between raw mosaics: at any phase of the pattern, with noise, and honest where unsure."""

import numpy as np
import pytest
from scipy import ndimage

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.registration.mosaics import align_mosaics, in_periods, read_luminance
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.mosaics import simulate_mosaics

SIDE = 112
WINDOW = Window(0, 0, SIDE, SIDE)


@pytest.fixture(scope="module")
def scene():
    grey = ndimage.gaussian_filter(made_city((160, 160), seed=3) / 3400 * 255, 0.8)  # optics
    colours = np.array([1.2, 1.0, 0.6], np.float32)  # far from grey: the pattern is strong
    return grey * colours[:, None, None]


def errors(burst, flow):
    """[px] root mean square of each frame but the first."""
    apart = flow.read(WINDOW) - burst.flow
    return np.sqrt(np.square(apart[1:]).sum(1).mean((1, 2)))


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "grbg", "gbrg"])
def test_colours_of_an_even_field_leave_no_pattern(pattern):
    scene = np.ones((3, 24, 24), np.float32) * np.array([200, 100, 40], np.float32)[:, None, None]
    mosaic = simulate_mosaics(scene, (24, 24), 1, pattern=pattern, noise=0).frames[0]
    assert np.ptp(mosaic) > 100
    np.testing.assert_allclose(read_luminance(mosaic), 110, atol=1e-4)


@pytest.mark.parametrize(("pattern", "noise", "most"), [("rggb", 0, 0.02), ("gbrg", 10, 0.1)])
def test_motion_is_found_to_a_part_of_a_pixel(scene, pattern, noise, most):
    burst = simulate_mosaics(scene, (SIDE, SIDE), 4, pattern=pattern, noise=noise, seed=1)
    flow = align_mosaics(burst.frames, reference=0)
    assert flow.kept == (0, 1, 2, 3)
    assert errors(burst, flow).max() < most
    assert (errors(burst, flow) < 5 * flow.uncertainty[1:] + 0.02).all()


def test_whole_periods_keep_the_motion(scene):
    burst = simulate_mosaics(scene, (SIDE, SIDE), 3, noise=2, seed=4)
    flow = align_mosaics(burst.frames)
    even = in_periods(flow)
    assert not (even.offsets % 2).any()
    assert np.abs(even.affine[:, :, 2]).max() <= 1 + 1e-9
    np.testing.assert_allclose(even.read(WINDOW), flow.read(WINDOW), atol=1e-5)
    assert (flow.read(WINDOW)[1] == 0).all()  # the middle frame is the reference


def test_frames_that_show_something_else_are_rejected(scene):
    burst = simulate_mosaics(scene, (SIDE, SIDE), 4, noise=2)
    frames = list(burst.frames)
    frames[3] = np.random.default_rng(0).normal(100, 30, (SIDE, SIDE)).astype(np.float32)
    flow = align_mosaics(frames)
    assert flow.kept == (0, 1, 2)
    assert set(flow.rejected) == {3}


def test_no_burst_is_refused(scene):
    with pytest.raises(BadInputError, match="two or more of one"):
        align_mosaics([scene[0]])
    with pytest.raises(BadInputError, match="two or more of one"):
        align_mosaics([scene[0], scene[0, 2:]])

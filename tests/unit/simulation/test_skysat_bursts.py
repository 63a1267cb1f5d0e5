"""Simulated bursts: the motion, the light and the noise are what they are said to be."""

import numpy as np
import pytest
from scipy import ndimage

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.simulation.bursts import camera_mtf, noise_sigma, simulate_burst
from l1bsr_geo.simulation.fine_scenes import made_city, scene_from_photograph

SHAPE = (64, 72)
CITY = made_city((300, 320), seed=1)
STRETCHED = {"affine": 3e-4, "jitter": 0.02, "parallax": 0.1}


def seen_through(truth, flow, scale):
    """What a frame shows according to its flow: each pixel q looks at p with p + flow(p) = q."""
    height, width = flow.shape[1:]
    y, x = np.mgrid[:height, :width].astype(float)
    p_y, p_x = y.copy(), x.copy()
    for _ in range(15):
        at = [p_y, p_x]
        p_x, p_y = (
            q - ndimage.map_coordinates(f, at, order=1, mode="nearest")
            for q, f in zip((x, y), flow, strict=True)
        )
    inside = (p_x > 4) & (p_x < width - 5) & (p_y > 4) & (p_y < height - 5)
    image = ndimage.map_coordinates(truth, [scale * p_y, scale * p_x], order=5, mode="mirror")
    return image, inside


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("motion", [{}, STRETCHED, {"offsets": [(0, 0), (5, -3), (-4, 2)]}])
def test_frames_show_the_truth_where_the_flow_says(scale, motion):
    made = simulate_burst(CITY, SHAPE, 3, scale=scale, noise=0.0, seed=2, **motion)
    assert not made.flow[0].any()
    assert np.allclose(made.frames[0], made.truth[::scale, ::scale], atol=0.01)
    for t in (1, 2):
        shown, inside = seen_through(made.truth, made.flow[t], scale)
        off, _ = seen_through(made.truth, made.flow[t] + 0.05, scale)
        error = np.std((shown - made.frames[t])[inside])
        assert error < 7
        assert error < 0.5 * np.std((off - made.frames[t])[inside])


def test_camera_mtf_is_that_of_pixel_and_optics():
    at = camera_mtf(np.array([0.0, 0.25, 0.5, 1.0]), np.zeros(4))
    assert at == pytest.approx([1, 0.876, 0.570, 0], abs=0.001)


def test_noise_is_that_of_skysat():
    clean = simulate_burst(CITY, SHAPE, 2, noise=0.0, seed=3)
    for noise in (1.0, 2.5):
        noisy = simulate_burst(CITY, SHAPE, 2, noise=noise, seed=3)
        normal = (noisy.frames - clean.frames) / noise_sigma(clean.frames, noise)
        assert normal.std() == pytest.approx(1, abs=0.02)
        assert abs(normal.mean()) < 0.03
    assert noise_sigma(np.float32(1020.0)) == pytest.approx(11.5, abs=0.1)


def test_exposures_scale_light_are_told_wrongly_and_saturate():
    steps = (0.25, 0.5, 1, 2)
    made = simulate_burst(CITY, SHAPE, 12, noise=0.0, exposures=steps, seed=4)
    assert set(made.exposures) <= set(steps)
    ratio = made.true_exposures / made.exposures
    assert 0.005 < np.abs(ratio - 1).max() <= 0.02
    assert made.frames.max() == 3400
    dark = np.median(made.frames[made.exposures == 0.25])
    assert dark == pytest.approx(0.25 * np.median(made.truth), rel=0.05)
    given = simulate_burst(CITY, SHAPE, 3, exposures=(1, 2, 0.5), seed=4)
    assert tuple(given.exposures) == (1, 2, 0.5)


def test_a_seed_gives_the_same_burst_again():
    first, second = (simulate_burst(CITY, SHAPE, 3, seed=5, **STRETCHED) for _ in range(2))
    assert np.array_equal(first.frames, second.frames)
    assert not np.array_equal(first.frames, simulate_burst(CITY, SHAPE, 3, seed=6).frames)
    assert first.counts.dtype == np.uint16


def test_defocus_blurs_all_but_the_reference():
    sharp = simulate_burst(CITY, SHAPE, 3, noise=0.0, seed=7)
    soft = simulate_burst(CITY, SHAPE, 3, noise=0.0, defocus=0.8, seed=7)
    assert np.array_equal(sharp.frames[0], soft.frames[0])
    assert soft.frames[1:].std() < sharp.frames[1:].std()


def test_a_scene_too_small_says_how_much_is_needed():
    with pytest.raises(BadInputError, match=r"the scene has 300 rows; \d+ are needed"):
        simulate_burst(CITY, (140, 72), 3)
    with pytest.raises(BadInputError, match="columns"):
        simulate_burst(CITY, SHAPE, 2, offsets=[(0, 0), (80, 0)])


def test_photographs_are_halved_in_place():
    y, x = np.mgrid[:60, :80]
    fine = 0.9 * x + 1.3 * y
    half = 255 * (scene_from_photograph(fine) / 3400 - 0.08) / 0.65
    inner = (slice(6, -6),) * 2
    expected = 0.9 * (2 * x + 0.5) + 1.3 * (2 * y + 0.5)
    assert half.shape == (30, 40)
    assert np.allclose(half[inner], expected[:30, :40][inner], atol=1e-2)

"""Simulated detector overlaps: optics, aliasing, motion and noise are what they are said to be."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.simulation.overlap_motion import BandShifts, OverlapMotion
from l1bsr_geo.simulation.overlaps import needed_scene, noise_sigma, simulate_overlap
from l1bsr_geo.simulation.scenes import MTF, TEN_METRE_BANDS

SHAPE = (40, 52)
MOVED = BandShifts(shift=8.0, relief=0.5)
CONTRAST, MEAN = 900.0, 2000.0  # [DN]


def wave(frequency, shape=SHAPE, shifts=BandShifts()):  # noqa: B008 - immutable
    """A scene of one sine [cycles / fine px] along both axes, and what any place of it shows.

    Places are coarse (x, y) corner coordinates of the reference view; the blur is the closed form.
    """
    f_x, f_y = frequency
    rows, columns = needed_scene(shape, shifts)
    top, left = (rows - 2 * shape[0]) // 2, (columns - 2 * shape[1]) // 2

    def shown(places, band):
        x, y = 2 * places[0] - 0.5 + left, 2 * places[1] - 0.5 + top
        return MEAN + CONTRAST * passed(frequency, band) * np.sin(2 * np.pi * (f_x * x + f_y * y))

    y, x = np.mgrid[:rows, :columns]
    sine = np.sin(2 * np.pi * (f_x * x + f_y * y))
    return np.repeat((MEAN + CONTRAST * sine)[None], 4, 0).astype(np.float32), shown


def passed(frequency, band):
    """Of a Gaussian with the band's MTF at a quarter of a cycle per fine pixel."""
    return MTF[band] ** ((frequency[0] ** 2 + frequency[1] ** 2) / 0.25**2)


def pixels(shape):
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return np.stack([x, y])


def within(x, y, border):
    """Places in a view where a spline does not feel its edge."""
    inside_x = (x > border) & (x < SHAPE[1] - border)
    return inside_x & (y > border) & (y < SHAPE[0] - border)


def inner(image, border=4):
    return image[..., border:-border, border:-border]


@pytest.mark.parametrize("frequency", [(0.02, 0.03), (0.21, 0.08), (0.27, -0.2)])
def test_every_pixel_shows_the_scene_at_its_own_place_aliased_or_not(frequency):
    scene, shown = wave(frequency, shifts=MOVED)
    made = simulate_overlap(scene, SHAPE, shifts=MOVED, noise=0.0, seed=1)
    for t in range(2):
        for b, band in enumerate(TEN_METRE_BANDS):
            expected = shown(made.motion.places(t, b, SHAPE), band)
            # half a DN of rounding, and of the spline a hundredth of what the finest wave shows
            limit = 0.51 + 0.01 * CONTRAST * passed(frequency, band)
            assert np.abs(made.views[t, b] - expected).max() < limit


def test_flow_says_where_a_reference_pixel_is_in_every_view():
    scene, shown = wave((0.03, 0.04), shifts=MOVED)
    made = simulate_overlap(scene, SHAPE, shifts=MOVED, noise=0.0, seed=2)
    p = pixels(SHAPE)
    assert not made.flow[0, 1].any()
    for t in range(2):
        for b, band in enumerate(TEN_METRE_BANDS):
            x, y = p + made.flow[t, b]
            inside = within(x, y, 10)
            view = made.views[t, b].astype(float)
            read = ndimage.map_coordinates(view, [y - 0.5, x - 0.5], order=5)
            error = (read - shown(p, band))[inside]
            assert inside.sum() > 100
            assert np.abs(error).max() < 1.2  # rounding, through a spline; 0.01 px is 3 DN
            wrong = (shown(p + 0.05, band) - shown(p, band))[inside]
            assert np.std(wrong) > 5 * np.std(error)


def test_places_and_flow_undo_each_other():
    motion = OverlapMotion.draw(np.random.default_rng(3), SHAPE, MOVED)
    flow = motion.flow(SHAPE)
    for t in range(2):
        for b in range(4):
            p = motion.places(t, b, SHAPE)
            inside = within(*p, 9)
            there = [ndimage.map_coordinates(f, p[::-1] - 0.5, order=5) for f in flow[t, b]]
            back = (p + there - pixels(SHAPE))[:, inside]
            assert inside.sum() > 200
            assert np.abs(back).max() < 2e-4


def test_truth_is_the_blurred_scene_on_the_corner_aligned_grid():
    scene, shown = wave((0.11, 0.25))
    made = simulate_overlap(scene, SHAPE, seed=4)
    fine = pixels((2 * SHAPE[0], 2 * SHAPE[1])) / 2
    for b, band in enumerate(TEN_METRE_BANDS):
        assert np.abs(made.truth[b] - shown(fine, band)).max() < 0.01 * CONTRAST


def test_without_alias_only_what_ten_metres_cannot_show_is_gone():
    for frequency, there in (((0.0, 0.36), False), ((0.31, 0.1), False), ((0.15, 0.18), True)):
        scene, _ = wave(frequency, (60, 64))
        with_alias, without = (
            simulate_overlap(scene, (60, 64), noise=0.0, alias=alias, seed=5)
            for alias in (True, False)
        )
        assert np.array_equal(with_alias.truth, without.truth)
        assert np.array_equal(with_alias.flow, without.flow)
        for a, b in zip(inner(with_alias.views[:, 1]), inner(without.views[:, 1]), strict=True):
            contrast = np.std(b.astype(float)) / np.std(a.astype(float))
            assert contrast == pytest.approx(1, abs=0.03) if there else contrast < 0.05


def test_noise_and_rounding_are_those_of_the_instrument():
    for dn in (60.0, 480.0):
        scene = np.full((4, *needed_scene((96, 96), BandShifts())), dn, np.float32)
        views = simulate_overlap(scene, (96, 96), seed=6).views.astype(float)
        assert views.var() == pytest.approx(0.010 * dn + 0.096 + 1 / 12, rel=0.03)
        assert views.mean() == pytest.approx(dn, abs=0.05)
    unit = 480.0 / 400  # the same in units of 400 DN
    assert noise_sigma(np.float32(480)) / 400 == pytest.approx(np.sqrt(2.5e-5 * unit + 6e-7))
    bright = np.full((4, *needed_scene((8, 8), BandShifts())), 5000, np.float32)
    made = simulate_overlap(bright, (8, 8), seed=6)
    assert made.views.dtype == np.uint16
    assert (made.views == 4095).all()


def test_the_same_seed_gives_the_same_and_another_another():
    scene, _ = wave((0.1, 0.1))
    one, same, other = (simulate_overlap(scene, SHAPE, seed=s) for s in (7, 7, 8))
    assert np.array_equal(one.views, same.views)
    assert np.array_equal(one.flow, same.flow)
    assert not np.array_equal(one.flow, other.flow)


@pytest.mark.parametrize("shifts", [BandShifts(), MOVED, BandShifts(5.0, 1.0, 2.0, 1.0, 0.0, 6.0)])
def test_no_displacement_is_beyond_reach(shifts):
    rng = np.random.default_rng(9)
    flows = np.stack([OverlapMotion.draw(rng, SHAPE, shifts).flow(SHAPE) for _ in range(40)])
    assert np.abs(flows).max() < shifts.reach
    assert np.abs(flows).max() > 0.5 * shifts.reach


def test_bands_are_displaced_as_in_real_crops_and_the_other_way_in_the_other_detector():
    rng = np.random.default_rng(10)
    shifts = BandShifts(between=0.0)
    flows = np.stack(
        [OverlapMotion.draw(rng, SHAPE, shifts).flow(SHAPE).mean((-2, -1)) for _ in range(300)]
    )
    along = flows[:, :, :, 1] - flows[:, :, 1:2, 1]
    # METHODS m2: blue is 0.5 to 1.9 px from green along the track, 1.0 on average, red -2 to 0.6
    assert along[:, 0, 0].mean() == pytest.approx(1.03, abs=0.1)
    assert along[:, 1, 0].mean() == pytest.approx(-1.03, abs=0.1)
    assert along[:, 0, 2].min() > -2.9
    assert along[:, 0, 2].std() > 0.8


def test_registered_bands_move_together():
    motion = OverlapMotion.draw(np.random.default_rng(11), SHAPE, BandShifts(band_shift=0.0))
    flow = motion.flow(SHAPE)
    assert not flow[0].any()
    assert np.abs(flow[1]).max() > 0.3
    assert np.array_equal(flow[1], np.repeat(flow[1, :1], 4, 0))


def test_relief_moves_bands_along_the_track_by_their_parallax():
    hilly = BandShifts(0.0, 0.0, 0.0, 0.2, 1e-9, 0.0)  # nothing but relief between the bands
    draws = [OverlapMotion.draw(np.random.default_rng(s), SHAPE, hilly) for s in range(60)]
    flow = np.stack([m.flow(SHAPE) for m in draws])
    assert np.abs(flow[:, :, :, 0]).max() < 1e-6
    assert flow[:, 1, 1, 1].std() == pytest.approx(0.2, rel=0.15)
    # FORMATS A3 [px per 1000 m]: B04 from B02 0.90 within a detector, B03 between detectors 2.75
    within = flow[:, 0, 2, 1] - flow[:, 0, 0, 1]
    assert within == pytest.approx(-flow[:, 1, 1, 1] * 0.90 / 2.75, abs=1e-5)


def test_a_scene_that_is_too_small_is_refused():
    rows, columns = needed_scene(SHAPE, MOVED)
    scene = np.full((4, rows, columns), 200, np.float32)
    simulate_overlap(scene, SHAPE, shifts=MOVED)
    for small in (scene[:, :-1], scene[:, :, :-1], scene[:3]):
        with pytest.raises(BadInputError, match=f"four bands of at least {rows} x {columns}"):
            simulate_overlap(small, SHAPE, shifts=MOVED)
    simulate_overlap(scene[:, 16:-16, 16:-16], SHAPE, shifts=replace(MOVED, shift=0.0))

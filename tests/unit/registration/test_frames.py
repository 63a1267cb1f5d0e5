"""Frames of simulated bursts: the motion is found, and no bad frame slips through."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.elevation import SampledElevation, localize_on_terrain
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.bursts import Burst
from l1bsr_geo.readers.skysat import read_burst
from l1bsr_geo.registration.frame_checks import Alignment
from l1bsr_geo.registration.frame_levels import read_frame
from l1bsr_geo.registration.frame_refine import refine, scaled, translation
from l1bsr_geo.registration.frames import align_frames, foretell
from l1bsr_geo.simulation.bursts import simulate_burst
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.skysat_collect import scene_on_map, write_skysat_collect

SHAPE = (96, 112)
CITY = made_city((440, 480), seed=3)


@dataclass(frozen=True, eq=False)
class Pixels:
    """A frame in memory."""

    values: np.ndarray

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return self.values.dtype

    def read(self, window):
        return self.values[window.slices]


class Damaged(Pixels):
    def read(self, window):
        raise BadInputError("frame_3.tif cannot be decoded; fetch it again")


def burst_of(frames, exposures=None, **facts):
    exposures = np.ones(len(frames)) if exposures is None else exposures
    grid = GeoGrid(frames[0].shape)
    sources = tuple(f if isinstance(f, Pixels) else Pixels(f) for f in frames)
    return Burst(sources, (grid,) * len(frames), tuple(float(e) for e in exposures), **facts)


def errors(flow, truth):
    """Root mean square length of the error of each kept frame where it sees the reference [px]."""
    height, width = truth.shape[2:]
    found = flow.read(Window(0, 0, width, height))
    y, x = np.mgrid[:height, :width] + 0.5
    out = {}
    for t in flow.kept[1:]:
        at_x, at_y = x + truth[t, 0], y + truth[t, 1]
        seen = (at_x > 0) & (at_x < width) & (at_y > 0) & (at_y < height)
        out[t] = np.sqrt(np.square(found[t] - truth[t]).sum(0)[seen].mean())
    return out


@pytest.mark.parametrize("noise", [1.0, 2.5])
def test_motion_is_found_to_hundredths(noise):
    worst = []
    for seed in range(3):
        made = simulate_burst(CITY, SHAPE, 6, noise=noise, affine=2e-4, jitter=0.02, seed=seed)
        flow = align_frames(burst_of(made.counts))
        assert flow.rejected == {}
        worst += errors(flow, made.flow).values()
    assert np.median(worst) < 0.03
    assert max(worst) < 0.06


def test_uncertainty_is_about_the_error():
    ratios = []
    for seed in range(4):
        made = simulate_burst(CITY, SHAPE, 5, noise=2.5, seed=seed)
        flow = align_frames(burst_of(made.counts))
        ratios += [e / flow.uncertainty[t] for t, e in errors(flow, made.flow).items()]
    assert 0.4 < np.sqrt(np.mean(np.square(ratios))) < 2.0


def test_frames_far_apart_are_found_and_signs_hold_by_warping():
    offsets = [(0, 0), (3, 40), (-2, -45), (61, 5)]
    made = simulate_burst(CITY, SHAPE, 4, noise=1.0, offsets=offsets, seed=1)
    flow = align_frames(burst_of(made.counts))
    assert flow.rejected == {}
    assert np.abs(flow.offsets - offsets).max() <= 1
    motion = flow.read(Window(0, 0, SHAPE[1], SHAPE[0]))
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for t in (1, 2, 3):
        inside = [y + motion[t, 1], x + motion[t, 0]]
        warped = ndimage.map_coordinates(made.frames[t], inside, order=3, cval=np.nan)
        good = np.isfinite(warped)
        assert good.mean() > 0.3
        left = (warped - made.frames[0])[good].std()
        assert left < 0.45 * made.frames[0][good].std()  # the rest is alias


def test_residual_is_what_the_moved_window_leaves():
    made = simulate_burst(CITY, SHAPE, 3, offsets=[(0, 0), (9, -4), (-6, 11)], affine=3e-4, seed=2)
    flow = align_frames(burst_of(made.counts))
    window = Window(20, 10, 30, 40)
    whole, rest = flow.read(window), flow.residual(window)
    assert np.allclose(whole - rest, flow.offsets[:, :, None, None])
    assert np.abs(rest).max() < 0.8
    assert not whole[0].any()
    assert np.allclose(flow.select([2, 0]).read(window), whole[[2, 0]])


def test_exposures_may_differ_and_saturation_is_left_out():
    exposures = (1.0, 0.25, 1.8, 0.5, 1.4)
    made = simulate_burst(CITY, SHAPE, 5, exposures=exposures, seed=4)
    assert (made.counts[2] == 3400).mean() > 0.05
    for saturated in (3400.0, None, 4095.0):
        flow = align_frames(burst_of(made.counts, exposures, saturated=saturated))
        assert flow.rejected == {}
        assert max(errors(flow, made.flow).values()) < 0.06


def test_gain_and_offset_do_not_matter():
    made = simulate_burst(CITY, SHAPE, 3, noise=1.0, seed=5)
    frames = [made.counts[0], 3 * made.counts[1] + 900, made.counts[2]]
    flow = align_frames(burst_of(frames))
    assert max(errors(flow, made.flow).values()) < 0.04


def spoilt(noise, seed=0):
    """A burst of ten whose frames 2 to 8 are no good, and why each is not."""
    rng = np.random.default_rng(seed)
    made = simulate_burst(CITY, SHAPE, 11, noise=noise, seed=seed)
    frames = list(made.counts)
    other = made_city((300, 340), seed=77)
    frames[2] = simulate_burst(other, SHAPE, 1, noise=noise, seed=9).counts[0]
    frames[3] = (1000 + 20 * rng.standard_normal(SHAPE)).astype(np.uint16)
    far = np.roll(CITY, (240, 240), (0, 1))
    frames[4] = simulate_burst(far, SHAPE, 1, noise=noise, seed=10).counts[0]
    blurred = ndimage.gaussian_filter(made.frames[5], 2.0)
    frames[5] = np.clip(blurred + 15 * rng.standard_normal(SHAPE), 0, None).astype(np.uint16)
    frames[6] = np.minimum(5 * made.counts[6], 3400)
    frames[7] = frames[7][::-1].copy()
    frames[8] = Damaged(frames[8])
    return made, frames, {2, 3, 4, 5, 6, 7, 8}


@pytest.mark.parametrize("noise", [1.0, 2.5])
def test_bad_frames_are_rejected_with_a_reason_and_good_ones_kept(noise):
    made, frames, bad = spoilt(noise)
    flow = align_frames(burst_of(frames))
    assert set(flow.rejected) == bad
    assert flow.kept == (0, 1, 9, 10)
    assert max(errors(flow, made.flow).values()) < 0.06
    assert "nothing of the reference" in flow.rejected[2]
    assert "saturated" in flow.rejected[6]
    assert "cannot be decoded" in flow.rejected[8]
    assert np.isnan(flow.read(Window(0, 0, 8, 8))[sorted(bad)]).all()
    assert np.isinf(flow.uncertainty[sorted(bad)]).all()


def test_a_blurred_frame_of_a_sharp_scene_is_told_apart():
    made = simulate_burst(CITY, (160, 180), 5, noise=1.0, seed=6)
    frames = list(made.counts)
    frames[2] = np.rint(ndimage.gaussian_filter(made.frames[2], 1.0)).astype(np.uint16)
    flow = align_frames(burst_of(frames))
    assert set(flow.rejected) == {2}
    assert "blurred" in flow.rejected[2]


def test_a_pattern_that_repeats_has_no_one_place():
    y, x = np.mgrid[:96, :112]
    rng = np.random.default_rng(0)
    rows = 1000 + 300 * np.sin(2 * np.pi * x / 8) + 300 * np.sin(2 * np.pi * y / 8)
    frames = [(rows + 20 * rng.standard_normal(rows.shape)).astype(np.uint16) for _ in range(3)]
    with pytest.raises(BadInputError, match="several places"):
        align_frames(burst_of(frames))


def test_a_frame_that_lost_its_way_is_seen_by_its_neighbours():
    made = simulate_burst(CITY, SHAPE, 5, noise=1.0, seed=7)
    frames = [read_frame(burst_of(made.counts), t) for t in range(5)]
    found = Alignment()
    for t in range(1, 5):
        found.fits[t] = refine(
            frames[0].full, frames[t].full, translation(*made.flow[t, :, 48, 56])
        )
    off = found.fits[3].motion.copy()
    off[0, 2] += 0.3
    object.__setattr__(found.fits[3], "motion", off)
    for before in (1, 2, 3):
        found.link(before, before + 1, frames[before], frames[before + 1])
    found.reject_inconsistent()
    assert set(found.rejected) == {3}
    assert "disagrees" in found.rejected[3]


def test_an_affine_scales_with_its_pixels():
    motion = np.array([[1.001, 0.002, 12.0], [-0.002, 0.999, -8.0], [0, 0, 1]])
    p = np.array([40.0, 60.0, 1.0])
    half = scaled(motion, 0.5) @ [20.0, 30.0, 1.0]
    assert np.allclose(2 * half[:2], (motion @ p)[:2])


def test_a_reference_that_shows_nothing_is_refused():
    made = simulate_burst(CITY, SHAPE, 3, seed=8)
    for flat in (np.full(SHAPE, 700, np.uint16), np.full(SHAPE, 3400, np.uint16)):
        with pytest.raises(BadInputError, match="--reference"):
            align_frames(burst_of([flat, *made.counts[1:]], saturated=3400.0))


def test_no_frame_that_fits_is_an_error_that_names_one():
    made = simulate_burst(CITY, SHAPE, 1, seed=8)
    other = simulate_burst(made_city((300, 340), 5), SHAPE, 2, seed=1)
    with pytest.raises(BadInputError, match=r"none of the other 2 frames .*second"):
        align_frames(
            burst_of([*made.counts, *other.counts], attrs={"frames": ("first", "second", "third")})
        )


def test_one_frame_has_no_motion():
    made = simulate_burst(CITY, SHAPE, 1, seed=8)
    flow = align_frames(burst_of(made.counts))
    assert flow.kept == (0,)
    assert not flow.read(Window(0, 0, 10, 10)).any()


def test_relief_is_found_from_all_frames_together():
    city = made_city((620, 660), seed=4)
    made = simulate_burst(city, (256, 256), 6, noise=1.0, parallax=0.12, seed=1)
    flow = align_frames(burst_of(made.counts))
    assert flow.rejected == {}
    assert flow.dense is not None
    affine_only = errors(type(flow)(flow.offsets, flow.affine, flow.centre), made.flow)
    found = errors(flow, made.flow)
    assert np.median(list(affine_only.values())) > 0.05
    assert np.median(list(found.values())) < 0.03
    assert max(found.values()) < 0.05


@pytest.fixture(scope="module")
def hilly_collect(tmp_path_factory):
    rng = np.random.default_rng(0)
    hills = ndimage.gaussian_filter(rng.standard_normal((60, 60)), 2.0)
    heights = (200 + 60 * hills / hills.std()).astype(np.float32)
    ground = SampledElevation(heights, 5.36, 43.30, 0.0004, 0.0004)
    scene = scene_on_map(made_city((900, 900), seed=5))
    folder = tmp_path_factory.mktemp("collect")
    made = write_skysat_collect(folder, scene, frames=7, elevation=ground, noise=2.5, seed=1)
    return made, ground


def test_geometry_foretells_and_images_finish(hilly_collect):
    made, ground = hilly_collect
    burst = read_burst(made.folder)
    cameras = [made.cameras[k] for k in burst.attrs["order"]]
    height, width = burst.shape
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    places = localize_on_terrain(cameras[0], x, y, ground, tolerance=1e-3)
    truth = np.stack([np.stack(c.project(*places)) - [x, y] for c in cameras])
    foretold = foretell(burst, ground)[1]
    middle = np.array([width / 2, height / 2, 1])
    missed = (foretold.motion @ middle - middle)[:2] - truth[1, :, height // 2, width // 2]
    assert 0.5 < np.hypot(*missed) < 20  # the pointing error
    assert foretold.remainder is not None
    with_dem = errors(align_frames(burst, elevation=ground), truth)
    assert len(with_dem) == 6
    assert max(with_dem.values()) < 0.03
    without = errors(align_frames(burst), truth)
    assert max(without.values()) < 0.05


def test_large_frames_are_matched_from_coarse_to_fine():
    city = made_city((1200, 1900), seed=6)
    made = simulate_burst(
        city, (540, 860), 2, offsets=[(0, 0), (-4, 21)], noise=2.5, affine=2e-4, seed=3
    )
    burst = burst_of(made.counts)
    assert read_frame(burst, 1).small.factor == 2
    flow = align_frames(burst)
    assert max(errors(flow, made.flow).values()) < 0.01


def test_a_single_blurred_frame_is_compared_with_the_reference():
    made = simulate_burst(CITY, (160, 180), 2, noise=1.0, seed=6)
    soft = np.rint(ndimage.gaussian_filter(made.frames[1], 1.2)).astype(np.uint16)
    with pytest.raises(BadInputError, match="blurred"):
        align_frames(burst_of([made.counts[0], soft]))

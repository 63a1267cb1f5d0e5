"""Overlaps to learn from: like real crops, true to their flow however turned, and repeatable."""

import warnings

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from scipy import ndimage

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError
from l1bsr_geo.registration.phase import band_pass, correlate_blocks, orientation
from l1bsr_geo.simulation.multiband import CROPS, bands_from_photograph, match_crop
from l1bsr_geo.simulation.overlap_motion import BandShifts
from l1bsr_geo.simulation.overlaps import blur
from l1bsr_geo.simulation.scenes import MTF, procedural_scene
from l1bsr_geo.training.arguments import fit_arguments
from l1bsr_geo.training.overlaps import SimulatedOverlaps

PAIRS = np.triu_indices(4, 1)
TILE = 64
LEVELS = (5, 25, 50, 75, 95)


@pytest.fixture(scope="module")
def made():
    """A few made-up overlaps without noise."""
    return SimulatedOverlaps(count=6, size=40, noise=0.0, shifts=BandShifts(shift=2.0))


def seen(truth, flow):
    """What the views (T, C, H, W) show of the truth (C, 2H, 2W), and where that is known."""
    height, width = flow.shape[-2:]
    y, x = np.mgrid[:height, :width] + 0.5
    shown, inside = np.empty((*flow.shape[:2], height, width)), np.ones((height, width), bool)
    for t, c in np.ndindex(flow.shape[:2]):
        p_x, p_y = x, y
        for _ in range(8):
            at = [p_y - 0.5, p_x - 0.5]
            p_x, p_y = (
                q - ndimage.map_coordinates(f, at, order=1, mode="nearest")
                for q, f in zip((x, y), flow[t, c], strict=True)
            )
        inside &= (p_x > 3) & (p_x < width - 3) & (p_y > 3) & (p_y < height - 3)
        shown[t, c] = ndimage.map_coordinates(truth[c], [2 * p_y - 0.5, 2 * p_x - 0.5], order=5)
    return shown, inside


def test_a_draw_has_the_shapes_and_units_of_the_contract(made):
    batch = made.draw(np.random.default_rng(0), 5)
    assert batch.views.shape == (5, 2, 4, 40, 40)
    assert batch.flow.shape == (5, 2, 4, 2, 40, 40)
    assert batch.truth.shape == (5, 4, 80, 80)
    assert batch.exposures is None
    assert {v.dtype for v in (batch.views, batch.flow, batch.truth)} == {torch.float32}
    assert torch.equal(batch.views, batch.views.round())
    assert 0 <= batch.views.min() < batch.views.max() <= 4095


def test_turned_samples_keep_to_their_flow_and_truth(made):
    rng = np.random.default_rng(1)
    batch = made.draw(rng, 12)
    assert not batch.flow[:, 0, 1].any()
    for views, flow, truth in zip(batch.views, batch.flow, batch.truth, strict=True):
        shown, inside = seen(truth.numpy(), flow.numpy())
        assert inside.sum() > 300
        error = (shown - views.numpy())[..., inside]
        for wrong in (flow.flip(2), -flow):  # as if the vectors had not been turned
            other = (seen(truth.numpy(), wrong.numpy())[0] - views.numpy())[..., inside]
            assert error.std() < 0.25 * other.std()
        assert error.std() < 4


def test_pools_repeat_with_their_seed_and_draws_are_of_the_pool(made):
    everything = made.all()
    assert everything.views.shape == (6, 2, 4, 40, 40)
    again = SimulatedOverlaps(
        count=6, size=40, noise=0.0, shifts=BandShifts(shift=2.0), turns=False
    )
    drawn = again.draw(np.random.default_rng(3), 4)
    for views, flow, truth in zip(drawn.views, drawn.flow, drawn.truth, strict=True):
        same = [torch.equal(truth, one) for one in everything.truth].index(True)
        assert torch.equal(views, everything.views[same])
        assert torch.equal(flow, everything.flow[same])
    other = SimulatedOverlaps(count=1, size=40, seed=1).all()
    assert not torch.equal(everything.truth[0], other.truth[0])


def test_draws_repeat_with_their_generator_and_differ_without(made):
    one, same, other = (made.draw(np.random.default_rng(s), 4) for s in (2, 2, 3))
    assert torch.equal(one.views, same.views)
    assert torch.equal(one.flow, same.flow)
    assert torch.equal(one.truth, same.truth)
    assert not torch.equal(one.views, other.views)


def test_alias_and_band_shift_can_be_taken_away_one_by_one(made):
    shifts = BandShifts(shift=2.0)
    smooth = SimulatedOverlaps(count=6, size=40, noise=0.0, shifts=shifts, alias=False).all()
    plain = made.all()
    assert torch.equal(plain.truth, smooth.truth)
    assert torch.equal(plain.flow, smooth.flow)
    top = [high_share(b.views[:, 0, 1].numpy()) for b in (plain, smooth)]
    assert top[1] < 0.5 * top[0]
    registered = SimulatedOverlaps(count=2, shifts=BandShifts(band_shift=0.0)).all()
    assert not registered.flow[:, 0].any()
    assert registered.flow[:, 1].abs().amax() > 0.5


def high_share(images):
    """Power at 0.45 to 0.5 cycles per pixel, of all."""
    power = np.mean([spectrum(image) for image in images], 0)
    return power[-1] / power.sum()


def test_a_recipe_can_name_every_option(tmp_path):
    given = {"count": 3, "size": 32, "shifts": {"shift": 9, "between": 1}, "alias": False}
    made = SimulatedOverlaps(**fit_arguments(SimulatedOverlaps, given, "data", tmp_path))
    assert made.shifts == BandShifts(shift=9.0, between=1.0)
    with pytest.raises(BadOptionError, match="shifts"):
        fit_arguments(SimulatedOverlaps, {"shifts": {"shfit": 9}}, "data", tmp_path)


def test_what_cannot_be_simulated_from_is_refused(tmp_path):
    with pytest.raises(BadOptionError, match="count is 0"):
        SimulatedOverlaps(count=0)
    with pytest.raises(MissingInputError, match="none"):
        SimulatedOverlaps([tmp_path / "none.png"]).all()
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises(BadInputError, match="cannot be read"):
        SimulatedOverlaps([text]).all()
    for shape, match in (((50, 60), "has 1 channels"), ((500, 600, 3), "250 x 300 pixels")):
        path = tmp_path / f"{len(shape)}.png"
        Image.fromarray(np.full(shape, 9, np.uint8)).save(path)
        with pytest.raises(BadInputError, match=match):
            SimulatedOverlaps([path]).all()


@pytest.mark.parametrize("reduce", [2, 3])
def test_photographs_become_bands_without_what_reduction_cannot_show(reduce):
    y, x = np.mgrid[:120, :180]
    coarse = np.cos(2 * np.pi * 0.05 / reduce * x)  # 0.05 and 0.8 cycles per reduced pixel
    fine = np.cos(2 * np.pi * 0.8 / reduce * y)
    photograph = np.stack([128 + 90 * coarse, 128 + 90 * fine, np.full(x.shape, 51)])
    bands = bands_from_photograph(np.rint(photograph).astype(np.uint8), "infrared", reduce)
    assert bands.shape == (4, 120 // reduce, 180 // reduce)
    blue, green, _, infrared = bands[:, 8:-8, 8:-8]
    assert blue == pytest.approx(0.2, abs=1e-4)
    assert green == pytest.approx(128 / 255, abs=0.012)
    assert np.ptp(infrared) == pytest.approx(180 / 255, rel=0.02)
    colour = bands_from_photograph(np.rint(photograph).astype(np.uint8), "colour", reduce)
    assert np.array_equal(colour[2], bands[3])  # the same channel is red


@pytest.mark.parametrize("crop", CROPS)
def test_a_scene_takes_on_the_figures_of_a_crop(crop):
    land = procedural_scene((0, 0, 2400, 2400), "EPSG:32631", seed=4).pixels
    scene = match_crop(land, crop)
    behind = np.stack([blur(b, m) for b, m in zip(scene, MTF.values(), strict=True)])
    found = np.percentile(behind.reshape(4, -1), LEVELS, axis=1).T
    wanted = np.array(crop.percentiles)[:, 3:8]  # 5 to 95 per cent
    assert found == pytest.approx(wanted, rel=0.15)
    alike = np.corrcoef(behind.reshape(4, -1))[PAIRS]
    visible, infrared = [0, 1, 3], [2, 4, 5]
    wanted = np.array(crop.correlations)
    assert alike[visible] == pytest.approx(wanted[visible], abs=0.05)
    assert alike[infrared] == pytest.approx(wanted[infrared], abs=0.3)


def test_a_channel_without_texture_does_not_spoil_the_others():
    land = procedural_scene((0, 0, 1000, 1000), "EPSG:32631", seed=5).pixels
    land[0] = land[1]
    land[2] = 7
    scene = match_crop(land, CROPS[0])
    assert np.isfinite(scene).all()
    assert scene.min() > 0


# ---- against the real crops ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared):
    """The five real L1B crops in tiles, (N, 4, 64, 64)."""
    tiles = []
    for path in sorted((shared / "data/l1bsr_examples").glob("*.tif")):
        with warnings.catch_warnings(action="ignore"), rasterio.open(path) as raster:
            crop = raster.read().astype(np.float32)
        tiles += [crop[:, y : y + TILE, x : x + TILE] for y, x in 64 * np.argwhere(np.ones((5, 5)))]
    return np.stack(tiles)


@pytest.fixture(scope="module")
def simulated(shared):
    """Overlaps of two photographs, one of each set, in the likeness of every crop."""
    aerial = shared / "data/aerial"
    images = [aerial / "brighton/DJI_0020.jpg", aerial / "seneca/IMG_0512.jpg"]
    return SimulatedOverlaps(images, count=80, size=TILE, seed=2).all()


def spectrum(tile):
    """Power in ten rings up to the Nyquist frequency."""
    window = np.outer(np.hanning(len(tile)), np.hanning(len(tile)))
    power = np.abs(np.fft.fft2((tile - tile.mean()) * window)) ** 2
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(len(tile)), np.fft.fftfreq(len(tile))))
    return np.array([power[(f >= a) & (f < a + 0.05)].mean() for a in np.arange(10) / 20])


def test_histograms_are_those_of_real_crops(real, simulated):
    views = simulated.views[:, 0].numpy()
    for c in range(4):
        there, here = (np.percentile(tiles[:, c], LEVELS) for tiles in (real, views))
        assert here == pytest.approx(there, rel=0.25)  # of 80 tiles; a scene is within 15 %
        # a real crop's darkest water and brightest roof, by order of magnitude
        assert 0.7 < np.percentile(views[:, c], 1) / np.percentile(real[:, c], 1) < 2.5
        assert 0.6 < np.percentile(views[:, c], 99) / np.percentile(real[:, c], 99) < 1.6


def test_spectra_are_those_of_real_crops(real, simulated):
    views = simulated.views[:, 0].numpy()
    for c in range(4):
        there, here = (np.mean([spectrum(t) for t in tiles[:, c]], 0) for tiles in (real, views))
        # each ring within a factor of 2 where the whole spans one of more than 400
        assert np.log2(here / here.sum()) == pytest.approx(np.log2(there / there.sum()), abs=1)
        assert 0.4 < here[-1] / there[-1] < 2.5  # [DN^2] of alias, detail and noise at Nyquist
        assert there[0] / there[-1] > 400


def blind_shifts(views):
    """(dx, dy) of B02 and B04 against B03 by phase correlation, (N, 2, 2); NaN where none."""
    everywhere = np.ones(views.shape[-2:], bool)
    corner = np.zeros(1, np.intp)
    out = np.full((len(views), 2, 2), np.nan)
    for n, tile in enumerate(views):
        blue, green, red = (orientation(band_pass(band, everywhere)) for band in tile[:3])
        for k, other in enumerate((blue, red)):
            guess = np.zeros((1, 1, 2))
            found = correlate_blocks(green, other, guess, corner, corner, (TILE, TILE), 6)
            if found.significance[0, 0] > 8:
                out[n, k] = found.shift[0, 0]
    return out


def test_bands_are_displaced_as_in_real_crops_as_far_as_images_show(real, simulated):
    views, flow = simulated.views[:, 0].numpy(), simulated.flow[:, 0].numpy()
    here, there = blind_shifts(views), blind_shifts(real)
    known = flow[:, [0, 2]].mean((-2, -1))
    found = np.isfinite(here)
    assert found.mean() > 0.9
    assert np.isfinite(there).mean() > 0.9
    assert np.median(np.abs(here - known)[found]) < 0.1  # what is estimated is what was put in
    sizes = [np.nanquantile(np.hypot(*np.moveaxis(s, -1, 0)), (0.5, 0.9)) for s in (here, there)]
    assert sizes[0] == pytest.approx(sizes[1], abs=0.5)
    blue_along = [np.nanmedian(s[:, 0, 1]) for s in (here, there)]
    assert blue_along[0] == pytest.approx(blue_along[1], abs=0.4)  # 0.8 to 1 px, of one sign

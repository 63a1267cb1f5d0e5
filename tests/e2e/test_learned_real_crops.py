"""The learned model that ships, on real Sentinel-2 L1B crops: aligned, true to its input, detailed.

There is no truth for real crops; what is asked of them is asked by measures that are tested here
on images of which everything is known.
"""

import numpy as np
import pytest
from scipy import ndimage

from l1bsr_geo.models.checkpoint import find_shipped
from l1bsr_geo.models.registry import Model
from l1bsr_geo.simulation.overlap_motion import BandShifts
from l1bsr_geo.simulation.overlaps import simulate_overlap
from l1bsr_geo.simulation.scenes import procedural_scene
from tests.benchmarks.image_figures import checkerboard, displacements, mean_spectrum, share_beyond
from tests.benchmarks.real_crops import compare, find_crops, measure_crop, summarise


@pytest.fixture(scope="module")
def figures(shared):
    weights = find_shipped("l1bsr")
    if weights is None:
        pytest.skip("no weights of l1bsr ship yet (l1bsr_geo/models/weights); train them first")
    names = {"geometric": None, "l1bsr": weights}  # told, so that no cached ones are taken
    models = {name: Model(name, path, device="cpu") for name, path in names.items()}
    paths = find_crops()
    assert len(paths) == 5
    crops = [measure_crop(path, models) for path in paths]
    return {name: summarise(crops, name) for name in models}


@pytest.mark.slow
def test_bands_lie_on_the_green(figures):
    blue, _, red, infrared = figures["l1bsr"]["misalignment"]
    print(f"misalignment of B02 B04 B08 [px]: {blue:.3f} {red:.3f} {infrared:.3f}")
    assert blue <= 0.1
    assert red <= 0.1
    assert infrared <= 0.35


@pytest.mark.slow
def test_the_result_says_what_the_input_says(figures):
    """At the input's pixels it differs from them by noise, whose square root of mean is 1.6 DN."""
    found = figures["l1bsr"]
    bias, rmse = found["bias"][:, 1], found["rmse"][:, 1]
    print(f"bias {bias}, RMSE {rmse} DN, noise {found['noise']} DN")
    assert np.abs(bias).max() < 1e-3
    assert (rmse < 1.25 * found["noise"]).all()


@pytest.mark.slow
def test_detail_beyond_the_input_and_no_pattern(figures):
    beyond = {name: found["beyond"] for name, found in figures.items()}
    print(f"beyond the input's Nyquist {beyond}, checkerboard {figures['l1bsr']['checkerboard']}")
    # the near infrared of the spline is mostly noise and alias there, which a network takes out
    assert (beyond["l1bsr"][:3] > 1.5 * beyond["geometric"][:3]).all()
    assert (figures["l1bsr"]["checkerboard"] < 1.5).all()


@pytest.fixture(scope="module")
def overlap():
    scene = procedural_scene((0, 0, 5.0 * 300, 5.0 * 300), "EPSG:32631", seed=5).pixels
    return simulate_overlap(scene, (112, 112), shifts=BandShifts(between=0), seed=5)


def test_a_known_displacement_is_measured(overlap):
    truth = overlap.truth.astype(np.float64)
    noise = np.random.default_rng(0).standard_normal(truth.shape)
    for dx, dy in ((0.0, 0.0), (0.1, -0.05), (-0.5, 0.8)):
        moved = ndimage.shift(truth, (0, dy, dx), order=5, mode="mirror") + noise
        inner = (slice(None), slice(8, -8), slice(8, -8))
        found = displacements(moved[inner], truth[inner]).mean(0)
        assert np.abs(found - (dx, dy)).max() < 0.02 + 0.05 * max(abs(dx), abs(dy))


@pytest.mark.parametrize("pattern", ["rows", "columns", "both", "of the contrast"])
def test_a_pattern_of_every_second_pixel_stands_out(overlap, pattern):
    truth = overlap.truth.astype(np.float64)
    y, x = np.indices(truth.shape[1:])
    sign = {"rows": (-1.0) ** y, "columns": (-1.0) ** x}.get(pattern, (-1.0) ** (x + y))
    added = sign * (0.01 * truth if pattern == "of the contrast" else 1)
    assert (checkerboard(mean_spectrum(np.rint(truth))) < 1.2).all()
    assert (checkerboard(mean_spectrum(np.rint(truth + added))) > 5).all()


def test_share_of_waves_beyond_the_nyquist_frequency():
    y, x = np.indices((256, 256))
    waves = [np.cos(2 * np.pi * x / 8), 3 * np.cos(2 * np.pi * (3 * y / 8 + x / 16))]
    assert share_beyond(mean_spectrum(np.stack([*waves, sum(waves)]))) == pytest.approx(
        [0, 1, 0.9], abs=1e-3
    )


def test_the_truth_agrees_with_the_pixels_but_for_their_noise(overlap):
    pixels = overlap.views[0].astype(np.float32)
    bias, rmse = compare(overlap.truth.astype(np.float64), pixels, overlap.flow[0])
    noise = np.sqrt(0.010 * pixels.mean((1, 2)) + 0.096 + 1 / 12)  # and whole DN
    assert np.abs(bias).max() < 5e-4
    assert rmse == pytest.approx(noise, rel=0.05)
    assert compare(1.01 * overlap.truth, pixels, overlap.flow[0])[0] == pytest.approx(
        0.01, abs=5e-4
    )

"""A network that adapts itself to a burst of raw mosaics."""

import copy

import numpy as np
import pytest
import torch

from l1bsr_geo.errors import BadInputError, BadOptionError, L1bsrGeoWarning
from l1bsr_geo.models.jdd import JDD
from l1bsr_geo.restoration.mosaic import (
    MosaicOptions,
    adapt_to_mosaics,
    part_mosaics,
    restore_mosaics,
)
from l1bsr_geo.simulation.mosaics import simulate_mosaics
from l1bsr_geo.training.mosaics import SimulatedMosaics

QUICK = MosaicOptions(iterations=55, lr=1e-2, size=48, batch=2, compared=2, precision="fp32")
PATTERN = "gbrg"


@pytest.fixture(scope="module")
def burst():
    made = SimulatedMosaics(size=120).draw(np.random.default_rng(3), 1).truth
    scene = torch.nn.functional.avg_pool2d(made, 5, 1, 2)[0].numpy()
    return simulate_mosaics(scene, (72, 72), 5, noise=15, pattern=PATTERN, seed=1)


@pytest.fixture(scope="module")
def start():
    """Bilinear demosaicking, which keeps the noise, and a network that has nothing to add yet."""
    torch.manual_seed(0)
    network = JDD(depth=3, width=8, pattern=PATTERN)
    last = network.full[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    return network.eval()


def restore(burst, network, frames=None, **more):
    frames = burst.frames if frames is None else frames
    options = {"options": QUICK, "network": copy.deepcopy(network), "device": "cpu"} | more
    return dict(restore_mosaics(frames, PATTERN, **options))


def error(restored, truth):
    return float(np.sqrt(np.mean([np.square(restored[t] - truth[t]).mean() for t in restored])))


@pytest.fixture(scope="module")
def whole(burst, start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return restore(burst, start, folder=folder)


def test_a_network_learns_the_noise_of_the_burst(burst, start, whole):
    network = copy.deepcopy(start)
    with torch.inference_mode():
        views = torch.from_numpy(burst.frames)[:, None, None]
        before = dict(enumerate((network(views / 255) * 255).numpy()))
    assert list(whole) == [0, 1, 2, 3, 4]
    assert whole[0].shape == (3, 72, 72)
    assert error(whole, burst.truth) < 0.9 * error(before, burst.truth)


def test_what_was_interrupted_goes_on_to_the_same_pixels(burst, start, whole, tmp_path):
    def stop(done, total, figures):
        if done == 52:  # a checkpoint was written at 50
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(burst, start, folder=tmp_path, progress=stop)
    resumed = restore(burst, start, folder=tmp_path, resume=True, start=2)
    assert list(resumed) == [2, 3, 4]
    for t in resumed:
        np.testing.assert_array_equal(resumed[t], whole[t])


def test_full_scale_and_gaps(burst, start, whole):
    frames = 16 * burst.frames
    frames[1, 10:14, 20:30] = np.nan
    few = MosaicOptions(iterations=1, size=48)
    restored = restore(burst, start, frames, peak=16 * 255.0, options=few)
    plain = restore(burst, start, options=few)
    assert np.isnan(restored[1][:, 10:14, 20:30]).all()
    assert np.isfinite(restored[1]).mean() == pytest.approx(1 - 40 / 72**2, abs=1e-6)
    np.testing.assert_allclose(restored[3] / 16, plain[3], atol=2.0)


def test_a_burst_that_cannot_be_registered_is_restored_all_the_same(burst, start):
    frames = np.random.default_rng(0).normal(100, 20, (3, 48, 48)).astype(np.float32)
    with pytest.warns(L1bsrGeoWarning, match="frames 0 to 2 are restored without learning"):
        restored = restore(burst, start, frames)
    assert len(restored) == 3
    assert np.isfinite(restored[0]).all()


def test_repeated_frames_are_not_learnt_from(burst, start, tmp_path):
    frames = list(burst.frames)
    crops, _ = part_mosaics([*frames, frames[1], frames[4]])
    assert len(crops.mosaics) == len(frames)
    with pytest.raises(BadInputError, match="2 mosaics, of which 0 repeat"):
        adapt_to_mosaics(start, frames[:2], tmp_path, PATTERN)
    with pytest.raises(BadInputError, match="4 mosaics, of which 2 repeat others; 3 different"):
        adapt_to_mosaics(start, [frames[0], frames[1]] * 2, tmp_path, PATTERN)


def test_what_cannot_be_is_refused(burst, start):
    colours = np.zeros((4, 3, 32, 32), np.float32)
    with pytest.raises(BadInputError, match="the video has 3 bands"):
        restore(burst, start, colours)
    with pytest.raises(BadOptionError, match="peak"):
        restore(burst, start, peak=0.0)
    with pytest.raises(BadOptionError, match="no folder"):
        restore(burst, start, resume=True)
    with pytest.raises(BadOptionError, match="iterations: found 0"):
        MosaicOptions(iterations=0)

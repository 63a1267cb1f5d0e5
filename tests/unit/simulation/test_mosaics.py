"""Bursts of mosaics whose truth and motion are known."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.ops.mosaic import sample_mosaic
from l1bsr_geo.simulation.mosaics import simulate_mosaics


@pytest.fixture(scope="module")
def scene():
    white = np.random.default_rng(0).standard_normal((3, 96, 96))
    return (128 + 200 * ndimage.gaussian_filter(white, (0, 2, 2))).astype(np.float32)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "grbg", "gbrg"])
def test_a_frame_is_its_truth_behind_the_pattern_and_noise(scene, pattern):
    burst = simulate_mosaics(scene, (48, 40), 4, pattern=pattern, noise=7)
    clean = sample_mosaic(torch.from_numpy(burst.truth), pattern)[:, 0].numpy()
    noise = burst.frames - clean
    assert burst.frames.shape == (4, 48, 40)
    assert noise.std() == pytest.approx(7, rel=0.03)
    assert abs(noise.mean()) < 0.3
    assert burst.frames.dtype == burst.truth.dtype == np.float32


def test_the_flow_leads_to_what_the_reference_shows(scene):
    burst = simulate_mosaics(scene, (48, 48), 3, noise=0, affine=5e-3, seed=2)
    y, x = np.mgrid[:48, :48]
    for t in (1, 2):
        at = np.stack([y + burst.flow[t, 1], x + burst.flow[t, 0]])
        inside = np.all((at > 4) & (at < 43), 0)
        for band in range(3):
            seen = ndimage.map_coordinates(burst.truth[t, band], at, order=5)
            error = (seen - burst.truth[0, band])[inside]
            assert np.sqrt(np.square(error).mean()) < 0.05 * scene.std()
    assert (burst.motion[0] == np.eye(3)).all()
    assert np.abs(burst.flow[1]).max() > 0.5


def test_the_seed_says_all(scene):
    one, same, other = (simulate_mosaics(scene, (32, 32), 3, seed=s) for s in (4, 4, 5))
    assert (one.frames == same.frames).all()
    assert not np.allclose(one.motion[1], other.motion[1])


def test_what_cannot_be_is_refused(scene):
    with pytest.raises(BadInputError, match="too small for frames of 96 x 96"):
        simulate_mosaics(scene, (96, 96), 3)
    with pytest.raises(BadInputError, match="rows, columns"):
        simulate_mosaics(scene[0], (32, 32), 3)
    with pytest.raises(BadOptionError, match="noise -1"):
        simulate_mosaics(scene, (32, 32), 3, noise=-1)

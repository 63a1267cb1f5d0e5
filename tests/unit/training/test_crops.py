"""Turned samples are samples: motion, views and truth still belong together."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.simulation.bursts import simulate_burst
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.training.crops import TURNS, augment, turn
from l1bsr_geo.training.objective import Batch

SIDE = 48
CITY = made_city((260, 260), seed=4)


def burst(scale):
    made = simulate_burst(CITY, (SIDE, SIDE), 2, scale=scale, noise=0.0, seed=2)
    views, flow, truth = (torch.from_numpy(a) for a in (made.frames, made.flow, made.truth))
    return Batch(views[None, :, None], flow[None, :, None], None, truth[None, None])


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("way", range(TURNS))
def test_a_turned_burst_still_shows_the_truth_where_its_flow_says(scale, way):
    turned = turn(burst(scale), [way], aligned="centre")
    frames, truth = turned.views[0, :, 0].numpy(), turned.truth[0, 0].numpy()
    assert np.allclose(frames[0], truth[::scale, ::scale], atol=0.01)
    dx, dy = turned.flow[0, 1, 0, :, 0, 0].numpy()  # of a pure translation
    y, x = np.mgrid[:SIDE, :SIDE]

    def residual(dx, dy):
        places = [scale * (y - dy), scale * (x - dx)]
        seen = ndimage.map_coordinates(truth, places, order=5, mode="mirror")
        return np.std((seen - frames[1])[5:-5, 5:-5])

    assert residual(dx, dy) < 7
    assert min(residual(-dx, dy), residual(dx, -dy), residual(dy, dx)) > 20


@pytest.mark.parametrize("way", range(TURNS))
def test_fine_pixels_that_tile_coarse_ones_do_so_when_turned(way):
    rng = np.random.default_rng(way)
    fine = rng.random((1, 4, 32, 32))
    coarse = fine.reshape(1, 4, 16, 2, 16, 2).mean((3, 5))[:, None]
    batch = Batch(torch.from_numpy(coarse), truth=torch.from_numpy(fine))
    turned = turn(batch, [way], aligned="corner", scale=2)
    blocks = turned.truth.reshape(1, 4, 16, 2, 16, 2).mean((3, 5))
    assert torch.allclose(blocks, turned.views[:, 0])
    assert torch.equal(turned.views, batch.views) == (way == 0)


def test_ways_are_the_eight_of_a_square_and_leave_the_original():
    batch = burst(2)
    before = batch.flow.clone()
    seen = {turn(batch, [way]).views.numpy().tobytes() for way in range(TURNS)}
    assert len(seen) == TURNS
    assert torch.equal(batch.flow, before)
    assert torch.equal(turn(batch, [0]).truth, batch.truth)
    there_and_back = turn(turn(batch, [5]), [6])
    assert torch.equal(there_and_back.views, batch.views)
    assert torch.equal(there_and_back.flow, batch.flow)


def test_chance_is_that_of_the_generator_and_each_sample_has_its_own():
    many = Batch(burst(2).views.expand(64, -1, -1, -1, -1))
    first, again = (augment(many, np.random.default_rng(3)).views for _ in range(2))
    assert torch.equal(first, again)
    assert len({view.numpy().tobytes() for view in first}) == TURNS


def test_samples_that_are_not_square_are_mirrored_only():
    views = torch.arange(64 * 12.0).reshape(64, 1, 1, 3, 4)
    turned = augment(Batch(views), np.random.default_rng(0)).views
    assert turned.shape == views.shape
    assert torch.equal(turned.sum((3, 4)), views.sum((3, 4)))
    with pytest.raises(BadOptionError, match="3 x 4 cannot be transposed"):
        turn(Batch(views[:1]), [4])


def test_a_truth_of_another_scale_is_said():
    batch = burst(2)
    with pytest.raises(BadOptionError, match=r"\(96, 96\) of samples \(48, 48\); 3 times"):
        turn(batch, [1], scale=3)

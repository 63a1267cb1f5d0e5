"""Simulated videos as samples: what is drawn, from what, and how fast."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError
from l1bsr_geo.simulation.videos import MotionRange
from l1bsr_geo.training.videos import SimulatedVideos, read_colour_scenes


@pytest.fixture(scope="module")
def videos():
    return SimulatedVideos(count=3, size=24, crop=32, pair=True)


def test_a_source_gives_what_its_generator_says(videos):
    a, b, c = (videos.draw(np.random.default_rng(seed), 4) for seed in (5, 5, 6))
    for name, value in vars(a).items():
        if value is not None:
            assert torch.equal(value, getattr(b, name))
    assert not torch.equal(a.views, c.views)
    assert a.views.shape == (4, 5, 3, 24, 24)
    assert a.truth.shape == a.pair.shape == (4, 3, 24, 24)
    assert a.noise.shape == a.visible.shape == (4, 1, 24, 24)
    assert a.views.dtype == torch.float32


def test_noise_is_what_is_told_and_the_pair_has_its_own(videos):
    batch = videos.draw(np.random.default_rng(0), 24)
    first, second = batch.views[:, 2] - batch.truth, batch.pair - batch.truth
    told = batch.noise[:, 0, 0, 0]
    assert 5 <= told.min() < 15
    assert 45 < told.max() <= 55
    for error in (first, second):
        torch.testing.assert_close(error.flatten(1).std(1), told, rtol=0.1, atol=0)
    both = (first * second).mean((1, 2, 3)) / told.square()
    assert both.abs().max() < 0.15
    neighbours = batch.views[:, 1] - batch.views[:, 2]
    assert (neighbours.flatten(1).std(1) > 1.2 * told).all()


def test_a_network_need_not_be_told_of_noise_that_shows_the_truth(videos):
    source = replace(videos, noise={"family": "poisson", "p": 8.0})
    told, silent = (replace(source, tell=tell).draw(np.random.default_rng(0), 2)
                    for tell in (True, False))  # fmt: skip
    torch.testing.assert_close(told.noise, (8 * told.truth).sqrt().mean(1, keepdim=True))
    assert silent.noise is None
    assert torch.equal(silent.views, told.views)


def test_missing_pixels_of_the_pair_are_told(videos):
    source = replace(videos, noise={"family": "bernoulli", "p": [0.2, 0.6]})
    batch = source.draw(np.random.default_rng(0), 8)
    assert set(batch.visible.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(batch.pair, batch.truth * batch.visible)
    assert not torch.equal(batch.views[:, 2], batch.pair)


def test_values_go_to_another_peak():
    source = SimulatedVideos(count=2, size=16, frames=1, peak=4095.0, bands=1,
                             noise={"family": "affine", "a": 2.0, "b": [100, 900]})  # fmt: skip
    batch = source.draw(np.random.default_rng(0), 8)
    assert batch.views.shape == (8, 1, 1, 16, 16)
    assert 1000 < batch.truth.max() <= 4095
    assert batch.pair is None
    torch.testing.assert_close(
        (batch.noise**2 - 2 * batch.truth).clamp(100, 900), batch.noise**2 - 2 * batch.truth,
        rtol=1e-3, atol=0.5,
    )  # fmt: skip


@pytest.fixture
def photographs(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 160, 180), np.uint8)
    for name, bands in (("a", pixels), ("b", pixels[:, ::-1]), ("grey", pixels[:1])):
        profile = {"driver": "PNG", "width": 180, "height": 160, "count": len(bands)}
        with (
            pytest.warns(NotGeoreferencedWarning),
            rasterio.open(tmp_path / f"{name}.png", "w", dtype="uint8", **profile) as raster,
        ):
            raster.write(bands)
    return tmp_path


def test_photographs_are_reduced(photographs):
    scenes = read_colour_scenes([photographs / "[ab].png"], 2, 3)
    assert [scene.shape for scene in scenes] == [(3, 80, 90)] * 2
    assert read_colour_scenes([photographs / "a.png"], 2, 1)[0].shape == (1, 80, 90)
    still = MotionRange(speed=0, magnification=(1, 1))
    source = SimulatedVideos([photographs / "a.png"], 2, 32, reduction=2, motion=still)
    assert source.draw(np.random.default_rng(0), 1).views.shape == (1, 5, 3, 32, 32)


def test_wrong_photographs_are_refused_in_a_line(photographs):
    with pytest.raises(BadInputError, match=r"grey\.png: found 1 bands of uint8; a photo"):
        read_colour_scenes([photographs / "grey.png"], 2, 3)
    with pytest.raises(MissingInputError, match="none"):
        read_colour_scenes([photographs / "none*.png"], 2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 4}, "frames: found 4, allowed 1, 3, 5"),
        ({"bands": 4}, "bands: found 4, allowed 1 or 3"),
        ({"crop": 8}, "crops of 24 px from frames of 8 px"),
        ({"count": 0}, "count: found 0"),
        ({"noise": {"sigma": 3}}, "noise.family: found ''"),
    ],
)
def test_impossible_options_are_refused_before_clips_are_made(options, message):
    with pytest.raises(BadOptionError, match=message):
        SimulatedVideos(**{"size": 24, **options})

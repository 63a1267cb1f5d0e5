"""Clips of photographs in motion: what is told of the motion is what is seen."""

import numpy as np
import pytest
import torch

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.ops.warp import warp
from l1bsr_geo.simulation.videos import (
    MotionRange,
    reduce_photograph,
    simulate_video,
    vary_look,
)


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:240, :260]
    waves = [np.sin(x / 5 + k) * np.cos(y / 6 - k) + np.sin((x + y) / 9) for k in range(3)]
    ground = (120 + 30 * np.stack(waves)).astype(np.float32)
    return ground, 60 + 0.2 * ground + rng.normal(0, 0.1, ground.shape).astype(np.float32)


def clip(scenes, seed=0, **motion):
    rng = np.random.default_rng(seed)
    return simulate_video(*scenes, (64, 72), 5, rng, MotionRange(**motion))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("first", "second"), [(2, 3), (2, 0), (1, 2)])
def test_flow_lays_a_frame_on_another_where_both_see_the_same(scenes, seed, first, second):
    video = clip(scenes, seed, foreground=1.0)
    assert video.frames.shape == (5, 3, 64, 72)
    flow, visible = video.flow(first, second), video.visible(first, second)
    there = torch.from_numpy(video.frames[second][None])
    moved = warp(there, torch.from_numpy(flow[None])).numpy()[0]
    error = np.abs(moved - video.frames[first]).mean(0)
    still = np.abs(video.frames[second] - video.frames[first]).mean(0)
    inner = np.zeros_like(visible)
    inner[4:-4, 4:-4] = True
    assert (visible & inner).mean() > 0.3
    assert np.median(error[visible & inner]) < 0.6
    assert np.median(error[visible & inner]) < 0.2 * np.median(still[visible & inner]) + 0.1


def test_a_foreground_hides_ground_and_uncovers_it(scenes):
    video = clip(scenes, 1, foreground=1.0, foreground_speed=8.0)
    assert video.cover.max() == 1
    hidden = ~video.visible(2, 3)
    hidden[:10], hidden[-10:], hidden[:, :10], hidden[:, -10:] = 0, 0, 0, 0
    assert hidden.any()  # in the frame, and not to be seen
    # soft edges: pixels of both
    assert ((video.cover > 0.05) & (video.cover < 0.95)).any()


def test_no_motion_is_the_same_frame_again(scenes):
    video = clip(scenes, speed=0, turn=0, zoom=0, jitter=0, foreground=0, magnification=(1, 1))
    np.testing.assert_allclose(video.frames, np.broadcast_to(video.frames[:1], (5, 3, 64, 72)))
    np.testing.assert_array_equal(video.flow(0, 4), 0)
    assert video.visible(0, 4).all()


def test_a_seed_decides_all(scenes):
    a, b, c = (clip(scenes, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(a.frames, b.frames)
    assert not np.array_equal(a.frames, c.frames)


def test_a_small_scene_is_refused_in_a_line(scenes):
    small = scenes[0][:, :50]
    with pytest.raises(BadInputError, match="a scene of 50 x 260 px is too small for clips of 64"):
        simulate_video(small, small, (64, 64), 5, np.random.default_rng(0))


@pytest.mark.parametrize("by", [1, 2, 3, 4, 5])
def test_a_reduced_photograph_keeps_places_and_loses_what_is_too_fine(by):
    ramp = np.broadcast_to(np.arange(120.0) * 2, (3, 90, 120))
    reduced = reduce_photograph(ramp, by)
    assert reduced.shape == (3, 90 // by, 120 // by)
    centres = 2 * (by * np.arange(120 // by) + (by - 1) / 2)
    inner = slice(4, -4)
    np.testing.assert_allclose(reduced[0, 5, inner], centres[inner], atol=0.01)
    if by > 1:
        rng = np.random.default_rng(0)
        grain = reduce_photograph(128 + rng.normal(0, 20, (1, 200, 200)), by)
        assert grain.std() < 1.2 * 20 / by
        checks = 128 + 50.0 * (-1) ** np.add(*np.mgrid[:60, :60])[None]
        assert reduce_photograph(checks, by).std() < 2


def test_another_light_stays_in_range_and_is_alike_in_all_frames(scenes):
    frames = np.broadcast_to(scenes[0][None, :, :32, :32], (4, 3, 32, 32))
    seen = [vary_look(frames, np.random.default_rng(seed)) for seed in range(30)]
    for images in seen:
        assert images.min() >= 0
        assert images.max() <= 255
        np.testing.assert_array_equal(images[0], images[3])
    means = [images.mean() for images in seen]
    contrasts = [images.std() for images in seen]
    assert np.ptp(means) > 50
    assert max(contrasts) > 2 * min(contrasts)

"""Cuts are found, and nothing else is taken for one."""

import numpy as np
import pytest
import rasterio
from scipy.ndimage import gaussian_filter

from l1bsr_geo.images.videos import ArrayVideo
from l1bsr_geo.restoration.cuts import find_shots


def make_scene(seed: int, shape=(120, 400)) -> np.ndarray:
    """Smooth shapes of all sizes, 20 to 220 DN."""
    rng = np.random.default_rng(seed)
    sizes = (2, 5, 15)
    image = sum(s * gaussian_filter(rng.standard_normal(shape), s) for s in sizes)
    low, high = np.percentile(image, [1, 99])
    return np.clip(20 + 200 * (image - low) / (high - low), 0, 255)


def pan(scene: np.ndarray, frames: int, step: int, width: int = 160) -> np.ndarray:
    """A window that goes over a scene and comes back."""
    room = scene.shape[1] - width
    places = [room - abs(room - t * step % (2 * room)) for t in range(frames)]
    return np.stack([scene[:, x : x + width] for x in places])


def shots_of(frames: np.ndarray, noise: float = 0) -> list[tuple[int, int]]:
    noisy = frames + np.random.default_rng(5).normal(0, noise, frames.shape)
    video = ArrayVideo(noisy.astype(np.float32))
    return [(shot.start, shot.stop) for shot in find_shots(video)]


@pytest.mark.parametrize("noise", [0, 20, 60])
def test_joined_clips_are_parted_where_they_are_joined(noise):
    clips = [pan(make_scene(seed), frames, 7) for seed, frames in ((0, 9), (1, 2), (2, 12))]
    assert shots_of(np.concatenate(clips), noise) == [(0, 9), (9, 11), (11, 23)]


@pytest.mark.parametrize("step", [3, 30, 80])
@pytest.mark.parametrize("noise", [0, 40])
def test_fast_motion_is_no_cut(step, noise):
    assert shots_of(pan(make_scene(3), 16, step), noise) == [(0, 16)]


def test_the_same_scene_mirrored_or_turned_is_another():
    clip = pan(make_scene(4), 8, 6)
    assert shots_of(np.concatenate([clip, clip[:, ::-1], clip[:, :, ::-1]])) == [
        (0, 8),
        (8, 16),
        (16, 24),
    ]


def test_a_step_of_exposure_and_a_flash_part_and_a_fade_does_not():
    clip = pan(make_scene(5), 12, 4)
    stepped = clip * np.where(np.arange(12) < 6, 1, 1.5)[:, None, None]
    assert shots_of(stepped, 10) == [(0, 6), (6, 12)]
    flashed = clip * np.where(np.arange(12) == 4, 1.6, 1)[:, None, None]
    assert shots_of(flashed, 10) == [(0, 4), (4, 5), (5, 12)]
    assert shots_of(clip * np.linspace(1, 2, 12)[:, None, None], 10) == [(0, 12)]


def test_frames_without_detail_or_of_noise_alone_are_one_shot():
    assert shots_of(np.full((6, 40, 60), 9.0)) == [(0, 6)]
    assert shots_of(np.full((9, 64, 64), 90.0), 20) == [(0, 9)]
    assert shots_of(np.zeros((9, 64, 64)), 5) == [(0, 9)]
    assert shots_of(make_scene(6)[None]) == [(0, 1)]


def test_gaps_do_not_hide_a_cut():
    frames = np.concatenate([pan(make_scene(seed), 6, 5) for seed in (7, 8)])
    frames[:, 30:60, 40:110] = np.nan
    frames[3] = np.nan
    assert (6, 12) in shots_of(frames)


def test_a_real_clip_is_one_shot_and_two_are_two(shared):
    files = sorted((shared / "data" / "video_clip").glob("*.png"))[:16]
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        clip = np.stack([rasterio.open(file).read(2)[::2, ::2] for file in files])
    clip = clip.astype(np.float32)
    assert shots_of(clip, 40) == [(0, 16)]
    assert shots_of(np.concatenate([clip[:8], clip[8:, ::-1]]), 40) == [(0, 8), (8, 16)]

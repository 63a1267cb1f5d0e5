"""Windows of one's own video: what is in them, what is kept, what is never crossed."""

import numpy as np
import pytest
import rasterio
import torch

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.videos import ArrayVideo
from l1bsr_geo.ops.warp import warp
from l1bsr_geo.training.own_video import F2F_RULES, OwnVideo
from l1bsr_geo.training.video_windows import VideoWindows

SIDE, FRAMES = 40, 14


class Counted(ArrayVideo):
    """A video that remembers what was read."""

    def read(self, t, window=None):
        READ.append(t)
        return super().read(t, window)


READ: list[int] = []


@pytest.fixture(autouse=True)
def nothing_read():
    READ.clear()


def moving(frames=FRAMES, side=SIDE, seed=0, gain=1.0):
    """A smooth scene that moves by two pixels a frame to the right."""
    rng = np.random.default_rng(seed)
    wide = rng.normal(size=(3, side, side + 2 * frames))
    for axis in (1, 2):
        for _ in range(20):
            wide = (wide + np.roll(wide, 1, axis)) / 2
    wide = gain * (128 + 50 * wide / wide.std())
    clean = [wide[..., 2 * (frames - t) : 2 * (frames - t) + side] for t in range(frames)]
    return Counted(np.stack(clean).astype("f4"))


def test_a_window_is_in_order_of_time_and_knows_its_motion():
    video = moving()
    batch = OwnVideo(video).window(5)
    assert batch.views.shape == (1, 9, 3, SIDE, SIDE)
    np.testing.assert_array_equal(batch.views[0], video.pixels[1:10])
    assert not (batch.visible * batch.occluded).any()
    assert batch.flow.shape == (1, 2, 1, 2, SIDE, SIDE)
    for k, (held, step) in enumerate([(3, 2), (5, -2)]):  # the frames before and after
        flow, visible = batch.flow[:, k, 0], batch.visible[:, k].bool()
        assert visible.float().mean() > 0.3
        # what the held-out frame shows at q, the reference shows at q + flow(q)
        error = (warp(batch.views[:, 4], flow) - batch.views[:, held]).abs()
        assert error[visible[:, None].expand_as(error)].mean() < 2
        assert abs(float(flow[:, 0][visible].median()) - step) < 0.2
        left = slice(-3, None) if step > 0 else slice(3)
        assert not visible[..., left].any()  # moves out of the frame
        edge = -1 if step > 0 else 0
        assert not batch.occluded[:, k, :, edge].any()


def test_dn_of_twelve_bits_are_judged_as_those_of_eight():
    small, large = OwnVideo(moving()), OwnVideo(moving(gain=16.0), full_scale=16 * 255.0)
    a, b = small.window(5), large.window(5)
    assert (a.visible != b.visible).float().mean() < 0.02
    torch.testing.assert_close(16 * a.views, b.views, rtol=1e-4, atol=0)


def test_crops_are_cut_from_the_whole_and_drawn_by_the_seed_alone():
    source = OwnVideo(moving(), crop=16)
    batch = source.draw(np.random.default_rng(3), 4)
    assert batch.views.shape == (4, 9, 3, 16, 16)
    assert batch.visible.shape == batch.occluded.shape == (4, 2, 16, 16)
    again = OwnVideo(moving(), crop=16).draw(np.random.default_rng(3), 4)
    torch.testing.assert_close(batch.views, again.views)
    torch.testing.assert_close(batch.flow, again.flow)
    place = Window(5, 7, 16, 16)
    whole, part = source.window(6), source.window(6, place)
    torch.testing.assert_close(part.views, whole.views[..., 7:23, 5:21])
    torch.testing.assert_close(part.flow, whole.flow[..., 7:23, 5:21])


def test_each_reference_comes_once_before_any_twice():
    source = OwnVideo(moving(), crop=16).at((4, 5, 6))
    means = {t: source.window(t).views.mean() for t in (4, 5, 6)}
    assert len(set(means.values())) == 3
    drawn = OwnVideo(moving()).at((4, 5, 6)).draw(np.random.default_rng(0), 3)
    found = sorted(float(v.mean()) for v in drawn.views)
    np.testing.assert_allclose(found, sorted(map(float, means.values())), rtol=1e-6)


def test_windows_never_cross_a_cut():
    source = OwnVideo(moving(22), shots=[range(10), range(10, 22)])
    assert source.times == (4, 5, 14, 15, 16, 17)
    np.testing.assert_array_equal(
        source.stack(10, range(-2, 3)), source.video.pixels[[12, 11, 10, 11, 12]]
    )
    np.testing.assert_array_equal(source.stack(9, [1, 2]), source.video.pixels[[8, 7]])
    with pytest.raises(BadInputError, match=r"14 frames, 8 without a cut; .* needs 9 at least"):
        OwnVideo(moving(), shots=[range(6), range(6, 14)])


def test_a_crop_larger_than_the_frames_is_refused():
    with pytest.raises(BadOptionError, match="crop: found 41, but the frames are 40 x 40 px"):
        OwnVideo(moving(), crop=41)


@pytest.mark.parametrize("on_disk", [True, False])
def test_frames_are_read_and_motion_is_found_once(tmp_path, on_disk, monkeypatch):
    found = []
    original = OwnVideo._find_motion
    monkeypatch.setattr(
        OwnVideo, "_find_motion", lambda self, t: found.append(t) or original(self, t)
    )
    source = OwnVideo(moving(), crop=16, folder=tmp_path / "motion" if on_disk else None)
    first = source.draw(np.random.default_rng(0), 6)
    again = source.draw(np.random.default_rng(0), 6)
    assert sorted(READ) == sorted(set(READ))
    assert sorted(found) == sorted(set(found))
    torch.testing.assert_close(first.flow, again.flow)
    assert len(list(tmp_path.rglob("*.npy"))) == (len(found) if on_disk else 0)
    if on_disk:  # a second run finds it there
        found.clear()
        later = OwnVideo(moving(), crop=16, folder=tmp_path / "motion")
        torch.testing.assert_close(later.draw(np.random.default_rng(0), 6).flow, first.flow)
        assert not found


def test_memory_is_bounded():
    frame = 3 * SIDE * SIDE * 4
    source = OwnVideo(moving(), crop=16, memory=10 * frame)
    for seed in range(3):
        source.draw(np.random.default_rng(seed), 6)
    assert source._frames._size() <= 10 * frame
    assert len(source._motions._arrays) <= 10  # of as much as a frame each
    free = OwnVideo(moving(), crop=16)
    torch.testing.assert_close(
        source.draw(np.random.default_rng(9), 3).flow, free.draw(np.random.default_rng(9), 3).flow
    )


def test_gaps_are_filled_for_the_network_and_not_compared():
    video = moving()
    video.pixels[:, :, 10:16, 20:26] = np.nan
    batch = OwnVideo(video).window(5)
    assert batch.views.isfinite().all()
    assert batch.flow.isfinite().all()
    for mask in (batch.visible, batch.occluded):
        assert not mask[..., 10:16, 20:26].any()  # of the held-out frame
        # what moves into the gap of the reference
        assert not mask[:, 0, 10:16, 18:24].any()
        assert not mask[:, 1, 10:16, 22:28].any()
    assert batch.visible[..., :8, :].any()


def test_truth_and_noise_are_told_where_they_are_known():
    video, clean = moving(seed=1), moving()
    source = OwnVideo(video, truth=clean, noise=lambda frame: frame.mean(0, keepdims=True) / 10)
    batch = source.window(6, Window(4, 8, 16, 12))
    np.testing.assert_array_equal(batch.truth[0], clean.pixels[6, :, 8:20, 4:20])
    expected = video.pixels[6, :, 8:20, 4:20].mean(0, keepdims=True) / 10
    np.testing.assert_allclose(batch.noise[0], expected, rtol=1e-6)
    assert source.map_noise(6).shape == (1, 1, SIDE, SIDE)
    assert OwnVideo(video).map_noise(6) is None


def test_f2f_has_rules_of_its_own():
    strict, loose = OwnVideo(moving(), reach=1), OwnVideo(moving(), reach=1, rules=F2F_RULES)
    assert loose.window(5).views.shape[1] == 3
    assert loose.window(5).visible.mean() >= strict.window(5).visible.mean()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_recipe_names_a_folder_of_frames(tmp_path):
    pixels = moving(10).pixels.clip(0, 255).astype("u1")
    for t, frame in enumerate(pixels):
        with rasterio.open(tmp_path / f"{t:03d}.png", "w", driver="PNG", width=SIDE, height=SIDE,
                           count=3, dtype="uint8") as file:  # fmt: skip
            file.write(frame)
    source = VideoWindows(tmp_path, crop=16, frames=(0, 9))
    assert source.windows.times == (4,)
    assert source.draw(np.random.default_rng(0), 2).views.shape == (2, 9, 3, 16, 16)
    loose = VideoWindows(tmp_path, crop=16, reach=1, rules="frame2frame", shots=[(0, 5), (5, 10)])
    assert loose.windows.times == (1, 2, 3, 6, 7, 8)

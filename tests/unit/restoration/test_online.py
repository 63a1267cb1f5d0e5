"""Learning while restoring: order, resuming, seeds, and that it helps."""

import itertools

import numpy as np
import pytest
import torch

from l1bsr_geo.errors import BadInputError, BadOptionError, OutputExistsError
from l1bsr_geo.models.dncnn import DnCNN
from l1bsr_geo.restoration.online import (
    F2F_ONLINE,
    MF2F_ONLINE,
    OnlineOptions,
    group_frames,
    restore_online,
)
from l1bsr_geo.training.frame2frame import Frame2FrameObjective
from l1bsr_geo.training.log import read_log
from l1bsr_geo.training.mf2f import MF2FObjective
from l1bsr_geo.training.noise_levels import NoiseLevelTeacher
from l1bsr_geo.training.own_video import F2F_RULES, OwnVideo
from tests.synthetic.moving_video import Blends, moving_video, network

FAST = OnlineOptions(steps=2, first_steps=2, lr=1e-3, precision="fp32")


def restore(folder, frames=12, options=FAST, net=None, teacher=False, crop=None, **others):
    net = net or network()
    source = OwnVideo(moving_video(frames)[0], crop=crop)
    guide = NoiseLevelTeacher(net) if teacher else None
    return restore_online(
        net, MF2FObjective(), source, folder, options, teacher=guide, device="cpu", **others
    )


def test_the_published_numbers():
    assert (MF2F_ONLINE.steps, MF2F_ONLINE.group) == (20, 2)
    assert (F2F_ONLINE.steps, F2F_ONLINE.first_steps, F2F_ONLINE.group) == (20, 20, 1)
    with pytest.raises(BadOptionError, match="steps: found 0, allowed 1 or more"):
        OnlineOptions(steps=0)


def test_groups_cover_every_frame_once_and_stay_within_shots():
    video, _ = moving_video(30)
    source = OwnVideo(video, shots=[range(13), range(13, 17), range(17, 30)])
    groups = group_frames(source, OnlineOptions(steps=3, first_steps=7))
    assert [t for group in groups for t in group.restored] == list(range(30))
    assert [group.learnt for group in groups] == [
        (4, 5), (6, 7), (8,), (), (21, 22), (23, 24), (25,)
    ]  # fmt: skip
    assert groups[0].restored == (0, 1, 2, 3, 4, 5)
    assert groups[2].restored == (8, 9, 10, 11, 12)
    assert groups[3].restored == (13, 14, 15, 16)
    assert [group.steps for group in groups] == [7, 3, 3, 0, 3, 3, 3]


def test_frames_come_in_order_and_are_learnt_from_on_the_way(tmp_path):
    told = []
    frames = restore(tmp_path, progress=lambda *figures: told.append(figures))
    first = list(itertools.islice(frames, 6))
    assert [done for done, _, _ in told] == [2]  # a consumer is served before the next is learnt
    rest = list(frames)
    assert [t for t, _ in first + rest] == list(range(12))
    assert all(frame.shape == (3, 32, 32) for _, frame in first + rest)
    assert [(done, total) for done, total, _ in told] == [(2, 4), (4, 4)]
    assert all(np.isfinite(figures["loss"]) for _, _, figures in told)
    assert [line["iteration"] for line in read_log(tmp_path) if "loss" in line] == [2, 4]


@pytest.mark.parametrize("teacher", [False, True])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(tmp_path, teacher):
    whole = dict(restore(tmp_path / "whole", 14, teacher=teacher, crop=24))
    stopped = restore(tmp_path / "parted", 14, teacher=teacher, crop=24)
    taken = dict(itertools.islice(stopped, 7))  # the second group is not done with
    del stopped
    torch.manual_seed(99)
    resumed = dict(restore(tmp_path / "parted", 14, teacher=teacher, crop=24, resume=True))
    assert list(resumed) == list(range(6, 14))
    assert sorted({*taken, *resumed}) == list(range(14))
    for t, frame in {**resumed, **taken}.items():
        np.testing.assert_array_equal(frame, whole[t])


def test_seeds(tmp_path):
    a, again, b = (
        dict(restore(tmp_path / str(k), options=OnlineOptions(**{**vars(FAST), "seed": seed}),
                     crop=24))
        for k, seed in enumerate((0, 0, 1))
    )  # fmt: skip
    assert all(np.array_equal(a[t], again[t]) for t in a)
    assert not np.array_equal(a[11], b[11])


def test_a_folder_in_use_and_another_recipe_are_refused(tmp_path):
    list(restore(tmp_path, recipe={"video": "a"}))
    with pytest.raises(OutputExistsError, match="holds a training already"):
        list(restore(tmp_path))
    with pytest.raises(BadOptionError, match="video was a and is b"):
        list(restore(tmp_path, recipe={"video": "b"}, resume=True))


def test_a_short_video_is_refused():
    with pytest.raises(BadInputError, match=r"has 8 frames, 8 without a cut; .* needs 9 at least"):
        OwnVideo(moving_video(8)[0])


def test_gaps_stay_gaps_and_do_not_spread(tmp_path):
    video, _ = moving_video()
    video.pixels[:, :, 5:9, 20:24] = np.nan
    frames = dict(restore_online(network(), MF2FObjective(), OwnVideo(video), tmp_path, FAST,
                                 device="cpu"))  # fmt: skip
    for t, frame in frames.items():
        np.testing.assert_array_equal(np.isnan(frame), np.isnan(video.read(t)))


def psnr(frames, clean, last):
    errors = [np.mean((frames[t] - clean.read(t)) ** 2) for t in last]
    return 10 * np.log10(255**2 / np.mean(errors))


def test_later_frames_are_better_for_what_was_learnt(tmp_path):
    noisy, clean = moving_video(14, noise=40.0)
    options = OnlineOptions(steps=5, first_steps=5, lr=0.1, precision="fp32")
    source = OwnVideo(noisy)
    frames = dict(
        restore_online(Blends(), MF2FObjective(), source, tmp_path, options, device="cpu")
    )
    late = psnr(frames, clean, range(10, 14))
    assert late > psnr(dict(enumerate(noisy.pixels)), clean, range(10, 14)) + 2
    assert late > psnr(frames, clean, range(4, 6)) + 0.5


def test_f2f_learns_from_every_frame(tmp_path):
    noisy, clean = moving_video(6, noise=40.0)
    torch.manual_seed(0)
    net, objective = DnCNN(depth=2, width=8), Frame2FrameObjective()
    source = OwnVideo(noisy, reach=objective.reach, targets=objective.targets, rules=F2F_RULES)
    options = OnlineOptions(steps=20, first_steps=20, group=1, batch=1, lr=1e-2, precision="fp32")
    frames = dict(restore_online(net, objective, source, tmp_path, options, device="cpu"))
    assert list(frames) == list(range(6))
    assert psnr(frames, clean, [5]) > psnr(dict(enumerate(noisy.pixels)), clean, [5]) + 1

"""Learning from a whole video, then restoring it: holding back, stopping, resuming, seeds."""

import numpy as np
import pytest
import torch

from l1bsr_geo.errors import BadOptionError, MissingInputError
from l1bsr_geo.models.dncnn import DnCNN
from l1bsr_geo.models.registry import Model
from l1bsr_geo.restoration.offline import (
    OfflineOptions,
    adapt_offline,
    part_windows,
    restore_offline,
)
from l1bsr_geo.restoration.online import restore_frame
from l1bsr_geo.restoration.sequence import restore_video
from l1bsr_geo.training.checkpoints import CHECKPOINT
from l1bsr_geo.training.frame2frame import Frame2FrameObjective
from l1bsr_geo.training.log import read_log
from l1bsr_geo.training.mf2f import MF2FObjective
from l1bsr_geo.training.noise_levels import NoiseLevelTeacher
from l1bsr_geo.training.own_video import F2F_RULES, OwnVideo
from tests.synthetic.moving_video import Blends, moving_video, network

SHORT = OfflineOptions(
    iterations=4, batch=2, lr=1e-3, validate_every=2, teacher_steps=2, precision="fp32"
)


def adapt(folder, net=None, frames=12, crop=24, teacher=False, options=SHORT, **others):
    net = net or network()
    source = OwnVideo(moving_video(frames)[0], crop=crop)
    guide = NoiseLevelTeacher(net) if teacher else None
    adapted = adapt_offline(
        net, MF2FObjective(), source, folder, options, teacher=guide, device="cpu", **others
    )
    return net, adapted


def same(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_some_windows_are_held_back_where_there_are_enough():
    few = OwnVideo(moving_video(19)[0])
    assert part_windows(few) == (few, [])
    many = OwnVideo(moving_video(26)[0], crop=12)
    learnt, held = part_windows(many)
    assert len(held) == 4
    assert len(learnt.times) == len(many.times) - 4
    assert learnt.times[0] == many.times[0]  # they lie between the others
    assert held[0].views.shape == (1, 9, 3, 24, 24)
    wide = OwnVideo(moving_video(26)[0], crop=24)
    assert part_windows(wide)[1][0].views.shape == (1, 9, 3, 32, 32)


@pytest.mark.parametrize("teacher", [False, True])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path, teacher):
    whole, _ = adapt(tmp_path / "whole", teacher=teacher)

    def stop(done, total, figures):
        if done == 2 and total == SHORT.iterations:
            raise OSError("the disk is gone")  # after iteration 2, which is checkpointed

    with pytest.raises(OSError, match="the disk"):
        adapt(tmp_path / "parted", teacher=teacher, progress=stop)
    assert (tmp_path / "parted" / CHECKPOINT).is_file()
    torch.manual_seed(99)
    parted, adapted = adapt(tmp_path / "parted", teacher=teacher, resume=True)
    assert same(whole, parted)
    assert (adapted.iterations, adapted.ended) == (4, "done")
    if teacher:
        assert (tmp_path / "parted" / "teacher" / "best.safetensors").is_file()
        without, _ = adapt(tmp_path / "without")
        assert not same(whole, without)


def test_seeds_and_recipes(tmp_path):
    a, _ = adapt(tmp_path / "a", recipe={"video": "x"})
    again, _ = adapt(tmp_path / "again")
    other, _ = adapt(tmp_path / "other", options=OfflineOptions(**{**vars(SHORT), "seed": 1}))
    assert same(a, again)
    assert not same(a, other)
    with pytest.raises(BadOptionError, match="video was x and is y"):
        adapt(tmp_path / "a", recipe={"video": "y"}, resume=True)
    with pytest.raises(MissingInputError, match="no training to resume there"):
        adapt(tmp_path / "nothing", resume=True)


def test_learning_ends_where_nothing_is_gained_and_the_best_is_kept(tmp_path):
    net = network()
    options = OfflineOptions(**{**vars(SHORT), "iterations": 12, "lr": 0.05, "validate_every": 1,
                                "patience": 3})  # fmt: skip
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net, adapted = adapt(tmp_path, net, frames=24, options=options)
    scores = [line["figures"]["score"] for line in read_log(tmp_path) if "figures" in line]
    assert adapted.iteration == int(np.argmax(scores))
    assert adapted.gain == pytest.approx((max(scores) - scores[0]) / -scores[0])
    if adapted.ended == "no gain":
        assert adapted.iterations == adapted.iteration + 3
    assert same(net, network()) is (adapted.iteration == 0)
    assert before.keys() == net.state_dict().keys()


def untuned(net, source):
    model = Model.from_restorer(net.eval(), "cpu")
    return dict(restore_video(model, source.video, shots=source.shots, noise=source.noise))


def test_online_and_offline_use_a_network_alike():
    video, _ = moving_video(13)
    source = OwnVideo(video, shots=[range(10), range(10, 13)], noise=noise_map)
    net, objective = network().eval(), MF2FObjective()
    for t, frame in untuned(net, source).items():
        np.testing.assert_allclose(frame, restore_frame(net, objective, source, t), atol=0.05)


def test_a_frame_in_tiles_is_the_frame():
    video, _ = moving_video(9, side=96)
    video.pixels[:, :, :20, 30:50] = np.nan  # nearest to it is not in every tile
    source, net = OwnVideo(video, noise=noise_map), network().eval()
    whole = restore_frame(net, MF2FObjective(), source, 4)
    parts = restore_frame(net, MF2FObjective(), source, 4, tile=32)
    np.testing.assert_allclose(parts, whole, atol=0.01)


def noise_map(frame):
    return np.sqrt(np.maximum(frame.mean(0, keepdims=True), 0))


def psnr(frames, clean):
    errors = [np.mean((frames[t] - clean.read(t)) ** 2) for t in frames]
    return 10 * np.log10(255**2 / np.mean(errors))


def test_what_was_learnt_is_nearer_to_the_truth(tmp_path):
    noisy, clean = moving_video(12, noise=40.0)
    net, objective, source = Blends(), MF2FObjective(), OwnVideo(noisy, crop=24)
    options = OfflineOptions(iterations=30, batch=2, lr=0.1, precision="fp32")
    adapted = adapt_offline(net, objective, source, tmp_path, options, device="cpu")
    assert (adapted.iteration, adapted.ended, adapted.gain) == (30, "done", None)
    frames = {t: restore_frame(net, objective, source, t) for t in range(12)}
    assert psnr(frames, clean) > psnr(dict(enumerate(noisy.pixels)), clean) + 2


def test_f2f_learns_offline_too(tmp_path):
    noisy, clean = moving_video(6, noise=40.0)
    torch.manual_seed(0)
    net, objective = DnCNN(depth=2, width=8), Frame2FrameObjective()
    source = OwnVideo(
        noisy, reach=objective.reach, targets=objective.targets, rules=F2F_RULES, crop=24
    )
    options = OfflineOptions(iterations=60, batch=2, lr=1e-2, precision="fp32")
    frames = dict(restore_offline(net, objective, source, tmp_path, options, device="cpu"))
    assert list(frames) == list(range(6))
    assert psnr(frames, clean) > psnr(dict(enumerate(noisy.pixels)), clean) + 1

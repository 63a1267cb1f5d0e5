"""MF2F: the held-out frame is not seen, what is compared lies where it should."""

import numpy as np
import pytest
import torch
from torch import nn

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.models.fastdvdnet import FastDVDnet
from l1bsr_geo.ops.warp import warp
from l1bsr_geo.training.mf2f import MF2FObjective, choose_stack, find_readable
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.schedule import Schedule
from l1bsr_geo.training.trainer import Trainer

SIDE = 32


def network(seed=0):
    torch.manual_seed(seed)
    return FastDVDnet(width=8)


def moving(motion=(1.0, 0.5), noise=0.0, frames=9, seed=0, side=SIDE):
    """A smooth scene that moves by ``motion`` [px per frame], and what is known of it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype("f4")
    wave = [(*rng.normal(0, 0.25, 2), rng.uniform(0, 6), rng.uniform(20, 40)) for _ in range(9)]
    half = frames // 2
    clean = np.zeros((frames, 3, side, side), "f4")
    for t in range(frames):
        u, v = x - motion[0] * (t - half), y - motion[1] * (t - half)
        for k, (a, b, phase, height) in enumerate(wave):
            clean[t, k % 3] += height * np.sin(a * u + b * v + phase)
    clean += 128
    views = clean + noise * rng.normal(size=clean.shape).astype("f4")
    forward = torch.tensor(motion).view(1, 1, 1, 2, 1, 1).expand(1, 1, 1, 2, side, side)
    flow = torch.cat([forward, -forward], 1)  # of the frames before and after
    ones = torch.ones(1, 2, side, side)
    return Batch(
        torch.from_numpy(views)[None], flow.clone(), truth=torch.from_numpy(clean[half])[None],
        visible=ones, occluded=torch.zeros_like(ones),
    )  # fmt: skip


class Reference(nn.Module):
    """Gives the middle of what it sees, and remembers it."""

    def forward(self, views, flow=None, *, noise=None):
        self.views, self.noise = views, noise
        return views[:, views.shape[1] // 2]


@pytest.mark.parametrize("target", [-4, -2, 0, 2, 4])
def test_a_label_that_is_an_input_is_refused(target):
    with pytest.raises(BadOptionError, match=r"in the stack .* copy its noise: hold out"):
        MF2FObjective(targets=(-1, target))


def test_something_is_held_out():
    with pytest.raises(BadOptionError, match="targets: found none"):
        MF2FObjective(targets=())


@pytest.mark.parametrize("stack", [(-2, 0), (1, 2, 3), (-4, -1, 0, 2, 4)])
def test_a_stack_without_a_middle_is_refused(stack):
    with pytest.raises(BadOptionError, match="expected evenly spaced frames around 0"):
        MF2FObjective(stack=stack, targets=(-5,))


def test_statistics_have_two_names():
    with pytest.raises(BadOptionError, match="statistics: found 'frozen', allowed batch, running"):
        MF2FObjective(statistics="frozen")


def test_what_is_restored_does_not_depend_on_what_is_held_out():
    batch = moving(noise=20.0)
    batch.views.requires_grad_()
    objective = MF2FObjective()
    example = objective.hold_out(batch, np.random.default_rng(0))
    objective.observe(network().eval()(example.views), example).square().sum().backward()
    moved = batch.views.grad.abs().flatten(2).sum(2)[0]
    seen = [4 + k for k in objective.stack]
    assert (moved[seen] > 0).all()
    rest = [t for t in range(9) if t not in seen]
    assert {4 + target for target in objective.targets} < set(rest)
    assert (moved[rest] == 0).all()
    torch.testing.assert_close(example.target * 255, batch.views[:, [3, 5]])


def test_the_natural_stack_is_used():
    batch, seen = moving(), Reference()
    objective = MF2FObjective()
    restored = objective.restore(seen, batch)
    torch.testing.assert_close(seen.views * 255, batch.views[:, 2:7])
    torch.testing.assert_close(restored, batch.views[:, 4])
    assert objective.natural == (-2, -1, 0, 1, 2)
    assert objective.reach == 4


def test_the_reference_lies_on_the_neighbour_and_only_there():
    batch = moving((1.25, -0.5))
    objective = MF2FObjective()
    rng = np.random.default_rng(0)
    loss, _ = objective.loss(Reference(), batch, rng)
    wrong = Batch(**{**vars(batch), "flow": -batch.flow})
    assert 0 < float(loss) < 0.05 / 255  # what the kernel of the warp cannot do
    assert float(objective.loss(Reference(), wrong, rng)[0]) > 100 * float(loss)


def test_what_is_not_visible_does_not_count():
    batch = moving()
    batch.views[:, 3, :, :, :16] += 50  # of a held-out frame
    batch.visible[:, 0, :, :16] = 0
    objective = MF2FObjective()
    loss, parts = objective.loss(Reference(), batch, np.random.default_rng(0))
    assert float(loss) < 0.1 / 255
    assert float(parts["compared"]) == pytest.approx(28 * 21 / 32**2, abs=0.06)
    batch.visible[:] = 1
    loss, _ = objective.loss(Reference(), batch, np.random.default_rng(0))
    assert float(loss) > 5 / 255


def test_the_kernel_reads_nothing_beyond_the_image():
    side = 12
    rng = np.random.default_rng(0)
    flow = torch.from_numpy(rng.uniform(-4, 4, (1, 2, side, side)).astype("f4"))
    image = torch.rand(1, 1, side, side)
    readable = find_readable(flow) > 0
    # a frame of other values around: what is readable does not change
    wide = torch.full((1, 1, side + 12, side + 12), 9.0)
    wide[..., 6:-6, 6:-6] = image
    around = nn.functional.pad(flow, (6,) * 4)
    same = (warp(wide, around)[..., 6:-6, 6:-6] - warp(image, flow)).abs() < 1e-5
    assert (same | ~readable).all()
    assert not readable.all()
    assert readable.any()
    assert not find_readable(torch.zeros(1, 2, 9, 9), 3)[..., :3, :].any()


def test_what_the_network_is_told_of_the_noise():
    batch, seen = moving(), Reference()
    objective = MF2FObjective()
    objective.loss(seen, batch, np.random.default_rng(0))
    torch.testing.assert_close(seen.noise, torch.full((1, 1, SIDE, SIDE), 25 / 255))
    told = Batch(**{**vars(batch), "noise": torch.full((1, 1, SIDE, SIDE), 51.0)})
    objective.loss(seen, told, np.random.default_rng(0))
    torch.testing.assert_close(seen.noise, torch.full((1, 1, SIDE, SIDE), 0.2))


def test_the_teacher_tells_of_what_is_hidden():
    batch = moving()
    batch.occluded[..., 8:24, 8:24] = 1
    batch.visible[..., 8:24, 8:24] = 0
    bright = MF2FObjective(teacher=lambda views: views[:, 2] + 0.1)
    _, parts = bright.loss(Reference(), batch, np.random.default_rng(0))
    assert float(parts["teacher"]) == pytest.approx(0.1 * 16**2 / SIDE**2, rel=1e-3)
    assert float(parts["held_out"]) < 0.1 / 255
    student = Reference()
    natural = MF2FObjective(teacher=bright.teacher, teach_natural=True)
    natural.loss(student, batch, np.random.default_rng(0))
    torch.testing.assert_close(student.views * 255, batch.views[:, 2:7])


def test_short_windows_and_missing_flow_are_refused():
    with pytest.raises(BadInputError, match=r"windows of 5 frames; .* with 4 on each side"):
        choose_stack(moving(frames=5).views, MF2FObjective().stack)
    with pytest.raises(BadInputError, match="flow of 0 neighbours"):
        MF2FObjective().hold_out(Batch(moving().views), np.random.default_rng(0))


class Same:
    """A source that always gives the same."""

    def __init__(self, batch):
        self.batch = batch

    def draw(self, rng, count):
        return self.batch


def train(net, folder, objective, batch, iterations):
    schedule = Schedule(iterations=iterations, batch=1, lr=2e-3, final_lr=2e-3, clip=None, ema=0,
                        precision="fp32", validate_every=iterations)  # fmt: skip
    Trainer(net, objective, Same(batch), [], schedule, folder, "cpu").run()
    return net.eval()


@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_batch_normalisation_keeps_its_statistics_and_learns_its_weights(tmp_path, statistics):
    net = network()
    before = {name: v.clone() for name, v in net.state_dict().items()}
    train(net, tmp_path, MF2FObjective(statistics=statistics), moving(noise=20.0), 1)
    after = net.state_dict()
    means = [name for name in after if name.endswith("running_mean")]
    same = all(torch.equal(before[name], after[name]) for name in means)
    assert means
    assert same is (statistics == "running")
    scales = [name.replace("running_mean", "weight") for name in means]
    assert all((before[name] != after[name]).any() for name in scales)


def test_learning_comes_nearer_to_a_truth_that_is_not_seen(tmp_path):
    batch, objective = moving(noise=30.0), MF2FObjective()
    net = network()
    start = objective.score(net.eval(), batch)
    end = objective.score(train(net, tmp_path, objective, batch, 30), batch)
    assert end["score"] > start["score"]
    assert end["psnr"] > start["psnr"] + 1

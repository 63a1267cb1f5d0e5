"""The teacher: 24 numbers say how much noise there is."""

import numpy as np
import pytest
import torch
from torch import nn

from l1bsr_geo.models.fastdvdnet import FastDVDnet
from l1bsr_geo.training.mf2f import MF2FObjective
from l1bsr_geo.training.noise_levels import BETAS, NoiseLevelTeacher, choose_teacher_schedule
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.trainer import Trainer

SIDE = 32


class Shrinks(nn.Module):
    """Wiener's estimate on a scene of known mean and variance, with the noise that it is told."""

    spread = 0.15

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, views, flow=None, *, noise=None):
        share = self.spread**2 / (self.spread**2 + noise[:, 1:2].square())
        return 0.25 + share * (views[:, 2] - 0.25)


def test_bins_and_roles():
    teacher = NoiseLevelTeacher(FastDVDnet(width=4))
    assert sum(p.numel() for p in teacher.parameters() if p.requires_grad) == 24
    with torch.no_grad():
        teacher.levels.copy_(torch.arange(24).view(3, 8) / 100)
    views = torch.zeros(1, 5, 3, 4, 4)
    views[:, 1] = 0.99  # the last level of the first role
    views[:, 2] = 0.3  # the third
    views[:, 3] = 7.0  # brighter than white: the last
    told = teacher.map_noise(views)
    assert told.shape == (1, 3, 4, 4)
    torch.testing.assert_close(told[0, :, 0, 0], torch.tensor([0.07, 0.10, 0.23]))


def test_the_network_is_told_and_stays_as_it_is(tmp_path):
    net = FastDVDnet(width=4)
    teacher = NoiseLevelTeacher(net)
    views = torch.rand(1, 5, 3, 8, 8)
    expected = net.eval()(views, noise=torch.full((1, 3, 8, 8), 25 / 255))
    torch.testing.assert_close(teacher.eval()(views), expected)
    teacher.network.temp1.inc.requires_grad_(True)
    assert not any(p.requires_grad and p is q for p in teacher.network.parameters()
                   for q in net.parameters())  # fmt: skip


class Noisy:
    """Windows of a scene in two shades, with noise of 10 DN in the dark and 40 in the bright."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def draw(self, rng, count):
        shape = (count, 1, 1, SIDE, SIDE)
        scene = 0.25 + Shrinks.spread * rng.normal(size=shape).astype("f4")
        bright = scene > 0.25
        noise = np.where(bright, 40.0, 10.0) * rng.normal(size=(count, 9, 1, SIDE, SIDE))
        views = torch.from_numpy((255 * scene + noise).astype("f4"))
        flow = torch.zeros(count, 2, 1, 2, SIDE, SIDE)
        return Batch(views, flow, visible=torch.ones(count, 2, SIDE, SIDE))


def test_noise_that_grows_with_brightness_is_found(tmp_path):
    teacher = NoiseLevelTeacher(Shrinks())
    schedule = choose_teacher_schedule(60, batch=4, precision="fp32")
    trainer = Trainer(teacher, MF2FObjective(), Noisy(), [], schedule, tmp_path, "cpu", betas=BETAS)
    trainer.run()
    levels = teacher.list_levels()
    assert [level.brightness for level in levels] == pytest.approx([16 + 32 * k for k in range(8)],
                                                                   rel=0.01)  # fmt: skip
    dark, bright = levels[0].sigma, levels[3].sigma
    assert dark < 20
    assert bright > max(25, dark + 8)
    assert teacher.network.unused == 0


def test_brightnesses_that_are_not_there_have_no_level():
    teacher = NoiseLevelTeacher(FastDVDnet(width=4)).train()
    teacher.map_noise(torch.full((1, 5, 3, 4, 4), 0.3))
    assert [level.sigma is None for level in teacher.list_levels()] == [k != 2 for k in range(8)]
    assert teacher.list_levels()[2].sigma == pytest.approx(25)

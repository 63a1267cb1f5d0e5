"""F2F: a single frame is restored, and compared with the one before."""

import numpy as np
import pytest
import torch
from torch import nn

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.models.dncnn import DnCNN
from l1bsr_geo.training.frame2frame import Frame2FrameObjective
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.schedule import Schedule
from l1bsr_geo.training.trainer import Trainer

SIDE = 32


def network():
    torch.manual_seed(0)
    return DnCNN(depth=4, width=8)


def pairs(seed=0, noise=25.0):
    """Three frames of a scene that moves by a pixel a frame."""
    rng = np.random.default_rng(seed)
    x = np.arange(SIDE + 2, dtype="f4")
    scene = 128 + 60 * np.sin(x / 3) * np.ones((3, SIDE, 1), "f4")
    clean = np.stack([scene[..., 2 - t : SIDE + 2 - t] for t in range(3)])
    views = clean + noise * rng.normal(size=clean.shape).astype("f4")
    flow = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).view(1, 2, 1, 2, 1, 1)
    flow = flow.repeat(1, 1, 1, 1, SIDE, SIDE)
    return Batch(
        torch.from_numpy(views)[None], flow, truth=torch.from_numpy(clean[1])[None],
        visible=torch.ones(1, 2, SIDE, SIDE),
    )  # fmt: skip


def test_the_frame_itself_is_no_label():
    with pytest.raises(BadOptionError, match="targets: found frame \\+0, which is in the stack"):
        Frame2FrameObjective(targets=(0,))


def test_only_the_reference_is_seen():
    batch = pairs()
    batch.views.requires_grad_()
    objective = Frame2FrameObjective()
    example = objective.hold_out(batch, np.random.default_rng(0))
    assert example.views.shape == (1, 1, 3, SIDE, SIDE)
    objective.observe(network().eval()(example.views), example).square().sum().backward()
    moved = batch.views.grad.abs().flatten(2).sum(2)[0]
    assert moved[1] > 0
    assert moved[0] == moved[2] == 0
    assert objective.natural == (0,)
    assert objective.reach == 1


def test_the_loss_is_none_for_the_truth():
    clean = pairs(noise=0.0)

    class Same(nn.Module):
        def forward(self, views):
            return views[:, 0]

    loss, _ = Frame2FrameObjective().loss(Same(), clean, np.random.default_rng(0))
    assert float(loss) < 1e-6
    wrong = Batch(**{**vars(clean), "flow": -clean.flow})
    assert float(Frame2FrameObjective().loss(Same(), wrong, np.random.default_rng(0))[0]) > 0.05


class OwnPairs:
    def draw(self, rng, count):
        return pairs(int(rng.integers(4)))


def test_learning_removes_noise_that_the_network_never_saw(tmp_path):
    net, batch, objective = network(), pairs(9), Frame2FrameObjective()
    nn.init.zeros_(net.dncnn[-1].weight)  # at first nothing is taken for noise
    start = objective.score(net.eval(), batch)["psnr"]
    means = {k: v.clone() for k, v in net.state_dict().items() if k.endswith("running_mean")}
    schedule = Schedule(iterations=60, batch=1, lr=3e-3, final_lr=3e-4, clip=None, ema=0,
                        precision="fp32", validate_every=60)  # fmt: skip
    Trainer(net, objective, OwnPairs(), [], schedule, tmp_path, "cpu").run()
    noisy = float(10 * torch.log10(255**2 / (batch.views[:, 1] - batch.truth).square().mean()))
    end = objective.score(net.eval(), batch)["psnr"]
    assert end > start + 1.5
    assert start == pytest.approx(noisy, abs=1)
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in means.items())

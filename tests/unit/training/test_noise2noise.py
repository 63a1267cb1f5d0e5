"""The rule of Noise2Noise: which distance finds the clean image behind which family of noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.models.dncnn import DnCNN
from l1bsr_geo.simulation.noise import Bernoulli, Gaussian, Impulse, Poisson, Text
from l1bsr_geo.training.noise2noise import Noise2NoiseObjective
from l1bsr_geo.training.objective import Batch, ScheduledObjective
from l1bsr_geo.training.schedule import Schedule
from l1bsr_geo.training.trainer import Trainer

SIZE, STEPS = 32, 150


class Constant(nn.Module):
    """One image whatever it sees: the best that is left where the input tells nothing."""

    def __init__(self):
        super().__init__()
        self.image = nn.Parameter(torch.full((3, SIZE, SIZE), 0.5))

    def forward(self, views, flow=None):
        return self.image.expand(len(views), -1, -1, -1)


@pytest.fixture(scope="module")
def clean():
    y, x = np.mgrid[:SIZE, :SIZE]
    bands = [60 + 130 * (x // 8 + y // 8) % 2, 40 + 5.0 * x, 220 - 4.0 * y]
    return np.stack(bands).astype(np.float32)


class Looks:
    """Second looks at one image."""

    def __init__(self, clean, noise):
        self.clean, self.noise = clean, noise

    def draw(self, rng, count):
        clean = np.broadcast_to(self.clean, (count, *self.clean.shape)).copy()
        if isinstance(self.noise, Bernoulli):
            pair, seen = self.noise.look(clean, rng)
        else:
            pair, seen = self.noise.add(clean, rng), np.ones_like(clean[:, :1])
        pair, seen, truth = (torch.from_numpy(v) for v in (pair, seen, clean))
        return Batch(torch.zeros(count, 1, 3, SIZE, SIZE), truth=truth, pair=pair, visible=seen)


def learn(clean, noise, objective):
    """What a constant converges to [DN]."""
    network, looks, rng = Constant(), Looks(clean, noise), np.random.default_rng(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.03)
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = 0.03 * (1 - step / STEPS)
        optimiser.zero_grad()
        now = objective.at(step / STEPS)
        loss, _ = now.loss(network, looks.draw(rng, 12), rng)
        loss.backward()
        optimiser.step()
    return 255 * network.image.detach().numpy()


RULE = {  # the noise, and distances from the right one to the worst
    "Gaussian": (Gaussian(25.0), ["l2", "l1", "l0"]),
    "Poisson": (Poisson(8.0), ["l2", "l1", "l0"]),
    "text": (Text(0.2), ["l1", "l0", "l2"]),
    "impulses": (Impulse(0.7), ["l0", "l1", "l2"]),
}


@pytest.mark.parametrize("family", RULE)
def test_each_family_has_its_distance(clean, family):
    noise, distances = RULE[family]
    errors = [
        np.abs(learn(clean, noise, Noise2NoiseObjective(distance=distance)) - clean).mean()
        for distance in distances
    ]
    assert errors[0] < 4
    assert errors[1] > 1.2 * errors[0]
    assert errors[2] > 1.2 * errors[1]


def test_l2_of_replaced_pixels_finds_their_mean(clean):
    found = learn(clean, Impulse(0.5), Noise2NoiseObjective(distance="l2"))
    expected = 0.5 * clean + 0.5 * 127.5
    assert np.abs(found - expected).mean() < 0.5 * np.abs(found - clean).mean()


def test_missing_pixels_are_found_with_their_mask(clean):
    found = learn(clean, Bernoulli(0.5), Noise2NoiseObjective())
    assert np.abs(found - clean).mean() < 2


def test_missing_pixels_without_their_mask_darken(clean):
    objective, rng = Noise2NoiseObjective(), np.random.default_rng(0)
    batch = Looks(clean, Bernoulli(0.5)).draw(rng, 8)
    network = Constant().requires_grad_(False)
    network.image.copy_(torch.from_numpy(clean / 255))
    assert float(objective.loss(network, batch, rng)[0]) < 1e-12
    assert float(objective.loss(network, replace(batch, visible=None), rng)[0]) > 0.05


def test_the_distances():
    difference = torch.tensor([0.5, -2.0, 0.0])
    assert Noise2NoiseObjective(distance="l1").measure(difference).tolist() == [0.5, 2, 0]
    assert Noise2NoiseObjective(distance="l2").measure(difference).tolist() == [0.25, 4, 0]
    annealed = Noise2NoiseObjective(distance="l0")
    torch.testing.assert_close(annealed.at(0).measure(difference), difference.square())
    torch.testing.assert_close(annealed.at(0.5).measure(difference), difference.abs())
    nearly = annealed.at(0.999).measure(difference)
    assert (nearly[:2] - 1).abs().max() < 0.01
    assert nearly[2] < nearly[0]


def test_the_loop_tells_how_far_the_training_is(clean, tmp_path):
    shares = []

    class Recorded(Noise2NoiseObjective):
        def measure(self, difference):
            shares.append(self.share)
            return super().measure(difference)

    assert isinstance(Recorded(), ScheduledObjective)
    schedule = Schedule(iterations=4, batch=1, precision="fp32")
    looks = Looks(clean, Gaussian(5.0))
    Trainer(Constant(), Recorded(distance="l0"), looks, [], schedule, tmp_path / "run").run()
    assert shares == [0, 0.25, 0.5, 0.75]


def test_supervised_learning_compares_with_the_truth(clean):
    batch = Looks(clean, Gaussian(25.0)).draw(np.random.default_rng(0), 2)
    example = Noise2NoiseObjective(supervised=True).hold_out(batch, np.random.default_rng(0))
    torch.testing.assert_close(example.target, batch.truth / 255)
    assert example.weights is None


def test_a_score_is_the_psnr(clean):
    noisy = torch.from_numpy(clean + 10).expand(2, 1, -1, -1, -1)
    network = Constant().requires_grad_(False)
    network.image.copy_(torch.from_numpy((clean + 1) / 255))
    batch = Batch(noisy, truth=torch.from_numpy(clean).expand(2, -1, -1, -1))
    figures = Noise2NoiseObjective().score(network, batch)
    assert figures["score"] == pytest.approx(20 * np.log10(255), abs=0.01)
    assert figures["psnr_noisy"] == pytest.approx(20 * np.log10(25.5), abs=0.01)


def test_what_is_missing_is_said_in_a_line(clean):
    rng = np.random.default_rng(0)
    alone = Batch(torch.zeros(1, 1, 3, 8, 8))
    with pytest.raises(BadInputError, match="no second look"):
        Noise2NoiseObjective().hold_out(alone, rng)
    with pytest.raises(BadInputError, match="no truth"):
        Noise2NoiseObjective(supervised=True).hold_out(alone, rng)
    with pytest.raises(BadOptionError, match="distance: found 'l3', allowed l1, l2, l0"):
        Noise2NoiseObjective(distance="l3")


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_statistics_of_normalisation(statistics):
    """The loop puts networks in training mode; a training can end with the network's own."""
    network = DnCNN(channels=1, depth=3, width=4).train()
    objective = Noise2NoiseObjective(supervised=True, statistics=statistics)
    views = torch.rand(2, 1, 1, 8, 8) * 255
    loss, _ = objective.loss(network, Batch(views, truth=views[:, 0]), np.random.default_rng(0))
    loss.backward()
    norm = next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert bool(norm.running_mean.abs().sum() > 0) == (statistics == "batch")
    assert norm.weight.grad is not None
    with pytest.raises(BadOptionError, match="statistics"):
        Noise2NoiseObjective(statistics="mean")

"""HighRes-net's objective: truth on the reference's grid, at its exposure, and it learns."""

import numpy as np
import pytest
import torch

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.models.highresnet import HighResNet
from l1bsr_geo.simulation.bursts import noise_sigma, simulate_burst
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.training.highres_net import HighResNetObjective, corrected_psnr
from l1bsr_geo.training.objective import Batch


def simulated(count=2, frames=5, size=20, exposures=(1.0,), **options):
    side = 2 * size + 40
    made = [
        simulate_burst(
            made_city((side, side), k), (size, size), frames, exposures=exposures, seed=k, **options
        )
        for k in range(count)
    ]
    views, flow, told, truth = (
        torch.from_numpy(np.stack([getattr(burst, name) for burst in made]))
        for name in ("frames", "flow", "exposures", "truth")
    )
    return Batch(views[:, :, None], flow[:, :, None], told, truth[:, None])


@pytest.mark.parametrize("exposures", [(1.0,) * 3, (0.5, 2.0, 1.0), (2.0, 0.5, 1.0)])
def test_the_target_is_the_reference_without_noise(exposures):
    batch = simulated(1, 3, 300, exposures, exposure_error=0)
    objective = HighResNetObjective(frames=(2, 3))
    example = objective.hold_out(batch, np.random.default_rng(0))
    seen = objective.observe(example.target, example)[0, 0, ::2, ::2] * FULL_SCALE
    kept = seen < 0.9 * FULL_SCALE  # where noise is not clipped
    residual = example.views[0, 0, 0] * FULL_SCALE - seen
    relative = (residual / torch.from_numpy(noise_sigma(seen.numpy(), 2.5)))[kept]
    assert abs(relative.mean()) < 0.01
    assert abs(relative.std() - 1) < 0.01


def test_truth_does_not_leak():
    torch.manual_seed(0)
    network, objective, batch = HighResNet(), HighResNetObjective((3, 5)), simulated()
    results = []
    for offset in (0.0, 500.0):
        changed = Batch(batch.views, batch.flow, batch.exposures, batch.truth + offset)
        example = objective.hold_out(changed, np.random.default_rng(2))
        assert torch.equal(example.views[:, 0], batch.views[:, 0] / FULL_SCALE)
        results.append(network(example.views, exposures=example.exposures))
    assert torch.equal(*results)


def test_corrected_psnr_does_not_see_brightness():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 1, 40, 40, generator=generator)
    noise = torch.randn(2, 1, 40, 40, generator=generator)
    noise[1] *= 0.1
    value = corrected_psnr(truth + 0.01 * noise + 0.3, truth, 3)
    inner = noise[..., 3:-3, 3:-3].flatten(1)
    expected = -20 * torch.log10(0.01 * inner.std(1, correction=0))
    assert torch.allclose(value, expected, atol=0.01)
    assert value[0] == pytest.approx(40, abs=0.3)
    assert value[1] == pytest.approx(60, abs=0.3)


def test_the_loss_falls():
    torch.manual_seed(0)
    network, objective = HighResNet(), HighResNetObjective((4, 4))
    batch = simulated(exposures=(0.5, 1.0))
    optimiser = torch.optim.Adam(network.parameters(), 7e-4)
    losses = []
    for _ in range(10):
        loss, parts = objective.loss(network, batch, np.random.default_rng(0))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        assert parts["cpsnr"] == -loss.item()
    assert losses[-1] < losses[0] - 1  # dB


def test_figures_by_number_of_frames():
    torch.manual_seed(0)
    figures = HighResNetObjective(counts=(3, 5, 16)).score(HighResNet(), simulated())
    assert set(figures) == {"score", "psnr_3", "psnr_5"}


def test_truth_is_needed():
    batch = Batch(simulated().views)
    with pytest.raises(BadInputError, match="learns from truth"):
        HighResNetObjective().hold_out(batch, np.random.default_rng(0))

"""What DSA learns from: held-out frames, never seen, foretold by the truth to their noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from l1bsr_geo.models.dsa import DSA
from l1bsr_geo.simulation.bursts import noise_sigma
from l1bsr_geo.training.bursts import SimulatedBursts
from l1bsr_geo.training.dsa import DSAObjective

SIZES = {"width": 8, "encoder_blocks": 1, "decoder_blocks": 1, "contrast": 10.0}


@pytest.fixture(scope="module")
def bursts():
    return SimulatedBursts(count=4, size=32, frames=(6, 8), exposures=(0.5, 1.0), exposure_error=0)


@pytest.fixture
def batch(bursts):
    return bursts.draw(np.random.default_rng(0), 3)


def tiny(**more):
    torch.manual_seed(0)
    return DSA(base="average", estimates_flow=False, **SIZES | more)


def test_a_source_gives_what_its_generator_says(bursts):
    a, b = (bursts.draw(np.random.default_rng(5), 2) for _ in range(2))
    c = bursts.draw(np.random.default_rng(6), 2)
    assert torch.equal(a.views, b.views)
    assert a.views.shape != c.views.shape or not torch.equal(a.views, c.views)
    assert a.flow.shape == (2, a.views.shape[1], 1, 2, 32, 32)
    assert a.truth.shape == (2, 1, 64, 64)


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("held_out", [1, 3])
def test_the_truth_foretells_held_out_frames_to_their_noise(scale, held_out):
    source = SimulatedBursts(count=12, size=48, frames=(8, 8), exposures=(0.5, 1.0),
                             exposure_error=0, scale=scale)  # fmt: skip
    objective = DSAObjective(held_out=held_out, scale=scale)
    residuals, sigmas = [], []
    for seed in range(6):
        batch = source.draw(np.random.default_rng(seed), 4)
        example = objective.hold_out(batch, np.random.default_rng(seed))
        # the truth on the moved grid: fine pixel j of it is fine pixel j - scale * shift
        moved = torch.stack(
            [
                torch.roll(truth, [round(scale * float(v)) for v in place[0, 0, :, 0, 0]][::-1],
                           (-2, -1))
                for truth, place in zip(batch.truth, example.places, strict=True)
            ]
        )  # fmt: skip
        seen = objective.observe(moved / 3400, example)
        inner = np.s_[..., 6:-6, 6:-6]
        residuals.append(((seen - example.target) * 3400)[inner].numpy())
        radiance = seen[inner].numpy() * 3400
        times = np.stack([  # of the frame that each target is
            [float(e) for e in _exposures_of(batch, example)[b]] for b in range(4)
        ])[:, :, None, None, None]  # fmt: skip
        sigmas.append(noise_sigma(radiance * times, 2.5) / times)
    ratio = np.concatenate([(r / s).ravel() for r, s in zip(residuals, sigmas, strict=True)])
    ratio = ratio[np.isfinite(ratio)]
    assert abs(ratio.mean()) < 0.02
    assert ratio.std() == pytest.approx(1, abs=0.02)


def _exposures_of(batch, example):
    """Exposures of the held-out frames, found by their pixels."""
    radiance = batch.views / batch.exposures[:, :, None, None, None] / 3400
    out = []
    for b in range(len(batch.views)):
        row = []
        for target in example.target[b]:
            known = ~target.isnan()
            apart = [(f - target)[known].abs().max() for f in radiance[b]]
            row.append(batch.exposures[b, int(np.argmin(apart))])
        out.append(row)
    return out


def test_what_is_held_out_is_never_seen(batch):
    objective = DSAObjective(held_out=2)
    example = objective.hold_out(batch, np.random.default_rng(1))
    seen = example.views * 3400
    for b in range(len(batch.views)):
        held = [t for t, frame in enumerate(batch.views[b])
                if not any(torch.allclose(frame, other) for other in seen[b])]  # fmt: skip
        assert 0 in held
        assert len(held) == 2
    spoiled = batch.views.clone()
    spoiled[:, 0] = 77.0
    other = objective.hold_out(replace(batch, views=spoiled), np.random.default_rng(1))
    network = tiny().eval()
    network.decoder.outputConv.weight.data.fill_(0.01)  # an untrained one gives its base alone
    with torch.inference_mode():
        a, b = (network(e.views, e.flow, exposures=e.exposures) for e in (example, other))
    assert torch.equal(a, b)
    assert not torch.equal(other.target.nan_to_num(), example.target.nan_to_num())


@pytest.mark.parametrize("supervised", [False, True])
def test_the_loss_falls(bursts, supervised):
    objective = DSAObjective(supervised=supervised, held_out=3)
    network = tiny()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for i in range(25):
        batch = bursts.draw(np.random.default_rng(i % 2), 4)
        loss, _ = objective.loss(network, batch, np.random.default_rng(i % 2))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-4:]) < 0.97 * np.mean(losses[:4])


def test_saturated_pixels_teach_nothing(batch):
    objective = DSAObjective()
    bright = batch.views.clone()
    bright[:, 0, :, 10:20, 10:20] = 3400
    spoiled = replace(batch, views=bright)
    example = objective.hold_out(spoiled, np.random.default_rng(1))
    assert bool(example.target[:, 0, :, 10:20, 10:20].isnan().all())
    network = tiny()
    loss, _ = objective.loss(network, spoiled, np.random.default_rng(1))
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)

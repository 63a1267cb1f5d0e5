"""FNet's objective: the observation follows the simulator, figures are closed forms, it learns."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.models.hdr_dsp import FrameRegistration
from l1bsr_geo.simulation.bursts import noise_sigma, simulate_burst
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.training.fnet import MotionObjective, compare_details, total_variation
from l1bsr_geo.training.objective import Batch


def simulated(count=2, frames=3, size=24, exposures=(1.0,), noise=2.5, smooth=0.0, **options):
    side = 2 * size + 40
    made = [
        simulate_burst(
            ndimage.gaussian_filter(made_city((side, side), k), smooth),
            (size, size),
            frames,
            noise=noise,
            exposures=exposures,
            seed=k,
            **options,
        )
        for k in range(count)
    ]
    views, flow, told, truth = (
        torch.from_numpy(np.stack([getattr(burst, name) for burst in made]))
        for name in ("frames", "flow", "exposures", "truth")
    )
    return Batch(views[:, :, None], flow[:, :, None], told, truth[:, None])


def still_network():
    torch.manual_seed(0)
    network = FrameRegistration()
    torch.nn.init.zeros_(network.network.conv2.weight)
    torch.nn.init.zeros_(network.network.conv2.bias)
    return network


@pytest.mark.parametrize("exposures", [(1.0,) * 3, (0.5, 2.0, 2.0), (2.0, 0.5, 0.5)])
def test_the_true_motion_leaves_the_noise_of_the_frame(exposures):
    """Without alias (a smooth scene), where both frames can be read exactly."""
    options = {"exposures": exposures, "exposure_error": 0, "affine": 5e-4}
    clean = simulated(1, 3, 200, noise=0, smooth=4.0, **options)
    noisy = simulated(1, 3, 200, noise=2.5, smooth=4.0, **options)
    # the reference without noise, so that the residual is the noise of the frame alone
    noisy.views[:, 0] = clean.views[:, 0]
    known = MotionObjective(supervised=True).hold_out(noisy, np.random.default_rng(0))
    objective = MotionObjective()
    example = objective.hold_out(noisy, np.random.default_rng(0))
    ratio = exposures[1] / exposures[0]
    seen = objective.observe(known.target, example)
    residual = ((seen - example.target) * ratio * FULL_SCALE)[0, 0, 8:-8, 8:-8].numpy()
    dn = ratio * FULL_SCALE * seen[0, 0, 8:-8, 8:-8].numpy()
    relative = (residual / noise_sigma(dn, 2.5))[dn < 0.9 * FULL_SCALE]  # not clipped; NaN is not
    assert relative.size > 20000
    assert abs(relative.mean()) < 0.01
    assert abs(relative.std() - 1) < 0.01
    wrong = objective.observe(-known.target, example)
    error = [compare_details(image, example.target, 5) for image in (seen, wrong)]
    assert error[1] > error[0]


def test_the_other_frames_are_all_met_and_belong_to_their_motion():
    batch = simulated(4, 5, 24)
    objective = MotionObjective(supervised=True)
    met = set()
    for seed in range(8):
        example = objective.hold_out(batch, np.random.default_rng(seed))
        assert torch.equal(example.views[:, 0], batch.views[:, 0] / FULL_SCALE)
        for k in range(4):
            (t,) = (t for t in range(5) if torch.equal(example.flow[k, 1], batch.flow[k, t]))
            met.add(t)
            assert torch.allclose(example.views[k, 1] * FULL_SCALE, batch.views[k, t])
            # motion and flow of a translation are opposite
            assert torch.allclose(example.target[k], -batch.flow[k, t, 0], atol=1e-4)
    assert met == {1, 2, 3, 4}


@pytest.mark.parametrize("supervised", [True, False])
def test_the_loss_falls(supervised):
    torch.manual_seed(0)
    network, objective = FrameRegistration(), MotionObjective(supervised)
    batch = simulated(2, 2, 24, noise=0.3, smooth=1.5, exposures=(0.5, 1.0))
    optimiser = torch.optim.Adam(network.parameters(), 1e-4)
    losses = []
    for _ in range(28):  # the first twenty stay at no motion
        loss, parts = objective.loss(network, batch, np.random.default_rng(0))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    assert set(parts) == ({"motion"} if supervised else {"details", "variation"})


def test_figures_of_no_motion_are_the_motion():
    batch = simulated(3, 4, 24, noise=0)
    shift = batch.flow[:, 1:, 0, :, 0, 0]
    figures = MotionObjective().score(still_network(), batch)
    assert figures["error_x"] == pytest.approx(float(shift[..., 0].abs().mean()), rel=1e-4)
    assert figures["error_y"] == pytest.approx(float(shift[..., 1].abs().mean()), rel=1e-4)
    assert figures["epe"] == pytest.approx(float(shift.norm(dim=-1).mean()), rel=1e-4)
    assert figures["score"] == -figures["epe"]


def test_details_are_weighed_per_thousand_dn():
    batch = simulated(1, 2, 32)
    loss, parts = MotionObjective().loss(still_network(), batch, np.random.default_rng(0))
    frame, reference = (
        ndimage.gaussian_filter(batch.views[0, t, 0].numpy(), 1, radius=5, mode="mirror")
        for t in (1, 0)
    )
    high = (batch.views[0, 1, 0].numpy() - frame) - (batch.views[0, 0, 0].numpy() - reference)
    assert loss.item() == pytest.approx(np.abs(high[5:-5, 5:-5]).mean() / 1000, rel=1e-4)
    assert parts["variation"] == 0


def test_variation_of_a_ramp_is_its_slopes():
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    motion = torch.stack([0.1 * x - 0.2 * y, 0.3 * x])[None]
    assert total_variation(motion) == pytest.approx((0.1 + 0.3) / 2 + 0.2 / 2)


def test_saturated_and_missing_pixels_of_the_frame_are_not_compared():
    batch = simulated(1, 2, 32)
    losses = []
    for value in (FULL_SCALE, 60000.0, torch.nan):
        views = batch.views.clone()
        views[:, 1, :, 12, 12] = value
        changed = Batch(views, batch.flow)
        losses.append(MotionObjective().loss(still_network(), changed, np.random.default_rng(0))[0])
    assert losses[0] == losses[1] == losses[2]
    assert losses[0].isfinite()


def test_saturated_pixels_of_the_reference_are_not_compared():
    batch = simulated(1, 2, 32)
    losses = []
    for value in (FULL_SCALE, 60000.0):
        views = batch.views.clone()
        views[:, 0, :, 12, 12] = value
        network = still_network()
        changed = Batch(views, batch.flow)
        loss, _ = MotionObjective().loss(network, changed, np.random.default_rng(0))
        loss.backward()
        assert all(p.grad.isfinite().all() for p in network.parameters())
        losses.append(loss.item())
    assert losses[0] == losses[1]


def test_known_motion_is_needed_where_it_is_learnt():
    batch = Batch(simulated(1, 2).views)
    with pytest.raises(BadInputError, match="take simulated ones"):
        MotionObjective(supervised=True).hold_out(batch, np.random.default_rng(0))
    with pytest.raises(BadInputError, match="take simulated ones"):
        MotionObjective().score(still_network(), batch)

"""HDR-DSP's objective: nothing leaks, the observation is the simulator's, and it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.models.act import ACT
from l1bsr_geo.models.burst import blur, enlarge_centred
from l1bsr_geo.models.dsa import DSA
from l1bsr_geo.models.hdr_dsp import HDRDSP
from l1bsr_geo.simulation.bursts import noise_sigma, simulate_burst
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.training.hdr_dsp import (
    HDRDSPObjective,
    blur_kernel,
    blur_restored,
)
from l1bsr_geo.training.objective import Batch


def simulated(count=2, frames=6, size=24, scale=2, exposures=(1.0,), noise=2.5, **options):
    side = scale * size + 20 * scale
    made = [
        simulate_burst(
            made_city((side, side), k),
            (size, size),
            frames,
            scale=scale,
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


def repeated(batch, count):
    """One burst many times, so that every move of the grid is met."""
    return Batch(
        **{k: v.expand(count, *v.shape[1:]) for k, v in vars(batch).items() if v is not None},
    )


def tiny(base="detail", **sizes):
    torch.manual_seed(0)
    sizes = {"width": 8, "encoder_blocks": 1, "decoder_blocks": 1, "estimates_flow": False} | sizes
    return HDRDSP(**sizes) if base == "detail" else DSA(base=base, **sizes)


def phases(example, scale):
    return [tuple(s) for s in (scale * example.places[:, 0, :, 0, 0]).round().int().tolist()]


@pytest.mark.parametrize(
    ("scale", "exposures"),
    [(2, (1.0,) * 4), (3, (1.0,) * 4), (2, (0.5, 2.0, 1.0, 0.25)), (2, (2.0, 0.5, 0.25, 1.0))],
)
def test_the_truth_leaves_the_noise_of_the_reference_on_every_grid(scale, exposures):
    batch = simulated(1, 4, 260, scale, exposures, exposure_error=0)
    objective = HDRDSPObjective(scale, frames=(2, 3))
    example = objective.hold_out(repeated(batch, 5 * scale**2), np.random.default_rng(3))
    assert len(set(phases(example, scale))) == scale**2
    truth = batch.truth[0, 0] / FULL_SCALE
    dn = batch.truth[0, 0, ::scale, ::scale].numpy() * exposures[0]
    kept = (dn < 0.9 * FULL_SCALE)[3:-3, 3:-3]  # where noise is not clipped
    sigma = noise_sigma(dn, 2.5)
    for k, (dx, dy) in enumerate(phases(example, scale)):
        moved = truth.roll((dy, dx), (0, 1)) * example.exposures[k, 0] * exposures[0]
        part = type(example)(
            example.views[k, None],
            None,
            example.exposures[k, None],
            example.target[k, None],
            example.places[k, None],
        )
        seen = objective.observe(moved[None, None], part)[0, 0]
        residual = (seen - example.target[k, 0]).numpy() * FULL_SCALE / sigma
        inner = residual[3:-3, 3:-3][kept]
        assert abs(inner.mean()) < 0.01
        assert abs(inner.std() - 1) < 0.01


@pytest.mark.parametrize("scale", [2, 3])
def test_what_is_fused_on_a_moved_grid_foretells_the_reference(scale):
    """Flow and places agree: a fit to clean frames, affine and jitter too, gives the reference."""
    batch = simulated(1, 25, 32, scale, noise=0, affine=5e-4, jitter=0.02, parallax=0.1)
    objective = HDRDSPObjective(scale, frames=(24, 24))
    example = objective.hold_out(repeated(batch, 6), np.random.default_rng(0))
    assert len(set(phases(example, scale))) >= 3
    views, exposures = FULL_SCALE * example.views, example.exposures
    fine = ACT(scale, noise=0.5)(views, example.flow, exposures=exposures) / FULL_SCALE
    rms = []
    for sign in (1, -1):
        seen = objective.observe(fine, replace(example, places=sign * example.places))
        error = FULL_SCALE * (seen - example.target)[..., 5:-5, 5:-5]
        rms.append(error.square().mean((1, 2, 3)).sqrt())
    assert rms[0].max() < 5
    moved = example.places[:, 0, :, 0, 0].any(1)
    assert (rms[1] > 20 * rms[0])[moved].all()
    assert moved.any()


def test_exposures_of_what_is_fused_do_not_matter_to_the_observation():
    objective = HDRDSPObjective(frames=(3, 3))
    residuals = []
    for exposures in ((1.0, 0.5, 2.0, 1.0), (1.0, 2.0, 0.25, 0.5)):
        batch = simulated(1, 4, 40, exposures=exposures, exposure_error=0)
        example = objective.hold_out(batch, np.random.default_rng(0))
        first = example.exposures[:, :1, None, None]
        restored = first * batch.truth.roll(phases(example, 2)[0][::-1], (2, 3)) / FULL_SCALE
        residuals.append(objective.observe(restored, example) - example.target)
    assert (residuals[0] - residuals[1]).abs().max() < 1e-6


@pytest.mark.parametrize("exposures", [(1.0,), (0.5, 1.0, 2.0)])
def test_the_held_out_reference_does_not_leak(exposures):
    network, objective = tiny(), HDRDSPObjective(frames=(2, 5))
    batch = simulated(exposures=exposures)
    results = []
    for offset in (0.0, 77.0):
        views = batch.views.clone()
        views[:, 0] += offset
        changed = Batch(views, batch.flow, batch.exposures, batch.truth + offset)
        example = objective.hold_out(changed, np.random.default_rng(5))
        results.append(network(example.views, example.flow, exposures=example.exposures))
        assert not torch.equal(example.target * FULL_SCALE, batch.views[:, 0]) or offset == 0
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("objective", "base", "sizes"),
    [
        (HDRDSPObjective(), "detail", {}),
        (HDRDSPObjective(compare="whole"), "detail", {}),
        (HDRDSPObjective(sharpening=13.1), "detail", {}),
        (HDRDSPObjective(compare="whole"), "average", {"contrast": 5.0}),
        (HDRDSPObjective(compare="whole"), "none", {}),
        (HDRDSPObjective(frames=(2, 3), joint=True), "detail", {"estimates_flow": True}),
    ],
)
def test_the_loss_falls(objective, base, sizes):
    network = tiny(base, **sizes)
    batch = simulated(2, 5, 24, exposures=(0.5, 1.0))
    optimiser = torch.optim.Adam(network.parameters(), 1e-4 if objective.joint else 3e-3)
    losses = []
    for _ in range(8 if objective.joint else 15):
        loss, parts = objective.loss(network, batch, np.random.default_rng(0))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        assert parts["image"] > 0
    assert losses[-1] < 0.97 * losses[0]


def test_the_motion_estimator_learns_along_where_joint():
    network = tiny(estimates_flow=True)
    objective = HDRDSPObjective(joint=True, frames=(2, 2))
    batch = simulated(1, 3, 24)
    blind = Batch(batch.views, None, batch.exposures)
    loss, parts = objective.loss(network, blind, np.random.default_rng(0))
    total = parts["image"] + 3 * parts["warping"] + 0.01 * parts["variation"]
    assert float(loss.detach()) == pytest.approx(float(total))
    (gradient,) = torch.autograd.grad(
        parts_of_image(objective, network, blind), [flow_weight(network)]
    )
    assert gradient.abs().max() > 0  # the restored image teaches it, too
    assert set(objective.score(network, batch)) == {"score", "psnr_3"}


def parts_of_image(objective, network, batch):
    only = HDRDSPObjective(joint=True, frames=objective.frames, warping=0, smoothness=0)
    return only.loss(network, batch, np.random.default_rng(0))[0]


def flow_weight(network):
    return network.fnet.conv2.weight


def test_parts_add_up_and_the_base_is_made_of_blurred_frames():
    network = tiny()
    batch = simulated(exposures=(0.5, 1.0, 2.0))
    views, still = batch.views / FULL_SCALE, torch.zeros_like(batch.flow)
    base, detail = network.restore_parts(views, still, exposures=batch.exposures)
    assert torch.allclose(base + detail, network(views, still, exposures=batch.exposures))
    ratio = batch.exposures / batch.exposures[:, :1]
    mean = views.sum(1) / ratio.sum(1)[:, None, None, None]  # by exposure: of what was exposed
    assert (base - enlarge_centred(blur(mean), 2)).abs().max() < 1e-5


def test_the_published_loss_does_not_see_brightness():
    network, objective = tiny(), HDRDSPObjective()
    batch = simulated()
    brighter = batch.views.clone()
    brighter[:, 0] += 100
    losses = [
        objective.loss(network, b, np.random.default_rng(0))[0].item()
        for b in (batch, Batch(brighter, batch.flow, batch.exposures))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_the_whole_loss_does_not_see_a_wrong_exposure_of_the_reference():
    network, objective = tiny(), HDRDSPObjective(compare="whole")
    batch = simulated()
    brighter = batch.views.clone()
    brighter[:, 0] *= 1.05
    losses = [
        objective.loss(network, b, np.random.default_rng(0))[0].item()
        for b in (batch, Batch(brighter, batch.flow, batch.exposures))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("compare", ["detail", "whole"])
def test_saturated_and_missing_pixels_of_the_reference_are_not_compared(compare):
    network, objective = tiny(), HDRDSPObjective(compare=compare)
    batch = simulated()
    losses = []
    for value in (FULL_SCALE, 60000.0, torch.nan):
        views = batch.views.clone()
        views[:, 0, :, 10:12, 10:12] = value
        loss, _ = objective.loss(network, Batch(views, batch.flow), np.random.default_rng(0))
        network.zero_grad()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in network.parameters())
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0])
    assert losses[2] == pytest.approx(losses[0])


def test_the_kernel_is_the_published_one():
    """Sum, peak and transfer function as measured on the authors' file."""
    kernel = blur_kernel()
    assert kernel.shape == (61, 61)
    assert kernel.sum() == pytest.approx(1)
    assert kernel.max() == kernel[30, 30] == pytest.approx(0.1947, rel=0.02)
    transfer = torch.fft.fft2(functional.pad(kernel, (0, 139, 0, 139))).abs()
    assert transfer[0, 50] == pytest.approx(0.237, abs=0.005)
    assert transfer[0, 94] == pytest.approx(0.14, abs=0.005)


@pytest.mark.parametrize("frequency", [0.05, 0.2, 0.45])
def test_blurring_follows_its_formula(frequency):
    wave = torch.cos(2 * torch.pi * frequency * torch.arange(200.0)).expand(1, 1, 80, -1)
    blurred = blur_restored(wave)[..., 35:45, 40:160]
    gain = float(blurred.flatten() @ wave[..., 35:45, 40:160].flatten())
    gain /= float(wave[..., 35:45, 40:160].square().sum())
    assert gain == pytest.approx(1 / (1 + 13.1 * frequency), rel=0.03)


def test_a_sharpened_truth_foretells_the_reference():
    batch = simulated(1, 3, 80, noise=0)
    objective = HDRDSPObjective(sharpening=13.1, frames=(2, 2))
    example = objective.hold_out(batch, np.random.default_rng(0))
    fine = batch.truth.roll(phases(example, 2)[0][::-1], (2, 3)) / FULL_SCALE
    f = torch.fft.fftfreq(160)
    gain = 1 + 13.1 * torch.hypot(f[:, None], f)
    sharp = torch.fft.ifft2(torch.fft.fft2(fine) * gain).real
    inside = (..., slice(16, -16), slice(16, -16))
    error = (objective.observe(sharp, example) - example.target)[inside]
    assert error.std() < 0.03 * example.target[inside].std()
    plain = (objective.observe(fine, example) - example.target)[inside]
    assert error.std() < 0.1 * plain.std()


@pytest.mark.parametrize("compare", ["detail", "whole"])
def test_figures_are_of_what_the_product_gives(compare):
    network, batch = tiny(), simulated(2, 6, 30, exposures=(0.5, 1.0))
    figures = HDRDSPObjective(compare=compare, counts=(5,)).score(network, batch)
    seen = [v[:, :5] for v in (batch.views / FULL_SCALE, batch.flow, batch.exposures)]
    with torch.no_grad():
        fine = network(seen[0], seen[1], exposures=seen[2]) * FULL_SCALE
    error = fine / batch.exposures[:, :1, None, None] - batch.truth
    mse = error[..., 8:-8, 8:-8].square().mean((1, 2, 3))
    assert figures["psnr_5"] == pytest.approx(
        float((10 * (3400**2 / mse).log10()).mean()), abs=1e-3
    )
    blurred = HDRDSPObjective(compare=compare, sharpening=13.1, counts=(5,)).score(network, batch)
    assert blurred["psnr_5"] != pytest.approx(figures["psnr_5"], abs=1e-2)


def test_wrong_options_get_one_line():
    batch, rng = simulated(1, 3), np.random.default_rng(0)
    blind = Batch(batch.views, None, batch.exposures)
    with pytest.raises(BadInputError, match="motion of these bursts is not known"):
        HDRDSPObjective().loss(tiny(), blind, rng)
    with pytest.raises(BadOptionError, match="set compare to 'whole'"):
        HDRDSPObjective().loss(tiny("none"), batch, rng)
    with pytest.raises(BadOptionError, match="no motion estimator"):
        HDRDSPObjective(joint=True).loss(tiny(), batch, rng)
    with pytest.raises(BadInputError, match="too small for a kernel"):
        blur_restored(torch.zeros(1, 1, 30, 64))

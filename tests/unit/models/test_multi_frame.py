"""Multi-frame restorers against simulated bursts whose truth and motion are known."""

import numpy as np
import pytest
import torch

from l1bsr_geo.models.act import ACT
from l1bsr_geo.models.base import BurstRestorer
from l1bsr_geo.models.burst import BurstViews, accumulate
from l1bsr_geo.models.classical import Bicubic
from l1bsr_geo.models.highresnet import HighResNet
from l1bsr_geo.models.registry import Model
from l1bsr_geo.models.shift_and_add import ShiftAndAdd
from l1bsr_geo.simulation.bursts import simulate_burst
from tests.synthetic.fine_scenes import fine_scenes, made_ground

SHAPE = (64, 72)
CLASSICAL = [ShiftAndAdd, ACT]


def restore(restorer, burst, frames=None, **exposures):
    """The restorer on frames of a simulated burst, (scale * H, scale * W)."""
    views = torch.from_numpy(burst.frames[:frames])[None, :, None]
    flow = torch.from_numpy(burst.flow[:frames])[None, :, None]
    return restorer(views, flow, **exposures)[0, 0].numpy()


def psnr(image, truth, border=8):
    inner = slice(border, -border)
    return -10 * np.log10(np.mean(((image - truth)[inner, inner] / 3400) ** 2))


def displacement(image, truth, border=8):
    """The (dx, dy) [fine px] by which an image is off, by least squares on the gradient."""
    inner = (slice(border, -border),) * 2
    dy, dx = (g[inner].ravel() for g in np.gradient(truth))
    # symmetric blur and a gain are no displacement
    columns = np.stack([-dx, -dy, truth[inner].ravel(), np.ones(dx.size)], 1)
    return np.linalg.lstsq(columns, image[inner].ravel(), rcond=None)[0][:2]


@pytest.fixture(scope="module", params=["there", "made"])
def scenes(request):
    """Four fine scenes: photographs where they are, and always made-up ground."""
    if request.param == "made":
        return [made_ground(250, seed) for seed in range(4)]
    return fine_scenes(2, 250, "brighton") + fine_scenes(2, 250, "seneca")


@pytest.mark.parametrize(("frames", "margin"), [(5, 2.5), (30, 0.2)])
def test_act_beats_shift_and_add_beats_bicubic(scenes, frames, margin):
    # the noise of simulated bursts, 2.5 times SkySat's, is 32 DN in the middle of the range
    restorers = [Bicubic(aligned="centre"), ShiftAndAdd(), ACT(noise=32.0), ACT()]
    figures = []
    for seed, scene in enumerate(scenes):
        burst = simulate_burst(scene, SHAPE, frames, seed=seed)
        figures.append([psnr(restore(r, burst), burst.truth) for r in restorers])
    bicubic, added, fitted, default = np.mean(figures, 0)
    assert added > bicubic + 1
    assert fitted > added + margin
    assert default > fitted - 1


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("make", [*CLASSICAL, lambda scale: Bicubic(scale, "centre")])
def test_they_land_on_the_centre_aligned_grid(make, scale):
    burst = simulate_burst(
        made_ground(280, 5), SHAPE, 12, scale=scale, noise=1.0, affine=2e-4, parallax=0.1, seed=3
    )
    off = displacement(restore(make(scale), burst), burst.truth)
    assert np.abs(off).max() < 0.05
    wrong = displacement(np.roll(burst.truth, 1, 1), burst.truth)
    assert wrong[0] > 0.3  # the measure would see it


@pytest.mark.parametrize("make", CLASSICAL)
@pytest.mark.parametrize("scale", [2, 3])
def test_a_constant_scene_stays_constant_through_all_exposures(make, scale):
    generator = torch.Generator().manual_seed(0)
    exposures = torch.tensor([[2.0, 1.0, 8.0, 0.5, 2.0]])
    views = 250 * exposures[..., None, None, None].expand(1, 5, 2, 12, 15)
    flow = 2 * torch.rand(1, 5, 2, 2, 1, 1, generator=generator) - 1
    flow[:, 0] = 0
    flow = flow.expand(-1, -1, -1, -1, 12, 15)
    out = make(scale)(views, flow, exposures=exposures)
    assert out.shape == (1, 2, 12 * scale, 15 * scale)
    torch.testing.assert_close(out, torch.full_like(out, 500.0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("make", CLASSICAL)
def test_exposures_are_used_as_told(make):
    burst = simulate_burst(
        made_ground(250, 1), SHAPE, 15, exposures=(0.25, 0.5, 1), exposure_error=0.0, seed=2
    )
    told = torch.from_numpy(burst.exposures)[None]
    truth = burst.truth * burst.exposures[0]
    with_them = psnr(restore(make(), burst, exposures=told), truth)
    assert with_them > psnr(restore(make(), burst), truth) + 10
    # the unit does not matter
    again = restore(make(), burst, exposures=0.37 * told)
    np.testing.assert_allclose(again, restore(make(), burst, exposures=told), rtol=1e-3)


@pytest.mark.parametrize("make", CLASSICAL)
def test_the_order_of_the_other_frames_does_not_matter(make):
    burst = simulate_burst(made_ground(250, 1), SHAPE, 6, seed=2)
    views, flow = (torch.from_numpy(v)[None, :, None] for v in (burst.frames, burst.flow))
    order = [0, 4, 2, 5, 1, 3]
    torch.testing.assert_close(
        make()(views[:, order], flow[:, order]), make()(views, flow), rtol=1e-4, atol=0.05
    )


@pytest.mark.parametrize("make", CLASSICAL)
@pytest.mark.parametrize("scale", [2, 3])
def test_one_frame_is_better_than_nothing(make, scale):
    burst = simulate_burst(made_ground(280, 1), SHAPE, 1, scale=scale, noise=1.0, seed=2)
    found = restore(make(scale), burst)
    nearest = np.kron(burst.frames[0], np.ones((scale, scale)))
    assert psnr(found, burst.truth) > psnr(nearest, burst.truth)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("make", CLASSICAL)
def test_what_a_frame_lacks_adds_nothing(make):
    burst = simulate_burst(made_ground(250, 1), SHAPE, 6, seed=2)
    whole = restore(make(), burst)
    truncated = burst.frames.copy()
    truncated[3:, :, 30:] = np.nan
    views, flow = (torch.from_numpy(v)[None, :, None] for v in (truncated, burst.flow))
    found = make()(views, flow)[0, 0].numpy()
    three = restore(make(), burst, 3)
    np.testing.assert_allclose(found[:, 90:], three[:, 90:], atol=0.5)
    np.testing.assert_allclose(found[:, :30], whole[:, :30], atol=0.5)
    assert np.abs(whole - three)[:, 90:].max() > 20
    truncated[3:] = np.nan
    views = torch.from_numpy(truncated)[None, :, None]
    np.testing.assert_allclose(make()(views, flow)[0, 0].numpy(), three, atol=0.05)


@pytest.mark.parametrize("make", CLASSICAL)
def test_memory_does_not_grow_with_the_frames(make, live_memory):
    peaks = []
    for frames in (5, 30):
        burst = simulate_burst(made_ground(250, 1), SHAPE, frames, seed=2)
        with live_memory() as memory:
            restore(make(), burst)
        peaks.append(memory.peak)
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize("name", ["shift-and-add", "act"])
def test_half_precision_is_for_networks_only(name):
    burst = simulate_burst(made_ground(250, 1), SHAPE, 4, seed=2)
    views, flow = burst.frames[None, :, None], burst.flow[None, :, None]
    coarse = Model(name, precision="bf16").restore(views, flow)
    np.testing.assert_array_equal(coarse, Model(name).restore(views, flow))


def test_accumulate_counts_frames():
    burst = simulate_burst(made_ground(250, 1), SHAPE, 8, seed=2)
    views, flow = (torch.from_numpy(v)[None, :, None] for v in (burst.frames, burst.flow))
    _, count = accumulate(BurstViews.of(views, flow, None), 2)
    assert float(count[..., 8:-8, 8:-8].mean()) == pytest.approx(8 / 4, rel=0.02)


def test_act_tiles_meet():
    burst = simulate_burst(made_ground(330, 1), (120, 60), 5, seed=2)
    act = ACT()
    views, flow = (torch.from_numpy(v)[None, :, None] for v in (burst.frames, burst.flow))
    whole = act(views, flow)
    halo = act.spec.halo
    tile = act(views[..., 60 - halo :, :], flow[..., 60 - halo :, :])
    assert (tile[..., 2 * halo :, :] - whole[..., 120:, :]).abs().max() < 0.5


def test_sharpening_undoes_the_blur_kernel_of_hdr_dsp():
    inner = (..., slice(40, 88), slice(40, 88))
    for f in (0.05, 0.1, 0.2):  # cycles per fine pixel
        wave = torch.cos(2 * np.pi * f * 2 * torch.arange(64.0)).expand(64, 64)
        views = 2000 + 100 * wave[None, None, None]
        plain, sharp = (ACT(noise=1.0, sharpening=s)(views)[inner].std() for s in (0.0, 13.1))
        assert float(sharp / plain) == pytest.approx(1 + 13.1 * f, rel=0.05)
    flat = ACT(sharpening=13.1)(torch.full((1, 1, 1, 20, 20), 700.0))
    torch.testing.assert_close(flat, torch.full_like(flat, 700.0), rtol=1e-5, atol=0)


def test_bicubic_of_a_burst_is_that_of_its_reference():
    views = torch.rand(1, 5, 1, 8, 9)
    assert torch.equal(Bicubic()(views), Bicubic()(views[:, :1]))
    centred = Bicubic(3, "centre")(views)
    torch.testing.assert_close(centred[..., ::3, ::3], views[:, 0])


@torch.inference_mode()
def test_highres_net(random_weights):
    for scale in (2, 3):
        network = HighResNet(scale).eval()
        network.load_state_dict(random_weights(network, 1.0))
        assert isinstance(network, BurstRestorer)
        for frames in (1, 2, 5, 8):
            views = torch.rand(1, frames, 2, 9, 11)
            out = network(views)
            assert out.shape == (1, 2, 9 * scale, 11 * scale)
            assert out.isfinite().all()
    # with as many frames as a power of two it is the authors' pairing: first with last
    hidden = torch.rand(1, 4, 64, 5, 5)
    fuse = network.fuse
    pairs = [hidden[:, 0] + fuse.fuse(torch.cat([hidden[:, 0], hidden[:, 3]], 1))]
    pairs.append(hidden[:, 1] + fuse.fuse(torch.cat([hidden[:, 1], hidden[:, 2]], 1)))
    expected = pairs[0] + fuse.fuse(torch.cat(pairs, 1))
    torch.testing.assert_close(fuse(hidden), expected)
    # a fifth frame leaves those alone that it is not paired with
    ratios = torch.tensor([[1.0, 2.0]])
    views = torch.rand(1, 1, 1, 9, 9).expand(1, 2, 1, 9, 9) * ratios[..., None, None, None]
    torch.testing.assert_close(
        network(views, exposures=ratios), network(views[:, :1].expand(1, 2, 1, 9, 9))
    )


def test_by_name_and_at_both_scales():
    burst = simulate_burst(made_ground(280, 1), SHAPE, 4, scale=3, seed=2)
    views, flow = burst.frames[None, :, None], burst.flow[None, :, None]
    for name in ("shift-and-add", "act", "bicubic"):
        assert Model(name).restore(views, flow).shape == (1, 1, 128, 144)
        fine = Model(name, scale=3).restore(views, flow, exposures=np.ones((1, 4), np.float32))
        assert fine.shape == (1, 1, 192, 216)

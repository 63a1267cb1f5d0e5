"""Compact CSR on images whose motion is known; its parts against closed forms and libraries."""

import numpy as np
import pytest
import torch
from scipy import ndimage, signal

from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.csr_compact import (
    CELL,
    CompactBandRegistration,
    CompactCSR,
    correlate,
    normalise_locally,
    orient,
)
from l1bsr_geo.models.entries import MODELS


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return CompactCSR().eval()


@pytest.fixture(scope="module")
def restorer():
    torch.manual_seed(0)
    return CompactBandRegistration().eval()


def ground(size, seed=0):
    """Smooth enough to be read between its pixels, (size, size) [DN]."""
    noise = np.random.default_rng(seed).standard_normal((size, size))
    return 400 + 60 * ndimage.gaussian_filter(noise, 1.5) / 0.19


def moved(image, dx, dy, size):
    """What lies at p + (dx, dy), for the middle of an image."""
    start = (len(image) - size) // 2
    y, x = np.mgrid[:size, :size] + float(start)
    return ndimage.map_coordinates(image, [y + dy, x + dx], order=5)


def a_pair(dx, dy, size=96, contrast=1.0, seed=0):
    """Pixel p of the first is seen in the second at p + (dx, dy)."""
    image = ground(size + 32, seed)
    target, moving = moved(image, 0, 0, size), moved(image, -dx, -dy, size)
    pair = np.stack([target, 500 + contrast * (moving - 400)])
    return torch.from_numpy(pair[None].astype(np.float32))


def test_it_is_small(network):
    assert sum(p.numel() for p in network.parameters()) < 100_000


@torch.inference_mode()
@pytest.mark.parametrize("shift", [(0, 0), (0.5, -0.25), (9.7, -9.2), (-10, 4.3)])
@pytest.mark.parametrize("contrast", [1.0, -0.5], ids=["alike", "inverted"])
def test_it_registers_before_anything_is_learnt(network, shift, contrast):
    flow = network(a_pair(*shift, contrast=contrast))
    error = (flow[0] - torch.tensor(shift)[:, None, None])[:, 12:-12, 12:-12]
    assert error.norm(dim=0).mean() < 0.1


@torch.inference_mode()
def test_every_step_comes_nearer(network):
    flows = network.trace(a_pair(3.3, -1.6)).flows
    truth = torch.tensor([3.3, -1.6])[:, None, None]
    errors = [float((f[0] - truth)[:, 12:-12, 12:-12].norm(dim=0).mean()) for f in flows]
    assert errors[0] < 2  # displacements are compared by 2 px
    assert errors[1] < errors[0] / 2
    assert errors[-1] < 0.06


@torch.inference_mode()
def test_a_smooth_flow_is_followed(network):
    size = 128
    y, x = np.mgrid[:size, :size] / size - 0.5
    dx, dy = 2 + 1.0 * x, -1 + 0.8 * y
    image = ground(size + 32)
    at = np.mgrid[:size, :size] + 16.0
    moving = ndimage.map_coordinates(image, at, order=5)
    target = ndimage.map_coordinates(image, [at[0] + dy, at[1] + dx], order=5)
    pair = torch.from_numpy(np.stack([target, moving])[None].astype(np.float32))
    error = network(pair)[0].numpy() - np.stack([dx, dy])
    assert np.linalg.norm(error, axis=0)[12:-12, 12:-12].mean() < 0.1


@torch.inference_mode()
def test_the_unit_of_the_images_does_not_matter(network):
    pair = a_pair(1.2, 0.7, size=48)
    torch.testing.assert_close(network(pair / 400), network(pair), rtol=0, atol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("shape", [(1, 1), (17, 40), (48, 33)])
def test_any_size(restorer, shape):
    out = restorer(torch.rand(1, 1, 4, *shape) * 1000)
    assert out.shape == (1, 4, *shape)
    assert out.isfinite().all()


@torch.inference_mode()
@pytest.mark.parametrize("level", [0.0, 500.0])
def test_flat_ground_stays_as_it_is(restorer, level):
    views = torch.full((1, 1, 4, 32, 32), level)
    assert restorer.flow(views).abs().max() <= restorer.network.reach
    torch.testing.assert_close(restorer(views), views[:, 0])


@torch.inference_mode()
def test_the_restorer_brings_bands_onto_the_reference(restorer):
    size, shifts = 96, [(1.5, -0.7), (0, 0), (-2.2, 0.4), (0.6, 3.1)]
    image = ground(size + 32)
    bands = np.stack([moved(image, -dx, -dy, size) for dx, dy in shifts])
    views = torch.from_numpy(bands[None, None].astype(np.float32))
    assert isinstance(restorer, Restorer)
    flow, out = restorer.flow(views), restorer(views)
    assert flow.shape == (1, 4, 2, size, size)
    assert flow[:, 1].abs().max() == 0
    assert (out[0, 1] == views[0, 0, 1]).all()
    inner = (slice(None), slice(12, -12), slice(12, -12))
    left = (out[0] - views[0, 0, 1])[inner].square().mean((1, 2)).sqrt()
    before = (views[0, 0] - views[0, 0, 1])[inner].square().mean((1, 2)).sqrt()
    assert (left[[0, 2, 3]] < 0.1 * before[[0, 2, 3]]).all()


def test_correlation_and_its_slope_are_those_of_scipy_and_of_differences():
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 2, 3, 6, 7))
    steps = 2
    found = correlate(torch.from_numpy(first), torch.from_numpy(second), steps)
    assert found.shape == (2, 25, 6, 7)
    total = found.sum((2, 3)).view(2, 5, 5).numpy()
    for b in range(2):
        full = sum(signal.correlate2d(second[b, c], first[b, c]) for c in range(3))
        middle = full[5 - steps : 6 + steps, 6 - steps : 7 + steps]
        np.testing.assert_allclose(total[b], middle, atol=1e-12)
    inputs = [torch.from_numpy(v[:1, :, :4, :4]).requires_grad_() for v in (first, second)]
    assert torch.autograd.gradcheck(lambda a, b: correlate(a, b, 1), inputs)


def test_contrast_and_orientation_are_what_they_say():
    image = torch.from_numpy(ground(64)[None, None])
    contrast = normalise_locally(image)
    torch.testing.assert_close(normalise_locally(7 * image), contrast)
    torch.testing.assert_close(orient(-contrast), orient(contrast))
    middle = contrast[..., 12:-12, 12:-12]
    assert abs(float(middle.mean())) < 0.1
    assert 0.9 < float(middle.std()) < 1.1
    x = torch.arange(64.0)[None, None, None] * 0.1
    across = orient((x - x.mean()).expand(1, 1, 64, 64))[..., 20:-20, 20:-20]
    assert (across[:, 0] > 0.7).all()  # an edge across columns: angle 0
    assert across[:, 1].abs().max() < 1e-5
    faint = normalise_locally(400 + 0.01 * (image - 400))
    assert faint.std() < 0.2 * contrast.std()


@torch.inference_mode()
def test_nothing_beyond_the_halo_is_seen(network):
    """The flow is a function of what the spec's halo holds, and of no less than half of it."""
    halo = CompactBandRegistration().spec.halo
    size = 2 * halo + 24
    pair = torch.rand(1, 2, 4 * CELL, size, generator=torch.Generator().manual_seed(0)) * 100 + 300
    other = pair.clone()
    column = halo + 8
    other[..., column + halo :] = other[..., column + halo :].flip(-1) * 2
    beside = slice(column - CELL, column)
    torch.testing.assert_close(
        network(other)[..., beside], network(pair)[..., beside], rtol=0, atol=1e-5
    )
    near = pair.clone()
    near[..., column + 40 :] = near[..., column + 40 :].flip(-1) * 2
    assert (network(near) - network(pair))[..., beside].abs().max() > 1e-4


@torch.inference_mode()
def test_tiles_on_the_lattice_agree_with_the_whole(network):
    pair = a_pair(2.2, -1.4, size=128)
    spec = CompactBandRegistration().spec
    halo, lattice = spec.halo, spec.multiple
    wide = torch.nn.functional.pad(pair, (halo, 0, 0, 0), mode="replicate")
    whole = network(wide)
    part = network(wide[..., lattice:])
    torch.testing.assert_close(part[..., halo:], whole[..., halo + lattice :], rtol=0, atol=1e-4)


def test_it_ships_under_the_name_csr():
    assert isinstance(MODELS["csr"].make(), CompactBandRegistration)
    assert MODELS["csr"].weights is None
    assert MODELS["csr-hourglass"].weights is not None

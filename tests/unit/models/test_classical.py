import pickle

import numpy as np
import pytest
import torch
from scipy import ndimage

from l1bsr_geo.errors import L1bsrGeoWarning
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.classical import Bicubic, Geometric
from l1bsr_geo.ops.sampling import pixel_centres


def quadratic(x, y):
    return 0.5 * x**2 + 2 * x * y - y**2 + 10


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_geometric_brings_every_band_where_the_flow_says(scale):
    x, y = pixel_centres(54, 56, like=torch.zeros(1, dtype=torch.float64))
    shifts = [(0.0, 0.0), (1.3, -0.7), (-2.25, 3.5)]
    views = torch.stack([quadratic(x - dx, y - dy) for dx, dy in shifts])[None, None]
    flow = torch.tensor(shifts, dtype=torch.float64)[:, :, None, None].expand(-1, -1, 54, 56)
    out = Geometric(scale)(views, flow[None, None])
    truth = quadratic(*pixel_centres(54, 56, scale, like=x)).expand(1, 3, -1, -1)
    inner = (..., slice(20 * scale, -20 * scale), slice(20 * scale, -20 * scale))
    torch.testing.assert_close(out[inner], truth[inner], atol=2e-3, rtol=0)  # the filter is cut


def test_geometric_reads_a_flow_that_changes_linearly():
    x, y = pixel_centres(64, 66, like=torch.zeros(1, dtype=torch.float64))
    flow = torch.stack([0.5 + 0.05 * x + 0 * y, -0.3 + 0.02 * y + 0 * x])
    fx, fy = pixel_centres(64, 66, 2, like=x)
    out = Geometric()(quadratic(x, y)[None, None, None], flow[None, None, None])
    truth = quadratic(fx + 0.5 + 0.05 * fx, fy - 0.3 + 0.02 * fy)
    inner = (..., slice(40, -50), slice(40, -50))
    torch.testing.assert_close(out[0, 0][inner], truth[inner], atol=2e-3, rtol=0)


@pytest.mark.parametrize("scale", [1, 2])
def test_geometric_is_the_cubic_spline_of_scipy(scale):
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 4000, (50, 60))
    dx, dy = 0.37, -1.62
    flow = torch.tensor([dx, dy]).view(1, 1, 1, 2, 1, 1).expand(-1, -1, -1, -1, 50, 60)
    out = Geometric(scale)(torch.tensor(image, dtype=torch.float32)[None, None, None], flow)
    x, y = pixel_centres(50, 60, scale, like=torch.zeros(1, dtype=torch.float64))
    at = np.broadcast_arrays(y.numpy() + dy - 0.5, x.numpy() + dx - 0.5)
    truth = ndimage.map_coordinates(image, at, order=3, mode="nearest")
    inner = slice(15 * scale, -15 * scale), slice(15 * scale, -15 * scale)
    np.testing.assert_allclose(out[0, 0].numpy()[inner], truth[inner], atol=0.05)


def test_without_motion_pixels_stay():
    views = torch.rand(2, 1, 3, 7, 5)
    zero = torch.zeros(2, 1, 3, 2, 7, 5)
    torch.testing.assert_close(Geometric()(views, zero), Geometric()(views))
    assert torch.equal(Geometric(1)(views), views[:, 0])
    torch.testing.assert_close(Geometric(1)(views, zero), views[:, 0], atol=1e-5, rtol=0)


def test_a_tile_never_reads_beyond_its_halo():
    geometric = Geometric()
    halo = geometric.spec.halo
    assert halo == 26
    views = torch.rand(1, 1, 1, 90, 60)
    flow = torch.full((1, 1, 1, 2, 90, 60), 12.0)
    whole = geometric(views, flow)
    tile = geometric(views[..., 30 - halo :, :], flow[..., 30 - halo :, :])
    # the spline's filter passes the halo's edge by 1e-5
    torch.testing.assert_close(tile[..., 2 * halo :, :], whole[..., 60:, :], atol=1e-4, rtol=0)


def test_a_larger_motion_is_cut_with_a_warning():
    views = torch.rand(1, 1, 1, 20, 40)
    flow = torch.zeros(1, 1, 1, 2, 20, 40)
    flow[..., 0, :, :] = 15.0
    with pytest.warns(L1bsrGeoWarning, match=r"15.0 px .* beyond the 12 px"):
        cut = Geometric()(views, flow)
    torch.testing.assert_close(cut, Geometric()(views, flow.clamp(max=12)))
    assert Geometric(motion=15).spec.halo == 29
    Geometric(motion=15)(views, flow)


@pytest.mark.parametrize("restorer", [Bicubic(), Geometric(scale=1)])
def test_they_are_restorers_and_travel(restorer):
    assert isinstance(restorer, Restorer)
    assert pickle.loads(pickle.dumps(restorer)) == restorer
    assert restorer(torch.rand(1, 1, 2, 1, 1)).shape == (1, 2, restorer.scale, restorer.scale)

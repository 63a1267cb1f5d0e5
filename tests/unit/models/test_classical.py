import pickle

import pytest
import torch

from l1bsr_geo.errors import L1bsrGeoWarning
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.classical import Bicubic, Geometric
from l1bsr_geo.ops.sampling import pixel_centres


def quadratic(x, y):
    return 0.5 * x**2 + 2 * x * y - y**2 + 10


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_geometric_brings_every_band_where_the_flow_says(scale):
    x, y = pixel_centres(24, 26, like=torch.zeros(1, dtype=torch.float64))
    shifts = [(0.0, 0.0), (1.3, -0.7), (-2.25, 3.5)]
    views = torch.stack([quadratic(x - dx, y - dy) for dx, dy in shifts])[None, None]
    flow = torch.tensor(shifts, dtype=torch.float64)[:, :, None, None].expand(-1, -1, 24, 26)
    out = Geometric(scale)(views, flow[None, None])
    truth = quadratic(*pixel_centres(24, 26, scale, like=x))
    inner = (..., slice(7 * scale, -7 * scale), slice(7 * scale, -7 * scale))
    torch.testing.assert_close(out[inner], truth.expand(1, 3, -1, -1)[inner])


def test_geometric_reads_a_flow_that_changes_linearly():
    x, y = pixel_centres(24, 26, like=torch.zeros(1, dtype=torch.float64))
    flow = torch.stack([0.5 + 0.05 * x + 0 * y, -0.3 + 0.02 * y + 0 * x])
    fx, fy = pixel_centres(24, 26, 2, like=x)
    out = Geometric()(quadratic(x, y)[None, None, None], flow[None, None, None])
    truth = quadratic(fx + 0.5 + 0.05 * fx, fy - 0.3 + 0.02 * fy)
    inner = (..., slice(6, -10), slice(6, -10))
    torch.testing.assert_close(out[0, 0][inner], truth[inner])


def test_without_motion_geometric_is_bicubic():
    views = torch.rand(2, 1, 3, 7, 5)
    zero = torch.zeros(2, 1, 3, 2, 7, 5)
    torch.testing.assert_close(Geometric()(views, zero), Bicubic()(views))
    assert torch.equal(Geometric()(views), Bicubic()(views))


def test_a_tile_never_reads_beyond_its_halo():
    geometric = Geometric()
    halo = geometric.spec.halo
    assert halo == 16
    views = torch.rand(1, 1, 1, 60, 60)
    flow = torch.full((1, 1, 1, 2, 60, 60), 12.0)
    whole = geometric(views, flow)
    tile = geometric(views[..., :, 20 - halo :], flow[..., :, 20 - halo :])
    torch.testing.assert_close(tile[..., 2 * halo :], whole[..., 40:])


def test_a_larger_motion_is_cut_with_a_warning():
    views = torch.rand(1, 1, 1, 20, 40)
    flow = torch.zeros(1, 1, 1, 2, 20, 40)
    flow[..., 0, :, :] = 15.0
    with pytest.warns(L1bsrGeoWarning, match=r"15.0 px .* beyond the 12 px"):
        cut = Geometric()(views, flow)
    torch.testing.assert_close(cut, Geometric()(views, flow.clamp(max=12)))
    assert Geometric(motion=15).spec.halo == 19
    Geometric(motion=15)(views, flow)


@pytest.mark.parametrize("restorer", [Bicubic(), Geometric(scale=1)])
def test_they_are_restorers_and_travel(restorer):
    assert isinstance(restorer, Restorer)
    assert pickle.loads(pickle.dumps(restorer)) == restorer
    assert restorer(torch.rand(1, 1, 2, 1, 1)).shape == (1, 2, restorer.scale, restorer.scale)

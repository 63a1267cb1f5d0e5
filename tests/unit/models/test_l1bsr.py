"""The compact network. Only its design can be tested here; how well it learns is a benchmark."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from l1bsr_geo.errors import L1bsrGeoWarning
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.classical import Geometric
from l1bsr_geo.models.l1bsr import L1BSR
from l1bsr_geo.models.receptive_field import probe_halo
from l1bsr_geo.models.registry import MODELS

GAIN = 400  # DN


@pytest.fixture
def trained(random_weights):
    """A network whose detail is as large as the image's."""

    def make(**sizes):
        network = L1BSR(**sizes).eval()
        network.load_state_dict(random_weights(network, 1.4))
        return network

    return make


def scene(views, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + 0.2 * torch.rand(1, views, 4, height, width, generator=generator)


def smooth_flow(views, height, width, size):
    """Smooth, up to ``size`` px, different in every view, band and component."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    phase = torch.arange(8.0 * views).view(1, views, 4, 2, 1, 1)
    return size * torch.sin(phase + x / 90 + y / 70)


def detail(network, views, flow):
    """What the network adds to the spline [DN]."""
    return GAIN * (network(views, flow) - Geometric()(views[:, :1], flow[:, :1]))


@torch.inference_mode()
def test_before_training_it_is_the_spline():
    views, flow = scene(1, 20, 24), smooth_flow(1, 20, 24, 3.0)
    network = L1BSR()
    assert isinstance(network, Restorer)
    torch.testing.assert_close(network(views, flow), Geometric()(views, flow))
    with torch.autocast("cpu", torch.bfloat16):
        result = network(views, flow)
    torch.testing.assert_close(result, Geometric()(views, flow))


@torch.inference_mode()
def test_it_is_compact():
    network = L1BSR()
    assert sum(p.numel() for p in network.parameters()) < 1e6
    with FlopCounterMode(display=False) as counter:
        network(scene(1, 40, 40), smooth_flow(1, 40, 40, 1.0))
    assert counter.get_total_flops() / 40**2 < 2.5e6


@torch.inference_mode()
@pytest.mark.parametrize("views", [1, 2])
def test_tiles_meet_wherever_they_start(trained, views):
    network = trained(width=16, blocks=2)
    halo, height, width = network.spec.halo, 92, 150
    image, flow = scene(views, height, width), smooth_flow(views, height, width, 11.0)
    if views == 2:
        image[:, 1, :, 30:50, 60:90] = torch.nan
    whole = GAIN * network(image, flow)
    assert detail(network, image, flow).std() > 10
    for first, last in ((50, 75), (51, 74), (77, 100)):
        left, right = first - halo, min(last + halo, width)
        tile = GAIN * network(image[..., left:right], flow[..., left:right])
        core = slice(2 * halo, 2 * (halo + last - first))
        seam = tile[..., core] - whole[..., 2 * first : 2 * last]
        assert seam.abs().max() < 0.02


@torch.inference_mode()
def test_the_halo_holds_what_it_looks_at(trained):
    network = trained(width=16, blocks=2, motion=0.0)  # the probe does not move
    radius = probe_halo(network)
    assert 10 < radius <= network.spec.halo


@torch.inference_mode()
def test_a_band_that_moves_with_its_flow_changes_nothing(trained):
    network = trained(width=16, blocks=2)
    image, flow = scene(1, 64, 64), smooth_flow(1, 64, 64, 1.5)
    before = detail(network, image, flow)
    image[0, 0, 3] = image[0, 0, 3].roll((2, -3), (0, 1))  # down by 2, left by 3
    flow[0, 0, 3] += torch.tensor([-3.0, 2.0])[:, None, None]
    after = detail(network, image, flow)
    inside = (..., slice(44, 84), slice(44, 84))
    assert before[inside].std() > 10
    assert (after - before)[inside].abs().max() < 0.02


@torch.inference_mode()
def test_features_land_where_the_flow_says():
    network = L1BSR()
    flow = torch.tensor([0.3, -0.7])[:, None, None].expand(1, 1, 4, 2, 8, 8).contiguous()
    features = torch.zeros(1, 1, 4, 1, 8, 8)
    features[..., 4, 3] = 1  # its centre is at (3.5, 4.5) of the band, (3.2, 5.2) of the reference
    known = torch.ones(1, 1, 4, 8, 8, dtype=torch.bool)
    fine, weight = network._splat(features, known, flow)[0, 0]
    centres = (torch.arange(16) + 0.5) / 2
    assert float(fine.sum()) == pytest.approx(1)
    assert float(fine.sum(0) @ centres) == pytest.approx(3.2, abs=1e-5)
    assert float(fine.sum(1) @ centres) == pytest.approx(5.2, abs=1e-5)
    assert float(weight[4:12, 4:12].mean()) == pytest.approx(0.25, abs=1e-5)


@torch.inference_mode()
def test_an_offset_of_all_pixels_passes_through(trained):
    network = trained(width=16, blocks=2)
    views, flow = scene(2, 40, 40), smooth_flow(2, 40, 40, 2.0)
    raised = network(views + 1, flow)
    torch.testing.assert_close(raised, network(views, flow) + 1, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_second_view_counts_where_it_has_data(trained):
    network = trained(width=16, blocks=2)
    views, flow = scene(2, 60, 90), smooth_flow(2, 60, 90, 0.5)
    one = network(views[:, :1], flow[:, :1])
    unseen = views.clone()
    unseen[:, 1] = torch.nan
    torch.testing.assert_close(network(unseen, flow), one)
    twice = views[:, :1].expand(-1, 2, -1, -1, -1), flow[:, :1].expand(-1, 2, -1, -1, -1, -1)
    inside = (..., slice(40, 80), slice(40, 140))  # a view that ends counts less there
    torch.testing.assert_close(network(*twice)[inside], one[inside], atol=1e-4, rtol=0)
    views[:, 1, :, :, 45:] = torch.nan
    change = GAIN * (network(views, flow) - one)
    assert change[..., :60].std() > 1
    assert change[..., 120:].abs().max() < 0.02


@torch.inference_mode()
def test_no_flow_is_no_motion(trained):
    network = trained(width=16, blocks=2)
    views = scene(1, 12, 14)
    still = torch.zeros(1, 1, 4, 2, 12, 14)
    torch.testing.assert_close(network(views), network(views, still), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_motion_beyond_the_limit_is_told_and_gives_no_features(trained):
    network = trained(width=16, blocks=2, motion=2.0)
    views, flow = scene(1, 30, 30), torch.zeros(1, 1, 4, 2, 30, 30)
    flow[:, :, 0, 0] = 3.0
    with pytest.warns(L1bsrGeoWarning, match=r"3\.0 px .* beyond the 2 px"):
        result = network(views, flow)
    assert result.isfinite().all()


@torch.inference_mode()
def test_half_precision_is_close(trained):
    network = trained(width=16, blocks=2)
    views, flow = scene(1, 30, 30), smooth_flow(1, 30, 30, 1.0)
    exact = network(views, flow)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = network(views, flow)
    assert coarse.dtype == torch.float32
    added = detail(network, views, flow)
    assert GAIN * (coarse - exact).square().mean().sqrt() < 0.02 * added.std()


def test_sizes_travel_as_json():
    sizes = {"width": 24, "blocks": 1, "features": 3, "hidden": 4, "motion": 6.0}
    network = L1BSR(**json.loads(json.dumps(sizes)))
    L1BSR(**sizes).load_state_dict(network.state_dict())
    assert network.spec.halo < L1BSR().spec.halo == MODELS["l1bsr"].spec.halo

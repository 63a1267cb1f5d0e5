import pytest
import torch

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.ops.sampling import double, keys_weights, pixel_centres, upsample, upsample_flow


def test_keys_weights_sum_to_one_and_hit_the_samples():
    weights = torch.stack(keys_weights(torch.linspace(0, 1, 11, dtype=torch.float64)))
    torch.testing.assert_close(weights.sum(0), torch.ones(11, dtype=torch.float64))
    torch.testing.assert_close(weights[:, 0], torch.tensor([0.0, 1, 0, 0], dtype=torch.float64))
    torch.testing.assert_close(weights[:, -1], torch.tensor([0.0, 0, 1, 0], dtype=torch.float64))


@pytest.mark.parametrize("scale", [2, 3])
def test_upsample_is_exact_on_quadratics_with_corners_aligned(scale):
    x, y = pixel_centres(9, 11, like=torch.zeros(1, dtype=torch.float64))
    fx, fy = pixel_centres(9, 11, scale, like=x)
    truth = fx**2 - 3 * fx * fy + 0.5 * fy**2
    fine = upsample(x**2 - 3 * x * y + 0.5 * y**2, scale)
    inner = (slice(2 * scale, -2 * scale),) * 2  # the edge repeats, which no quadratic does
    # the mean of the quadratic over a pixel is not its centre: these are point samples
    torch.testing.assert_close(fine[inner], truth[inner])


def test_upsample_repeats_the_edge_and_takes_one_pixel():
    assert torch.equal(upsample(torch.full((1, 1, 1, 1), 7.0), 2), torch.full((1, 1, 2, 2), 7.0))


def test_upsample_by_one_changes_nothing():
    image = torch.rand(2, 3, 4, 5)
    assert upsample(image, 1) is image


def test_upsample_refuses_to_shrink():
    with pytest.raises(BadOptionError, match="scale is 0"):
        upsample(torch.zeros(1, 1, 2, 2), 0)


def test_upsample_flow_is_the_same_ramp_on_the_fine_grid():
    x, y = pixel_centres(6, 6, like=torch.zeros(1))
    flow = torch.stack([0.1 * x + 0 * y, -0.2 * y + 0 * x])[None]
    fx, fy = pixel_centres(6, 6, 2, like=x)
    fine = upsample_flow(flow, 2)
    inner = slice(1, -1)
    truth = torch.stack([0.1 * fx + 0 * fy, -0.2 * fy + 0 * fx])[None]
    torch.testing.assert_close(fine[..., inner, inner], truth[..., inner, inner])
    assert upsample_flow(flow, 1) is flow


@pytest.mark.parametrize("f", [0.1, 0.3, 0.4])
def test_doubling_interpolates_below_the_band_limit(f):
    x = torch.arange(48.0)
    fine = torch.arange(96.0) / 2
    waves = [torch.cos(2 * torch.pi * f * (0.8 * t[:, None] + 0.6 * t)) for t in (x, fine)]
    doubled = double(waves[0][None, None])[0, 0]
    assert torch.equal(doubled[::2, ::2], waves[0])
    inner = slice(20, -20)
    assert float((doubled - waves[1])[inner, inner].abs().max()) < 5e-3

import pytest
import torch

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.ops.sampling import pixel_centres
from l1bsr_geo.ops.warp import sample, warp, warp_reflected


def ramp(height=8, width=10):
    x, y = pixel_centres(height, width, like=torch.zeros(1, dtype=torch.float64))
    return (3 * x - 2 * y + 0.25 * x * y)[None, None]


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
def test_the_centre_of_the_first_pixel_is_half_half(kernel):
    image = torch.rand(1, 2, 5, 6)
    x, y = pixel_centres(5, 6, like=image)
    torch.testing.assert_close(sample(image, x, y, kernel), image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
def test_a_ramp_is_read_where_it_is(kernel):
    x = torch.tensor([[3.13, 4.87], [5.5, 6.01]], dtype=torch.float64)
    y = torch.tensor([[2.6, 3.3], [4.75, 5.2]], dtype=torch.float64)
    read = sample(ramp(), x, y, kernel)
    torch.testing.assert_close(read[0, 0], 3 * x - 2 * y + 0.25 * x * y)


def test_beyond_the_image_its_edge_is_repeated_and_nothing_overflows():
    image = torch.arange(6.0).view(1, 1, 2, 3)
    x = torch.tensor([[-1e12, 1e12]])
    y = torch.tensor([[-1e12, 1e12]])
    assert sample(image, x, y).flatten().tolist() == [0.0, 5.0]


def test_a_position_that_is_not_a_number_stays_so():
    image = torch.ones(1, 1, 3, 3)
    read = sample(image, torch.tensor([[float("nan"), 1.5]]), torch.tensor([[1.5, 1.5]]))
    assert read.isnan().flatten().tolist() == [True, False]


def test_every_batch_reads_its_own_positions_in_every_channel():
    image = torch.rand(2, 3, 6, 7, dtype=torch.float64)
    flow = torch.zeros(2, 2, 6, 7, dtype=torch.float64)
    flow[1, 0] = 1.0  # one column to the right
    out = warp(image, flow)
    torch.testing.assert_close(out[0], image[0])
    torch.testing.assert_close(out[1, :, :, :-1], image[1, :, :, 1:])


def test_more_positions_than_one_strip():
    image = torch.rand(1, 1, 300, 300)
    assert torch.equal(warp(image, torch.zeros(1, 2, 300, 300)), image)


def test_gradients_reach_the_image_and_the_positions():
    image = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    flow = (torch.rand(1, 2, 5, 6, dtype=torch.float64) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, flow))


def test_an_unknown_kernel_is_refused():
    with pytest.raises(BadOptionError, match="'lanczos'"):
        sample(torch.zeros(1, 1, 3, 3), torch.ones(1, 1), torch.ones(1, 1), "lanczos")


def test_the_published_warp_reads_the_same_place():
    image = torch.rand(1, 1, 12, 14, dtype=torch.float64)
    flow = torch.zeros(1, 2, 12, 14, dtype=torch.float64)
    flow[:, 0], flow[:, 1] = 2.0, -1.0  # whole pixels: every interpolating kernel agrees
    inner = (..., slice(2, -2), slice(2, -4))
    torch.testing.assert_close(warp_reflected(image, flow)[inner], warp(image, flow)[inner])


def test_keys_is_nearer_a_ramp_than_the_published_kernel():
    flow = torch.full((1, 2, 8, 10), 0.25, dtype=torch.float64)
    x, y = pixel_centres(8, 10, like=flow)
    truth = (3 * (x + 0.25) - 2 * (y + 0.25) + 0.25 * (x + 0.25) * (y + 0.25))[None, None]
    inner = (..., slice(2, -2), slice(2, -2))
    ours = (warp(ramp(), flow) - truth)[inner].abs().max()
    published = (warp_reflected(ramp(), flow) - truth)[inner].abs().max()
    assert ours < 1e-9
    assert published > 0.02

import torch

from l1bsr_geo.ops.gaussian import blur


def test_an_impulse_becomes_a_gaussian_of_that_width():
    impulse = torch.zeros(1, 1, 31, 31, dtype=torch.float64)
    impulse[..., 15, 15] = 1
    seen = blur(impulse, 1.5)[0, 0]
    at = torch.arange(31, dtype=torch.float64) - 15
    assert abs(float(seen.sum()) - 1) < 1e-12
    assert abs(float((seen.sum(0) * at**2).sum()) - 1.5**2) < 1e-3
    torch.testing.assert_close(seen, seen.T)


def test_a_constant_stays_even_on_images_smaller_than_the_kernel():
    for shape in ((2, 3, 1, 1), (1, 1, 2, 9), (1, 2, 3, 1)):
        torch.testing.assert_close(blur(torch.full(shape, 7.0), 2.0), torch.full(shape, 7.0))


def test_holes_count_nothing_and_large_ones_stay():
    image = torch.full((1, 1, 20, 20), 3.0)
    image[..., 4, 4] = torch.nan
    image[..., 12:, :] = torch.nan
    seen = blur(image, 1.0)
    assert torch.allclose(seen[..., :11, :], torch.tensor(3.0))
    assert bool(seen[..., 14:, :].isnan().all())

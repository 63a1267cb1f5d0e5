import pytest
import torch

from l1bsr_geo.ops.splat import Splat, read_at, splat


def random_motion(*shape, seed=0, reach=2.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return reach * (2 * torch.rand(shape, generator=generator, dtype=dtype) - 1)


@pytest.mark.parametrize("scale", [2, 3])
def test_it_is_the_published_feature_shift_and_add(shared, scale):
    import numpy as np

    with np.load(shared / "golden/networks.npz") as archive:
        golden = {
            k: torch.from_numpy(archive[f"fsa_x{scale}/{k}"])
            for k in ("samples", "flow", "added", "weight")
        }
    added, weight = splat(golden["samples"][:, None], golden["flow"], scale)
    torch.testing.assert_close(added[:, 0], golden["added"], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(weight[:, 0], golden["weight"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("outside", ["clamp", "drop"])
def test_many_channels_and_few_go_the_same_way(outside):
    motion = random_motion(2, 2, 7, 9)
    samples = torch.randn(2, 64, 7, 9)
    places = Splat(motion, 2, outside)
    one_by_one = torch.cat([places.add(samples[:, [c]]) for c in range(64)], 1)
    torch.testing.assert_close(places.add(samples), one_by_one)
    torch.testing.assert_close(places.add(torch.ones(2, 1, 7, 9)), places.weight)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_centres_are_aligned(scale):
    samples = torch.randn(1, 5, 6, 7)
    added, weight = splat(samples, torch.zeros(1, 2, 6, 7), scale)
    assert torch.equal(added[..., ::scale, ::scale], samples)
    assert weight.sum() == 42
    assert (weight[..., ::scale, ::scale] == 1).all()


def test_motion_is_columns_then_rows_in_coarse_pixels():
    samples = torch.zeros(1, 1, 5, 6)
    samples[..., 2, 3] = 1
    motion = torch.tensor([0.75, -0.5]).view(1, 2, 1, 1).expand(1, 2, 5, 6)
    added, _ = splat(samples, motion, 2)
    assert added[0, 0, 3, 7:9].tolist() == [0.5, 0.5]
    assert added.sum() == 1


def test_nothing_is_lost_or_what_leaves_is_dropped():
    motion = random_motion(3, 2, 8, 8, reach=20)
    assert Splat(motion, 2).weight.sum() == pytest.approx(3 * 64, rel=1e-6)
    dropped = Splat(motion, 2, "drop")
    inside = 0 < dropped.weight.sum() < 3 * 64
    assert inside
    gone = torch.full((1, 2, 8, 8), 1e9)
    gone[:, :, 0] = torch.nan
    assert Splat(gone, 2, "drop").add(torch.rand(1, 9, 8, 8)).abs().sum() == 0


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("outside", ["clamp", "drop"])
def test_gradients_in_samples_and_motion(channels, outside):
    samples = torch.randn(2, channels, 4, 5, dtype=torch.float64, requires_grad=True)
    motion = random_motion(2, 2, 4, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, m: splat(s, m, 2, outside), (samples, motion))


def test_reading_is_the_adjoint_of_splatting():
    motion = random_motion(1, 2, 6, 6, reach=0.4)
    motion[..., [0, -1]] = 0  # nothing leaves the grid
    motion[..., [0, -1], :] = 0
    samples, image = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 12, 12)
    row, column = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    read = read_at(image, 2 * (column + motion[:, 0]), 2 * (row + motion[:, 1]))
    there = (Splat(motion, 2).add(samples) * image).sum()
    torch.testing.assert_close(there, (samples * read).sum())

import numpy as np
import pytest
import torch

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.ops import tvl1
from l1bsr_geo.ops.tvl1 import estimate_flow
from l1bsr_geo.ops.warp import warp


def texture(dx=0.0, dy=0.0, height=64, width=80, seed=0):
    """Grey values of random waves; moved by (dx, dy), exactly."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(float)
    image = np.zeros((height, width))
    for _ in range(30):
        across, down = rng.uniform(-0.6, 0.6, 2)
        image += rng.normal() * np.sin(
            across * (x - dx) + down * (y - dy) + rng.uniform(0, 2 * np.pi)
        )
    return torch.from_numpy(100 + 20 * image).float()[None, None]


@pytest.mark.parametrize(("pair", "within"), [("clean", 0.05), ("noisy", 0.1)])
@pytest.mark.parametrize(("method", "smoothness", "finest"), [("mf2f", 0.15, 0), ("f2f", 0.2, 2)])
def test_it_is_the_published_flow(shared, pair, within, method, smoothness, finest):
    with np.load(shared / "golden/tvl1.npz") as golden:
        first, second = (torch.from_numpy(golden[f"{pair}/frame{i}"])[None, None] for i in (0, 1))
        expected = torch.from_numpy(golden[f"{pair}/{method}/flow"])
    flow = estimate_flow(first, second, smoothness=smoothness, finest=finest)[0]
    error = (flow - expected).square().sum(0).sqrt()
    assert float(error.median()) <= within
    assert float(error.mean()) <= 2 * within  # no region goes its own way


@pytest.mark.parametrize(("dx", "dy"), [(0.6, -0.3), (5.25, 2.5)])
def test_a_translation_is_found(dx, dy):
    flow = estimate_flow(texture(), texture(dx, dy))
    error = flow - torch.tensor([dx, dy]).view(1, 2, 1, 1)
    assert float(error[..., 8:-8, 8:-8].abs().max()) < 0.1


def test_the_second_image_warped_by_the_flow_looks_like_the_first():
    first, second = texture(), texture(1.4, -2.2)
    back = warp(second, estimate_flow(first, second))
    inner = (..., slice(8, -8), slice(8, -8))
    before, after = ((image - first)[inner].square().mean() for image in (second, back))
    assert float(after) < 1e-3 * float(before)


def test_the_unit_of_the_images_does_not_matter():
    first, second = texture(), texture(1.0, 0.5)
    flow = estimate_flow(first, second)
    torch.testing.assert_close(
        estimate_flow(400 + 10 * first, 400 + 10 * second), flow, atol=1e-2, rtol=0
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_finds_the_same_for_every_pair_of_a_batch():
    first = torch.cat([texture(seed=s) for s in (0, 1, 2)])
    second = torch.cat([texture(0.5, 0.1), texture(4, 2, seed=1), texture(seed=2)])
    flow = estimate_flow(first.cuda(), second.cuda()).cpu()
    error = (flow - estimate_flow(first, second)).square().sum(1).sqrt()
    assert float(error.flatten(1).median(1).values.max()) < 0.01


def test_pairs_do_not_know_each_other():
    first = torch.cat([texture(seed=s) for s in (0, 1, 2)])
    second = torch.cat([texture(0.5, 0.1), texture(4, 2, seed=1), texture(seed=2)])
    apart = estimate_flow(first, second)  # a CPU takes pair after pair
    solver = tvl1._Solver(0.15, 5, 300, 0.01)
    with torch.no_grad():
        together = tvl1._descend(*tvl1._stretch(first, second, 0.0), solver, 0)
    torch.testing.assert_close(together, apart, atol=1e-3, rtol=0)
    assert float(apart[2].abs().max()) == 0


def test_what_is_not_known_is_carried_on_smoothly():
    first, second = texture(), texture(1.5, -0.5)
    first[..., 20:28, 30:40] = torch.nan
    second[..., 50:, :] = torch.nan
    flow = estimate_flow(first, second)
    error = flow - torch.tensor([1.5, -0.5]).view(1, 2, 1, 1)
    assert bool(flow.isfinite().all())
    assert float(error[..., 8:40, 8:-8].abs().max()) < 0.15


def test_a_glint_need_not_flatten_the_rest():
    first, second = texture(), texture(1.5, -0.5)
    plain = estimate_flow(first, second)
    first[..., 40, 50] = 40_000
    first[..., 5, 5] = torch.nan
    flows = [estimate_flow(first, second, outliers=share) for share in (0.0, 0.002)]
    gone, kept = ((flow - plain)[..., 8:30, 8:30].abs().max() for flow in flows)
    assert float(kept) < 0.05 < 1 < float(gone)
    with pytest.raises(BadOptionError, match=r"outliers is 0\.5"):
        estimate_flow(first, second, outliers=0.5)


def test_images_of_nothing_do_not_move():
    flat = torch.full((1, 1, 20, 24), 7.0)
    assert float(estimate_flow(flat, flat).abs().max()) == 0
    unknown = torch.full_like(flat, torch.nan)
    assert float(estimate_flow(unknown, unknown).abs().max()) == 0
    assert float(estimate_flow(unknown, unknown, outliers=0.01).abs().max()) == 0


def test_tiny_images_have_a_flow():
    for shape in ((1, 1, 1, 1), (1, 1, 3, 40), (2, 1, 2, 2)):
        assert estimate_flow(torch.rand(shape), torch.rand(shape), finest=2).shape[-2:] == shape[2:]


def test_colour_images_and_different_shapes_are_refused():
    with pytest.raises(BadInputError, match=r"\(1, 3, 8, 8\)"):
        estimate_flow(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
    with pytest.raises(BadInputError, match="same shape"):
        estimate_flow(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 9))

"""Choosing frames, moving the grid, and figures, against closed forms."""

from math import log10

import numpy as np
import pytest
import torch

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.models.shift_and_add import ShiftAndAdd
from l1bsr_geo.simulation.bursts import simulate_burst
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.training.burst_loss import (
    fuse_subset,
    is_clean,
    join_subset,
    mean_error,
    psnr,
    random_shift,
    sample_reference,
    score_frames,
    shift_grid,
)
from l1bsr_geo.training.objective import Batch


def numbered(count=3, frames=7, size=6):
    """Frames that hold their own number, in pixels, flow and exposures alike."""
    number = torch.arange(frames, dtype=torch.float32).repeat(count, 1)
    views = number[:, :, None, None, None].expand(-1, -1, 1, size, size).clone()
    return Batch(views, views[:, :, :, None].expand(-1, -1, -1, 2, -1, -1), number)


def test_a_subset_leaves_the_reference_out_and_keeps_what_belongs_together():
    batch = numbered()
    sizes, first = set(), set()
    for seed in range(40):
        subset = fuse_subset(batch, np.random.default_rng(seed), 2, 5)
        told = subset.exposures
        assert torch.equal(subset.views[:, :, 0, 0, 0], told)
        assert torch.equal(subset.flow[:, :, 0, 1, 0, 0], told)
        assert (told > 0).all()
        assert all(len(set(frames.tolist())) == told.shape[1] for frames in told)
        sizes.add(told.shape[1])
        first |= set(told[:, 0].tolist())
    assert sizes == {2, 3, 4, 5}
    assert first == {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}  # in random order


def test_a_joined_subset_begins_with_the_reference():
    joined = join_subset(numbered(), np.random.default_rng(0), 3, 3).exposures
    assert (joined[:, 0] == 0).all()
    assert (joined[:, 1:] > 0).all()
    assert joined.shape == (3, 3)


def test_the_first_of_a_subset_has_data_everywhere():
    batch = numbered(frames=5)
    batch.views[:, 1:4, :, 0, 0] = torch.nan
    for seed in range(5):
        subset = fuse_subset(batch, np.random.default_rng(seed), 4, 4)
        assert (subset.exposures[:, 0] == 4).all()
        assert set(subset.exposures[0].tolist()) == {1.0, 2.0, 3.0, 4.0}
    batch.views[0, 4, :, 2, 2] = torch.nan
    with pytest.raises(BadInputError, match="none has data everywhere"):
        fuse_subset(batch, np.random.default_rng(0), 4, 4)


def test_one_frame_is_no_burst():
    with pytest.raises(BadInputError, match="2 are needed"):
        fuse_subset(numbered(frames=1), np.random.default_rng(0), 1, 3)


@pytest.mark.parametrize("scale", [2, 3])
def test_random_shifts_meet_every_phase(scale):
    shift = scale * random_shift(np.random.default_rng(0), 200, scale)
    assert {tuple(s) for s in shift.round().int().tolist()} == {
        (x, y) for x in range(scale) for y in range(scale)
    }


def test_a_moved_grid_sees_a_ramp_of_motion_at_its_own_places():
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(9.0), indexing="ij")
    flow = torch.stack([0.1 * x - 0.02 * y, 0.3 + 0.05 * y])[None, None, None].repeat(
        2, 3, 1, 1, 1, 1
    )
    shift = torch.tensor([[0.5, 0.0], [0.25, 0.75]])
    moved = shift_grid(flow, shift)
    for k, (dx, dy) in enumerate(shift.tolist()):
        expected = torch.stack([0.1 * (x - dx) - 0.02 * (y - dy) - dx, 0.3 + 0.05 * (y - dy) - dy])
        # places before the first pixel have the flow of the edge
        assert (moved[k] - expected)[..., 1:, 1:].abs().max() < 1e-6
    assert torch.equal(shift_grid(flow, shift[1])[1], moved[1])


@pytest.mark.parametrize("scale", [2, 3])
def test_the_reference_lies_on_fine_samples(scale):
    fine = torch.rand(4, 2, 6 * scale, 7 * scale, generator=torch.Generator().manual_seed(0))
    for dx in range(scale):
        for dy in range(scale):
            shift = torch.tensor([dx, dy]) / scale
            seen = sample_reference(fine, scale, shift)
            assert (seen - fine[..., dy::scale, dx::scale]).abs().max() < 1e-5
    assert torch.equal(sample_reference(fine, scale, torch.zeros(2)), fine[..., ::scale, ::scale])


def test_between_fine_samples_a_parabola_is_exact():
    at = torch.arange(20, dtype=torch.float64)
    fine = ((at - 3) ** 2 + 0.5 * at[:, None] ** 2)[None, None]
    seen = sample_reference(fine, 2, torch.tensor([0.3, 0.15]))
    expected = (2 * (at[:10] + 0.3) - 3) ** 2 + 0.5 * (2 * (at[:10, None] + 0.15)) ** 2
    assert (seen[0, 0] - expected)[2:-2, 2:-2].abs().max() < 1e-5


def test_what_is_saturated_or_missing_spoils_its_surroundings():
    image = torch.full((1, 1, 9, 9), 100.0)
    image[..., 4, 4], image[..., 0, 8] = 300.0, torch.nan
    assert (~is_clean(image, 300)).sum() == 2
    assert (~is_clean(image, 300, 1)).sum() == 9 + 4


def test_what_is_not_known_does_not_count_and_has_no_gradient():
    a = torch.ones(1, 1, 6, 6, requires_grad=True)
    b = torch.zeros(1, 1, 6, 6)
    b[..., 2, 2] = torch.nan
    error = mean_error(a, b, 1, ~b.isnan())
    error.backward()
    assert error == 1
    assert a.grad.sum() == pytest.approx(1)
    assert a.grad[..., 2, 2] == 0
    assert a.grad[..., 0, :].abs().max() == 0


def test_psnr_is_that_of_each_sample_inside_the_border():
    truth = torch.rand(2, 1, 40, 40)
    image = truth + torch.tensor([10.0, 1.0])[:, None, None, None]
    image[..., :8, :] += 1000
    expected = [20 * log10(3400 / 10), 20 * log10(3400)]
    assert psnr(image, truth).tolist() == pytest.approx(expected, abs=1e-4)


def simulated(exposures):
    made = [
        simulate_burst(
            made_city((140, 140), k), (40, 40), 8, noise=0, exposures=exposures, exposure_error=0
        )
        for k in range(2)
    ]
    views, flow, told, truth = (
        torch.from_numpy(np.stack([getattr(burst, name) for burst in made]))
        for name in ("frames", "flow", "exposures", "truth")
    )
    return Batch(views[:, :, None], flow[:, :, None], told, truth[:, None])


def test_figures_are_at_exposure_one_and_by_number_of_frames():
    figures = score_frames(ShiftAndAdd(), simulated([1.0] * 8), (3, 8, 30))
    assert set(figures) == {"score", "psnr_3", "psnr_8"}
    assert figures["score"] == pytest.approx((figures["psnr_3"] + figures["psnr_8"]) / 2)
    assert figures["psnr_8"] > figures["psnr_3"] + 1
    dim = score_frames(ShiftAndAdd(), simulated([0.5] * 8), (3, 8))
    assert dim["score"] == pytest.approx(figures["score"], abs=1e-3)
    assert set(score_frames(ShiftAndAdd(), simulated([1.0] * 8), (30,))) == {"score", "psnr_8"}


def test_figures_need_truth():
    with pytest.raises(BadInputError, match="need truth"):
        score_frames(ShiftAndAdd(), numbered())

import numpy as np
import pytest
import torch

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.ops.occlusion import (
    compare_residual,
    find_collisions,
    find_inconsistent,
    find_shear,
    find_supported,
    find_visible,
)


def still(height=24, width=30):
    return torch.zeros(1, 2, height, width)


def moving_square(by=4, height=40, width=48):
    """A bright square of 10 pixels moves right over a still ground: two frames and the flow."""
    rng = np.random.default_rng(1)
    ground = torch.from_numpy(rng.uniform(60, 100, (1, 3, height, width))).float()
    first, second = ground.clone(), ground.clone()
    square = torch.from_numpy(rng.uniform(180, 220, (1, 3, 10, 10))).float()
    first[..., 15:25, 12:22] = square
    second[..., 15:25, 12 + by : 22 + by] = square
    flow = still(height, width)
    flow[:, 0, 15:25, 12:22] = by
    return first, second, flow


class TestCollisions:
    @pytest.mark.parametrize("pair", ["clean", "noisy"])
    @pytest.mark.parametrize("method", ["mf2f", "f2f"])
    def test_they_are_those_of_the_published_code(self, shared, pair, method):
        with np.load(shared / "golden/tvl1.npz") as golden:
            flow = torch.from_numpy(golden[f"{pair}/{method}/flow"])[None]
            expected = torch.from_numpy(golden[f"{pair}/{method}/collision"])
        assert torch.equal(find_collisions(flow)[0, 0], expected)

    def test_what_a_moving_thing_covers_is_occluded_and_so_is_what_covers_it(self):
        _, _, flow = moving_square()
        found = find_collisions(flow)[0, 0]
        assert bool((found[15:25, 22:26] == 1).all())  # ground that it comes to lie on
        assert bool((found[15:25, 18:22] == 1).all())  # its own leading part
        found[14:26, 17:27] = 0  # arriving beside a crowded pixel counts, too
        assert not bool(found[:-1, :-1].any())

    def test_a_third_more_pixels_are_allowed_and_twice_as_many_are_not(self):
        x = torch.arange(40.0)
        for squeeze, crowded in ((0.25, False), (0.5, True)):  # at most 1.5 and 2 together
            flow = still(20, 40)
            flow[:, 0] = -squeeze * x
            assert bool((find_collisions(flow)[0, 0, 5:15, 5:30] == 1).any()) is crowded

    def test_what_leaves_the_frame_is_told_apart(self):
        flow = still(20, 30)
        flow[:, 0] = 3
        flow[0, :, 4, 4] = torch.nan
        found = find_collisions(flow)[0, 0]
        assert bool((found[:-1, 26:] == 2).all())
        assert found[4, 4] == 2
        found[4, 4] = 0
        assert not bool(found[:-1, :26].any())

    def test_frames_of_a_batch_do_not_know_each_other(self):
        _, _, flow = moving_square()
        both = torch.cat([torch.zeros_like(flow), flow])
        assert torch.equal(find_collisions(both)[1], find_collisions(flow)[0])
        assert not bool((find_collisions(both)[0] == 1).any())

    def test_a_line_of_pixels_has_no_cell_to_arrive_in(self):
        assert bool((find_collisions(still(1, 9)) == 2).all())


class TestShear:
    def test_it_is_the_shear_and_neither_the_divergence_nor_the_rotation(self):
        y, x = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
        expanding = torch.stack([x, y])[None]
        turning = torch.stack([-y, x])[None]
        shearing = 0.4 * torch.stack([y, x])[None]
        assert not bool(find_shear(expanding).any())
        assert not bool(find_shear(turning).any())
        assert bool(find_shear(shearing).all())
        assert not bool(find_shear(shearing, limit=0.85).any())

    @pytest.mark.parametrize(("reach", "rows", "columns"), [("cross", 3, 3), ("square", 4, 4)])
    def test_how_far_it_spreads(self, reach, rows, columns):
        flow = still()
        flow[0, 0, 13:, 10] = 2  # centred differences: rows 12 and 13 of column 10
        found = find_shear(flow, reach=reach)[0, 0].nonzero()
        extent = found.max(0).values - found.min(0).values + 1
        assert extent.tolist() == [rows + 1, columns]
        if reach == "square":
            assert found.min(0).values.tolist() == [10, 8]
            assert len(found) == (rows + 1) * columns

    def test_an_unknown_flow_is_found(self):
        flow = still()
        flow[0, 1, 5, 5] = torch.nan
        assert bool(find_shear(flow)[0, 0, 5, 5])

    def test_an_unknown_reach_is_refused(self):
        with pytest.raises(BadOptionError, match="cross or square"):
            find_shear(still(), reach="disc")


def test_the_support_of_the_kernel_lies_inside():
    assert int(find_supported(still(9, 12), "bilinear").sum()) == 9 * 12
    assert int(find_supported(still(9, 12), "bicubic").sum()) == 7 * 10
    flow = still(9, 12)
    flow[:, 0] = 2.5
    assert int(find_supported(flow, "bilinear").sum()) == 9 * 9
    assert int(find_supported(flow, "bicubic").sum()) == 7 * 8
    with pytest.raises(BadOptionError, match="bicubic or bilinear"):
        find_supported(flow, "spline")


def test_flows_that_do_not_undo_each_other_are_found():
    _, _, flow = moving_square()
    back = torch.zeros_like(flow)
    back[:, 0, 15:25, 16:26] = -4
    found = find_inconsistent(flow, back)[0, 0]
    covered = torch.zeros_like(found)
    covered[15:25, 22:26] = True  # the ground lies still, but the square comes back from there
    assert torch.equal(found, covered)


class TestResidual:
    def test_the_threshold_is_above_the_noise_and_below_what_does_not_fit(self):
        torch.manual_seed(0)
        first = 100 + 20 * torch.randn(1, 3, 160, 160)
        second = 100 + 20 * torch.randn(1, 3, 160, 160)
        second[..., 60:100, 60:100] += 60
        residual, threshold = compare_residual(first, second)
        fits = residual < threshold
        assert residual.shape == (1, 1, 160, 160)
        assert float((~fits[..., 70:90, 70:90]).float().mean()) == 1
        fits[..., 48:112, 48:112] = True
        assert float(fits.float().mean()) > 0.97

    def test_it_is_the_mode_plus_five_times_its_distance_to_the_tenth_percentile(self):
        # differences of every image are constant: the residuals are known
        levels = torch.tensor([2.0] * 3 + [4.0] * 7)
        first = torch.zeros(1, 1, 400, 40)
        second = levels.repeat_interleave(40).view(1, 1, 400, 1).expand(1, 1, 400, 40)
        _, threshold = compare_residual(first, second)
        assert float(threshold) == pytest.approx(4.0 + 5 * (4.0 - 2.0), abs=0.2)

    def test_the_unit_is_a_parameter(self):
        torch.manual_seed(0)
        first, second = 100 + 10 * torch.randn(2, 1, 3, 50, 61)
        residual, threshold = compare_residual(first, second)
        same, limit = compare_residual(16 * first, 16 * second, full_scale=16 * 255)
        torch.testing.assert_close(same, residual, atol=1e-3, rtol=0)
        torch.testing.assert_close(limit, threshold, atol=1e-3, rtol=0)
        with pytest.raises(BadOptionError, match="full_scale is 0"):
            compare_residual(first, second, full_scale=0)

    def test_images_without_noise_all_fit(self):
        image = torch.rand(1, 1, 20, 20)
        residual, threshold = compare_residual(image, image)
        assert bool((residual < threshold).all())


class TestVisible:
    def test_a_moving_square(self):
        first, second, flow = moving_square()
        visible, occluded = find_visible(first, second, flow)
        assert visible.dtype == occluded.dtype == torch.bool
        assert not bool(visible[..., 15:25, 22:26].any())  # covered
        assert bool(occluded[..., 15:25, 22:26].all())
        free = find_visible(first, second, flow, full_scale=None).visible
        assert bool(free[..., 2:12, 2:-2].all() & free[..., 29:-2, 2:-2].all())
        assert bool(free[..., 17:22, 14:17].all())  # moves, and is seen before and after
        assert not bool((visible & ~free).any())
        assert not bool((visible & occluded).any())
        assert not bool(visible[..., :2, :].any() | visible[..., -2:].any())

    def test_what_leaves_the_frame_is_neither(self):
        image = torch.full((1, 1, 20, 30), 50.0)
        flow = still(20, 30)
        flow[:, 0] = 6
        visible, occluded = find_visible(image, image, flow)
        assert not bool((visible | occluded)[..., 24:].any())
        assert bool(visible[..., 2:-2, 2:22].all())

    def test_a_wrong_flow_is_seen_in_the_residual(self):
        torch.manual_seed(0)
        first = 100 + 3 * torch.randn(1, 1, 80, 80)
        second = 100 + 3 * torch.randn(1, 1, 80, 80)
        second[..., 30:50, 30:50] += 80  # appears from nowhere, no motion tells
        with_residual = find_visible(first, second, still(80, 80)).visible
        without = find_visible(first, second, still(80, 80), full_scale=None).visible
        assert not bool(with_residual[..., 32:48, 32:48].any())
        assert bool(without[..., 32:48, 32:48].all())

    def test_the_rules_of_frame_to_frame(self):
        image = torch.full((1, 1, 20, 30), 50.0)
        flow = still(20, 30)
        flow[:, 0] = 1.5
        visible = find_visible(
            image,
            image,
            flow,
            full_scale=None,
            density=None,
            reach="cross",
            border=1,
            support="bilinear",
        ).visible
        expected = torch.zeros_like(visible)
        expected[..., 1:-1, 1:28] = True
        assert torch.equal(visible, expected)

    def test_both_flows_may_be_asked(self):
        first, second, flow = moving_square()
        back = torch.zeros_like(flow)
        alone = {"full_scale": None, "density": None, "shear": torch.inf}
        visible = find_visible(first, second, flow, back=back, **alone).visible
        assert not bool(visible[..., 16:24, 13:21].any())

    def test_unknown_pixels_are_not_visible_and_spoil_nothing_else(self):
        torch.manual_seed(0)
        first = 100 + torch.randn(1, 3, 60, 60)
        second = 100 + torch.randn(1, 3, 60, 60)
        whole = find_visible(first, second, still(60, 60)).visible
        first[:, 1, 20, 20] = torch.nan
        second[..., 40:, :] = torch.nan
        flow = still(60, 60)
        flow[..., 10, 50] = torch.nan
        visible, occluded = find_visible(first, second, flow)
        assert not bool(visible[..., 20, 20])
        assert not bool(visible[..., 10, 50])
        assert not bool((visible | occluded)[..., 40:, :].any())
        far = visible[..., 2:36, 2:16]
        assert float(far.float().mean()) > 0.9
        assert float(whole.float().mean()) > 0.8

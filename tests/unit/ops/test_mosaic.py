from typing import get_args

import pytest
import torch

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.ops.mosaic import (
    Pattern,
    colour_masks,
    demosaick_bilinear,
    sample_mosaic,
    shift_pattern,
)

PATTERNS = get_args(Pattern)


def ramps(height=11, width=14):
    """Each colour a linear ramp of its own."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64),
        torch.arange(width, dtype=torch.float64),
        indexing="ij",
    )
    return torch.stack([3 * x - y + 100, x + 5 * y, 40 - 2 * x + 0.5 * y])[None]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_first_block_reads_as_the_pattern(pattern):
    masks = colour_masks(pattern, 5, 7, like=torch.zeros(1))
    assert masks.shape == (1, 3, 5, 7)
    assert bool((masks.sum(1) == 1).all())
    first = masks[0, :, :2, :2].int().argmax(0).flatten()
    assert "".join("rgb"[c] for c in first) == pattern
    assert torch.equal(masks[..., 2:, :], masks[..., :-2, :])
    assert torch.equal(masks[..., 2:], masks[..., :-2])


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (1, 0), (0, 1), (1, 1), (-3, 2), (6, 5)])
def test_a_crop_has_the_shifted_pattern(pattern, dx, dy):
    rgb = ramps(12, 14)
    whole, inside = sample_mosaic(rgb, pattern), (slice(dy, None), slice(dx % 14, None))
    if dx < 0:
        dx += 14
    crop = sample_mosaic(rgb[..., *inside], shift_pattern(pattern, dx, dy))
    assert torch.equal(crop, whole[..., *inside])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_ramps_come_back_exactly_in_the_interior(pattern):
    rgb = ramps()
    restored = demosaick_bilinear(sample_mosaic(rgb, pattern), pattern)
    torch.testing.assert_close(restored[..., 1:-1, 1:-1], rgb[..., 1:-1, 1:-1])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_was_seen_is_kept_and_a_constant_fills_the_frame(pattern):
    mosaic = torch.rand(2, 1, 6, 5)
    restored = demosaick_bilinear(mosaic, pattern)
    assert restored.shape == (2, 3, 6, 5)
    assert torch.equal(sample_mosaic(restored, pattern), mosaic)
    flat = demosaick_bilinear(torch.full((1, 1, 2, 2), 7.0), pattern)
    assert torch.equal(flat, torch.full((1, 3, 2, 2), 7.0))


def test_unknown_pixels_count_nothing_in_their_neighbours():
    mosaic = torch.full((1, 1, 8, 8), 5.0)
    mosaic[..., 3, 4] = torch.nan
    restored = demosaick_bilinear(mosaic, "rggb")
    assert bool(restored[..., 3, 4].isnan().all())
    restored[..., 3, 4] = 5
    assert torch.equal(restored, torch.full((1, 3, 8, 8), 5.0))


def test_a_colour_that_no_neighbour_saw_is_unknown():
    mosaic = torch.full((1, 1, 1, 4), 5.0)
    assert demosaick_bilinear(mosaic, "rggb").isnan().all(-1).tolist() == [
        [[False], [False], [True]]
    ]


def test_a_hidden_colour_that_is_not_a_number_does_not_matter():
    rgb = torch.ones(1, 3, 4, 4)
    rgb[:, 2, 0, 0] = torch.nan  # red is seen there
    rgb[:, 0, 2, 2] = torch.nan  # red is seen there, too
    mosaic = sample_mosaic(rgb, "rggb")
    assert mosaic.isnan().nonzero().tolist() == [[0, 0, 2, 2]]


def test_gradients_reach_what_was_seen_even_beside_unknown_pixels():
    rgb = torch.rand(1, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: demosaick_bilinear(sample_mosaic(x, "gbrg"), "gbrg"), rgb
    )
    mosaic = torch.rand(1, 1, 6, 6)
    mosaic[..., 2, 2] = torch.nan
    mosaic.requires_grad_()
    demosaick_bilinear(mosaic, "rggb").nansum().backward()
    assert bool(mosaic.grad.isfinite().all())


def test_bad_patterns_and_images_are_refused():
    with pytest.raises(BadOptionError, match="rggb, bggr, grbg, gbrg"):
        sample_mosaic(torch.rand(1, 3, 4, 4), "rgbg")
    with pytest.raises(BadOptionError, match="has 4 bands"):
        sample_mosaic(torch.rand(1, 4, 4, 4), "rggb")
    with pytest.raises(BadOptionError, match="this one has 3"):
        demosaick_bilinear(torch.rand(1, 3, 4, 4), "rggb")

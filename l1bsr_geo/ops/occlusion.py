"""Which pixels of an image may be compared with another one through a flow.

A pixel p of the first image is seen in the second at p + flow(p), unless something has moved
before it, the flow is wrong there, or it has left the frame. Several signs tell, each a function;
``find_visible`` puts them together.
"""

from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.ops.flow import read_flow
from l1bsr_geo.ops.gaussian import blur
from l1bsr_geo.ops.splat import fine_positions
from l1bsr_geo.ops.warp import warp

Reach: TypeAlias = Literal["cross", "square"]
Support: TypeAlias = Literal["bicubic", "bilinear"]

_RESIDUAL_SIGMA = 2.0  # [px of the halved images]
_BANDWIDTH = 0.5  # of the density of residuals, in units of 0..255
_LARGEST_MODE = 20.0
_MODE_STEP = 0.1
_SHARE = 0.05  # of a kernel that is known: residuals reach a little beyond what is compared
_BIN = 0.02  # residuals are counted in bins before their density is estimated


class Visibility(NamedTuple):
    """Both (B, 1, H, W), bool."""

    visible: Tensor  # may be compared
    occluded: Tensor  # in the frame and known in the second image, but not to be compared


def find_visible(
    first: Tensor,
    second: Tensor,
    flow: Tensor,
    *,
    back: Tensor | None = None,
    full_scale: float | None = 255.0,
    density: float | None = 1.6,
    shear: float = 0.75,
    reach: Reach = "square",
    border: int = 2,
    support: Support = "bicubic",
) -> Visibility:
    """Where the first image may be compared with the second.

    The defaults are the rules of MF2F. Those of F2F: ``full_scale=None, density=None,
    reach="cross", border=1, support="bilinear"``.

    Args:
        first: (B, C, H, W); a pixel with a NaN is not visible.
        second: as ``first``; nor is what reads a NaN there.
        flow: (B, 2, H, W) [px]: pixel p of the first is at p + flow(p) in the second.
        back: the flow from the second to the first, if both are to agree.
        full_scale: what counts as 255 in the unit of the images, for ``compare_residual``; None
            does not compare residuals.
        density: the limit of ``find_collisions``; None does not look for collisions.
        shear: the limit of ``find_shear``.
        reach: of ``find_shear``.
        border: [px] beside the edges of the first image that are not used.
        support: the kernel that will read the second image; it must lie inside.
    """
    warped = warp(second, flow)
    known = warped.isfinite().all(1, keepdim=True) & find_supported(flow, support)
    visible = known & first.isfinite().all(1, keepdim=True) & ~find_shear(flow, shear, reach)
    if border > 0:
        inner = torch.zeros_like(visible)
        inner[..., border:-border, border:-border] = True
        visible &= inner
    if density is not None:
        visible &= find_collisions(flow, density) == 0
    if back is not None:
        visible &= ~find_inconsistent(flow, back)
    if full_scale is not None:
        masked = torch.where(known, warped, torch.nan)
        residual, threshold = compare_residual(first, masked, full_scale)
        visible &= residual < threshold.view(-1, 1, 1, 1)
    return Visibility(visible, known & ~visible)


def find_collisions(flow: Tensor, density: float = 1.6) -> Tensor:
    """Pixels that arrive where others arrive, too.

    Every pixel is splatted bilinearly; where a pixel arrives among four of which one has gathered
    more than ``density``, several have come and one hides the other.

    Args:
        flow: (B, 2, H, W) [px].
        density: of pixels a pixel.

    Returns:
        (B, 1, H, W) uint8: 0 visible, 1 occluded, 2 leaves the frame (or has no flow).

    Source: Dewil et al., MF2F, WACV 2021. As there, positions are cut towards zero, so what
        arrives less than a pixel above or left of the frame counts in its first row or column,
        with extrapolated weights.
    """
    batch, height, width = len(flow), *flow.shape[-2:]
    x, y = (v.double() for v in fine_positions(flow.double(), 1))
    inside = (x > -1) & (x < width - 1) & (y > -1) & (y < height - 1)  # false for a NaN
    x, y = x.where(inside, 0), y.where(inside, 0)
    column, row = x.trunc(), y.trunc()
    right, below = x - column, y - row
    image = torch.arange(batch, device=flow.device)[:, None, None] * height
    first = (image + row.long()) * width + column.long()
    cells = torch.stack([first, first + 1, first + width, first + width + 1])
    # a frame one pixel high or wide has no cell: nothing is inside, and its place is any
    cells = cells.clamp(max=batch * height * width - 1)
    shares = torch.stack(
        [
            (1 - right) * (1 - below),
            right * (1 - below),
            (1 - right) * below,
            right * below,
        ]
    )
    shares = shares * inside
    gathered = shares.new_zeros(batch * height * width)
    gathered.index_add_(0, cells.flatten(), shares.flatten())
    most = gathered[cells].amax(0)
    found = (most > density).to(torch.uint8)
    return found.masked_fill_(~inside, 2)[:, None]


def find_shear(flow: Tensor, limit: float = 0.75, reach: Reach = "square") -> Tensor:
    """Pixels around which the flow shears: ``|d(dx)/dy + d(dy)/dx| > limit``.

    The published codes of F2F and MF2F call it the divergence, which it is not; their results
    rest on what it is.

    Args:
        flow: (B, 2, H, W) [px].
        limit: [px / px].
        reach: what is found spreads over a ``"cross"`` of 3 x 3 (F2F) or a ``"square"`` of 4 x 4
            (MF2F: two pixels up and left, one down and right).

    Returns:
        (B, 1, H, W) bool; true where the flow is not a number.

    Raises:
        BadOptionError: the reach has no such name.
    """
    slope = _slope(flow[:, :1], -2) + _slope(flow[:, 1:], -1)
    found = (~(slope.abs() <= limit)).float()
    if reach == "square":
        padded = functional.pad(found, [1, 2, 1, 2])
        return functional.max_pool2d(padded, 4, stride=1) > 0
    if reach == "cross":
        tall = functional.max_pool2d(found, (3, 1), stride=1, padding=(1, 0))
        wide = functional.max_pool2d(found, (1, 3), stride=1, padding=(0, 1))
        return torch.maximum(tall, wide) > 0
    raise BadOptionError(f"reach is {reach!r}; it must be cross or square")


def find_supported(flow: Tensor, support: Support = "bicubic") -> Tensor:
    """Pixels whose place in the second image has all of the kernel's pixels around it.

    Args:
        flow: (B, 2, H, W) [px].
        support: the kernel.

    Returns:
        (B, 1, H, W) bool; false where the flow is not a number.

    Raises:
        BadOptionError: the kernel has no such name.
    """
    if support not in ("bicubic", "bilinear"):
        raise BadOptionError(f"support is {support!r}; it must be bicubic or bilinear")
    margin = 1 if support == "bicubic" else 0
    height, width = flow.shape[-2:]
    inside = torch.ones_like(flow[:, 0], dtype=torch.bool)
    for at, count in zip(fine_positions(flow, 1), (width, height), strict=True):
        inside &= (at >= margin) & (at <= count - 1 - margin)
    return inside[:, None]


def find_inconsistent(flow: Tensor, back: Tensor) -> Tensor:
    """Pixels that do not come back: the flow there, and the other one from where it leads.

    Args:
        flow: (B, 2, H, W) [px], from the first image to the second.
        back: (B, 2, H, W) [px], from the second to the first.

    Returns:
        (B, 1, H, W) bool; true where the flow is not a number.

    Source: Sundaram, Brox, Keutzer, Dense point trajectories by GPU-accelerated large
        displacement optical flow, ECCV 2010, equation 5.
    """
    returned = read_flow(back, flow)
    gap = (flow + returned).square().sum(1, keepdim=True)
    length = (flow.square() + returned.square()).sum(1, keepdim=True)
    return ~(gap <= 0.01 * length + 0.5)


def compare_residual(
    first: Tensor, warped: Tensor, full_scale: float = 255.0
) -> tuple[Tensor, Tensor]:
    """How much the first image and the warped second one differ, and how much is too much.

    Both are halved and blurred, their absolute difference is averaged over the channels and
    blurred again. Most pixels are well aligned and differ by their noise; the threshold is five
    times as far beyond the most frequent difference as the tenth percentile is below it.

    Args:
        first: (B, C, H, W); NaN where unknown.
        warped: as ``first``, the second image on its grid.
        full_scale: what counts as 255 in the unit of the images; the density of differences is
            estimated with a bandwidth of 0.5 of 255, so it should be near their full range.

    Returns:
        The residual, (B, 1, H, W) in units of 0..255, NaN far from what is known, and the
        threshold of each image, (B,); at least half a unit above the most frequent residual.

    Raises:
        BadOptionError: ``full_scale`` is not positive.

    Source: Dewil et al., MF2F, WACV 2021.
    """
    if not full_scale > 0:
        raise BadOptionError(f"full_scale is {full_scale}; it must be more than 0")
    gain = 255.0 / full_scale
    coarse = [
        blur(_halve(image.float()) * gain, _RESIDUAL_SIGMA, _SHARE) for image in (first, warped)
    ]
    difference = (coarse[0] - coarse[1]).abs().mean(1, keepdim=True)
    residual = blur(difference, _RESIDUAL_SIGMA, _SHARE)
    threshold = torch.stack([_threshold(r[r.isfinite()]) for r in residual])
    height, width = first.shape[-2:]
    fine = functional.interpolate(residual, scale_factor=2, mode="bilinear", align_corners=False)
    return fine[..., :height, :width], threshold


def _halve(image: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; an odd last row or column is repeated."""
    height, width = image.shape[-2:]
    even = functional.pad(image, [0, width % 2, 0, height % 2], mode="replicate")
    return functional.avg_pool2d(even, 2)


def _threshold(residuals: Tensor) -> Tensor:
    """Mode + 5 * (mode - tenth percentile) of residuals (N,)."""
    if residuals.numel() == 0:
        return residuals.new_zeros(())
    reach = _LARGEST_MODE + 5 * _BANDWIDTH
    counts = torch.histc(residuals, int(reach / _BIN), 0, reach)
    bins = (torch.arange(len(counts), device=counts.device) + 0.5) * _BIN
    steps = round(_LARGEST_MODE / _MODE_STEP) + 1
    grid = torch.arange(steps, device=counts.device) * _MODE_STEP
    density = torch.exp(-0.5 * ((grid[:, None] - bins) / _BANDWIDTH).square()) @ counts
    mode = grid[density.argmax()]
    rank = max(round(0.1 * residuals.numel()), 1)
    tenth = residuals.kthvalue(rank).values
    # the mode is known to a step: images without noise would have nothing below the threshold
    return mode + 5 * (mode - tenth).clamp(min=_MODE_STEP)


def _slope(values: Tensor, axis: int) -> Tensor:
    """Centred differences along an axis, one-sided at its ends."""
    if values.shape[axis] < 2:
        return torch.zeros_like(values)
    return torch.gradient(values, dim=axis)[0]

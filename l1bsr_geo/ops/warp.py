"""Reading an image at arbitrary positions: one pixel convention, always explicit.

Pixel coordinates (x, y) = (column, row); (0, 0) is the outer corner of the first pixel, whose
centre is (0.5, 0.5). A flow (dx, dy) says that pixel p of the result reads the image at
p + flow(p).
"""

from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.ops.sampling import (
    keys_weights,
    pixel_centres,
    spline_coefficients,
    spline_weights,
)

Kernel: TypeAlias = Literal["bicubic", "bilinear", "spline"]


def sample(image: Tensor, x: Tensor, y: Tensor, kernel: Kernel = "bicubic") -> Tensor:
    """Read an image at pixel coordinates; differentiable in the image and in the positions.

    Beyond the image its edge pixels are repeated.

    Args:
        image: (B, C, H, W).
        x: (B, h, w) or (h, w) [px], columns; the same positions for every channel.
        y: as ``x``, rows; the two are broadcast.
        kernel: ``"bicubic"`` is Keys' with a = -1/2 (exact up to quadratics); ``"spline"`` is the
            cubic B-spline through the pixels, sharper and exact up to cubics.

    Returns:
        (B, C, h, w).

    Raises:
        BadOptionError: the kernel has no such name.
    """
    shape = np.broadcast_shapes(x.shape, y.shape, (image.shape[0], 1, 1))
    x, y = x.expand(shape), y.expand(shape)
    if kernel == "spline":  # two coefficients beyond the edges, where the kernel reaches
        image, x, y = spline_coefficients(image, margin=2), x + 2, y + 2
    height, width = image.shape[-2:]
    pixels = image.movedim(1, -1).flatten(1, 2)
    read = [
        torch.cat(
            [
                _mix(rows, _taps(cx, width, kernel), _taps(cy, height, kernel), width)
                for cx, cy in zip(px.split(_STRIP), py.split(_STRIP), strict=True)
            ]
        )
        for rows, px, py in zip(pixels, x.flatten(1), y.flatten(1), strict=True)
    ]
    return torch.stack(read).movedim(-1, 1).reshape(*image.shape[:2], *shape[1:])


def warp(image: Tensor, flow: Tensor, kernel: Kernel = "bicubic") -> Tensor:
    """Bring an image onto the grid of its flow.

    Args:
        image: (B, C, H, W).
        flow: (B, 2, H, W) [px], (dx, dy); the same for every channel.
        kernel: as for ``sample``.

    Returns:
        (B, C, H, W): pixel p is the image at p + flow(p); edges are repeated.
    """
    x, y = pixel_centres(*flow.shape[-2:], like=flow)
    return sample(image, x + flow[:, 0], y + flow[:, 1], kernel)


def warp_reflected(image: Tensor, flow: Tensor) -> Tensor:
    """The warp of the published CSR: torch's bicubic (a = -3/4), reflected at edge pixel centres.

    Only for agreeing with the reference to the last digit; everything else uses ``warp``.

    Args:
        image: (B, C, H, W).
        flow: (B, 2, H, W) [px], (dx, dy).

    Returns:
        (B, C, H, W): pixel p is the image at p + flow(p).

    Source: centreborelli/L1BSR (grid_sample with align_corners).
    """
    height, width = flow.shape[-2:]
    # align_corners puts -1 and 1 on the first and last pixel centres: half a pixel off our corner
    # convention on both sides of the sum, so it cancels
    column, row = (v - 0.5 for v in pixel_centres(height, width, like=flow))
    grid = torch.stack(
        [
            2 * (column + flow[:, 0]) / max(width - 1, 1) - 1,
            2 * (row + flow[:, 1]) / max(height - 1, 1) - 1,
        ],
        -1,
    )
    return functional.grid_sample(
        image, grid, mode="bicubic", padding_mode="reflection", align_corners=True
    )


_STRIP = 1 << 16  # positions at a time, so that what is between the steps stays in the cache

_Taps: TypeAlias = tuple[list[Tensor], list[Tensor]]


def _taps(at: Tensor, count: int, kernel: Kernel) -> _Taps:
    """Indices and weights of the samples that each position (N,) mixes, along one axis."""
    first = (at.detach() - 0.5).floor()
    t = at - 0.5 - first
    if kernel == "bicubic":
        offsets, weights = range(-1, 3), list(keys_weights(t))
    elif kernel == "spline":
        offsets, weights = range(-1, 3), list(spline_weights(t))
    elif kernel == "bilinear":
        offsets, weights = range(2), [1 - t, t]
    else:
        raise BadOptionError(f"kernel is {kernel!r}; it must be bicubic, bilinear or spline")
    # bounded before it becomes an integer: a position may be anything, even not a number
    start = first.clamp(-2, count).nan_to_num(0).int()
    return [(start + k).clamp(0, count - 1) for k in offsets], weights


def _mix(pixels: Tensor, columns: _Taps, rows: _Taps, width: int) -> Tensor:
    """Weighted sums of the taps: pixels (H * W, C) to (N, C)."""
    total = pixels.new_zeros(())
    for row, row_weight in zip(*rows, strict=True):
        line = pixels.new_zeros(())
        for column, weight in zip(*columns, strict=True):
            line = line + pixels.index_select(0, row * width + column) * weight[:, None]
        total = total + line * row_weight[:, None]
    return total

"""Bayer mosaics: one colour a pixel, in blocks of two by two."""

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional

from l1bsr_geo.errors import BadOptionError

Pattern: TypeAlias = Literal["rggb", "bggr", "grbg", "gbrg"]  # the first block, row by row


def shift_pattern(pattern: Pattern, dx: int, dy: int) -> Pattern:
    """The pattern of a crop that begins at column ``dx`` and row ``dy``.

    Raises:
        BadOptionError: the pattern has no such name.
    """
    block = _block(pattern).roll((-dy, -dx), (0, 1))
    names: tuple[Pattern, ...] = get_args(Pattern)
    return next(name for name in names if torch.equal(_block(name), block))


def colour_masks(pattern: Pattern, height: int, width: int, *, like: Tensor) -> Tensor:
    """Where each colour is seen.

    Args:
        pattern: colours of the first two rows' first two pixels.
        height: rows.
        width: columns.
        like: gives the device.

    Returns:
        (1, 3, height, width) bool: red, green, blue; one of them is true at every pixel.

    Raises:
        BadOptionError: the pattern has no such name.
    """
    block = _block(pattern).to(like.device)
    rows = torch.arange(height, device=like.device) % 2
    columns = torch.arange(width, device=like.device) % 2
    colour = block[rows[:, None], columns]
    return torch.stack([colour == c for c in range(3)])[None]


def sample_mosaic(rgb: Tensor, pattern: Pattern) -> Tensor:
    """What a sensor behind the pattern sees; differentiable.

    Args:
        rgb: (B, 3, H, W); a NaN matters only in the colour that is seen.
        pattern: colours of the first two rows' first two pixels.

    Returns:
        (B, 1, H, W).

    Raises:
        BadOptionError: the pattern has no such name, or the image has not three colours.
    """
    if rgb.shape[1] != 3:
        raise BadOptionError(f"a mosaic samples 3 colours, but the image has {rgb.shape[1]} bands")
    masks = colour_masks(pattern, *rgb.shape[-2:], like=rgb)
    return torch.where(masks, rgb, 0).sum(1, keepdim=True)


def demosaick_bilinear(mosaic: Tensor, pattern: Pattern) -> Tensor:
    """All colours everywhere: means of the neighbours that saw the colour; differentiable.

    Exact on linear ramps, but in the first and last rows and columns, where one side is missing.

    Args:
        mosaic: (B, 1, H, W); a NaN counts nothing in its neighbours.
        pattern: colours of the first two rows' first two pixels.

    Returns:
        rgb (B, 3, H, W): what was seen is kept; NaN at the pixels that are NaN in the mosaic, and
        in a colour that none of the eight neighbours saw.

    Raises:
        BadOptionError: the pattern has no such name, or the mosaic has more than one band.
    """
    if mosaic.shape[1] != 1:
        raise BadOptionError(f"a mosaic has 1 band, but this one has {mosaic.shape[1]}")
    masks = colour_masks(pattern, *mosaic.shape[-2:], like=mosaic)
    known = ~mosaic.isnan()
    seen = torch.where(known & masks, mosaic, 0)
    # sides twice as much as corners: where a colour has both, it is at the pixel itself, too
    line = mosaic.new_tensor([1.0, 2.0, 1.0])
    kernel = (line[:, None] * line).expand(3, 1, 3, 3)
    total = functional.conv2d(seen, kernel, padding=1, groups=3)
    weight = functional.conv2d((known & masks).to(mosaic), kernel, padding=1, groups=3)
    mean = torch.where(weight > 0, total / weight.clamp(min=1), torch.nan)
    return torch.where(known, torch.where(masks, mosaic, mean), torch.nan)


def _block(pattern: str) -> Tensor:
    """Colours 0, 1, 2 = red, green, blue of the first block, (2, 2)."""
    if pattern not in get_args(Pattern):
        raise BadOptionError(
            f"pattern is {pattern!r}; it must be one of {', '.join(get_args(Pattern))}"
        )
    return torch.tensor(["rgb".index(c) for c in pattern]).view(2, 2)

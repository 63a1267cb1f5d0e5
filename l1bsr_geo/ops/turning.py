"""Images turned by quarters and mirrored: the eight ways to lay a square on itself."""

from torch import Tensor

WAYS = 8
"""Bit 0 mirrors columns, bit 1 mirrors rows, bit 2 then transposes; 0 leaves what there is."""


def turn(image: Tensor, way: int) -> Tensor:
    """An image (..., H, W), turned; (..., W, H) where the way transposes."""
    image = _mirror(image, way)
    return image.transpose(-1, -2) if way & 4 else image


def turn_back(image: Tensor, way: int) -> Tensor:
    """What ``turn`` has turned, as it was."""
    return _mirror(image.transpose(-1, -2) if way & 4 else image, way)


def turn_flow(flow: Tensor, way: int) -> Tensor:
    """Vectors (..., 2, H, W), (dx, dy), turned with the image that they are of.

    A mirrored component changes its sign; a transposition swaps the two.
    """
    signs = flow.new_tensor([-1.0 if way & 1 else 1.0, -1.0 if way & 2 else 1.0])
    turned = turn(flow * signs[:, None, None], way)
    return turned.flip(-3) if way & 4 else turned


def _mirror(image: Tensor, way: int) -> Tensor:
    axes = [axis for axis, bit in ((-1, 1), (-2, 2)) if way & bit]
    return image.flip(axes) if axes else image

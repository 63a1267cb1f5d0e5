"""Pictures of a result."""

import os
import warnings
from math import ceil, floor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window

from l1bsr_geo.errors import BadInputError

Picture: TypeAlias = npt.NDArray[Any] | str | os.PathLike[str]
Masked: TypeAlias = np.ma.MaskedArray[Any, np.dtype[Any]]

_SIDE = 512  # [px] of the image after that are shown of a file, at most
_GAP = 8  # [px] of white between the two
NATURAL = ("B04", "B03", "B02")
"""What is drawn red, green, blue, where it is there."""


def write_quicklook(before: Picture, after: Picture, path: str | os.PathLike[str]) -> Path:
    """Write a PNG of an image before and after, side by side, at the same size.

    Both are stretched alike, per channel, from the 2nd to the 98th percentile of ``before``; where
    there is no data they are black.

    Args:
        before: (band, y, x) or (y, x), masked or NaN where there is no data; red, green, blue, or
            one band in grey. Or, both of them, raster files: then bands B04, B03, B02 (else the
            first three, or the first of one or two) of 512 pixels around the middle of ``after``.
        after: the same ground in pixels of another size.
        path: PNG to write.

    Returns:
        ``path``.

    Raises:
        BadInputError: the images have different numbers of bands, or no pixel with data.
    """
    if isinstance(before, (str, os.PathLike)) and isinstance(after, (str, os.PathLike)):
        first, second = _read_same_ground(before, after)
    else:
        first, second = as_masked(before), as_masked(after)
    if len(first) != len(second) or len(first) not in (1, 3):
        raise BadInputError(
            f"a quicklook needs one band or three, the same in both images; the image before has "
            f"{len(first)} and the image after {len(second)}"
        )
    height, width = (max(sizes) for sizes in zip(first.shape[1:], second.shape[1:], strict=True))
    limits = find_limits(first)
    left, right = (stretch(_enlarge(image, height, width), limits) for image in (first, second))
    gap = np.full((len(left), height, _GAP), 255, np.uint8)
    Path(path).write_bytes(encode_png(np.concatenate([left, gap, right], axis=2)))
    return Path(path)


def as_masked(image: Any) -> Masked:
    """(band, y, x), masked where not finite."""
    array = np.ma.masked_invalid(image)
    return array[None] if array.ndim == 2 else array


def _read_same_ground(
    before: str | os.PathLike[str], after: str | os.PathLike[str]
) -> tuple[Masked, Masked]:
    """The middle of what two files share; by place on the map, or else by share of the image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # sensor geometry is fine
        with rasterio.open(before) as coarse, rasterio.open(after) as fine:
            if fine.crs and fine.crs == coarse.crs:
                to_coarse = ~coarse.transform @ fine.transform
            else:
                to_coarse = Affine.scale(coarse.width / fine.width, coarse.height / fine.height)
            corners = (0, 0), (fine.width, fine.height)
            (x0, y0), (x1, y1) = (to_coarse @ corner for corner in corners)
            left, right = _middle(x0, x1, coarse.width, _SIDE * to_coarse.a)
            top, bottom = _middle(y0, y1, coarse.height, _SIDE * to_coarse.e)
            if left >= right or top >= bottom:
                raise BadInputError(f"{before} and {after} show no common ground")
            u0, v0 = ~to_coarse @ (left, top)
            u1, v1 = ~to_coarse @ (right, bottom)
            return (
                _read(coarse, Window.from_slices((top, bottom), (left, right))),
                _read(fine, Window.from_slices((round(v0), round(v1)), (round(u0), round(u1)))),
            )


def _middle(low: float, high: float, size: int, wanted: float) -> tuple[int, int]:
    """At most ``wanted`` whole pixels in the middle of low...high, inside an image."""
    start, stop = max(0, ceil(low - 1e-6)), min(size, floor(high + 1e-6))
    spare = max(0, stop - start - max(1, int(wanted)))
    return start + spare // 2, stop - (spare - spare // 2)


def _read(file: DatasetReader, window: Window) -> Masked:
    names = list(file.descriptions)
    if all(band in names for band in NATURAL):
        bands = [names.index(band) + 1 for band in NATURAL]
    else:
        bands = [1, 2, 3] if file.count > 2 else [1]
    return as_masked(file.read(bands, window=window, masked=True))


def _enlarge(image: Masked, height: int, width: int) -> Masked:
    """By repeating pixels."""
    rows = np.arange(height) * image.shape[1] // height
    cols = np.arange(width) * image.shape[2] // width
    return image[:, rows[:, None], cols]


def find_limits(image: Masked) -> npt.NDArray[np.float64]:
    """(2, C): values drawn black and white."""
    if np.ma.getmaskarray(image).all((1, 2)).any():
        raise BadInputError("the image before has a band without data; there is nothing to show")
    return np.array([np.percentile(channel.compressed(), (2, 98)) for channel in image]).T


def stretch(image: Masked, limits: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Values to 1 (black) ... 255 (white) between limits, and 0 where masked."""
    low, high = limits[:, :, None, None]
    share = (image.filled(0) - low) / np.maximum(high - low, np.finfo(float).tiny)
    drawn = np.rint(1 + 254 * np.clip(share, 0, 1)).astype(np.uint8)
    return np.where(np.ma.getmaskarray(image), np.uint8(0), drawn)


def encode_png(picture: npt.NDArray[np.uint8]) -> bytes:
    """The PNG of (1 or 3, height, width)."""
    count, height, width = picture.shape
    shape: dict[str, Any] = {"width": width, "height": height, "count": count}
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a picture has no place
        with memory.open(driver="PNG", dtype="uint8", ZLEVEL=9, **shape) as file:
            file.write(picture)
        return bytes(memory.read())

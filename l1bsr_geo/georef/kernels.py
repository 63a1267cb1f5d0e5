"""Resampling at any place, aware of what is valid."""

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from l1bsr_geo.geometry.model import FloatArray

BoolArray = npt.NDArray[np.bool_]
Kernel: TypeAlias = Literal["cubic", "bilinear", "nearest"]

_AT_ONCE = 1 << 14  # places; temporaries stay in cache
_FRACTIONS = 4096  # places between two pixels; a place is moved by at most 1/8192 px


class Taps(NamedTuple):
    """A kernel, tabulated.

    Attributes:
        weights: (places between two pixels, taps) of the pixels around a place, left to right; each
            row sums to one.
        shift: from a place to where its first tap is counted from [px].
    """

    weights: npt.NDArray[np.float64]
    shift: float

    @property
    def reach(self) -> int:
        """Pixels to either side of the one that holds a place that can carry weight."""
        return int(self.weights.shape[1]) // 2


def tabulate(kernel: Kernel, stretch: float = 1.0) -> Taps:
    """A kernel as a table.

    Args:
        kernel: ``"cubic"`` is Keys' cubic convolution with a = -1/2 (third order; the one of GDAL),
            ``"bilinear"`` the triangle, ``"nearest"`` the pixel that holds the place.
        stretch: widens the kernel (not ``"nearest"``) against aliasing: source pixels per pixel of
            the result, at least 1.

    Source:
        R. Keys, Cubic convolution interpolation for digital image processing, IEEE TASSP 29, 1981.
    """
    if kernel == "nearest":
        return Taps(np.ones((_FRACTIONS, 1)), 0.0)
    radius, weight = (2, _keys) if kernel == "cubic" else (1, _triangle)
    half = int(np.ceil(radius * stretch))
    at = np.arange(1 - half, half + 1) - np.arange(_FRACTIONS)[:, None] / _FRACTIONS
    table = weight(np.abs(at) / stretch)
    return Taps(table / table.sum(1, keepdims=True), -0.5 - (half - 1))


def _keys(d: FloatArray) -> FloatArray:
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))


def _triangle(d: FloatArray) -> FloatArray:
    return np.maximum(1 - d, 0.0)


def resample(
    pixels: npt.NDArray[Any], valid: BoolArray, x: FloatArray, y: FloatArray, taps: Taps
) -> tuple[npt.NDArray[Any], BoolArray]:
    """Values at places; all taps of all places must lie inside ``pixels``.

    Args:
        pixels: (height, width, C) floating and finite; the values where not ``valid`` do not count.
        valid: (height, width).
        x: (n,) places [px], outer-corner convention.
        y: (n,).
        taps: the kernel.

    Returns:
        (n, C), and (n,): whether every pixel that carries weight is valid.
    """
    values = pixels.reshape(valid.size, -1)
    hidden = None if valid.all() else (~valid).ravel().astype(np.float32)
    result = np.empty((len(x), values.shape[1]), pixels.dtype)
    good = np.ones(len(x), bool)
    for start in range(0, len(x), _AT_ONCE):
        piece = slice(start, start + _AT_ONCE)
        operator = _gather(x[piece], y[piece], taps, valid.shape, pixels.dtype)
        result[piece] = operator @ values
        if hidden is not None:
            operator.data = (operator.data != 0).astype(np.float32)
            good[piece] = operator @ hidden == 0
    return result, good


def _gather(
    x: FloatArray, y: FloatArray, taps: Taps, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> csr_array:
    """The weights of all pixels of an image at places, as a sparse matrix."""
    size, width = taps.weights.shape[1], np.int32(shape[1])
    (col, u), (row, v) = (_split(at + taps.shift) for at in (x, y))
    weights = taps.weights.astype(dtype)
    table = (weights[v][:, :, None] * weights[u][:, None, :]).ravel()
    steps = np.arange(size, dtype=np.int32)
    around = (steps[:, None] * width + steps).ravel()
    columns = ((row * width + col)[:, None] + around).ravel()
    rows = np.arange(0, table.size + 1, around.size, dtype=np.int32)
    return csr_array((table, columns, rows), shape=(len(x), shape[0] * shape[1]), copy=False)


def _split(at: FloatArray) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Whole pixels and the place in the table."""
    places = np.rint(at * _FRACTIONS).astype(np.int64)
    return (places // _FRACTIONS).astype(np.int32), (places % _FRACTIONS).astype(np.int32)

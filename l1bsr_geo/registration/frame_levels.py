"""Frames as registration compares them: their detail, at full size and decimated."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.bursts import Burst

F32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

BLOCK = 128  # [px] pieces that are resampled at a time
CLIPPED = 0.002  # share of pixels at exactly the brightest value that betrays clipping
_BLUR = 0.8  # [px] before matching: most of the alias and half of the noise go
_LOCAL_MEAN = 17  # [px]
_EDGE = 4  # [px] at borders and beside unknown pixels that the filters spoil


@dataclass(frozen=True, eq=False)
class Level:
    """One frame at one size.

    Attributes:
        detail: (height, width) lightly blurred, without its local mean; in units of the frame's own
            mean radiance; zero where not valid.
        valid: (height, width) float32: 1 where known and well inside, else 0.
        factor: pixels of the frame to a pixel of this level.
    """

    detail: F32
    valid: F32
    factor: int = 1

    @cached_property
    def spline(self) -> F32:
        """Cubic spline coefficients of the detail."""
        return np.asarray(ndimage.spline_filter(self.detail, output=np.float32), np.float32)

    @cached_property
    def blocks(self) -> tuple[tuple[Window, float], ...]:
        """Windows that tile the level, and how much texture each has."""
        rows, columns = (_edges(n) for n in self.detail.shape)
        windows = [
            Window(x0, y0, x1 - x0, y1 - y0)
            for y0, y1 in pairwise(rows)
            for x0, x1 in pairwise(columns)
        ]
        return tuple((w, float(np.square(self.detail[w.slices]).sum())) for w in windows)


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a burst, read.

    Attributes:
        full: at full size.
        small: decimated, for the search; ``full`` itself where that is small already.
        dark: share of pixels that hold no data.
        bright: share of pixels that are saturated.
    """

    full: Level
    small: Level
    dark: float
    bright: float


def read_frame(burst: Burst, index: int) -> Frame:
    """Read a frame and prepare it for matching.

    Radiance is not calibrated here: matching estimates a gain, and local means are removed.
    """
    raw = burst.sources[index].read(burst.grids[index].window)
    known: Mask = np.isfinite(raw)
    if burst.nodata is not None:
        known &= raw != burst.nodata
    bright = _saturated(raw, known, burst.saturated)
    use = known & ~bright
    image = np.where(use, raw, 0).astype(np.float32)
    image /= max(float(image.mean()) / max(float(use.mean()), 1e-6), 1e-6)
    full = _level(image, use, 1)
    factor = 1 if max(raw.shape) <= 512 else 2 if max(raw.shape) <= 1024 else 4
    small = full if factor == 1 else _level(*_decimated(image, use, factor), factor)
    return Frame(full, small, 1 - float(known.mean()), float(bright.mean()))


def _saturated(raw: npt.NDArray[Any], known: Mask, level: float | None) -> Mask:
    """Where more light may have come than is told: from ``level`` on, or where values crowd."""
    top = float(raw[known].max()) if known.any() else 0.0
    if np.count_nonzero(raw[known] == top) < max(CLIPPED * raw.size, 8):
        top = np.inf
    bright: Mask = known & (raw >= min(top, np.inf if level is None else level))
    return bright


def _level(image: F32, use: Mask, factor: int) -> Level:
    share = ndimage.uniform_filter(use.astype(np.float32), _LOCAL_MEAN)
    mean = ndimage.uniform_filter(image, _LOCAL_MEAN) / np.maximum(share, 1e-3)
    high = np.where(use, image - mean, 0).astype(np.float32)
    detail = ndimage.gaussian_filter(high, _BLUR)
    inside = use if use.all() else ndimage.binary_erosion(use, np.ones((5, 5), bool))
    valid = np.zeros(image.shape, np.float32)
    core = (slice(_EDGE, -_EDGE),) * 2
    valid[core] = inside[core]
    return Level(np.asarray(detail, np.float32), valid, factor)


def _decimated(image: F32, use: Mask, factor: int) -> tuple[F32, Mask]:
    """Means over factor x factor pixels; rows and columns that do not fill one are left out."""
    rows, columns = (n // factor for n in image.shape)
    cut = (slice(rows * factor), slice(columns * factor))
    weight = use[cut].reshape(rows, factor, columns, factor).mean((1, 3), dtype=np.float32)
    total = image[cut].reshape(rows, factor, columns, factor).mean((1, 3))
    return np.asarray(total / np.maximum(weight, 1e-3), np.float32), weight > 0.7


def _edges(length: int) -> list[int]:
    """Boundaries of blocks along an axis, the last not much shorter than the others."""
    count = max(1, round(length / BLOCK))
    return [BLOCK * i for i in range(count)] + [length]

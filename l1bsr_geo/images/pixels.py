"""Pixels with their geometry: what is read, what tiling asks, what every step gives."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import xarray as xr

from l1bsr_geo.geometry.grid import GeoGrid, Window


@runtime_checkable
class PixelSource(Protocol):
    """One band on disk, read by windows. Picklable: it holds paths, not open files."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type on disk."""
        ...

    def read(self, window: Window) -> npt.NDArray[Any]:
        """The pixels of a window that lies inside the image, (height, width)."""
        ...


@dataclass(frozen=True)
class Views:
    """What a restorer is given of one window.

    Attributes:
        pixels: (T, C, H, W) float32 [DN, zero means no light], anything where not ``valid``.
        valid: (T, C, H, W) bool; False where the product has no data.
        flow: (T, C, 2, H, W) float32 [px] or None: pixel p of the reference reads band c of frame t
            at p + flow(p), components (dx, dy).
        exposures: (T,) exposure times, in one unit for all frames, or None where they are alike.
    """

    pixels: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    flow: npt.NDArray[np.float32] | None = None
    exposures: npt.NDArray[np.float32] | None = None


@runtime_checkable
class Scene(Protocol):
    """All that tiling asks of an input. Picklable."""

    @property
    def grid(self) -> GeoGrid:
        """The reference grid; every view is read on it."""
        ...

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names, in the order of axis C."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the pixels on disk."""
        ...

    @property
    def add_offset(self) -> tuple[float, ...]:
        """Per band, what was added to the DN on disk to make zero mean no light."""
        ...

    @property
    def nodata(self) -> float | None:
        """The value on disk that means no data."""
        ...

    def read(self, window: Window) -> Views:
        """The views of a window inside ``grid``."""
        ...


@dataclass(frozen=True)
class GeoImage:
    """An image and where it is; what every step takes and gives.

    Attributes:
        pixels: (band, y, x), usually dask-backed; ``band`` holds names; ``attrs`` describe.
        grid: its geometry; ``grid.shape`` equals the last two axes.
        valid: (y, x) bool, aligned with ``pixels``, or None where every pixel is valid.
    """

    pixels: xr.DataArray
    grid: GeoGrid
    valid: xr.DataArray | None = None

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names in order."""
        return tuple(str(b) for b in self.pixels.coords["band"].values)


@dataclass(frozen=True)
class SourceWindow:
    """A window of a source, as a source; what lies outside the source is filled.

    Attributes:
        source: what is read.
        window: which part of it; may reach outside.
        fill: value outside.
    """

    source: PixelSource
    window: Window
    fill: float = 0

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` of the window."""
        return self.window.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type on disk."""
        return self.source.dtype

    def read(self, window: Window) -> npt.NDArray[Any]:
        """The pixels of a window of this window."""
        wanted = window.shift(self.window.col_off, self.window.row_off)
        there = wanted.intersect(Window(0, 0, self.source.shape[1], self.source.shape[0]))
        if there == wanted:
            return self.source.read(wanted)
        out = np.full(wanted.shape, self.fill, self.dtype)
        if there.width and there.height:
            out[there.shift(-wanted.col_off, -wanted.row_off).slices] = self.source.read(there)
        return out


@dataclass(frozen=True)
class LazyPixels:
    """A source as dask asks for it: an array that is read when it is sliced."""

    source: PixelSource
    ndim: int = 2

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type on disk."""
        return self.source.dtype

    def __getitem__(self, key: tuple[slice, slice]) -> npt.NDArray[Any]:
        (top, bottom, _), (left, right, _) = (
            k.indices(n) for k, n in zip(key, self.shape, strict=True)
        )
        return self.source.read(Window(left, top, right - left, bottom - top))


def is_data(raw: npt.NDArray[Any], nodata: float | None) -> npt.NDArray[np.bool_]:
    """Where pixels are finite and not the value that means no data."""
    valid = np.isfinite(raw) if raw.dtype.kind == "f" else np.ones(raw.shape, bool)
    return valid if nodata is None else valid & (raw != nodata)

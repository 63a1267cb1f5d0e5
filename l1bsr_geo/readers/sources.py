"""Bands on disk, read by windows: single files, granules one below the other, scaled values, masks.

Every source is a small picklable value. Open files are shared by all sources of a worker, so that
GDAL keeps the decoded JPEG 2000 blocks between neighbouring tiles; each file is read by one thread
at a time.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio.windows
from rasterio.errors import RasterioError

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.pixels import PixelSource
from l1bsr_geo.readers.archive import check_member
from l1bsr_geo.readers.local_raster import cause_of, confined, open_confined

_MAX_OPEN = 64
_ZIPPED = "/vsizip/{"  # then the archive, "}/" and the member


@dataclass(frozen=True)
class RasterSource:
    """One band of a raster file, or GDAL's mask of it.

    Attributes:
        path: what GDAL opens.
        band: 1-based.
        shape: ``(height, width)``.
        dtype: the type on disk; uint8 of a mask.
        mask: whether the mask is read (0 where there is no data) and not the band.
    """

    path: str
    band: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    mask: bool = False

    def read(self, window: Window) -> npt.NDArray[Any]:
        """The pixels of a window inside the image.

        Raises:
            BadInputError: the file cannot be decoded.
        """
        if self.path.startswith(_ZIPPED):
            _check_zipped(self.path, _stamp(self.path))
        try:
            with _opened(self.path) as raster:
                read = raster.read_masks if self.mask else raster.read
                pixels: npt.NDArray[Any] = read(self.band, window=rasterio.windows.Window(*window))
        except RasterioError as error:
            raise BadInputError(
                f"{self.path} cannot be decoded at rows {window.row_off} to "
                f"{window.row_off + window.height} ({cause_of(error)}); the file is damaged or "
                "incomplete: fetch it again"
            ) from error
        return pixels


@dataclass(frozen=True)
class MosaicSource:
    """Sources one below the other, with gaps.

    Attributes:
        parts: ``(first row, source)``, in order of rows, not overlapping, as wide as the whole.
        shape: ``(height, width)`` of the whole.
        dtype: the type of all parts.
        fill: the value of rows that no part has.
    """

    parts: tuple[tuple[int, PixelSource], ...]
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    fill: float = 0

    def read(self, window: Window) -> npt.NDArray[Any]:
        """The pixels of a window; only the parts that it touches are opened."""
        out = np.full(window.shape, self.fill, self.dtype)
        for row, part in self.parts:
            whole = Window(0, row, part.shape[1], part.shape[0])
            common = window.intersect(whole)
            if common.width and common.height:
                inside = common.shift(-window.col_off, -window.row_off)
                out[inside.slices] = part.read(common.shift(0, -row))
        return out


@dataclass(frozen=True)
class ScaledSource:
    """Another source times a factor, as float32: reflectance or radiance brought to DN.

    Attributes:
        source: values as on disk.
        factor: DN per unit.
        nodata: a value on disk that stays what it is.
    """

    source: PixelSource
    factor: float
    nodata: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32."""
        return np.dtype(np.float32)

    def read(self, window: Window) -> npt.NDArray[Any]:
        """The scaled pixels of a window."""
        raw = self.source.read(window)
        scaled = (raw * self.factor).astype(np.float32)
        if self.nodata is not None and not np.isnan(self.nodata):
            scaled[raw == self.nodata] = self.nodata
        return scaled


@dataclass(frozen=True)
class MaskedSource:
    """Another source, with a no data value where a mask is 0.

    Attributes:
        source: the pixels.
        mask: 0 where there is no data; of the same shape.
        nodata: what such pixels become. The type of ``source`` can hold it.
        alone: the mask alone tells: a pixel that it keeps and that happens to equal ``nodata`` is
            read as the next value, so that it stays data. Otherwise such a pixel is no data, too.
    """

    source: PixelSource
    mask: PixelSource
    nodata: float
    alone: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type on disk."""
        return self.source.dtype

    def read(self, window: Window) -> npt.NDArray[Any]:
        """The pixels of a window."""
        pixels, kept = self.source.read(window), self.mask.read(window) != 0
        if self.alone:
            pixels[kept & (pixels == self.nodata)] = _next_value(self.nodata, self.dtype)
        pixels[~kept] = self.nodata
        return pixels


def _next_value(value: float, dtype: np.dtype[Any]) -> float:
    if dtype.kind == "f":
        return float(np.nextafter(np.asarray(value, dtype), np.asarray(np.inf, dtype)))
    return value - 1 if value == np.iinfo(dtype).max else value + 1


def open_source(path: str, band: int = 1, name: str = "") -> RasterSource:
    """A band of a raster file, its size and type read, its pixels not.

    Args:
        path: a file, or anything else that GDAL opens.
        band: 1-based.
        name: what to call the file in an error; by default ``path``.

    Raises:
        MissingInputError: the file is not there.
        BadInputError: it is empty, truncated or no raster.
    """
    name = name or path
    check_complete(path, name)
    try:
        with _opened(path) as raster:
            return RasterSource(path, band, raster.shape, np.dtype(raster.dtypes[band - 1]))
    except RasterioError as error:
        raise BadInputError(
            f"{name} cannot be opened as an image ({cause_of(error)}); the file is damaged or of "
            "another format: fetch it again"
        ) from error


def check_complete(path: str, name: str) -> None:
    """See that a file is there and, if JPEG 2000, that it is as long as its boxes say.

    A truncated code stream may decode without an error, to grey where the data ends.
    """
    if path.startswith("/vsi"):
        return
    file = Path(path)
    if not os.path.exists(path):  # Path's own raises of links that lead in circles
        raise MissingInputError(f"{name} is not there; fetch the product again")
    size = file.stat().st_size
    if size == 0:
        raise BadInputError(f"{name} is empty (0 bytes); an image was expected: fetch it again")
    if file.suffix.lower() == ".jp2":
        end = _end_of_boxes(file, size)
        if end > size:
            raise BadInputError(
                f"{name} is truncated: it has {size} bytes, {end} were expected; fetch it again"
            )


def _end_of_boxes(file: Path, size: int) -> int:
    """Where the last box of a JPEG 2000 file ends, by its own account (ISO 15444-1, annex I)."""
    at = 0
    with file.open("rb") as opened:
        while at < size:
            opened.seek(at)
            head = opened.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if length == 0:  # to the end of the file, which a complete code stream marks
                opened.seek(max(size - 2, 0))
                return size if opened.read(2) == b"\xff\xd9" else size + 1
            if length < 8:
                return at  # no box: another format, which GDAL will judge
            at += length
    return at


class _OpenRasters(OrderedDict[tuple[str, int, int], tuple[Any, threading.RLock]]):
    """The least recently used go when there are too many."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


_rasters = _OpenRasters()


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """The open raster, for one thread at a time."""
    key = (path, *_stamp(path))
    with confined():
        with _rasters.lock:
            if key not in _rasters:
                _rasters[key] = (open_confined(path), threading.RLock())
            _rasters.move_to_end(key)
            raster, lock = _rasters[key]
            while len(_rasters) > _MAX_OPEN:
                _rasters.popitem(last=False)  # closes itself when its last reader lets go
        with lock:
            yield raster


@lru_cache(maxsize=1 << 14)
def _check_zipped(path: str, stamp: tuple[int, int]) -> None:
    """See once, before its pixels are read, that a member of a .zip is whole.

    GDAL prints that the checksum is wrong, and goes on with what it has.
    """
    archive, _, member = path.removeprefix(_ZIPPED).partition("}/")
    check_member(Path(archive), member)


def _stamp(path: str) -> tuple[int, int]:
    """What changes when the file is written anew."""
    file = path.removeprefix(_ZIPPED).partition("}/")[0] if path.startswith(_ZIPPED) else path
    with suppress(OSError):
        status = os.stat(file)
        return status.st_mtime_ns, status.st_size
    return 0, 0


def _forget() -> None:
    """After a fork: the parent's files are not ours to read."""
    global _rasters
    _rasters = _OpenRasters()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

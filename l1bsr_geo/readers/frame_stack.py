"""Frames on disk, whatever holds them: single rasters, bands or pages of a TIFF, numpy arrays."""

import os
import re
import warnings
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.errors import RasterioError

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.pixels import PixelSource
from l1bsr_geo.readers.local_raster import cause_of, open_raster
from l1bsr_geo.readers.sources import RasterSource, check_complete

RASTERS = (".tif", ".tiff")
ARRAYS = (".npy",)
_ROWS = 512  # read at a time when a frame is looked through


@dataclass(frozen=True)
class Frame:
    """One frame, unopened.

    Attributes:
        name: what to call it; unique in its burst.
        path: the file.
        part: which band (from 1), page (``"page 2"``) or array (from 0) of a stack it is; None
            where the file holds one frame only.
        satellite: from the name, or "".
        camera: from the name, such as "c2" or "d3", or "".
        index: running number of the name, or None.
        time: UTC from the name, or None.
        level: "L1A", "L1B", or "raster" where the name does not tell.
    """

    name: str
    path: Path
    part: int | str | None = None
    satellite: str = ""
    camera: str = ""
    index: int | None = None
    time: datetime | None = None
    level: str = "raster"


@dataclass(frozen=True)
class ArraySource:
    """A frame of a numpy file, mapped into memory where it is read.

    Attributes:
        path: ``.npy`` file.
        at: leading indices of the frame in the array.
        shape: ``(height, width)``.
        dtype: of the values read, in native byte order.
    """

    path: str
    at: tuple[int, ...]
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def read(self, window: Window) -> npt.NDArray[Any]:
        """The pixels of a window inside the frame."""
        frame = _map_array(Path(self.path))[self.at]
        return np.array(frame[window.slices], self.dtype)


@dataclass(frozen=True)
class Survey:
    """What a look through all pixels of a frame told.

    Attributes:
        mean: of the finite values.
        maximum: the largest.
    """

    mean: float
    maximum: float


def list_stack(path: Path) -> list[Frame]:
    """The frames that a file holds: arrays (T, H, W), bands or pages, in order.

    Raises:
        BadInputError: it cannot be opened, or is no stack of frames.
    """
    check_complete(os.fspath(path), os.fspath(path))
    if path.suffix.lower() in ARRAYS:
        array = _map_array(path)
        if array.size == 0:
            raise BadInputError(f"{path} is an array of shape {array.shape}, which has no pixels")
        if array.ndim == 2:
            return [Frame(path.stem, path)]
        if array.ndim == 3 or (array.ndim == 4 and array.shape[1] == 1):
            return [Frame(f"{path.stem}[{t}]", path, t) for t in range(array.shape[0])]
        raise BadInputError(
            f"{path} is an array of shape {array.shape}; (T, H, W) or (H, W) was expected"
        )
    try:
        with open_raster(path) as raster:
            bands, pages = raster.count, len(raster.subdatasets)
    except RasterioError as error:
        raise BadInputError(f"{path} cannot be opened as an image ({cause_of(error)})") from error
    if bands > 1:
        return [Frame(f"{path.stem}[{t}]", path, t + 1) for t in range(bands)]
    if pages > 1:
        return [Frame(f"{path.stem}[{t}]", path, f"page {t + 1}") for t in range(pages)]
    return [Frame(path.stem, path)]


def list_plain_folder(folder: Path) -> list[Frame]:
    """The images of a folder in the order of their names, numbers by value.

    Raises:
        BadInputError: its only file is no stack.
    """
    endings = RASTERS + ARRAYS
    files = [p for p in folder.iterdir() if p.suffix.lower() in endings and p.is_file()]
    if len(files) == 1:
        return list_stack(files[0])
    return [Frame(path.stem, path) for path in sorted(files, key=_by_number)]


def open_frame(frame: Frame) -> PixelSource:
    """The pixels of a frame, unread.

    Raises:
        MissingInputError: the file is gone.
        BadInputError: it cannot be opened, or holds something else.
    """
    path = os.fspath(frame.path)
    check_complete(path, path)
    source = _open_array(frame) if frame.path.suffix.lower() in ARRAYS else _open_raster(frame)
    if source.dtype.kind not in "uif":
        raise BadInputError(f"{path} holds {source.dtype}; real numbers were expected")
    if 0 in source.shape:
        raise BadInputError(f"{path} has no pixels")
    return source


def survey(source: PixelSource) -> Survey:
    """Read a frame once from end to end, so that a damaged one is found before any work.

    Raises:
        BadInputError: it cannot be decoded, or holds no value but one.
    """
    height, width = source.shape
    total, count, lowest, highest = 0.0, 0, np.inf, -np.inf
    for row in range(0, height, _ROWS):
        pixels = source.read(Window(0, row, width, min(_ROWS, height - row)))
        values = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
        if values.size:
            total, count = total + float(values.sum(dtype=np.float64)), count + values.size
            lowest = min(lowest, float(values.min()))
            highest = max(highest, float(values.max()))
    if not count:
        raise BadInputError("no pixel is a finite number")
    if lowest == highest and height * width > 1:
        raise BadInputError(f"every pixel is {lowest:g}")
    return Survey(total / count, highest)


def _open_array(frame: Frame) -> PixelSource:
    array = _map_array(frame.path)
    at: tuple[int, ...] = () if frame.part is None else (int(frame.part),)
    at += (0,) * (array.ndim - 2 - len(at))
    if array[at].ndim != 2 or (frame.part is None and array.ndim != 2):
        raise BadInputError(f"{frame.path} is an array of shape {array.shape}; (H, W) was expected")
    height, width = array.shape[-2:]
    # half floats are no type of GeoTIFF
    dtype = np.dtype(np.float32) if array.dtype == np.float16 else array.dtype.newbyteorder("=")
    return ArraySource(os.fspath(frame.path), at, (height, width), dtype)


def _open_raster(frame: Frame) -> PixelSource:
    path, band = os.fspath(frame.path), 1
    if isinstance(frame.part, int):
        band = frame.part
    elif frame.part is not None:
        path = f"GTIFF_DIR:{frame.part.removeprefix('page ')}:{path}"
    try:
        with open_raster(path) as raster:
            if raster.count != 1 and frame.part is None:
                raise BadInputError(f"{path} has {raster.count} bands; one frame was expected")
            return RasterSource(path, band, raster.shape, np.dtype(raster.dtypes[band - 1]))
    except RasterioError as error:
        raise BadInputError(f"{path} cannot be opened as an image ({cause_of(error)})") from error


def _map_array(path: Path) -> npt.NDArray[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy warns of what later would be an error
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header breaks numpy's reader in any way
        reason = " ".join(str(error).split())[:200]
        raise BadInputError(
            f"{path} cannot be read as a numpy array ({reason}); save it with numpy.save"
        ) from error
    if not isinstance(array, np.ndarray):
        raise BadInputError(f"{path} holds no single array; save it with numpy.save")
    return array


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Natural order: frame2 before frame10."""
    parts = re.split(r"(\d+)", path.stem)
    return [(int(p), "") if p.isdigit() else (-1, p) for p in parts]

"""Frames in rasters as a video: a folder of files, the bands of one file, a SkySat burst."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.pixels import PixelSource
from l1bsr_geo.images.videos import check_frame, mask_pixels
from l1bsr_geo.readers.geotiff import geometry_of
from l1bsr_geo.readers.local_raster import cause_of, open_raster
from l1bsr_geo.readers.skysat import read_burst
from l1bsr_geo.readers.sources import RasterSource, check_complete

ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".jp2", ".bmp", ".pgm", ".ppm", ".webp")
"""Of the names of frames in a folder."""

Kind: TypeAlias = Literal["folder", "stack", "burst"]

_ALL = 10**9  # frames of a burst
_UNLIKE = 1.1  # ratio of exposure times from which frames are not exposed alike
_IN_GEOTIFF = {MaskFlags.all_valid, MaskFlags.nodata, MaskFlags.alpha}  # no mask besides pixels


@dataclass(frozen=True)
class StoredFrame:
    """One frame on disk, unread.

    Attributes:
        path: the file.
        indexes: its bands in the file, from 1.
        sources: one for each band.
        mask: 0 where there is no data, or None where pixels alone tell.
        grid: its geometry.
    """

    path: Path
    indexes: tuple[int, ...]
    sources: tuple[PixelSource, ...]
    mask: PixelSource | None
    grid: GeoGrid


@dataclass(frozen=True)
class RasterVideo:
    """Stored frames of one size, type and number of bands.

    Attributes:
        stored: in order of time.
        bands: names.
        nodata: the value on disk that means no data.
        kind: a folder of files, one file of all, or a SkySat burst.
    """

    stored: tuple[StoredFrame, ...]
    bands: tuple[str, ...]
    nodata: float | None
    kind: Kind

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.stored)

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        return self.stored[0].sources[0].shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type on disk."""
        return self.stored[0].sources[0].dtype

    def read(self, t: int, window: Window | None = None) -> npt.NDArray[np.float32]:
        """A frame, or a window inside it: (C, H, W) [DN], NaN where there is no data.

        Raises:
            BadInputError: the file cannot be decoded.
        """
        check_frame(t, self.frames)
        window = window or Window(0, 0, *self.shape[::-1])
        frame = self.stored[t]
        raw = np.stack([source.read(window) for source in frame.sources])
        pixels = mask_pixels(raw, self.nodata)
        if frame.mask is not None:
            pixels[:, frame.mask.read(window) == 0] = np.nan
        return pixels

    def grid(self, t: int) -> GeoGrid:
        """The geometry of a frame; its model is None where there is none."""
        check_frame(t, self.frames)
        return self.stored[t].grid


def read_folder(folder: Path) -> RasterVideo:
    """The images of a folder in the order of their names, numbers by value.

    Raises:
        MissingInputError: there are none.
        BadInputError: one cannot be opened, or is of another size or type than the first.
    """
    files = [p for p in folder.iterdir() if p.suffix.lower() in ENDINGS and p.is_file()]
    files = sorted((p for p in files if not p.name.startswith(".")), key=_by_number)
    if not files:
        raise MissingInputError(
            f"{folder} holds no frames: no {', '.join(ENDINGS)}; give a folder of images"
        )
    opened = [_open_frame(path) for path in files]
    first = opened[0]
    for frame, facts in opened:
        if facts != first[1]:
            raise BadInputError(
                f"{frame.path} has {_say(facts)}, {first[0].path.name} {_say(first[1])}; frames of "
                "one size, type and number of bands were expected"
            )
    return RasterVideo(tuple(frame for frame, _ in opened), *_name(first), "folder")


def read_stack(path: Path, bands_per_frame: int = 1) -> RasterVideo:
    """The bands of one file as frames: all bands of the first time, then of the second, and so on.

    Raises:
        BadOptionError: the number of bands is no multiple of ``bands_per_frame``.
        BadInputError: the file cannot be opened.
    """
    if bands_per_frame < 1:
        raise BadOptionError(f"bands per frame is {bands_per_frame}; at least 1 is needed")
    frame, facts = _open_frame(path)
    count = len(frame.indexes)
    if count % bands_per_frame:
        raise BadOptionError(
            f"{path} has {count} bands, which are no frames of {bands_per_frame}; give another "
            "number of bands per frame"
        )
    stored = tuple(
        StoredFrame(
            path,
            frame.indexes[at : at + bands_per_frame],
            frame.sources[at : at + bands_per_frame],
            frame.mask,
            frame.grid,
        )
        for at in range(0, count, bands_per_frame)
    )
    names = tuple(str(i + 1) for i in range(bands_per_frame))
    return RasterVideo(stored, names, facts.nodata, "stack")


def read_burst_video(path: Path, camera: str | int | None = None) -> RasterVideo:
    """A SkySat burst in order of time, every frame with its geometry.

    Args:
        path: as for `read_burst`, which drops frames that are no good, with a warning.
        camera: of several.

    Raises:
        BadInputError: its frames are exposed for different times.
    """
    burst = read_burst(path, camera, frames=_ALL, reference="first")
    if max(burst.exposures) > _UNLIKE * min(burst.exposures):
        raise BadInputError(
            f"{path} has frames of several exposure times ({min(burst.exposures):g} to "
            f"{max(burst.exposures):g} ms), which cannot be compared as a video; super-resolve it "
            "(sr), or give frames of one"
        )
    order = np.argsort(burst.attrs["order"])
    sources = [burst.sources[i] for i in order]
    if not all(isinstance(source, RasterSource) for source in sources):
        raise BadInputError(f"{path} is an array; give its frames as TIFF")
    stored = tuple(
        StoredFrame(Path(source.path), (source.band,), (source,), None, burst.grids[i])
        for i, source in zip(order, sources, strict=True)
        if isinstance(source, RasterSource)
    )
    return RasterVideo(stored, (burst.band,), burst.nodata, "burst")


@dataclass(frozen=True)
class _Facts:
    """What frames have in common."""

    shape: tuple[int, int]
    dtype: str
    bands: int
    nodata: float | None


def _say(facts: _Facts) -> str:
    height, width = facts.shape
    bands = "1 band" if facts.bands == 1 else f"{facts.bands} bands"
    nodata = "" if facts.nodata is None else f" and nodata {facts.nodata:g}"
    return f"{height} x {width} px {facts.dtype} of {bands}{nodata}"


def _open_frame(path: Path) -> tuple[StoredFrame, _Facts]:
    """All bands of a file but an alpha band, which is a mask."""
    name = os.fspath(path)
    check_complete(name, name)
    try:
        with open_raster(path) as raster:
            if raster.count == 0:
                raise BadInputError(
                    f"{path} holds several images; give a folder of frames, or one file whose "
                    "bands are the frames"
                )
            alpha = _alpha_of(raster)
            indexes = tuple(i for i in raster.indexes if i != alpha)
            dtypes = {raster.dtypes[i - 1] for i in indexes}
            if len(dtypes) != 1 or np.dtype(next(iter(dtypes))).kind not in "uif":
                found = ", ".join(sorted(dtypes))
                raise BadInputError(f"{path}: bands of {found}; one real number type was expected")
            dtype = np.dtype(next(iter(dtypes)))
            masked = alpha or not _IN_GEOTIFF & set(raster.mask_flag_enums[0])
            mask = RasterSource(name, 1, raster.shape, np.dtype(np.uint8), mask=True)
            sources = tuple(RasterSource(name, i, raster.shape, dtype) for i in indexes)
            grid = GeoGrid(raster.shape, geometry_of(raster))
            nodata = None if raster.nodata is None or np.isnan(raster.nodata) else raster.nodata
            facts = _Facts(raster.shape, dtype.name, len(indexes), nodata)
    except RasterioError as error:
        raise BadInputError(
            f"{path} cannot be opened as an image ({cause_of(error)}); the file is damaged or of "
            "another format: fetch it again"
        ) from error
    return StoredFrame(path, indexes, sources, mask if masked else None, grid), facts


def _alpha_of(raster: Any) -> int:
    """The alpha band, 0 if there is none; in a GeoTIFF GDAL so names any fourth band of 8 bits."""
    if raster.driver == "GTiff" or raster.count == 1:
        return 0
    last: int = raster.indexes[-1]
    return last if raster.colorinterp[-1] == ColorInterp.alpha else 0


def _name(first: tuple[StoredFrame, _Facts]) -> tuple[tuple[str, ...], float | None]:
    """Band names of a folder, and its nodata value."""
    frame, facts = first
    with open_raster(frame.path) as raster:
        told = [raster.descriptions[i - 1] for i in frame.indexes]
    names = tuple(name or str(i + 1) for i, name in enumerate(told))
    return names, facts.nodata


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Natural order: frame2 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(p), "") if p.isdigit() else (-1, p) for p in parts]

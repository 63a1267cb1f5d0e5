"""What a video is, and the reader for it."""

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import rioxarray  # noqa: F401 (the CRS of arrays)
import xarray as xr

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.videos import ArrayVideo, ChosenFrames, Video
from l1bsr_geo.readers import video_file, video_frames
from l1bsr_geo.readers.skysat import is_burst

_AXES = {3: ("time", "y", "x"), 4: ("time", "band", "y", "x")}


def read_video(
    source: str | os.PathLike[str] | xr.DataArray,
    frames: slice | None = None,
    *,
    bands_per_frame: int = 1,
    camera: str | int | None = None,
) -> Video:
    """Frames of one size and type, unread.

    Args:
        source: video file, folder of frames (in the order of their names, numbers by value), raster
            whose bands are times, SkySat burst (every frame has its geometry), or a DataArray
            (time, band, y, x) or (time, y, x).
        frames: which of them, in order of time; all by default.
        bands_per_frame: of a raster whose bands are times; all bands of a time stand together.
        camera: of a SkySat burst of several.

    Raises:
        MissingInputError: nothing is there, no frames, or PyAV is not installed.
        BadInputError: it cannot be opened; frames differ in size or type.
        BadOptionError: no frame is chosen; bands that make no whole frames.
    """
    if isinstance(source, xr.DataArray):
        video = read_array(source)
        choose(video, frames, "the array")
        return video if frames is None else read_array(source[frames])
    path = Path(source)
    if not path.exists():
        raise MissingInputError(
            f"{path} is not there; a video file, a folder of frames or a raster was expected"
        )
    return choose(_open(path, bands_per_frame, camera), frames, os.fspath(path))


def read_array(array: xr.DataArray) -> ArrayVideo:
    """A DataArray as a video, read where it is asked for; CRS and transform are its geometry.

    Raises:
        BadInputError: other axes than (time, band, y, x) or (time, y, x), or no real numbers.
    """
    axes = _AXES.get(array.ndim)
    if axes is None or (set(axes) == {str(d) for d in array.dims} and axes != array.dims):
        raise BadInputError(
            f"an array of dimensions {', '.join(map(str, array.dims))}; (time, band, y, x) or "
            "(time, y, x) was expected: transpose it"
        )
    names: tuple[str, ...] = ()
    if array.ndim == 4 and array.dims[1] in array.coords:
        names = tuple(str(name) for name in array.coords[array.dims[1]].values)
    located = array.rename(dict(zip(array.dims, axes, strict=True)))
    crs = located.rio.crs
    grids: tuple[GeoGrid, ...] = ()
    if crs is not None:
        with warnings.catch_warnings(action="ignore", category=PendingDeprecationWarning):
            transform = located.rio.transform()  # rioxarray multiplies transforms the old way
        model = AffineModel(transform, crs.to_wkt())
        grids = (GeoGrid((array.shape[-2], array.shape[-1]), model),)
    nodata = located.rio.nodata
    return ArrayVideo(array.variable, names, None if nodata is None else float(nodata), grids)


def choose(video: Video, frames: slice | None, name: str) -> Video:
    """Some frames of a video.

    Raises:
        BadOptionError: there are no such frames, or they run backwards.
    """
    if frames is None:
        return video
    chosen = range(video.frames)[frames] if frames.step != 0 else range(0)
    if not chosen or chosen.step < 0:
        first, last, step = frames.start or 0, frames.stop, frames.step or 1
        raise BadOptionError(
            f"--frames {first}:{'' if last is None else last}:{step}: {name} has frames 0 to "
            f"{video.frames - 1}, and none of them was chosen in order of time"
        )
    if isinstance(video, video_frames.RasterVideo):
        return replace(video, stored=video.stored[frames])
    return ChosenFrames(video, chosen)


def _open(path: Path, bands_per_frame: int, camera: Any) -> Video:
    if is_burst(path):
        return video_frames.read_burst_video(path, camera)
    if path.is_dir():
        return video_frames.read_folder(path)
    if path.suffix.lower() in video_file.ENDINGS:
        return video_file.VideoFile(path)
    return video_frames.read_stack(path, bands_per_frame)

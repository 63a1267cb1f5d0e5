"""Where restored frames go: what each kind of input comes out as, whole or not at all."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import numpy.typing as npt
import rioxarray  # noqa: F401 (the CRS of arrays)
import xarray as xr

from l1bsr_geo.errors import BadOptionError, MissingInputError, OutputExistsError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.georef.cog import check_destination
from l1bsr_geo.georef.stac import item_path
from l1bsr_geo.images.videos import ArrayVideo, ChosenFrames, Video
from l1bsr_geo.pipelines.denoise_job import DenoiseJob
from l1bsr_geo.pipelines.raster_output import name_frames, write_array, write_folder, write_stack
from l1bsr_geo.pipelines.video_output import check_ending, write_png_frames, write_video
from l1bsr_geo.readers.skysat_frames import FRAME_INDEX
from l1bsr_geo.readers.video_file import ENDINGS, VideoFile
from l1bsr_geo.readers.video_frames import RasterVideo
from l1bsr_geo.tiling.encoding import Encoding


@dataclass(frozen=True)
class Target:
    """How a video comes out.

    Attributes:
        job: what was asked.
        video: what is restored.
        base: the whole video, of which it may be some frames.
        times: which frames of it.
    """

    job: DenoiseJob
    video: Video
    base: Video
    times: range

    @property
    def path(self) -> Path | None:
        """The file or folder to write; None for an array."""
        return None if self.job.output is None else Path(self.job.output)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        video = self.base
        if isinstance(video, VideoFile):
            return self.path is not None and not self.path.suffix
        return isinstance(video, RasterVideo) and video.kind != "stack"

    def keep(self, folder: Path, t: int, frame: npt.NDArray[np.float32]) -> None:
        """Store a restored frame [DN], NaN where there is no data, until all are there."""
        encoding = Encoding(self.video.dtype, self._nodata(), (0.0,))
        known = np.isfinite(frame)
        stored = [
            encoding.encode(band[None], mask) for band, mask in zip(frame, known, strict=True)
        ]
        path = _path(folder, t)
        with path.with_suffix(".tmp").open("wb") as file:
            np.save(file, np.concatenate(stored))
        os.replace(path.with_suffix(".tmp"), path)

    def has(self, folder: Path, t: int) -> bool:
        """Whether a frame is stored."""
        return _path(folder, t).exists()

    def load(self, folder: Path, t: int) -> npt.NDArray[Any]:
        """A stored frame, (C, H, W) of the output's type."""
        frame: npt.NDArray[Any] = np.load(_path(folder, t))
        return frame

    def finish(self, folder: Path, tags: Mapping[str, str]) -> Path | xr.DataArray:
        """Write the output of all frames at once, or give the array."""

        def load(t: int) -> npt.NDArray[Any]:
            return self.load(folder, t)

        path, base = self.path, self.base
        if path is None:
            return self._make_array(load)
        whole = folder / f"whole{path.suffix}"
        if self.is_folder:
            rmtree(whole, ignore_errors=True)
            whole.mkdir()
            if isinstance(base, RasterVideo):
                write_folder(base, whole, load, tags)
            else:
                write_png_frames(whole, self.video.frames, load)
            _replace_folder(whole, path)
            return path
        if isinstance(base, VideoFile):
            write_video(base, whole, self.times, load)
        elif isinstance(base, RasterVideo):
            write_stack(base, whole, load, tags)
        elif isinstance(base, ArrayVideo):
            write_array(base, whole, load, tags)
        os.replace(whole, path)
        return path

    def names(self) -> list[str]:
        """The files of a folder that is written."""
        if isinstance(self.base, RasterVideo):
            return name_frames(self.base)
        return [f"frame{t:06d}.png" for t in range(self.video.frames)]

    def rasters(self) -> list[tuple[Path, Path | None]]:
        """The TIFF that are written, each with the file that it is made of; none of other kinds."""
        path, base = self.path, self.base
        if path is None or isinstance(base, VideoFile):
            return []
        if not isinstance(base, RasterVideo):
            return [(path, None)]
        if not self.is_folder:
            return [(path, base.stored[0].path)]
        pairs = zip(self.names(), base.stored, strict=True)
        tiffs = [(path / name, frame.path) for name, frame in pairs]
        return [pair for pair in tiffs if pair[0].suffix.lower() in (".tif", ".tiff")]

    def _nodata(self) -> float | None:
        nodata, dtype = self.video.nodata, self.video.dtype
        if nodata is None or np.isnan(nodata):
            return None
        limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
        return nodata if limits.min <= nodata <= limits.max else None

    def _make_array(self, load: Any) -> xr.DataArray:
        frames = np.stack([load(t) for t in range(self.video.frames)])
        source = self.job.source
        if isinstance(source, xr.DataArray):
            chosen = source if self.job.frames is None else source[self.job.frames]
            if chosen.ndim == 3 and frames.shape[1] == 1:
                return chosen.copy(data=frames[:, 0])
            if chosen.shape == frames.shape:
                return chosen.copy(data=frames)
            return with_bands(chosen, frames)
        names = list(self.video.bands) if len(self.video.bands) == frames.shape[1] else None
        array = xr.DataArray(
            frames,
            dims=("time", "band", "y", "x"),
            coords={"band": names or [str(k + 1) for k in range(frames.shape[1])]},
            name=Path(source).stem,
        )
        model = self.video.grid(0).model
        if isinstance(model, AffineModel):
            array = array.rio.write_crs(model.crs).rio.write_transform(model.transform)
        return array if self.video.nodata is None else array.rio.write_nodata(self.video.nodata)


def choose_target(job: DenoiseJob, video: Video) -> Target:
    """How a video comes out, its destination checked before any work.

    Raises:
        OutputExistsError: it is there and may not be replaced.
        MissingInputError: its folder is not there.
        BadOptionError: it is of another kind than the input, or cannot be written.
    """
    base, times = video, range(video.frames)
    if isinstance(video, ChosenFrames):
        base, times = video.video, video.chosen
    target = Target(job, video, base, times)
    path = target.path
    if path is None:
        return target
    suffix = path.suffix.lower()
    if target.is_folder:
        if suffix in (*ENDINGS, ".tif", ".tiff"):
            raise BadOptionError(
                f"{path}: a folder of frames or a burst comes out as a folder; name one"
            )
        sources = [job.source] if not isinstance(job.source, xr.DataArray) else []
        _check_folder(path, _beside(target.names()), sources, overwrite=job.overwrite)
        return target
    if isinstance(base, VideoFile):
        check_ending(path)
    elif suffix not in (".tif", ".tiff"):
        raise BadOptionError(f"{path}: a stack of times comes out as one; name it .tif")
    sources = [] if isinstance(job.source, xr.DataArray) else [job.source]
    check_destination(path, sources, overwrite=job.overwrite)
    return target


def with_bands(chosen: xr.DataArray, frames: npt.NDArray[Any]) -> xr.DataArray:
    """Where a mosaic became colours: the coordinates of time, y and x."""
    time, *_, y, x = chosen.dims
    kept = {n: c for n, c in chosen.coords.items() if set(c.dims) <= {time, y, x}}
    return xr.DataArray(
        frames,
        dims=(time, "band", y, x),
        coords={**kept, "band": ["red", "green", "blue"]},
        attrs=chosen.attrs,
        name=chosen.name,
    )


def _path(folder: Path, t: int) -> Path:
    return folder / f"frame-{t:06d}.npy"


def _check_folder(
    path: Path, names: Sequence[str], sources: Sequence[Any], *, overwrite: bool
) -> None:
    """Refuse a folder that cannot be written, or that holds more than would be replaced."""
    if not path.absolute().parent.is_dir():
        raise MissingInputError(f"{path}: the folder {path.parent} does not exist; create it first")
    if not path.exists():
        return
    if not path.is_dir():
        raise BadOptionError(f"{path}: is a file; name a folder for the frames")
    for source in map(Path, sources):
        if source.exists() and (path.samefile(source) or path.samefile(source.parent)):
            raise BadOptionError(f"{path}: is the input, too; write to another folder")
    inside = {entry.name for entry in path.iterdir()}
    if inside and not overwrite:
        raise OutputExistsError(
            f"{path}: exists already; write to another folder, or add --overwrite"
        )
    if strangers := inside - set(names):
        raise BadOptionError(
            f"{path}: holds {sorted(strangers)[0]}, which is no frame of this video; overwriting "
            "would remove it: write to another folder"
        )


def _beside(names: Sequence[str]) -> list[str]:
    """Files that may lie in a folder of frames."""
    stems = [Path(name).stem for name in names]
    told = [*(f"{stem}_pinhole.json" for stem in stems), *(f"{name}.aux.xml" for name in names)]
    told += [item_path(name).name for name in names]
    return [*names, *told, FRAME_INDEX]


def _replace_folder(whole: Path, path: Path) -> None:
    """Move a folder to its place; what was there goes only when the new one is in place."""
    old = whole.with_name("old")
    if path.exists():
        os.replace(path, old)
    os.replace(whole, path)
    rmtree(old, ignore_errors=True)

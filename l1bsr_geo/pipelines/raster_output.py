"""Restored frames as rasters, each with the type, geometry and tags of the frame it was made of."""

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.images.videos import ArrayVideo
from l1bsr_geo.readers.local_raster import open_raster
from l1bsr_geo.readers.rpc import rpcs_of
from l1bsr_geo.readers.skysat_frames import FRAME_INDEX
from l1bsr_geo.readers.video_frames import RasterVideo, StoredFrame

Load: TypeAlias = Callable[[int], npt.NDArray[Any]]
"""A number of a frame to its restored pixels (C, H, W) as they are stored."""

_LOSSLESS = ("deflate", "lzw", "zstd", "packbits", "lzma")
_MOST_IN_PNG = 4  # bands


def name_frames(video: RasterVideo) -> list[str]:
    """What the files of a folder are called: as the frames, with an ending that loses nothing."""
    return [f"{f.path.stem}{_ending(f.path, video)}" for f in video.stored]


def write_folder(video: RasterVideo, folder: Path, load: Load, tags: Mapping[str, str]) -> None:
    """Every frame as a file; what lies beside SkySat frames and tells of them comes along.

    Args:
        video: that was restored.
        folder: exists and is empty.
        load: gives the restored frames.
        tags: of the result, beside those of its source; PNG gets none.
    """
    for t, (frame, name) in enumerate(zip(video.stored, name_frames(video), strict=True)):
        _write_frame(video, t, folder / name, load(t), tags)
        beside = frame.path.with_name(f"{frame.path.stem}_pinhole.json")
        if video.kind == "burst" and beside.is_file():
            shutil.copyfile(beside, folder / beside.name)
    if video.kind == "burst":
        source = video.stored[0].path.parent
        tables = [p for p in (source / FRAME_INDEX, source.parent / FRAME_INDEX) if p.is_file()]
        if tables:
            shutil.copyfile(tables[0], folder / FRAME_INDEX)


def write_stack(video: RasterVideo, path: Path, load: Load, tags: Mapping[str, str]) -> None:
    """All frames as bands of one GeoTIFF, all bands of the first time first."""
    first = load(0)
    source = video.stored[0]
    with open_raster(source.path) as raster, without_a_map():
        profile = _geotiff_profile(raster, len(first) * video.frames, first)
        profile |= {"interleave": "band"}
        profile |= _georeference(raster, None)
        with rasterio.open(path, "w", **profile) as out:
            _copy_tags(raster, out, tags)
            for t, frame in enumerate(video.stored):
                bands = [t * len(first) + k + 1 for k in range(len(first))]
                out.write(load(t), bands)
                if len(frame.indexes) == len(first):
                    _copy_bands(raster, frame.indexes, out, bands)
            if source.mask is not None:
                out.write_mask(raster.dataset_mask())


def write_array(video: ArrayVideo, path: Path, load: Load, tags: Mapping[str, str]) -> None:
    """An array as a GeoTIFF whose bands are times, with CRS and transform where it has them."""
    first = load(0)
    profile = _plain_profile(len(first) * video.frames, first) | {"nodata": video.nodata}
    model = video.grid(0).model
    if isinstance(model, AffineModel):
        profile |= {"crs": model.crs, "transform": model.transform}
    with without_a_map(), rasterio.open(path, "w", **profile) as out:
        out.update_tags(**tags)
        for t in range(video.frames):
            out.write(load(t), [t * len(first) + k + 1 for k in range(len(first))])


def _ending(path: Path, video: RasterVideo) -> str:
    if path.suffix.lower() in (".tif", ".tiff"):
        return path.suffix
    fits = video.dtype in (np.uint8, np.uint16) and len(video.bands) < _MOST_IN_PNG
    return ".png" if fits else ".tif"


def _write_frame(
    video: RasterVideo, t: int, path: Path, pixels: npt.NDArray[Any], tags: Mapping[str, str]
) -> None:
    frame = video.stored[t]
    with open_raster(frame.path) as raster, without_a_map():
        if path.suffix == ".png":
            _write_png(raster, frame, path, pixels)
            return
        profile = _geotiff_profile(raster, len(pixels), pixels)
        profile |= _georeference(raster, rpcs_of(video.grid(t)))
        with rasterio.open(path, "w", **profile) as out:
            _copy_tags(raster, out, tags)
            out.write(pixels)
            if len(frame.indexes) == len(pixels):
                _copy_bands(raster, frame.indexes, out, list(out.indexes))
            if frame.mask is not None:
                out.write_mask(raster.dataset_mask())


def _write_png(raster: Any, frame: StoredFrame, path: Path, pixels: npt.NDArray[Any]) -> None:
    """Alpha is the source's."""
    alpha = [i for i in raster.indexes if i not in frame.indexes]
    bands = np.concatenate([pixels, raster.read(alpha).astype(pixels.dtype)]) if alpha else pixels
    profile = {
        "driver": "PNG",
        "count": len(bands),
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype.name,
        "nodata": raster.nodata,
    } | _georeference(raster, None)
    with rasterio.open(path, "w", **profile) as out:
        out.write(bands)


def _plain_profile(count: int, pixels: npt.NDArray[Any]) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "count": count,
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "dtype": pixels.dtype.name,
        "compress": "deflate",
        "bigtiff": "if_safer",
        "interleave": "band",
    }


def _geotiff_profile(raster: Any, count: int, pixels: npt.NDArray[Any]) -> dict[str, Any]:
    """Stored as the source is, where that loses nothing."""
    profile = _plain_profile(count, pixels) | {"nodata": raster.nodata}
    told = str(raster.profile.get("compress", "none")).lower()
    if raster.driver == "GTiff" and told in (*_LOSSLESS, "none"):
        profile["compress"] = told
    if raster.profile.get("tiled") and min(raster.block_shapes[0]) % 16 == 0:
        rows, columns = raster.block_shapes[0]
        profile |= {"tiled": True, "blockxsize": columns, "blockysize": rows}
    return profile


def _georeference(raster: Any, rpcs: Any) -> dict[str, Any]:
    """CRS and transform, or RPC, or control points; a sidecar's RPC where it was read."""
    found: dict[str, Any] = {}
    if raster.crs is not None or not raster.transform.is_identity:
        found |= {"crs": raster.crs, "transform": raster.transform}
    points, crs = raster.gcps
    if points and "transform" not in found:
        found |= {"gcps": points, "crs": crs}
    if (rpcs := rpcs or raster.rpcs) is not None:
        found["rpcs"] = rpcs
    return found


def _copy_tags(raster: Any, out: Any, tags: Mapping[str, str]) -> None:
    kept = {name: text for name, text in raster.tags().items() if name != "AREA_OR_POINT"}
    point = raster.tags().get("AREA_OR_POINT")
    out.update_tags(**kept, **({"AREA_OR_POINT": point} if point else {}), **tags)


def _copy_bands(raster: Any, sources: Sequence[int], out: Any, targets: Sequence[int]) -> None:
    """Names, tags, scales and units of bands."""
    for source, target in zip(sources, targets, strict=True):
        if (name := raster.descriptions[source - 1]) is not None:
            out.set_band_description(target, name)
        out.update_tags(target, **raster.tags(source))
        if (unit := raster.units[source - 1]) is not None:
            out.set_band_unit(target, unit)
    if any(raster.scales[s - 1] != 1 or raster.offsets[s - 1] != 0 for s in sources):
        scales, offsets = list(out.scales), list(out.offsets)
        for source, target in zip(sources, targets, strict=True):
            scales[target - 1] = raster.scales[source - 1]
            offsets[target - 1] = raster.offsets[source - 1]
        out.scales, out.offsets = scales, offsets


@contextmanager
def without_a_map() -> Iterator[None]:
    """Sensor geometry and photographs have no map transform, which is no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield

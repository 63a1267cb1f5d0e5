"""The products again, from array to array: lazy, with the pixels that the command line writes."""

import logging
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask.array as da
import rioxarray  # noqa: F401 (the CRS of arrays)
import xarray as xr
from affine import Affine
from dask.delayed import delayed
from rasterio.rpc import RPC

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.georef.cog import check_destination, write_cog
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.registry import Device, Model, Precision
from l1bsr_geo.pipelines import bands as band_pipeline
from l1bsr_geo.pipelines import bursts as burst_pipeline
from l1bsr_geo.pipelines.array_input import (
    exposures_of,
    grid_of,
    is_burst_array,
    make_job,
    read_bands,
    read_frames,
)
from l1bsr_geo.pipelines.array_output import as_array, follow, image_of, tags_of
from l1bsr_geo.pipelines.denoise_job import DenoiseJob
from l1bsr_geo.pipelines.denoise_methods import load_network
from l1bsr_geo.pipelines.denoise_output import with_bands
from l1bsr_geo.pipelines.denoising import check_frames, denoise
from l1bsr_geo.pipelines.job import Job, PathLike, Progress
from l1bsr_geo.pipelines.stages import LazyResult, read_terrain, say_now, say_origin
from l1bsr_geo.pipelines.super_resolution import choose_for_bands, choose_for_burst, load_restorer
from l1bsr_geo.readers.array_place import Origin, frame_of, name_of, put_in_frame
from l1bsr_geo.readers.array_raster import order_axes
from l1bsr_geo.readers.rpc import rpcs_of
from l1bsr_geo.readers.videos import read_video
from l1bsr_geo.tiling.shelf import restores

log = logging.getLogger(__name__)

_MADE = "software"  # a tag of what we made
_OF_SOURCE = ("source", "time", "first_line", "product")
_DENOISING = tuple(field.name for field in fields(DenoiseJob))


def super_resolve_array(
    array: xr.DataArray,
    *,
    model: str | Model | Restorer | None = None,
    scale: int | None = None,
    weights: str | Path | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: int | None = None,
    reference: str | int | None = None,
    **options: Any,
) -> xr.DataArray:
    """What `super_resolve` writes, as an array that is computed when it is asked for.

    The motion of bands or frames is found at once, from a part of the pixels.

    Args:
        array: bands (band, y, x) or the frames of a burst (time, y, x).
        model: as of `super_resolve`, and so are ``scale`` to ``tile``.
        scale: fine pixels to a pixel.
        weights: file of weights.
        device: where the network runs.
        precision: how it computes.
        tile: largest core of a tile [px].
        reference: of frames: "middle", "first" or their place in time.
        **options: of `Job`: bands, aoi, crs, resolution, dem, geoid, height, refine, ortho, dtype.

    Raises:
        L1bsrGeoError: what a user can cause and mend.
    """
    job = make_job(array, options)
    how: dict[str, Any] = {"scale": scale, "weights": weights}
    how |= {"device": device, "precision": precision}
    if is_burst_array(array):
        restorer = load_restorer(
            lambda: choose_for_burst(scale, lambda: exposures_of(array)), model, **how
        )
        burst = read_frames(_settle(array), job, reference=reference)
        result: LazyResult = burst_pipeline.restore_lazily(job, burst, restorer, tile)
        return as_array(_tell(array, job, result), name="sr")

    def read() -> BandStack:
        return read_bands(array, job, job.bands)

    restorer = load_restorer(lambda: choose_for_bands(scale, read, job), model, **how)
    stack = read_bands(_settle(array), job, job.bands or restorer.spec.bands)
    result = band_pipeline.restore_lazily(job, stack, restorer, tile)
    return _as_array(array, job, stack, result, "sr")


def register_array(array: xr.DataArray, *, tile: int | None = None, **options: Any) -> xr.DataArray:
    """What `register` writes, as an array that is computed when it is asked for.

    Args:
        array: bands (band, y, x).
        tile: largest core of a tile [px].
        **options: as of `super_resolve_array`.

    Raises:
        L1bsrGeoError: what a user can cause and mend.
    """
    job = make_job(array, options)
    stack = read_bands(_settle(array), job, job.bands)
    result = band_pipeline.restore_lazily(job, stack, band_pipeline.plain_model(), tile)
    return _as_array(array, job, stack, result, "registered")


def orthorectify_array(array: xr.DataArray, **options: Any) -> xr.DataArray:
    """What `orthorectify_bands` writes, as an array that is computed when it is asked for.

    Args:
        array: bands (band, y, x), as opened or restored; or one frame (y, x).
        **options: as of `super_resolve_array`, without ``ortho``.

    Raises:
        L1bsrGeoError: what a user can cause and mend.
    """
    job = make_job(array, options)
    stack = read_bands(_settle(array), job, job.bands)
    result = band_pipeline.draw_lazily(job, stack)
    name = str(array.name) if _MADE in array.attrs and array.name else "ortho"
    return as_array(_tell(array, job, result), name=name)


def denoise_array(array: xr.DataArray, **options: Any) -> xr.DataArray:
    """What `denoise` gives, as an array that is computed when it is asked for, in one task.

    A network that learns sees one frame after the other: there is nothing to do side by side, and
    a part of the result costs as much as all of it.

    Args:
        array: (time, band, y, x) or (time, y, x).
        **options: of `DenoiseJob`, but those of files.

    Raises:
        L1bsrGeoError: what a user can cause and mend.
    """
    for name in options:
        if name in ("source", "output", "overwrite", "resume") or name not in _DENOISING:
            raise BadOptionError(f"{name}: there is no such option of denoising an array")
    if "time" in array.coords and array.dims[:1] != ("time",):
        raise BadInputError(
            f"an array of dimensions {', '.join(map(str, array.dims))} is no video; (time, y, x) "
            "or (time, band, y, x) was expected"
        )
    job = DenoiseJob(source=array, **options)
    video = read_video(array, job.frames)
    network, _ = load_network(job, len(video.bands))
    check_frames(job, network, video.frames)
    chosen = array if job.frames is None else array[job.frames]
    shape: tuple[int, ...] = (video.frames, len(video.bands), *video.shape)
    if job.method == "m2m" and shape[1] == 1:
        shape = (shape[0], 3, *shape[2:])
    elif chosen.ndim == 3:
        shape = chosen.shape
    name = f"denoise-{uuid4().hex}"
    task = delayed(_denoise)(chosen, {**options, "frames": None}, dask_key_name=name)
    pixels = da.from_delayed(task, shape, chosen.dtype)
    if shape == chosen.shape:
        return chosen.copy(data=pixels)
    return with_bands(chosen, pixels)


def _denoise(array: xr.DataArray, options: dict[str, Any]) -> Any:
    result = denoise(array, **options)
    assert isinstance(result, xr.DataArray), "it has no file"
    return result.values


def write_array(
    array: xr.DataArray,
    path: PathLike,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Write an array as a cloud-optimized GeoTIFF, block by block, where its coordinates say.

    Args:
        array: bands or frames, or one of them.
        path: the file.
        overwrite: replace it.
        progress: called with blocks done and blocks in all.
        **options: of `Job`: dem, geoid, height: the ground that control points are put on, where
            the array is in sensor geometry and has no RPC.

    Returns:
        ``path``.

    Raises:
        L1bsrGeoError: what a user can cause and mend; nothing is left under ``path``.
    """
    job = make_job(array, options)
    origin = array.encoding.get("source")
    sources = [job.source, *([origin] if isinstance(origin, str) else [])]
    sources = [source for source in sources if os.path.exists(source)]
    check_destination(Path(path), sources, overwrite=overwrite)
    ordered = order_axes(array)
    grid = grid_of(ordered, job)
    plain = isinstance(grid.model, AffineModel) or rpcs_of(grid) is not None
    terrain = None if plain or grid.model is None else read_terrain(job, grid)
    return write_cog(
        image_of(ordered, grid),
        path,
        tags=tags_of(array) | say_now(),
        sources=sources,
        overwrite=overwrite,
        elevation=terrain,
        progress=progress,
    )


def find_rpcs(array: xr.DataArray) -> RPC | None:
    """The RPC of exactly the pixels of an array; None where its geometry is no RPC.

    Raises:
        L1bsrGeoError: its product is not where it was; an array that is no image.
    """
    return rpcs_of(grid_of(order_axes(array), make_job(array, {})))


def reframe_array(array: xr.DataArray) -> xr.DataArray:
    """A part of an array in sensor geometry, with a frame of its own.

    ``x`` and ``y`` begin at 0.5, and ``spatial_ref`` holds the RPC of exactly these pixels.

    Args:
        array: any part; what is on a map comes back as it is.

    Raises:
        L1bsrGeoError: its product is not where it was; an array that is no image.
    """
    ordered = order_axes(array)
    grid = grid_of(ordered, make_job(array, {}))
    if isinstance(grid.model, AffineModel):
        return array
    origin = Origin.of(array)
    if origin is not None:
        to_source = Affine(*origin.to_source) @ frame_of(ordered)
        origin = replace(origin, to_source=tuple(to_source[:6]))
    return put_in_frame(array, origin, rpcs_of(grid))


def _as_array(
    array: xr.DataArray, job: Job, stack: BandStack, result: LazyResult, name: str
) -> xr.DataArray:
    """A result of bands; in sensor geometry it keeps its product."""
    origin = Origin.of(array)
    result = _tell(array, job, result)
    drawn = isinstance(result.image.grid.model, AffineModel)
    if origin is None or origin.sensor == "skysat" or drawn:
        return as_array(result, name=name)
    known = replace(origin, reference=origin.reference or stack.reference)
    base = band_pipeline.read_stack(job, (known.reference or stack.reference,))
    grid = base.grids[base.reference]
    return as_array(result, name=name, origin=follow(known, stack, grid, result.image.grid))


def _tell(array: xr.DataArray, job: Job, result: LazyResult) -> LazyResult:
    """With its provenance, and that of an array that is a result itself."""
    facts = say_origin(job, result.terrain) | dict(result.facts)
    if _MADE in array.attrs:
        before = tags_of(array)
        drawn = facts.get("model") == "none"  # nothing else was done
        kept = before if drawn else {k: before[k] for k in _OF_SOURCE if k in before}
        facts = before | facts | kept | {"terrain": facts["terrain"]}
    return replace(result, facts=facts)


def _settle(array: xr.DataArray) -> xr.DataArray:
    """What a network gives is computed once: motion is found in it, tiles overlap in it.

    Raises:
        BadInputError: nothing to look at.
    """
    if 0 in array.shape:
        raise BadInputError(f"an array of shape {array.shape}; some pixels were expected")
    if array.chunks is None or not any(map(_is_dear, array.data.dask.layers)):
        return array
    log.info("%s is computed first, as it is restored itself", name_of(array))
    return array.persist()


def _is_dear(layer: str) -> bool:
    return restores((layer,)) or layer.startswith("denoise")

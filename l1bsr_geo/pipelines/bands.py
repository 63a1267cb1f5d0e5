"""Sentinel-2 detectors, and rasters of their bands."""

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from l1bsr_geo.errors import BadInputError, BadOptionError, GeometryWarning
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.elevation import AnyElevation
from l1bsr_geo.georef.cog import check_destination
from l1bsr_geo.georef.orthorectify import orthorectify
from l1bsr_geo.images.bands import BandScene, BandStack, DetectorCrop, describe_values
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.images.pixels import GeoImage
from l1bsr_geo.models.classical import Geometric
from l1bsr_geo.models.registry import Model
from l1bsr_geo.pipelines.item import add_item, check_item
from l1bsr_geo.pipelines.job import Job, PathLike, Progress
from l1bsr_geo.pipelines.refining import refine_bands
from l1bsr_geo.pipelines.stages import (
    LazyResult,
    draw_on_map,
    find_window,
    read_terrain,
    say,
    say_model,
    write_result,
)
from l1bsr_geo.pipelines.uncertainty import map_uncertainty, write_uncertainty
from l1bsr_geo.readers.inputs import read_input
from l1bsr_geo.registration.bands import geometric_flow, register_bands
from l1bsr_geo.tiling.cluster import connect
from l1bsr_geo.tiling.execute import map_tiles
from l1bsr_geo.tiling.plan import TilePlan
from l1bsr_geo.tiling.precision import settle_precision

log = logging.getLogger(__name__)

_MARGIN = 64  # [px] of context around an area: motion between bands, kernels, matching


def restore_bands(job: Job, model: Model, tile: int | None, progress: Progress | None) -> Path:
    """From bands of one acquisition to one image, aligned to the reference band.

    Args:
        job: what is read and written.
        model: what restores.
        tile: largest core of a tile [px].
        progress: called with blocks done and blocks in all.
    """
    result = restore_lazily(job, read_stack(job, job.bands or model.spec.bands), model, tile)
    write_uncertainty(job, result, progress)
    return write_result(job, result.image, result.terrain, result.facts, progress)


def restore_lazily(job: Job, stack: BandStack, model: Model, tile: int | None) -> LazyResult:
    """`restore_bands` before anything is computed but the motion of the bands.

    Args:
        job: what is drawn; nothing is read or written by it.
        stack: the bands that the model takes.
        model: what restores.
        tile: largest core of a tile [px].
    """
    terrain = read_terrain(job, stack.grids[stack.reference])
    stack, refined = refine_bands(job, stack, terrain)
    window = find_window(job, stack.grids[stack.reference], terrain, _MARGIN)
    stack = _crop_to_area(job, stack, terrain)
    scene, facts = _align(stack, model, terrain)
    facts |= refined | {"source_window": json.dumps(window)}
    plan = TilePlan.for_model(model.spec, scene.grid.shape, size=tile)
    model = settle_precision(model, scene, plan)
    image, gsd = map_tiles(model, scene, plan, dtype=job.dtype), _gsd(stack, model.spec.scale)
    image = draw_on_map(job, image, terrain, gsd)
    result = _describe_result(stack, image, terrain, facts | say_model(model, plan))
    if job.uncertainty is None:
        return result
    spread, how = map_uncertainty(model, scene, plan)
    spread = draw_on_map(job, spread, terrain, gsd, "bilinear")
    return result.with_uncertainty(spread, how)


def register(
    source: PathLike,
    output: PathLike,
    *,
    tile: int | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Align all bands to the reference band at the input's resolution, into a COG.

    Args:
        source: product or raster, as in `Job`.
        output: GeoTIFF to write.
        tile: largest core of a tile [px].
        scheduler: address of a dask scheduler, as for `super_resolve`.
        workers: worker processes to start, as for `super_resolve`.
        progress: called with blocks done and blocks in all.
        **options: what `Job` lists.

    Returns:
        The path written.

    Raises:
        L1bsrGeoError: what a user can cause and mend; nothing is left under ``output``.
    """
    job = Job(source=source, output=output, **options)
    _refuse_companions(job, "register")
    check_destination(Path(output), job.inputs, overwrite=job.overwrite)
    check_item(job)
    with connect(scheduler, workers):
        written = restore_bands(job, plain_model(), tile, progress)
    return add_item(job, written)


def _refuse_companions(job: Job, doing: str) -> None:
    """Nothing that only a restored image has may be asked for."""
    for name in ("layers", "uncertainty", "report"):
        if getattr(job, name) is not None:
            raise BadOptionError(f"{doing} makes no {name}; leave it out, or use super_resolve")


def plain_model() -> Model:
    """The spline alone, at the input's resolution: bands aligned where their motion is known."""
    return Model.from_restorer(Geometric(scale=1), device="cpu")


def orthorectify_bands(
    source: PathLike,
    output: PathLike,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Resample every band onto a map by its own geometry, unmatched and unrestored, into a COG.

    Args:
        source: product or raster, as in `Job`.
        output: GeoTIFF to write.
        scheduler: address of a dask scheduler, as for `super_resolve`.
        workers: worker processes to start, as for `super_resolve`.
        progress: called with blocks done and blocks in all.
        **options: what `Job` lists.

    Returns:
        The path written.

    Raises:
        L1bsrGeoError: what a user can cause and mend; nothing is left under ``output``.
    """
    job = Job(source=source, output=output, **options)
    _refuse_companions(job, "ortho")
    check_destination(Path(output), job.inputs, overwrite=job.overwrite)
    check_item(job)
    result = draw_lazily(job, read_stack(job, job.bands))
    with connect(scheduler, workers):
        written = write_result(job, result.image, result.terrain, result.facts, progress)
    return add_item(job, written)


def draw_lazily(job: Job, stack: BandStack) -> LazyResult:
    """`orthorectify_bands` before anything is computed.

    Args:
        job: what is drawn; nothing is read or written by it.
        stack: the bands.

    Raises:
        BadInputError: they have no geometry.
    """
    if stack.grids[stack.reference].model is None:
        raise BadInputError(
            f"{job.source} has no geometry (no CRS, RPC or sensor model), so it cannot be put on a "
            "map"
        )
    terrain = read_terrain(job, stack.grids[stack.reference])
    stack, refined = refine_bands(job, stack, terrain)
    plain = plain_model()  # no motion: pixels as they are
    crops = {band: _crop_to_area(job, stack.only(band), terrain) for band in stack.bands}
    bands = {b: map_tiles(plain, BandScene(c), dtype=job.dtype) for b, c in crops.items()}
    first = _draw_north_up(job, bands[stack.reference], terrain, _gsd(stack, 1))
    maps = [
        first
        if band == stack.reference
        else orthorectify(image, onto=first.grid, aoi=job.aoi, elevation=terrain)
        for band, image in bands.items()
    ]
    valid = np.logical_and.reduce([m.valid for m in maps if m.valid is not None])
    pixels = [m.pixels for m in maps]
    if "spatial_ref" not in first.pixels.coords:  # it was on this map already
        pixels = [p.drop_vars("spatial_ref", errors="ignore") for p in pixels]
    image = GeoImage(xr.concat(pixels, "band"), first.grid, valid)
    # the facts of the reference's crop, of all bands
    stack = replace(crops[stack.reference], sources=stack.sources, grids=stack.grids)
    return _describe_result(stack, image, terrain, {"model": "none"} | refined)


def _draw_north_up(job: Job, image: GeoImage, terrain: AnyElevation, gsd: float | None) -> GeoImage:
    """On a map whose rows run east: others can be drawn onto it."""
    model = image.grid.model
    if isinstance(model, AffineModel) and (model.transform.b or model.transform.d):
        job = replace(job, crs=job.crs or model.crs)
    return draw_on_map(job, image, terrain, gsd)


def read_stack(job: Job, bands: Sequence[str] | None) -> BandStack:
    """The bands of a job's source, pixels unread; by the instrument model where terrain is given.

    Args:
        job: names the source and how it is opened.
        bands: names; those that a reader takes where None.
    """
    stack = read_input(
        job.source,
        sensor=job.sensor,
        detector=job.detector,
        bands=bands,
        geometry=job.geometry,
        gipp=job.gipp,
    )
    if stack.attrs.get("geometry") == "grids" and (job.dem is not None or job.height):
        if job.geometry == "auto" and "line_period" in stack.attrs:  # it has a datastrip
            return read_stack(replace(job, geometry="model"), bands)
        warnings.warn(
            f"{job.source}: its location grids hold the terrain that they were made with, so --dem "
            "and --height have no effect; use --geometry model",
            GeometryWarning,
            stacklevel=4,
        )
    if job.detector is not None and not isinstance(stack, DetectorCrop):
        raise BadOptionError(f"--detector {job.detector}: {job.source} has no detectors")
    log.info("read %s: %s, %d x %d px", job.source, ", ".join(stack.bands), *stack.shape)
    return stack


def _crop_to_area(job: Job, stack: BandStack, terrain: AnyElevation) -> BandStack:
    """No more of the stack than the area of interest needs."""
    window = find_window(job, stack.grids[stack.reference], terrain, _MARGIN)
    return stack if job.area is None else stack.crop(window)


def _align(
    stack: BandStack, model: Model, terrain: AnyElevation
) -> tuple[BandScene, dict[str, str]]:
    """The scene as the model takes it: with flow, or with whole-pixel shifts taken out."""
    located = all(grid.model is not None for grid in stack.grids.values())
    on_map = all(isinstance(grid.model, AffineModel) for grid in stack.grids.values())
    prior = geometric_flow(stack, elevation=terrain) if located and not on_map else None
    if model.spec.flow:
        # bands on one map are registered already, to a fraction of a pixel or so
        flow = register_bands(stack, prior=prior, search=2 if on_map else None)
        how = "images" if prior is None else "instrument geometry, refined by images"
        return BandScene(stack, flow), {"band_registration": how} | _say_flow(stack, flow)
    if prior is None:
        return BandScene(stack), {"band_registration": "none"}
    middle = np.median(prior.nodes, axis=(-2, -1)).round().astype(int)
    shifts = {b: (int(dx), int(dy)) for b, (dx, dy) in zip(stack.bands, middle, strict=True)}
    text = json.dumps({b: s for b, s in shifts.items() if b != stack.reference})
    return BandScene(stack.shift(shifts)), {
        "band_registration": f"whole pixels from instrument geometry {text}"
    }


def _say_flow(stack: BandStack, flow: FlowField) -> dict[str, str]:
    median = np.median(flow.nodes, axis=(-2, -1))
    shifts = {b: [round(float(v), 3) for v in m] for b, m in zip(stack.bands, median, strict=True)}
    return {"band_flow_median_px": json.dumps(shifts)}


def _gsd(stack: BandStack, scale: int) -> float | None:
    """Nominal pixel size of the result [m]."""
    nominal = stack.attrs.get("resolution", {}).get(stack.reference)
    return nominal / scale if nominal else None


def _describe_result(
    stack: BandStack, image: GeoImage, terrain: AnyElevation, facts: dict[str, str]
) -> LazyResult:
    pixels = image.pixels.assign_attrs(describe_values(stack))
    known = ("product", "platform", "datastrip", "processing_baseline", "time", "geometry")
    facts = {"reference_band": stack.reference} | say(stack.attrs, *known) | facts
    if stack.attrs.get("geometry") == "grids":
        facts["terrain"] = "that of the location grids"
    if isinstance(stack, DetectorCrop):
        facts |= {"detector": f"{stack.detector:02d}", "first_line": str(stack.first_line)}
    return LazyResult(replace(image, pixels=pixels), terrain, facts)

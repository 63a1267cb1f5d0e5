"""The geometry of an input, put right by an ortho reference, before anything is made of it."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from l1bsr_geo.errors import BadInputError, L1bsrGeoError, MissingInputError
from l1bsr_geo.geometry.elevation import AnyElevation, localize_on_terrain
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.georef.comparison import shift_grid
from l1bsr_geo.georef.map_grid import utm_zone
from l1bsr_geo.georef.refine import Shift, estimate_shift
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.images.bursts import Burst
from l1bsr_geo.images.pixels import GeoImage, LazyPixels, PixelSource, is_data
from l1bsr_geo.pipelines.job import SENTINELHUB, Job
from l1bsr_geo.pipelines.stages import find_window
from l1bsr_geo.readers.inputs import is_product, read_input
from l1bsr_geo.readers.ortho_band import read_ortho_band
from l1bsr_geo.registration.patches import match_patch

log = logging.getLogger(__name__)

_CONTEXT = 512  # [px] around an area of interest: more patches than the area alone has
_CHUNK = 1024  # [px]
_OF_PRODUCTS = ("B02", "B03", "B04", "B08")


def refine_bands(
    job: Job, stack: BandStack, terrain: AnyElevation
) -> tuple[BandStack, dict[str, str]]:
    """A stack whose bands are where a job's reference shows them, and what was done as tags.

    The reference band is measured; all bands are moved alike, in pixels of 10, 20 or 60 m.

    Args:
        job: names the reference, or none: then nothing is done.
        stack: whole, not cropped to the area of interest.
        terrain: the ground.

    Raises:
        L1bsrGeoError: the reference cannot be had or used, or does not match.
    """
    if job.refine is None:
        return stack, {}
    grid = stack.grids[stack.reference]
    image = _one_band(stack.sources[stack.reference], grid, stack.nodata, stack.saturated)
    shift, facts = _measure(job, image, terrain, stack.reference, stack.attrs.get("time"))
    return replace(stack, grids=_shift_all(stack.grids, grid.shape, shift)), facts


def refine_burst(job: Job, burst: Burst, terrain: AnyElevation) -> tuple[Burst, dict[str, str]]:
    """A burst whose reference frame is where a job's reference shows it; all frames move alike.

    Args:
        job: names the reference, or none: then nothing is done.
        burst: its frame 0 is measured.
        terrain: the ground.

    Raises:
        L1bsrGeoError: the reference cannot be had or used, or does not match.
    """
    if job.refine is None:
        return burst, {}
    image = _one_band(burst.sources[0], burst.grids[0], burst.nodata, None)
    time = burst.times[0].isoformat() if burst.times else None
    shift, facts = _measure(job, image, terrain, burst.band, time)
    grids = tuple(shift_grid(grid, *shift.pixels) for grid in burst.grids)
    return replace(burst, grids=grids), facts


def _measure(
    job: Job, image: GeoImage, terrain: AnyElevation, band: str, time: str | None
) -> tuple[Shift, dict[str, str]]:
    """The shift of an image, measured around the area of interest."""
    if image.grid.model is None:
        raise BadInputError(
            f"{job.source} has no geometry that --refine could put right; leave it out"
        )
    window = find_window(job, image.grid, terrain, _CONTEXT)
    rows, columns = window.slices
    valid = None if image.valid is None else image.valid[rows, columns]
    image = GeoImage(image.pixels[:, rows, columns], image.grid.crop(window), valid)
    path = _find_reference(job, image.grid, terrain, time)
    reference = _read_reference(path, band)
    try:
        shift = estimate_shift(image, reference, match_patch, elevation=terrain)
    except L1bsrGeoError as error:
        raise type(error)(f"--refine {job.refine}: {error}") from None
    facts = _say_shift(shift, path.name)
    log.info("geometry refined: %s", facts)
    return shift, facts


def _find_reference(job: Job, grid: GeoGrid, terrain: AnyElevation, time: str | None) -> Path:
    """The file of the reference, fetched where none is named."""
    if job.refine != SENTINELHUB:
        path = Path(job.refine or "")
        if not path.exists():
            raise MissingInputError(
                f"--refine {path}: is not there; give an ortho image of the place, or {SENTINELHUB}"
            )
        return path
    if time is None:
        raise BadInputError(
            f"{job.source} does not say when it was taken, so no reference can be looked for; give "
            "one, --refine FILE"
        )
    from l1bsr_geo.readers.reference_chip import fetch_chip

    height, width = grid.shape
    lon, lat, h = localize_on_terrain(grid, width / 2, height / 2, terrain)
    when = datetime.fromisoformat(time.replace("Z", "+00:00"))
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return fetch_chip(grid.footprint(float(h)), when, utm_zone(float(lon), float(lat)))


def _read_reference(path: Path, band: str) -> GeoImage:
    if is_product(path):
        like = band if band in _OF_PRODUCTS else "B04"
        stack = read_input(path, sensor="raster", bands=(like,))
    else:
        stack = read_ortho_band(path, band)
    name = stack.reference
    return _one_band(stack.sources[name], stack.grids[name], stack.nodata, stack.saturated)


def _one_band(
    source: PixelSource, grid: GeoGrid, nodata: float | None, saturated: float | None
) -> GeoImage:
    """A source as a lazy image of floats."""
    raw = da.from_array(LazyPixels(source), chunks=_CHUNK, asarray=False)
    pixels = raw.astype(np.float32)[None]
    valid = raw.map_blocks(_is_usable, nodata, saturated, dtype=bool)
    return GeoImage(
        xr.DataArray(pixels, {"band": ["band"]}, ("band", "y", "x")),
        grid,
        xr.DataArray(valid, dims=("y", "x")),
    )


def _is_usable(
    raw: npt.NDArray[np.generic], nodata: float | None, saturated: float | None
) -> npt.NDArray[np.bool_]:
    known = is_data(raw, nodata)
    return known if saturated is None else known & (raw != saturated)


def _shift_all(
    grids: Mapping[str, GeoGrid], shape: tuple[int, int], shift: Shift
) -> dict[str, GeoGrid]:
    """Grids of one ground, moved by a shift in pixels of the one that has a shape."""
    dx, dy = shift.pixels
    return {
        band: shift_grid(grid, dx * grid.shape[1] / shape[1], dy * grid.shape[0] / shape[0])
        for band, grid in grids.items()
    }


def _say_shift(shift: Shift, name: str) -> dict[str, str]:
    """As tags: metres are east, north; pixels are of the reference band or frame."""
    (east, north), (dx, dy) = shift.metres, shift.pixels
    return {
        "refine_reference": name,
        "refine_shift_m": json.dumps([round(east, 3), round(north, 3)]),
        "refine_shift_px": json.dumps([dx, dy]),
        "refine_uncertainty_m": json.dumps([round(u, 3) for u in shift.uncertainty]),
        "refine_matches": str(shift.matches),
        "refine_patches": str(shift.patches),
    }

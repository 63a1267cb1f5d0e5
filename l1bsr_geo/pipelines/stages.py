"""Steps that pipelines share: the area, the ground, the map, the file."""

import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import shapely

import l1bsr_geo
from l1bsr_geo.errors import BadOptionError, GeometryWarning
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.elevation import AnyElevation, ConstantElevation
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.location_grid import METRES_PER_DEGREE
from l1bsr_geo.georef.cog import write_cog
from l1bsr_geo.georef.kernels import Kernel
from l1bsr_geo.georef.orthorectify import orthorectify
from l1bsr_geo.images.pixels import GeoImage
from l1bsr_geo.models.registry import Model
from l1bsr_geo.pipelines.job import Job, Progress
from l1bsr_geo.pipelines.made_of import say_job
from l1bsr_geo.readers.dem import read_elevation
from l1bsr_geo.tiling.plan import TilePlan

log = logging.getLogger(__name__)

# the tags of ``say_model``, ``map_uncertainty`` and ``refining`` that pixels depend on
_RESTORING = (
    *("model", "weights_sha256", "scale", "precision", "tile_size", "tile_halo"),
    *("uncertainty_method", "uncertainty_calibration", "model_facts"),
    *("refine_reference", "refine_shift_px"),
)
_UNITS = ("wavelengths", "scale_factor", "units")  # an offset is of values, not of differences


@dataclass(frozen=True)
class LazyResult:
    """What a pipeline gives before anything of it is computed.

    Attributes:
        image: on the map, or in sensor geometry.
        terrain: the ground that it was drawn on.
        facts: how it came to be, as tags.
        uncertainty: the same of the standard deviation of its error, where it was asked for.
    """

    image: GeoImage
    terrain: AnyElevation
    facts: Mapping[str, str]
    uncertainty: "LazyResult | None" = field(default=None, kw_only=True)

    def with_uncertainty(self, spread: GeoImage, how: Mapping[str, str]) -> Self:
        """The same with its uncertainty, which has the units of the result, but no offset.

        Args:
            spread: standard deviations [DN], where the result is.
            how: they came to be, as tags.
        """
        units = {k: self.image.pixels.attrs[k] for k in _UNITS if k in self.image.pixels.attrs}
        spread = replace(spread, pixels=spread.pixels.assign_attrs(units))
        told = LazyResult(spread, self.terrain, {**self.facts, **how})
        return replace(self, uncertainty=told)


def read_terrain(job: Job, grid: GeoGrid) -> AnyElevation:
    """The ground's height; a warning with the price where it is assumed."""
    if grid.model is None or isinstance(grid.model, AffineModel):
        if job.dem is not None:
            log.info("the DEM is not used: the input is on a map already, or has no geometry")
        return ConstantElevation(job.height)
    if job.dem is None:
        warn_of_height(job.height, grid)
        return ConstantElevation(job.height)
    outline = shapely.union_all([grid.footprint(h) for h in (0.0, 9000.0)])
    if job.area is not None:
        outline = shapely.intersection(outline, shapely.envelope(job.area).buffer(0.05))
        if outline.is_empty:
            _refuse_area(job.area, grid)
    return read_elevation(job.dem, outline.bounds, geoid=job.geoid)


def find_window(job: Job, grid: GeoGrid, terrain: AnyElevation, margin: int) -> Window:
    """The window that the area of interest needs; the whole grid without one.

    Args:
        job: may name an area.
        grid: of the pixels.
        terrain: the ground.
        margin: context around the area [px]; none on a map, where nothing is resampled.

    Raises:
        BadOptionError: the area does not touch the image.
    """
    if job.area is None:
        return grid.window
    outline = shapely.segmentize(shapely.envelope(job.area), 0.002)
    lon, lat = shapely.get_coordinates(outline).T
    x, y = grid.project(lon, lat, terrain.height(lon, lat))
    left, top = int(np.floor(x.min())), int(np.floor(y.min()))
    size = int(np.ceil(x.max())) - left, int(np.ceil(y.max())) - top
    grown = Window(left, top, *size).grow(0 if isinstance(grid.model, AffineModel) else margin)
    window = grown.intersect(grid.window)
    if not (window.width and window.height):
        _refuse_area(job.area, grid)
    return window


def draw_on_map(
    job: Job,
    image: GeoImage,
    terrain: AnyElevation,
    gsd: float | None,
    kernel: Kernel = "cubic",
) -> GeoImage:
    """On a map grid, unless the job or the image's lack of geometry says otherwise.

    An image that is on a map stays there unless another grid is asked for.

    Args:
        job: may ask for a CRS and a resolution.
        image: in any geometry.
        terrain: the ground.
        gsd: nominal pixel size [m] of the image, where there is one.
        kernel: of the resampling.
    """
    on_map = isinstance(image.grid.model, AffineModel)
    if job.ortho and image.grid.model is None and (job.crs or job.resolution):
        raise BadOptionError(
            f"{job.source} has no geometry, so it cannot be put on a map; leave out --crs and "
            "--resolution"
        )
    if not job.ortho or image.grid.model is None:
        return image
    if on_map and job.crs is None and job.resolution is None:
        return image
    if gsd:
        image = replace(image, pixels=image.pixels.assign_attrs(gsd=gsd))
    return orthorectify(
        image,
        crs=job.crs,
        resolution=job.resolution,
        aoi=job.aoi,
        elevation=terrain,
        kernel=kernel,
    )


def write_result(
    job: Job,
    image: GeoImage,
    terrain: AnyElevation,
    facts: Mapping[str, str],
    progress: Progress | None,
) -> Path:
    """The file, with its provenance."""
    tags = say_origin(job, terrain) | say_now()
    return write_cog(
        image,
        job.output,
        tags=tags | dict(facts),
        sources=job.inputs,
        overwrite=job.overwrite,
        elevation=terrain,
        made_of=say_made_of(job, facts),
        resume=job.resume,
        progress=progress,
    )


def say_made_of(job: Job, facts: Mapping[str, str]) -> dict[str, str]:
    """All that the pixels of a result depend on, so that a run can be taken up again."""
    return say_job(job) | {name: facts[name] for name in _RESTORING if name in facts}


def say_origin(job: Job, terrain: AnyElevation) -> dict[str, str]:
    """What made a result of what, as tags."""
    height = f"constant {terrain.h:g} m" if isinstance(terrain, ConstantElevation) else None
    return {
        "software": f"l1bsr_geo {l1bsr_geo.__version__}",
        "source": Path(job.source).name,
        "terrain": height or Path(job.dem or "").name,
    }


def say_now() -> dict[str, str]:
    """When a file is made, as a tag."""
    return {"processed": datetime.now(UTC).isoformat(timespec="seconds")}


def say_model(model: Model, plan: TilePlan) -> dict[str, str]:
    """What restored the image, as tags."""
    return {
        "model": model.spec.name,
        "model_source": model.spec.source,
        "weights_sha256": model.weights_sha256 or "none",
        "scale": str(model.spec.scale),
        "precision": model.precision,
        "tile_size": str(plan.size),
        "tile_core": json.dumps([cores[0] for cores in plan.cores]),
        "tile_halo": str(plan.halo),
    } | ({"model_facts": model.facts} if model.facts else {})


def say(attrs: Mapping[str, Any], *names: str) -> dict[str, str]:
    """Those of the named attributes that there are, as tags."""
    return {name: str(attrs[name]) for name in names if attrs.get(name)}


def warn_of_height(height: float, grid: GeoGrid) -> None:
    """Say what an unknown height of the ground costs, in metres."""
    rows, columns = grid.shape
    x = np.array([0.5, columns / 2, columns - 0.5])
    low, high = (grid.localize(x, rows / 2, height + rise) for rise in (0.0, 100.0))
    east = (high[0] - low[0]) * np.cos(np.radians(low[1]))
    metres = np.hypot(east, high[1] - low[1]) * METRES_PER_DEGREE
    if metres.max() < 0.01:
        return  # a location grid that holds the terrain
    warnings.warn(
        f"no DEM: the ground is taken to be at {height:g} m above the ellipsoid; every 100 m of "
        f"error move the result by {metres.min():.1f} to {metres.max():.1f} m; give --dem (and "
        "--geoid), or --height",
        GeometryWarning,
        stacklevel=4,
    )


def _refuse_area(area: shapely.Geometry, grid: GeoGrid) -> None:
    here, there = (", ".join(f"{v:.4f}" for v in g.bounds) for g in (area, grid.footprint()))
    raise BadOptionError(
        f"the area of interest ({here}) does not touch the image ({there}; west, south, east, "
        "north in degrees); give an area inside it"
    )

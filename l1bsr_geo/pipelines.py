"""The products, each a function read top to bottom: read, align, restore, orthorectify, write."""

import json
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyproj
import pyproj.exceptions
import shapely
import xarray as xr

import l1bsr_geo
from l1bsr_geo.errors import BadInputError, BadOptionError, GeometryWarning, MissingInputError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.elevation import AnyElevation, ConstantElevation
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.location_grid import METRES_PER_DEGREE
from l1bsr_geo.georef.cog import check_destination, write_cog
from l1bsr_geo.georef.map_grid import AreaOfInterest
from l1bsr_geo.georef.orthorectify import orthorectify
from l1bsr_geo.images import BandScene, BandStack, DetectorCrop, FlowField, GeoImage
from l1bsr_geo.models.classical import Geometric
from l1bsr_geo.models.registry import Device, Model, Precision
from l1bsr_geo.readers.dem import read_elevation
from l1bsr_geo.readers.inputs import Sensor, read_input
from l1bsr_geo.readers.sentinel2_facts import granule_size
from l1bsr_geo.readers.sentinel2_geometry import Geometry
from l1bsr_geo.readers.sentinel2_instrument import read_instrument_model
from l1bsr_geo.readers.sentinel2_metadata import BANDS
from l1bsr_geo.readers.sentinel2_product import Product, open_product
from l1bsr_geo.readers.sentinel2_write_grids import write_geo_grids
from l1bsr_geo.registration.bands import geometric_flow, register_bands
from l1bsr_geo.report import write_quicklook
from l1bsr_geo.simulation.demo import make_demo_product
from l1bsr_geo.tiling.encoding import OutputType
from l1bsr_geo.tiling.execute import map_tiles
from l1bsr_geo.tiling.plan import TilePlan

log = logging.getLogger(__name__)

PathLike: TypeAlias = str | os.PathLike[str]
Progress: TypeAlias = Callable[[int, int], None]

_AOI_MARGIN = 64  # [px] of context around an area: motion between bands, kernels, matching
_MOTION = 12.0  # [px] between bands, at most


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is read and what is written; the same for every pipeline.

    Attributes:
        source: L1B product (SAFE folder, .zip of it, xml inside it, EOPF Zarr) or a raster.
        output: GeoTIFF to write.
        sensor: "s2-l1b", "raster", or "auto" to look at the source.
        detector: of an L1B product, 1 to 12; not needed where there is only one.
        bands: names, in the order the model takes; its own where None.
        geometry: of an L1B product: "grids", "model", "footprint", or "auto" for the first there.
        gipp: folder of GIPP files for the instrument model.
        aoi: area of interest in lon, lat; no more is read than it needs. A geometry also masks
            what is outside of it, a box (west, south, east, north) only cuts.
        crs: of the map; the UTM zone of the centre where None.
        resolution: of the map [units of crs]; of the pixels where None.
        dem: DEM file or folder of tiles.
        geoid: geoid undulations to add to the DEM.
        height: of the ground where there is no DEM [m above the ellipsoid].
        ortho: False keeps sensor geometry.
        dtype: "source", "uint16" or "float32".
        overwrite: replace an existing output.
    """

    source: PathLike
    output: PathLike
    sensor: Sensor = "auto"
    detector: int | None = None
    bands: Sequence[str] | None = None
    geometry: Geometry = "auto"
    gipp: PathLike | None = None
    aoi: AreaOfInterest | None = None
    crs: str | None = None
    resolution: float | None = None
    dem: PathLike | None = None
    geoid: PathLike | None = None
    height: float = 0.0
    ortho: bool = True
    dtype: OutputType = "source"
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible options before anything is read."""
        if self.crs is not None:
            try:
                pyproj.CRS.from_user_input(self.crs)
            except pyproj.exceptions.CRSError:
                raise BadOptionError(
                    f"--crs {self.crs}: not a coordinate reference system; give one such as "
                    "EPSG:32631"
                ) from None
        if self.resolution is not None and not self.resolution > 0:
            raise BadOptionError(f"--resolution {self.resolution}: must be more than 0")
        if not self.ortho and (self.crs or self.resolution):
            raise BadOptionError("--no-ortho keeps sensor geometry: leave out --crs, --resolution")

    @property
    def area(self) -> shapely.Geometry | None:
        """The area of interest as a geometry."""
        return shapely.box(*self.aoi) if isinstance(self.aoi, tuple) else self.aoi


def super_resolve(
    source: PathLike,
    output: PathLike,
    *,
    model: str = "geometric",
    weights: str | Path | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Super-resolve a Sentinel-2 L1B detector, or a raster of its bands, into a COG.

    Args:
        source: product or raster, as in `Job`.
        output: GeoTIFF to write.
        model: name in the registry.
        weights: file of weights, ours or a published checkpoint.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "fp32" or "bf16".
        tile: largest core of a tile [px].
        progress: called with blocks done and blocks in all.
        **options: what `Job` lists.

    Returns:
        The path written.

    Raises:
        L1bsrGeoError: what a user can cause and mend; nothing is left under ``output``.
    """
    job = Job(source=source, output=output, **options)
    check_destination(Path(output), [source], overwrite=job.overwrite)
    restorer = Model(model, weights=weights, device=device, precision=precision)
    return _restore(job, restorer, tile, progress)


def register(
    source: PathLike,
    output: PathLike,
    *,
    tile: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Align all bands to the reference band at the input's resolution, into a COG.

    Args, returns and errors are those of `super_resolve`.
    """
    job = Job(source=source, output=output, **options)
    check_destination(Path(output), [source], overwrite=job.overwrite)
    return _restore(job, Model.from_restorer(Geometric(scale=1), device="cpu"), tile, progress)


def orthorectify_bands(
    source: PathLike, output: PathLike, *, progress: Progress | None = None, **options: Any
) -> Path:
    """Resample every band onto a map by its own geometry, unmatched and unrestored, into a COG.

    Args, returns and errors are those of `super_resolve`.
    """
    job = Job(source=source, output=output, **options)
    check_destination(Path(output), [source], overwrite=job.overwrite)
    stack = _read_stack(job, job.bands)
    terrain = _read_terrain(job, stack)
    stack = _crop_to_aoi(job, stack, terrain)
    plain = Model.from_restorer(Geometric(scale=1), device="cpu")  # no motion: pixels as they are
    bands = {b: map_tiles(plain, BandScene(stack.only(b)), dtype=job.dtype) for b in stack.bands}
    first = _to_map(job, stack, bands[stack.reference], terrain, 1)
    maps = [
        first
        if band == stack.reference
        else orthorectify(image, onto=first.grid, aoi=job.aoi, elevation=terrain)
        for band, image in bands.items()
    ]
    valid = np.logical_and.reduce([m.valid for m in maps if m.valid is not None])
    image = GeoImage(xr.concat([m.pixels for m in maps], "band"), first.grid, valid)
    return _write(job, stack, image, {"model": "none"}, terrain, progress)


def _restore(job: Job, model: Model, tile: int | None, progress: Progress | None) -> Path:
    """From a job and a model to the file."""
    stack = _read_stack(job, job.bands or model.spec.bands)
    terrain = _read_terrain(job, stack)
    stack = _crop_to_aoi(job, stack, terrain)
    scene, facts = _align(stack, model, terrain)
    plan = TilePlan.for_model(model.spec, scene.grid.shape, size=tile)
    image = map_tiles(model, scene, plan, dtype=job.dtype)
    facts |= {
        "model": model.spec.name,
        "model_source": model.spec.source,
        "weights_sha256": model.weights_sha256 or "none",
        "tile_size": str(plan.size),
        "tile_halo": str(plan.halo),
        "scale": str(model.spec.scale),
    }
    if job.ortho and image.grid.model is not None:
        image = _to_map(job, stack, image, terrain, model.spec.scale)
    return _write(job, stack, image, facts, terrain, progress)


def _read_stack(job: Job, bands: Sequence[str] | None) -> BandStack:
    stack = read_input(
        job.source,
        sensor=job.sensor,
        detector=job.detector,
        bands=bands,
        geometry=job.geometry,
        gipp=job.gipp,
    )
    log.info("read %s: %s, %d x %d px", job.source, ", ".join(stack.bands), *stack.shape)
    return stack


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
        return BandScene(stack, flow), {"band_registration": how} | _flow_facts(stack, flow)
    if prior is None:
        return BandScene(stack), {"band_registration": "none"}
    middle = np.median(prior.nodes, axis=(-2, -1)).round().astype(int)
    shifts = {b: (int(dx), int(dy)) for b, (dx, dy) in zip(stack.bands, middle, strict=True)}
    text = json.dumps({b: s for b, s in shifts.items() if b != stack.reference})
    return BandScene(stack.shift(shifts)), {
        "band_registration": f"whole pixels from instrument geometry {text}"
    }


def _flow_facts(stack: BandStack, flow: FlowField) -> dict[str, str]:
    median = np.median(flow.nodes, axis=(-2, -1))
    shifts = {b: [round(float(v), 3) for v in m] for b, m in zip(stack.bands, median, strict=True)}
    return {"band_flow_median_px": json.dumps(shifts)}


def _read_terrain(job: Job, stack: BandStack) -> AnyElevation:
    """The ground's height; a warning with the price where it is assumed."""
    grid = stack.grids[stack.reference]
    if grid.model is None or isinstance(grid.model, AffineModel):
        if job.dem is not None:
            log.info("the DEM is not used: the input is on a map already, or has no geometry")
        return ConstantElevation(job.height)
    if job.dem is None:
        _warn_of_height(job, grid)
        return ConstantElevation(job.height)
    outline = shapely.union_all([grid.footprint(h) for h in (0.0, 9000.0)])
    if job.area is not None:
        outline = shapely.intersection(outline, shapely.envelope(job.area).buffer(0.05))
        _check_overlap(job.area, outline, grid)
    return read_elevation(job.dem, outline.bounds, geoid=job.geoid)


def _warn_of_height(job: Job, grid: GeoGrid) -> None:
    height, width = grid.shape
    x = np.array([0.5, width / 2, width - 0.5])
    low, high = (grid.localize(x, height / 2, job.height + dh) for dh in (0.0, 100.0))
    east = (high[0] - low[0]) * np.cos(np.radians(low[1]))
    metres = np.hypot(east, high[1] - low[1]) * METRES_PER_DEGREE
    if metres.max() < 0.01:
        return  # a location grid that holds the terrain
    warnings.warn(
        f"no DEM: the ground is taken to be at {job.height:g} m above the ellipsoid; every 100 m "
        f"of error move the result by {metres.min():.1f} to {metres.max():.1f} m; give --dem "
        "(and --geoid), or --height",
        GeometryWarning,
        stacklevel=4,
    )


def _crop_to_aoi(job: Job, stack: BandStack, terrain: AnyElevation) -> BandStack:
    """No more of the stack than the area of interest needs."""
    if job.area is None:
        return stack
    grid = stack.grids[stack.reference]
    outline = shapely.segmentize(shapely.envelope(job.area), 0.002)
    lon, lat = shapely.get_coordinates(outline).T
    x, y = grid.project(lon, lat, terrain.height(lon, lat))
    left, top = int(np.floor(x.min())), int(np.floor(y.min()))
    size = int(np.ceil(x.max())) - left, int(np.ceil(y.max())) - top
    margin = 0 if isinstance(grid.model, AffineModel) else _AOI_MARGIN
    window = Window(left, top, *size).grow(margin).intersect(grid.window)
    if not (window.width and window.height):
        _check_overlap(job.area, shapely.Polygon(), grid)
    return stack.crop(window)


def _check_overlap(aoi: shapely.Geometry, common: shapely.Geometry, grid: GeoGrid) -> None:
    if common.is_empty:
        here, there = (", ".join(f"{v:.4f}" for v in g.bounds) for g in (aoi, grid.footprint()))
        raise BadOptionError(
            f"the area of interest ({here}) does not touch the image ({there}; west, south, east, "
            "north in degrees); give an area inside it"
        )


def _to_map(
    job: Job, stack: BandStack, image: GeoImage, terrain: AnyElevation, scale: int
) -> GeoImage:
    """On a map grid; an image that is on a map stays unless another grid is asked for."""
    if isinstance(image.grid.model, AffineModel) and job.crs is None and job.resolution is None:
        return image
    nominal = stack.attrs.get("resolution", {}).get(stack.reference)
    if nominal:
        image = replace(image, pixels=image.pixels.assign_attrs(gsd=nominal / scale))
    return orthorectify(
        image, crs=job.crs, resolution=job.resolution, aoi=job.aoi, elevation=terrain
    )


def _write(
    job: Job,
    stack: BandStack,
    image: GeoImage,
    facts: dict[str, str],
    terrain: AnyElevation,
    progress: Progress | None,
) -> Path:
    pixels = image.pixels.assign_attrs(_describe(stack))
    return write_cog(
        replace(image, pixels=pixels),
        job.output,
        tags=_provenance(job, stack, terrain) | facts,
        sources=[job.source],
        overwrite=job.overwrite,
        elevation=terrain,
        progress=progress,
    )


def _describe(stack: BandStack) -> dict[str, Any]:
    """What the values mean: radiance from the gains of an L1B product, else what the file said."""
    attrs = {
        k: stack.attrs[k]
        for k in ("wavelengths", "scale_factor", "add_offset", "units")
        if k in stack.attrs
    }
    gains = stack.attrs.get("physical_gains", {})
    if all(b in gains for b in stack.bands):
        # L = (DN + RADIO_ADD_OFFSET) / PHYSICAL_GAINS
        attrs["scale_factor"] = {b: 1 / gains[b] for b in stack.bands}
        attrs["add_offset"] = {b: stack.add_offset.get(b, 0.0) / gains[b] for b in stack.bands}
        attrs["units"] = "W m-2 sr-1 um-1"
    return attrs


def _provenance(job: Job, stack: BandStack, terrain: AnyElevation) -> dict[str, str]:
    facts = {
        "software": f"l1bsr_geo {l1bsr_geo.__version__}",
        "processed": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": Path(job.source).name,
        "reference_band": stack.reference,
        "terrain": f"constant {terrain.h:g} m"
        if isinstance(terrain, ConstantElevation)
        else Path(job.dem or "").name,
    }
    for key in ("product", "platform", "datastrip", "processing_baseline", "time", "geometry"):
        if stack.attrs.get(key):
            facts[key] = str(stack.attrs[key])
    if isinstance(stack, DetectorCrop):
        facts |= {"detector": f"{stack.detector:02d}", "first_line": str(stack.first_line)}
    return facts


def read_aoi(text: str) -> AreaOfInterest:
    """An area of interest: a GeoJSON file (RFC 7946, lon, lat), or "west,south,east,north".

    Raises:
        MissingInputError: no such file.
        BadInputError: not a GeoJSON of areas.
        BadOptionError: a box that is none.
    """
    parts = text.split(",")
    if len(parts) == 4:
        try:
            west, south, east, north = map(float, parts)
        except ValueError:
            raise BadOptionError(
                f"--aoi {text}: expected four numbers west,south,east,north in degrees"
            ) from None
        if not (west < east and -90 <= south < north <= 90):
            raise BadOptionError(f"--aoi {text}: expected west < east and south < north in degrees")
        return west, south, east, north
    path = Path(text)
    if not path.is_file():
        raise MissingInputError(
            f"--aoi {text}: no such file; give a GeoJSON file or west,south,east,north"
        )
    try:
        area = shapely.union_all(shapely.get_parts(shapely.from_geojson(path.read_bytes())))
    except (shapely.errors.ShapelyError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"{path}: not a GeoJSON ({error}); give polygons in lon, lat (RFC 7946)"
        ) from None
    west, south, east, north = area.bounds
    if area.is_empty or area.area == 0 or not (west >= -360 and east <= 360 and north <= 90):
        raise BadInputError(
            f"{path}: found {area.geom_type} with bounds {area.bounds}, expected polygons in "
            "degrees, lon, lat (RFC 7946)"
        )
    return area


def write_location_grids(
    product: PathLike,
    output: PathLike | None = None,
    *,
    detector: int | None = None,
    bands: Sequence[str] | None = None,
    gipp: PathLike | None = None,
    dem: PathLike | None = None,
    geoid: PathLike | None = None,
    height: float = 0.0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write Sen2VM-compatible location grids of a product (GEO_DATA), terrain included.

    Args:
        product: L1B product with its datastrip.
        output: folder for GRANULE and DATASTRIP; the product itself where None.
        detector: one of them; all where None.
        bands: some of them; all where None.
        gipp: folder of GIPP files.
        dem: as in `Job`.
        geoid: as in `Job`.
        height: as in `Job`.
        overwrite: replace existing grids.
        progress: called with grids done and grids in all.

    Returns:
        The files written.

    Raises:
        L1bsrGeoError: what a user can cause and mend.
    """
    opened = open_product(product)
    detectors = opened.detectors if detector is None else (detector,)
    terrain: AnyElevation = ConstantElevation(height)
    if dem is not None:
        outline = shapely.union_all([_strip_outline(opened, d, gipp) for d in detectors])
        terrain = read_elevation(dem, outline.buffer(0.1).bounds, geoid=geoid)
    return write_geo_grids(
        opened,
        output,
        detectors=detectors,
        bands=bands or BANDS,
        elevation=terrain,
        gipp=gipp,
        overwrite=overwrite,
        progress=progress,
    )


def _strip_outline(product: Product, detector: int, gipp: PathLike | None) -> shapely.Polygon:
    """Ground seen by a detector's granules, at height 0."""
    granules = product.granules_of(detector)
    height, width = granule_size(product, granules[-1], 10)
    first, last = granules[0].position - 1, granules[-1].position - 1 + height
    model = read_instrument_model(product, detector, "B04", gipp=gipp)
    return GeoGrid((last, width), model).crop(Window(0, first, width, last - first)).footprint()


def run_demo(
    folder: PathLike, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Path]:
    """Make a product, super-resolve it and leave a COG and a before/after picture.

    Returns:
        What was made: "product", "before", "result", "quicklook" and where.
    """
    folder = Path(folder)
    made = make_demo_product(folder, seed)
    options: dict[str, Any] = {"dem": made.dem, "aoi": made.lonlat, "overwrite": True}
    result = super_resolve(made.product, folder / "demo_5m.tif", progress=progress, **options)
    before = orthorectify_bands(made.product, folder / "demo_10m.tif", **options)
    quicklook = folder / "demo_before_after.png"
    write_quicklook(before, result, quicklook)
    return {"product": made.product, "before": before, "result": result, "quicklook": quicklook}

"""Terrain heights from DEM files, brought to the WGS84 ellipsoid by a geoid grid."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import Resampling, transform_bounds
from rasterio.windows import Window as RasterWindow

from l1bsr_geo.errors import BadInputError, GeometryWarning, MissingInputError
from l1bsr_geo.geometry.elevation import SampledElevation
from l1bsr_geo.readers.local_raster import cause_of, open_raster

SUFFIXES = (".tif", ".tiff", ".dt0", ".dt1", ".dt2", ".hgt", ".vrt", ".img", ".jp2", ".bil")
_MARGIN = 0.02  # [degrees] beyond the bounds: relief moves pixels by some hundred metres
_MAX_PIXELS = 50_000_000
_HEIGHTS = -12_000.0, 100_000.0  # [m] between which a value is a height
_STEPS = 1e-7, 20.0  # [degrees] what the pixel of a DEM can measure
_MAX_GEOID = 250_000_000  # pixels: those of one minute have 233 million
_LONLAT = CRS.from_epsg(4326)

Bounds = tuple[float, float, float, float]


def read_elevation(
    path: str | os.PathLike[str],
    bounds: Bounds,
    geoid: str | os.PathLike[str] | None = None,
) -> SampledElevation:
    """Heights above the WGS84 ellipsoid over an area.

    Only what the area needs is read, at the DEM's own resolution (coarser where that would be more
    than 50 million heights). Voids, and places that no tile covers, get sea level: the geoid's
    height, or 0 without a geoid.

    Args:
        path: a DEM that GDAL reads, or a folder of tiles (DTED, GeoTIFF ...), searched through.
        bounds: ``(west, south, east, north)`` [degrees]; west > east crosses the date line.
        geoid: grid of the geoid's height above the ellipsoid, such as egm96_15.gtx, added to the
            DEM; None for a DEM that is ellipsoidal already.

    Raises:
        MissingInputError: no DEM touches the area.
        BadInputError: a file cannot be read, or ``bounds`` make no area.
    """
    west, south, east, north = bounds
    east += 360.0 if east < west else 0.0
    if not (-90 <= south <= north <= 90 and east - west <= 360):
        raise BadInputError(f"bounds {bounds} are no west, south, east, north in degrees")
    area = (west - _MARGIN, max(-90, south - _MARGIN), east + _MARGIN, min(90, north + _MARGIN))
    tiles = _tiles(Path(path), area)
    step, corner = _resolution(tiles, area)
    # nodes of the grid on nodes of the DEM: heights are not smoothed by resampling
    west = corner[0] + np.floor((area[0] - corner[0]) / step[0]) * step[0]
    north = corner[1] - np.floor((corner[1] - area[3]) / step[1]) * step[1]
    area = (float(west), area[1], area[2], float(north))
    heights = _mosaic(tiles, area, step)
    grid = SampledElevation(heights, area[0] + step[0] / 2, area[3] - step[1] / 2, step[0], step[1])
    sea = _geoid_heights(grid, Path(geoid)) if geoid is not None else np.float32(0)
    if geoid is None and _is_orthometric(tiles):
        warnings.warn(
            GeometryWarning(
                f"{path}: heights are taken as above the ellipsoid, and nothing in the file says "
                "so; DEMs usually are above the geoid, which errs by up to 100 m (some 2 to 20 m "
                "on the ground): give the geoid, such as --geoid egm96_15.gtx"
            ),
            stacklevel=2,
        )
    known = np.isfinite(heights)
    if not known.any():
        warnings.warn(
            GeometryWarning(f"{path} has no height within {bounds}; sea level is taken everywhere"),
            stacklevel=2,
        )
    filled = np.where(known, heights, np.float32(0)) + sea
    return SampledElevation(
        filled.astype(np.float32), grid.west, grid.north, grid.step_lon, grid.step_lat
    )


def _tiles(path: Path, area: Bounds) -> list[Path]:
    """The files that touch the area."""
    if not path.exists():
        raise MissingInputError(f"{path} is not there; a DEM or a folder of DEM tiles was expected")
    if path.is_file():
        candidates = [path]
    else:
        candidates = sorted(
            f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file()
        )
    found = []
    for file in candidates:
        with _open(file) as raster:
            if _touches(_lonlat_bounds(raster, file), area):
                found.append(file)
    if not found:
        box = ", ".join(f"{v:.3f}" for v in area)
        raise MissingInputError(
            f"{path} has no DEM ({', '.join(SUFFIXES)}) that touches {box} (west, south, east, "
            f"north), out of {len(candidates)} files; give tiles of that area"
        )
    return found


@contextmanager
def _open(file: Path) -> Iterator[Any]:
    try:
        with open_raster(file) as raster:
            yield raster
    except RasterioError as error:
        raise BadInputError(
            f"{file} cannot be read as a DEM ({cause_of(error)}); take it away or fetch it again"
        ) from error


def _lonlat_bounds(raster: Any, file: Path) -> Bounds:
    if raster.crs is None:
        raise BadInputError(f"{file} has no coordinate reference system; a DEM needs one")
    bounds: Bounds = transform_bounds(_flat(raster.crs), _LONLAT, *raster.bounds)
    return bounds


def _flat(crs: CRS) -> CRS:
    """The horizontal part of a CRS."""
    import pyproj

    whole = pyproj.CRS.from_wkt(crs.to_wkt())
    return CRS.from_wkt(whole.sub_crs_list[0].to_wkt()) if whole.is_compound else crs


def _touches(box: Bounds, area: Bounds) -> bool:
    return any(
        box[0] + turn < area[2]
        and box[2] + turn > area[0]
        and box[1] < area[3]
        and box[3] > area[1]
        for turn in (-360.0, 0.0, 360.0)
    )


def _resolution(
    tiles: Sequence[Path], area: Bounds
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Pixel size (lon, lat) of the finest tile, and its north-west corner [degrees].

    The size is coarsened to keep within the bound on memory.
    """
    finest, corner = (np.inf, np.inf), (0.0, 0.0)
    for file in tiles:
        with _open(file) as raster:
            box = _lonlat_bounds(raster, file)
            step = (box[2] - box[0]) / raster.width, (box[3] - box[1]) / raster.height
            if not all(_STEPS[0] <= s <= _STEPS[1] for s in step):
                raise BadInputError(
                    f"{file} has pixels of {step[0]:g} x {step[1]:g} degrees; a DEM has some 1e-5 "
                    "to 0.1: set the right map transform, or take it away"
                )
            if step < finest:
                finest, corner = step, (box[0], box[3])
    lon, lat = finest
    pixels = (area[2] - area[0]) / lon * ((area[3] - area[1]) / lat)
    coarser = max(1.0, float(np.sqrt(pixels / _MAX_PIXELS)))
    return (lon * coarser, lat * coarser), corner


def _mosaic(
    tiles: Iterable[Path], area: Bounds, step: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """The tiles on one lon/lat grid of the area; NaN where none has a height."""
    width = int(np.ceil((area[2] - area[0]) / step[0]))
    height = int(np.ceil((area[3] - area[1]) / step[1]))
    out = np.full((height, width), np.nan, np.float32)
    for file in tiles:
        with _open(file) as raster:
            box = _lonlat_bounds(raster, file)
            for turn in (-360.0, 0.0, 360.0):
                shifted = (box[0] + turn, box[1], box[2] + turn, box[3])
                if _touches(shifted, area):
                    _paste(out, raster, file, area, step, shifted, turn)
    return out


def _paste(
    out: npt.NDArray[np.float32],
    raster: Any,
    file: Path,
    area: Bounds,
    step: tuple[float, float],
    box: Bounds,
    turn: float,
) -> None:
    """Write a tile, warped to the grid, where it has heights."""
    left = max(0, int(np.floor((box[0] - area[0]) / step[0])))
    right = min(out.shape[1], int(np.ceil((box[2] - area[0]) / step[0])))
    top = max(0, int(np.floor((area[3] - box[3]) / step[1])))
    bottom = min(out.shape[0], int(np.ceil((area[3] - box[1]) / step[1])))
    if right <= left or bottom <= top:
        return
    west, north = area[0] + left * step[0] - turn, area[3] - top * step[1]
    transform = Affine(step[0], 0, west, 0, -step[1], north)
    try:
        with WarpedVRT(
            raster,
            src_crs=_flat(raster.crs),
            crs=_LONLAT,
            transform=transform,
            width=right - left,
            height=bottom - top,
            resampling=Resampling.bilinear,
            nodata=-32768.0,
            dtype="float32",
        ) as warped:
            heights = warped.read(1, window=RasterWindow(0, 0, right - left, bottom - top))
    except RasterioError as error:
        raise BadInputError(f"{file} cannot be read ({error}); fetch it again") from error
    good = (heights > _HEIGHTS[0]) & (heights < _HEIGHTS[1])  # NaN is not
    part = out[top:bottom, left:right]
    part[good & ~np.isfinite(part)] = heights[good & ~np.isfinite(part)]


def _geoid_heights(grid: SampledElevation, file: Path) -> npt.NDArray[np.float32]:
    """The geoid at the nodes of a grid."""
    if not file.exists():
        raise MissingInputError(f"{file} is not there; a geoid grid such as egm96_15.gtx expected")
    with _open(file) as raster:
        t, (height, width) = raster.transform, raster.shape
        if height * width > _MAX_GEOID or not (t.a > 0 > t.e) or t.b or t.d:
            raise BadInputError(
                f"{file} is no north-up grid of {_MAX_GEOID} nodes at most; a geoid grid is"
            )
        values = raster.read(1).astype(np.float32)
    if abs(values[np.isfinite(values)]).max(initial=0) > 200:
        raise BadInputError(f"{file} has values beyond 200 m; a geoid grid has none")
    rows, columns = grid.values.shape
    lon = grid.west + np.arange(columns) * grid.step_lon
    lat = grid.north - np.arange(rows) * grid.step_lat
    x = (lon - t.c) / t.a - 0.5
    if width * t.a > 359:
        period = round(360 / t.a)
        x %= period
        values = np.concatenate([values[:, :period], values[:, :2]], axis=1)
    y = (lat - t.f) / t.e - 0.5
    geoid = SampledElevation(values, 0.0, 0.0, 1.0, 1.0)
    heights = geoid.height(x[None, :], -y[:, None]).astype(np.float32)
    inside = min(x.min(), y.min()) > -1 and x.max() < values.shape[1] and y.max() < height
    if not (inside and np.isfinite(heights).all()):
        raise BadInputError(
            f"{file} has no value at some places of the DEM; give a geoid grid of the whole area"
        )
    return heights


def _is_orthometric(tiles: Sequence[Path]) -> bool:
    """Whether the heights may be above the geoid: no tile says that they are ellipsoidal."""
    import pyproj

    with _open(tiles[0]) as raster:
        crs = pyproj.CRS.from_wkt(raster.crs.to_wkt())
    return not (crs.is_geographic and len(crs.axis_info) == 3)

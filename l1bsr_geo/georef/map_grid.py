"""The pixel grid of a map: which CRS, how large a pixel, from where to where."""

from math import ceil, floor, isfinite, log10
from typing import TypeAlias

import numpy as np
import pyproj
import shapely
from affine import Affine

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.affine import AffineModel, lonlat_to_map
from l1bsr_geo.geometry.elevation import Elevation, localize_on_terrain
from l1bsr_geo.geometry.grid import GeoGrid

AreaOfInterest: TypeAlias = shapely.Geometry | tuple[float, float, float, float]

_LARGEST = 2**31 - 1  # columns or rows of a TIFF
_SLACK = 1e-3  # [px] an image this close to a whole pixel ends there


def choose_map_grid(
    source: GeoGrid,
    *,
    crs: str | int | pyproj.CRS | None = None,
    resolution: float | None = None,
    gsd: float | None = None,
    aoi: AreaOfInterest | None = None,
    elevation: Elevation,
) -> GeoGrid:
    """A north-up grid that holds an image, or the part of it inside an area.

    Its corners are multiples of the resolution, so that grids of neighbouring images line up.

    Args:
        source: the image's grid.
        crs: anything pyproj understands; None takes the UTM zone of the image's centre (UPS beyond
            84 degrees north and 80 south).
        resolution: pixel size [units of the CRS]. None takes ``gsd`` if the CRS is in metres and
            the pixel at the centre measures that much within a fifth, else what it measures there
            (the side of a square of equal area), rounded to two significant digits.
        gsd: nominal pixel size of the image [m].
        aoi: the area, ``lon, lat``; the grid is cut to its bounds on the map.
        elevation: terrain.

    Raises:
        BadOptionError: an unknown CRS, a bad resolution, an area outside the image.
        BadInputError: the image has no geometry, or one that leads nowhere.
    """
    height, width = source.shape
    lon, lat, _ = localize_on_terrain(source, width / 2, height / 2, elevation)
    if not (np.isfinite(lon) and np.isfinite(lat)):
        raise BadInputError("the image's geometry gives no place on the ground for its centre")
    name = _name_crs(crs, float(lon), float(lat))
    if resolution is None:
        resolution = _choose_resolution(source, name, gsd, elevation)
    elif not (isfinite(resolution) and resolution > 0):
        raise BadOptionError(f"the resolution is {resolution}; it must be positive")
    bounds = _outline(source, name, elevation).bounds
    if aoi is not None:
        bounds = _cut(bounds, area_on_map(aoi, name).bounds)
    left, bottom = (floor(v / resolution + _SLACK) for v in bounds[:2])
    right, top = (ceil(v / resolution - _SLACK) for v in bounds[2:])
    columns, rows = max(right - left, 1), max(top - bottom, 1)
    if max(columns, rows) > _LARGEST:
        raise BadOptionError(
            f"{columns} x {rows} pixels at a resolution of {resolution} in {name} are too many; "
            "the resolution is in units of the CRS"
        )
    transform = Affine(resolution, 0, left * resolution, 0, -resolution, top * resolution)
    return GeoGrid((rows, columns), AffineModel(transform, name))


def _choose_resolution(source: GeoGrid, crs: str, gsd: float | None, elevation: Elevation) -> float:
    measured = measure_pixel(source, crs, elevation)
    if gsd and is_metric(crs) and abs(measured / gsd - 1) <= 0.2:
        return float(gsd)
    return round(measured, 1 - floor(log10(measured)))


def measure_pixel(source: GeoGrid, crs: str, elevation: Elevation) -> float:
    """Side of the square that is as large as an image's central pixel [units of the CRS].

    Raises:
        BadOptionError: the centre has no place in the CRS.
    """
    height, width = source.shape
    x, y = width / 2 + np.array([-0.5, 0.5, 0, 0]), height / 2 + np.array([0, 0, -0.5, 0.5])
    _, _, h = localize_on_terrain(source, width / 2, height / 2, elevation)
    e, n = lonlat_to_map(crs).transform(*source.localize(x, y, float(h)))
    area = abs((e[1] - e[0]) * (n[3] - n[2]) - (n[1] - n[0]) * (e[3] - e[2]))
    if not 0 < area < np.inf:
        raise BadOptionError(f"the image cannot be drawn in {crs}; choose another CRS")
    return float(np.sqrt(area))


def read_map(grid: GeoGrid) -> tuple[str, Affine]:
    """The CRS of a map grid, and its pixels to map coordinates.

    Raises:
        BadOptionError: a grid of another kind, or one that is not north up.
    """
    if not isinstance(grid.model, AffineModel):
        raise BadOptionError("the grid to draw on is no map grid (AffineModel)")
    transform = grid.model.transform @ grid.to_model
    if not (transform.a > 0 > transform.e and transform.is_rectilinear):
        raise BadOptionError(
            f"the grid to draw on is not north up: {tuple(transform[:6])}; warp it first, such as "
            "with gdalwarp"
        )
    return grid.model.crs, transform


def is_metric(crs: str) -> bool:
    """Whether map coordinates are metres."""
    return all(axis.unit_name == "metre" for axis in pyproj.CRS(crs).axis_info[:2])


def area_on_map(aoi: AreaOfInterest, crs: str) -> shapely.Geometry:
    """An area given in ``lon, lat`` (a geometry, or west, south, east, north) on the map.

    Raises:
        BadOptionError: it is empty or not an area.
    """
    if not isinstance(aoi, shapely.Geometry):
        west, south, east, north = aoi
        if not (west < east and south < north):
            raise BadOptionError(
                f"the area is {aoi}; expected west, south, east, north in degrees, in that order"
            )
        aoi = shapely.box(west, south, east, north)
    if aoi.is_empty or not aoi.area > 0:
        raise BadOptionError(f"the area of interest is {aoi.geom_type} without an area")
    dense = shapely.segmentize(shapely.force_2d(aoi), max(*_extent(aoi)) / 32)
    to_map = lonlat_to_map(crs).transform
    return shapely.transform(dense, lambda xy: np.column_stack(to_map(xy[:, 0], xy[:, 1])))


def _extent(area: shapely.Geometry) -> tuple[float, float]:
    west, south, east, north = area.bounds
    return east - west, north - south


def _cut(
    bounds: tuple[float, float, float, float], area: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    common = (*np.maximum(bounds[:2], area[:2]), *np.minimum(bounds[2:], area[2:]))
    if common[0] >= common[2] or common[1] >= common[3]:
        raise BadOptionError(
            "the area of interest does not touch the image; on the map the image is at "
            f"{_round(bounds)} and the area at {_round(area)} (left, bottom, right, top)"
        )
    return common


def _round(bounds: tuple[float, ...]) -> str:
    return ", ".join(f"{v:.6g}" for v in bounds)


def _outline(source: GeoGrid, crs: str, elevation: Elevation) -> shapely.MultiPoint:
    """Points of an image on the map: its border every 16 px or so, and a few inside."""
    height, width = source.shape
    x, y = (np.linspace(0, n, min(max(n // 16, 8), 512) + 1) for n in (width, height))
    inner_x, inner_y = np.meshgrid(x[:: max(1, x.size // 32)], y[:: max(1, y.size // 32)])
    xs = np.concatenate([x, x, 0 * y, 0 * y + width, inner_x.ravel()])
    ys = np.concatenate([0 * x, 0 * x + height, y, y, inner_y.ravel()])
    lon, lat, _ = localize_on_terrain(source, xs, ys, elevation)
    points = np.column_stack(lonlat_to_map(crs).transform(lon, lat))
    points = points[np.isfinite(points).all(1)]
    if not points.size:
        raise BadOptionError(f"the image cannot be drawn in {crs}; choose another CRS")
    return shapely.MultiPoint(points)


def _name_crs(crs: str | int | pyproj.CRS | None, lon: float, lat: float) -> str:
    if crs is None:
        return utm_zone(lon, lat)
    try:
        found = pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise BadOptionError(
            f"the CRS {crs!r} is unknown; expected something like EPSG:32633"
        ) from error
    authority = found.to_authority()
    return ":".join(authority) if authority else found.to_wkt()


def utm_zone(lon: float, lat: float) -> str:
    """The UTM zone of a place, or UPS beyond 84 degrees north and 80 south, as an EPSG code."""
    if not -80 <= lat <= 84:
        return "EPSG:32661" if lat > 0 else "EPSG:32761"
    zone = floor((lon + 180) / 6) % 60 + 1
    return f"EPSG:{32600 + zone if lat >= 0 else 32700 + zone}"

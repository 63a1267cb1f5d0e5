"""Where the valid pixels of a written raster lie on the ground: by its map, RPC or points."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio.features
import shapely
import shapely.affinity
from affine import Affine
from rasterio.transform import GCPTransformer

from l1bsr_geo.geometry.affine import AffineModel, lonlat_to_map
from l1bsr_geo.geometry.location_grid import METRES_PER_DEGREE
from l1bsr_geo.readers.geotiff import geometry_of

Points: TypeAlias = npt.NDArray[np.float64]
Localize: TypeAlias = Callable[[Points, Points], tuple[Points, Points]]

_SIDE = 1024  # of the mask that is traced [px]
_SPECK = 1e-3  # of the area: smaller holes and islands are left out
_MOST_POINTS = 500
_PIECES = 16  # of a side: straight in the image is not straight on the ground
_STRAIGHT = 0.1  # px that a point must leave the line of its neighbours to be told
_DIGITS = 7  # of a degree: a centimetre


@dataclass(frozen=True)
class Footprint:
    """Valid pixels on the ground.

    Attributes:
        area: polygons in lon, lat, cut at the antimeridian where they cross it (RFC 7946).
        bbox: west, south, east, north; west is greater than east across the antimeridian.
        pixel: side of a pixel in the middle [m].
    """

    area: shapely.Geometry
    bbox: tuple[float, float, float, float]
    pixel: float


def find_footprint(raster: Any, height: float | None = None) -> Footprint | None:
    """The outline of the valid pixels of an open raster; None where none is valid or located.

    True to two thousandths of the longer side. Holes and islands below a thousandth of the area are
    left out, and a ragged outline is made simpler than that until 500 points tell it. An area that
    holds a pole is not told rightly.

    Args:
        raster: of rasterio; on a map, or with an RPC, or with ground control points.
        height: of the ground [m above the ellipsoid] for an RPC; its own mean height where None.

    Raises:
        BadInputError: its geometry leads nowhere.
    """
    localize = _find_geometry(raster, height)
    outline = None if localize is None else _trace(raster)
    if localize is None or outline is None:
        return None
    middle = np.array([raster.width / 2]), np.array([raster.height / 2])
    (centre,), _ = localize(*middle)

    def place(pixels: Points) -> Points:
        lon, lat = localize(pixels[:, 0].copy(), pixels[:, 1].copy())
        return np.column_stack([(lon - centre + 180) % 360 - 180 + centre, lat])

    outline = shapely.segmentize(outline, max(raster.shape) / _PIECES)
    pixel = _measure_pixel(raster, localize, *middle)
    area = shapely.transform(outline, place).simplify(_STRAIGHT * pixel / METRES_PER_DEGREE)
    if not area.is_valid:
        area = shapely.make_valid(area)
    west, south, east, north = area.bounds
    box = (_to_180(west), south, _to_180(east), north) if abs(west) > 180 or east > 180 else None
    return Footprint(
        _wind(_cut_at_antimeridian(area)),
        tuple(round(float(v), _DIGITS) for v in box or area.bounds),  # type: ignore[arg-type]
        pixel,
    )


def _find_geometry(raster: Any, height: float | None) -> Localize | None:
    """Pixels to lon, lat."""
    model = geometry_of(raster)
    if isinstance(model, AffineModel):
        return model.localize
    if model is not None:
        ground = float(raster.rpcs.height_off) if height is None else height
        return lambda x, y: model.localize(x, y, ground)
    points, crs = raster.gcps
    if not points or crs is None:
        return None
    to_lonlat = lonlat_to_map(crs.to_wkt())

    def localize(x: Points, y: Points) -> tuple[Points, Points]:
        with GCPTransformer(points, tps=True) as spline:  # passes through the points
            east, north = spline.xy(y, x, offset="ul")
        lon, lat = to_lonlat.transform(np.asarray(east), np.asarray(north), direction="INVERSE")
        return np.asarray(lon), np.asarray(lat)

    return localize


def _trace(raster: Any) -> shapely.Geometry | None:
    """The outline of valid pixels [px of the raster]."""
    height, width = raster.shape
    step = max(1.0, max(height, width) / _SIDE)
    shape = math.ceil(height / step), math.ceil(width / step)
    mask = raster.dataset_mask(out_shape=shape) > 0
    if not mask.any():
        return None
    to_pixels = Affine.scale(width / shape[1], height / shape[0])
    traced = rasterio.features.shapes(mask.astype(np.uint8), mask=mask, transform=to_pixels)
    pieces = [shapely.geometry.shape(piece) for piece, _ in traced]
    least = _SPECK * sum(piece.area for piece in pieces)
    kept = [_fill(p, least) for p in pieces if p.area >= least] or [max(pieces, key=_area)]
    whole = shapely.union_all(kept)
    tolerance = 1.5 * step  # the stairs of a slanting edge
    simple = whole.simplify(tolerance)
    while shapely.count_coordinates(simple) > _MOST_POINTS:
        tolerance *= 2
        simple = whole.simplify(tolerance)
    return simple


def _area(piece: shapely.Geometry) -> float:
    return float(piece.area)


def _fill(piece: shapely.Polygon, least: float) -> shapely.Polygon:
    """Without small holes."""
    holes = [ring for ring in piece.interiors if shapely.Polygon(ring).area >= least]
    return shapely.Polygon(piece.exterior, holes)


def _to_180(lon: float) -> float:
    return (lon + 180) % 360 - 180


def _cut_at_antimeridian(area: shapely.Geometry) -> shapely.Geometry:
    parts = []
    for turn in (-360, 0, 360):
        part = shapely.intersection(area, shapely.box(turn - 180, -90, turn + 180, 90))
        parts.append(shapely.affinity.translate(part, -turn))
    return shapely.union_all(parts)


def _wind(area: shapely.Geometry) -> shapely.Geometry:
    """Polygons alone, outlines anticlockwise (RFC 7946), to the centimetre."""
    parts = [
        shapely.geometry.polygon.orient(
            shapely.transform(part, lambda points: np.round(points, _DIGITS))
        )
        for part in shapely.get_parts(area)
        if part.geom_type == "Polygon"
    ]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _measure_pixel(raster: Any, localize: Localize, x: Points, y: Points) -> float:
    """Of a map in metres what it says, else on the ellipsoid."""
    crs = raster.crs
    if crs is not None and crs.is_projected:
        _, metres = crs.linear_units_factor
        return float(math.sqrt(abs(raster.transform.determinant)) * metres)
    half = np.array([-0.5, 0.5])
    sides = []
    for dx, dy in ((half, 0 * half), (0 * half, half)):
        lon, lat = localize(x + dx, y + dy)
        sides.append(pyproj.Geod(ellps="WGS84").inv(lon[0], lat[0], lon[1], lat[1])[2])
    return float(f"{math.sqrt(sides[0] * sides[1]):.4g}")

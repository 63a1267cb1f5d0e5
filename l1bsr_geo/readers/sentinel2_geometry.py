"""Which geometry a Sentinel-2 L1B band gets: Sen2VM grids, instrument model or footprints.

All give a LocationGrid over the pixels of the detector strip of the band: (0, 0) is the outer
corner of the first pixel of the line that POSITION 1 names.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np

from l1bsr_geo.errors import (
    BadInputError,
    BadOptionError,
    GeometryWarning,
    MissingInputError,
)
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.geometry.location_grid import LocationGrid
from l1bsr_geo.geometry.model import FloatArray
from l1bsr_geo.readers.ground import check_ground
from l1bsr_geo.readers.sentinel2_facts import granule_size
from l1bsr_geo.readers.sentinel2_geo_grids import read_geo_grids
from l1bsr_geo.readers.sentinel2_instrument import read_instrument_model
from l1bsr_geo.readers.sentinel2_metadata import RESOLUTION, find_text, numbers
from l1bsr_geo.readers.sentinel2_product import Granule, Product

Geometry: TypeAlias = Literal["auto", "model", "grids", "footprint"]

_UNLIKE = 4.0  # from this ratio on, pixels are not of their nominal size; old 60 m bands reach 3


@dataclass(frozen=True)
class StripSize:
    """Where the pixels of a band lie in the detector strip.

    Attributes:
        columns: of the band's images.
        window: the crop, in pixels of the strip.
    """

    columns: int
    window: Window


def choose_geometry(
    product: Product, granules: Sequence[Granule], bands: Sequence[str], geometry: Geometry
) -> Geometry:
    """What ``"auto"`` means for these granules; or see that what was asked for can be had.

    Raises:
        MissingInputError: the product lacks what ``geometry`` needs.
    """
    if geometry not in get_args(Geometry):
        raise BadOptionError(f"--geometry {geometry} is not {', '.join(get_args(Geometry))}")
    gridless = [g for g in granules if not set(bands) <= set(g.geo_grids)]
    if geometry == "auto":
        if granules and not gridless:
            return "grids"
        return "model" if product.datastrip_path else "footprint"
    if geometry == "grids" and gridless:
        raise MissingInputError(
            f"{product.describe(gridless[0].folder)} has no GEO_DATA grid of every one of "
            f"{', '.join(bands)}; run l1bsr-geo geolocate on the product, or use --geometry model"
        )
    if geometry == "model" and product.datastrip_path is None:
        raise MissingInputError(
            f"{product.path} has no datastrip metadata (DATASTRIP/*/*_MTD_L1B_DS_*.xml), which the "
            "instrument model is made from; fetch it, or use --geometry footprint"
        )
    return geometry


def read_location_grid(
    product: Product,
    granules: Sequence[Granule],
    band: str,
    size: StripSize,
    geometry: Geometry,
    gipp: Path | None = None,
) -> LocationGrid:
    """The geometry of one band over a stretch of its detector strip.

    Args:
        product: the product.
        granules: the detector's granules that the stretch touches.
        band: its name.
        size: the stretch.
        geometry: ``"grids"``, ``"model"`` or ``"footprint"``.
        gipp: folder of GIPP files for the instrument model.

    Raises:
        BadInputError: damaged metadata, or a geometry that does not lead to the ground.
    """
    window = size.window
    what = f"{product.path}: the geometry of {band} ({geometry})"
    sizes = RESOLUTION[band] / _UNLIKE, RESOLUTION[band] * _UNLIKE
    if geometry == "grids":
        grid = read_geo_grids(product, granules, band)
    elif geometry == "model":
        model = read_instrument_model(product, granules[0].detector, band, gipp)
        check_ground(model, window, what, sizes)
        grid = LocationGrid.sample(
            model, window.shape, origin=(float(window.col_off), float(window.row_off))
        )
    else:
        grid = read_footprints(product, granules, band, size)
    check_ground(grid, window, what, sizes)
    return grid


def warn_of_footprints(product: Product, bands: Sequence[str]) -> None:
    """Say how wrong footprint corners are (FORMATS, accuracy ladder)."""
    swir = any(RESOLUTION[b] > 10 for b in bands)
    others = ", B05 to B12 up to 400 m" if swir else ""
    warnings.warn(
        GeometryWarning(
            f"{product.path}: located by the granules' footprint corners alone, at height 0: "
            f"B03 and B04 are wrong by some 20 to 100 m, B02 and B08 by up to 200 m{others}, and "
            "all by 20 to 210 m more per 1000 m of terrain height; with the DATASTRIP xml the "
            "error is a few metres"
        ),
        stacklevel=4,
    )


def read_footprints(
    product: Product, granules: Sequence[Granule], band: str, size: StripSize
) -> LocationGrid:
    """Location grid through the footprint corners of granules.

    The corners are the centres of the corner pixels of B04's image, whichever the band.
    """
    rows, left, right = [], [], []
    for granule in granules:
        height, width, corners = _footprint(product, granule)
        first = granule.position - 1
        rows += [first + 0.5, first + height - 0.5]
        left += [corners[0], corners[1]]
        right += [corners[3], corners[2]]
    scale = size.columns / width
    lines: FloatArray = np.asarray(rows, np.float64) * (10 / RESOLUTION[band])
    window = size.window
    step = max(1.0, min(256.0, window.height / 2))
    count = int(np.ceil(window.height / step)) + 1
    at = np.asarray(window.row_off + np.arange(count) * step, np.float64)
    sides = [_along(lines, np.asarray(side), at) for side in (left, right)]
    grid = np.stack(sides, axis=1)  # (rows, 2, lon lat)
    grid[..., 0] = np.degrees(np.unwrap(np.radians(grid[..., 0]), axis=1))
    return LocationGrid(
        lon=grid[None, ..., 0],
        lat=grid[None, ..., 1],
        step=((width - 1) * scale, step),
        origin=(0.5 * scale, float(window.row_off)),
    )


def _along(lines: FloatArray, points: FloatArray, at: FloatArray) -> FloatArray:
    """Points (n, 2 = lon lat) of known lines, linear between and beyond them."""
    lon = np.degrees(np.unwrap(np.radians(points[:, 0])))
    k = np.clip(np.searchsorted(lines, at, side="right") - 1, 0, len(lines) - 2)
    weight = (at - lines[k]) / (lines[k + 1] - lines[k])
    return np.stack([v[k] + weight * (v[k + 1] - v[k]) for v in (lon, points[:, 1])], axis=-1)


def _footprint(product: Product, granule: Granule) -> tuple[int, int, FloatArray]:
    """Height and width at 10 m, and the corners UL, LL, LR, UR (4, 2 = lon lat)."""
    root = product.read_xml(granule.metadata)
    name = product.describe(granule.metadata)
    text = find_text(root, ".//Footprint/EXT_POS_LIST", name)
    found = np.asarray(numbers(text, f"{name}: EXT_POS_LIST", 10, 15))
    if found.size not in (15, 10):
        raise BadInputError(
            f"{name}: EXT_POS_LIST has {found.size} numbers, 5 points of 3 were expected"
        )
    corners = found.reshape(5, -1)[:4, 1::-1]
    if np.abs(corners[:, 0]).max() > 360 or np.abs(corners[:, 1]).max() > 90:
        raise BadInputError(f"{name}: EXT_POS_LIST holds no latitudes and longitudes in degrees")
    height, width = granule_size(product, granule, 10)
    return height, width, corners

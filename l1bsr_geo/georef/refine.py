"""One translation that brings an image onto an ortho reference, with its uncertainty.

A pointing error turns all lines of sight by one angle, so what it moves everything by is constant
in pixels of the sensor; on the ground it changes with distance and relief. It is measured on a map,
patch by patch, in pixels of the sensor, and taken out of ``GeoGrid.to_model``.
Source: Grodecki and Dial, Block adjustment of high-resolution satellite images described by
rational polynomials, PE&RS 69 (2003), who do the same to RPCs.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil

import numpy as np
import numpy.typing as npt

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.affine import lonlat_to_map
from l1bsr_geo.geometry.elevation import ConstantElevation, Elevation, localize_on_terrain
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.georef.comparison import (
    Comparison,
    Found,
    Match,
    crop_reference,
    shift_grid,
)
from l1bsr_geo.georef.map_grid import measure_pixel, read_map, utm_zone
from l1bsr_geo.images.pixels import GeoImage

log = logging.getLogger(__name__)

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_COARSER = (4, 2)  # the first look, where the image is large enough; 15 px of it are found
_ROUNDS = 4  # at full resolution, at most
_SETTLED = 0.03  # [px] a smaller change ends them: each leaves a fourth of it or less
_SIGNIFICANT = 6.0  # noise reaches 5
_TOLERANCE = 1.0  # [px] between matches that agree
_FEWEST = 6  # matches that agree
_FEWEST_ALONE = 1.5  # that agree, counted without overlap
_SHARE = 0.5  # of the significant matches
_WORST = 0.25  # [px] uncertainty
_ADVICE = "give one with clear land, of a season like the image's, or leave out --refine"


@dataclass(frozen=True)
class Shift:
    """How far an image's geometry is off, as measured against a reference.

    Attributes:
        pixels: (dx, dy) [px of the image]: pixel p shows what its geometry places at p + shift.
        metres: (east, north) by which the image's centre has to move on the ground.
        uncertainty: standard deviations of ``metres``.
        matches: patches that agree.
        patches: patches that both images show, which were compared.
        resolution: of the comparison [m].
    """

    pixels: tuple[float, float]
    metres: tuple[float, float]
    uncertainty: tuple[float, float]
    matches: int
    patches: int
    resolution: float


def estimate_shift(
    image: GeoImage,
    reference: GeoImage,
    match: Match,
    *,
    elevation: Elevation | None = None,
) -> Shift:
    """Measure one translation of an image against an ortho reference, over many patches.

    Both are drawn on patches of a UTM map at the coarser of their resolutions: once four times
    coarser still, to find large shifts, then until nothing changes. A translation is believed where
    half of the significant matches agree on it within a pixel. Its uncertainty is the larger of
    their spread over the root of their number and of what the image's quarters say on their own.

    Args:
        image: one band, in any geometry.
        reference: one band, on a map; of another resolution, CRS, unit or season.
        match: how two patches are compared, see ``Match``.
        elevation: terrain; height 0 if None.

    Raises:
        BadInputError: the image has no geometry, or too few patches agree.
        BadOptionError: the reference does not touch the image, or is not on a map.
    """
    elevation = elevation or ConstantElevation()
    read_map(reference.grid)  # refuses what is on no map
    crs, h = _find_map(image.grid, elevation)
    reference = crop_reference(reference, image.grid, h)
    sizes = (measure_pixel(seen.grid, crs, elevation) for seen in (image, reference))
    resolution = max(sizes)
    compare_at = partial(Comparison.at, image, reference, match, elevation, crs)
    shift = _first_look(compare_at, resolution)
    fine = compare_at(resolution)
    for _ in range(_ROUNDS):
        found = fine.measure(shift)
        agreed = _agreeing(found)
        if agreed.sum() < _needed(found, fine.step):
            raise BadInputError(_say_weak(found, agreed, fine.step))
        shift = shift + found.shift[agreed].mean(0)
        left = found.offset[agreed].mean(0)
        log.debug("%d of %d patches agree on %s px", agreed.sum(), _compared(found), left.round(3))
        if np.abs(left).max() < _SETTLED:
            break
        fine = fine.only(found.significance > 0)
    deviation = _deviation(found.offset[agreed], found.centre[agreed], fine.step)
    deviation = np.maximum(deviation, np.abs(left) / 4)
    if deviation.max() > _WORST:
        raise BadInputError(
            f"{agreed.sum()} of {_compared(found)} patches match the reference, but leave an "
            f"uncertainty of {deviation.max():.2f} px of {resolution:.3g} m, {_WORST} px at most "
            f"were expected; {_ADVICE}"
        )
    dx, dy = (round(float(v), 4) for v in shift)  # all digits that mean anything
    east, north = _movement(image.grid, dx, dy, crs, elevation)
    across, along = (float(d * resolution) for d in deviation)
    return Shift(
        (dx, dy), (east, north), (across, along), int(agreed.sum()), _compared(found), resolution
    )


def _find_map(grid: GeoGrid, elevation: Elevation) -> tuple[str, float]:
    """A map in true metres, and the height of an image's centre."""
    height, width = grid.shape
    lon, lat, h = localize_on_terrain(grid, width / 2, height / 2, elevation)
    if not (np.isfinite(lon) and np.isfinite(lat)):
        raise BadInputError("the image's geometry gives no place on the ground for its centre")
    return utm_zone(float(lon), float(lat)), float(h)


def _first_look(compare_at: Callable[[float], Comparison], resolution: float) -> F64:
    """Roughly the shift, from coarser pixels; zero where they do not tell."""
    for coarser in _COARSER:
        coarse = compare_at(resolution * coarser)
        found = coarse.measure(np.zeros(2))
        agreed = _agreeing(found)
        if agreed.sum() >= _needed(found, coarse.step):
            return np.asarray(np.median(found.shift[agreed], axis=0))
    return np.zeros(2)


def _agreeing(found: Found) -> Mask:
    """The significant matches of the largest group that agrees; without outliers."""
    kept = np.asarray(found.significance > _SIGNIFICANT, bool)
    if not kept.any():
        return kept
    apart = np.linalg.norm(found.offset[:, None] - found.offset[kept], axis=-1)
    middle = found.offset[kept][(apart[kept] < _TOLERANCE).sum(0).argmax()]
    for _ in range(3):
        apart = np.linalg.norm(found.offset - middle, axis=-1)
        agreed: Mask = kept & np.asarray(apart < _TOLERANCE, bool)
        if not agreed.any():
            return agreed
        middle = np.median(found.offset[agreed], axis=0)
    far = np.abs(found.offset - middle) > 3 * _spread(found.offset[agreed]) + 0.02
    return np.asarray(agreed & ~far.any(1), bool)


def _needed(found: Found, step: float) -> int:
    """How many patches must agree; more where they overlap and tell the same twice."""
    alike = _FEWEST_ALONE / min(1.0, step * step)
    return ceil(max(_FEWEST, _SHARE * _significant(found), alike))


def _significant(found: Found) -> int:
    return int((found.significance > _SIGNIFICANT).sum())


def _compared(found: Found) -> int:
    return int((found.significance > 0).sum())


def _say_weak(found: Found, agreed: Mask, step: float) -> str:
    significant, needed = _significant(found), _needed(found, step)
    told = f"{significant} of {_compared(found)} patches match the reference"
    if significant < needed:
        return (
            f"{told}, at least {needed} were expected (clouds, water, another place, too small an "
            f"overlap?); {_ADVICE}"
        )
    return (
        f"{told} but only {agreed.sum()} agree within {_TOLERANCE:g} px, at least {needed} were "
        f"expected (relief without --dem, another place, a warped reference?); {_ADVICE}"
    )


def _spread(values: F64) -> F64:
    """Robust standard deviation of (N, 2)."""
    return np.asarray(1.4826 * np.median(np.abs(values - np.median(values, 0)), 0))


def _deviation(offset: F64, centre: F64, step: float) -> F64:
    """Standard deviation of the mean of offsets (N, 2), in x and y."""
    alone = len(offset) * min(1.0, step * step)  # patches that overlap tell the same twice
    random = np.maximum(_spread(offset), offset.std(0) / 2) / np.sqrt(alone)
    quarter = (centre > np.median(centre, 0)) @ (1, 2)
    means = [offset[quarter == q].mean(0) for q in range(4) if (quarter == q).sum() >= 3]
    if len(means) < 3:
        return np.asarray(random)
    return np.asarray(np.maximum(random, np.std(means, 0, ddof=1) / np.sqrt(len(means))))


def _movement(
    grid: GeoGrid, dx: float, dy: float, crs: str, elevation: Elevation
) -> tuple[float, float]:
    """Where the centre moves on the map [m] when a grid is shifted."""
    height, width = grid.shape
    places = [
        lonlat_to_map(crs).transform(*localize_on_terrain(g, width / 2, height / 2, elevation)[:2])
        for g in (grid, shift_grid(grid, dx, dy))
    ]
    east, north = np.subtract(places[1], places[0])
    return float(east), float(north)

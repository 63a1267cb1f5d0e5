"""Sentinel-2 L1B: one detector's strip, or the overlap of two, with pixels, geometry and facts."""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affine import Affine

from l1bsr_geo.errors import (
    BadInputError,
    BadOptionError,
    L1bsrGeoWarning,
    MissingInputError,
)
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.bands import DetectorCrop, DetectorOverlap
from l1bsr_geo.images.pixels import PixelSource
from l1bsr_geo.readers.sentinel2_facts import (
    first_line_time,
    granule_size,
    line_period,
    read_angles,
    read_radiometry,
)
from l1bsr_geo.readers.sentinel2_geometry import (
    Geometry,
    StripSize,
    choose_geometry,
    read_location_grid,
    warn_of_footprints,
)
from l1bsr_geo.readers.sentinel2_instrument import read_instrument_model
from l1bsr_geo.readers.sentinel2_metadata import RESOLUTION, band_name
from l1bsr_geo.readers.sentinel2_product import Granule, Product, open_product
from l1bsr_geo.readers.sentinel2_zarr import is_eopf, read_eopf_detector
from l1bsr_geo.readers.sources import MosaicSource, RasterSource, open_source

__all__ = ["open_product", "read_detector_crop", "read_detector_overlap", "read_instrument_model"]

DEFAULT_BANDS = ("B02", "B03", "B04", "B08")


@dataclass(frozen=True)
class _Strip:
    """Images of one band, placed by the lines of the band's detector strip."""

    band: str
    parts: tuple[tuple[int, RasterSource], ...]

    @property
    def columns(self) -> int:
        return self.parts[0][1].shape[1]


def read_detector_crop(
    product: str | os.PathLike[str] | Product,
    detector: int,
    bands: Sequence[str] = DEFAULT_BANDS,
    *,
    geometry: Geometry = "auto",
    gipp: str | os.PathLike[str] | None = None,
    lines: tuple[int, int] | None = None,
) -> DetectorCrop:
    """A stretch of one detector of a Sentinel-2 L1B product, its pixels unread.

    The granules of the detector are put one below the other by their POSITION; missing ones read
    as no data. Every band keeps its own grid. The geometry of a band is that of its strip: the
    model's (0, 0) is the outer corner of the first pixel of the strip's first line.

    Args:
        product: SAFE folder, .zip of it, an xml inside it, or an EOPF Zarr.
        detector: 1 to 12.
        bands: names such as ``"B02"``, in the order wanted.
        geometry: ``"grids"`` for the Sen2VM grids in GEO_DATA, ``"model"`` for the instrument
            model, ``"footprint"`` for granule corners; ``"auto"`` takes the first of them that
            the product has.
        gipp: folder of GIPP files for the instrument model.
        lines: first and one past the last 10 m line of the strip, 0-based; widened to whole
            pixels of the coarsest band, clipped to what there is. All by default.

    Raises:
        MissingInputError: the detector, a band's images or what ``geometry`` needs is not there.
        BadInputError: a file is damaged, or the product is of another level.
        BadOptionError: ``lines`` is empty or outside the strip, or there are no bands.
    """
    bands = _checked_bands(bands)
    if not isinstance(product, Product) and is_eopf(product):
        return read_eopf_detector(product, detector, bands, geometry=geometry, lines=lines)
    product = open_product(product)
    granules = product.granules_of(detector)
    first, last = _choose_lines(product, granules, bands, lines)
    touched = [g for g in granules if g.position - 1 < last and _end(product, g) > first]
    if not touched:
        raise MissingInputError(
            f"{product.path} has no granule of detector {detector} at lines {first} to {last}; "
            "choose other lines or fetch the granule"
        )
    strips = {b: _open_strip(product, touched, b) for b in bands}
    _warn_of_gaps(product, touched, first, last)
    datastrip = None if product.datastrip_path is None else product.read_xml(product.datastrip_path)
    radiometry = read_radiometry(product, datastrip)
    kind = choose_geometry(product, touched, bands, geometry)
    sources: dict[str, PixelSource] = {}
    grids = {}
    for band, strip in strips.items():
        window = _band_window(band, strip, first, last)
        sources[band] = _crop(strip, window, radiometry.nodata)
        size = StripSize(strip.columns, window)
        model = read_location_grid(
            product, touched, band, size, kind, None if gipp is None else Path(gipp)
        )
        grids[band] = GeoGrid(window.shape, model, Affine.translation(0, window.row_off))
    if kind == "footprint":
        warn_of_footprints(product, bands)
    reference = "B03" if "B03" in bands else bands[0]
    return DetectorCrop(
        sources=sources,
        grids=grids,
        reference=reference,
        add_offset={b: radiometry.add_offset.get(b, 0.0) for b in bands},
        nodata=radiometry.nodata,
        saturated=radiometry.saturated,
        detector=detector,
        first_line=first,
        attrs={
            "product": product.name,
            "platform": product.platform,
            "level": "L1B",
            "detector": detector,
            "datastrip": touched[0].datastrip,
            "processing_baseline": radiometry.baseline,
            "time": first_line_time(product, datastrip, touched[0], reference, first),
            "geometry": kind,
            **({} if datastrip is None else {"line_period": line_period(product, datastrip)}),
            **read_angles(product, touched),
            "resolution": {b: RESOLUTION[b] for b in bands},
            "wavelengths": _only(radiometry.wavelengths, bands),
            "physical_gains": _only(radiometry.physical_gains, bands),
            "noise_model": _only(radiometry.noise_model, bands),
        },
    )


def read_detector_overlap(
    product: str | os.PathLike[str] | Product,
    left: int,
    right: int,
    bands: Sequence[str] = DEFAULT_BANDS,
    *,
    geometry: Geometry = "auto",
    gipp: str | os.PathLike[str] | None = None,
    lines: tuple[int, int] | None = None,
    height: float = 0.0,
    margin: int = 8,
) -> DetectorOverlap:
    """The same ground in two neighbouring detectors.

    Both crops have equal shapes. They agree at the middle of the overlap of the reference band to
    half a pixel; away from it the ground moves by some pixels, which the grids tell.

    Args:
        product: as in ``read_detector_crop``.
        left: the detector whose last columns are taken, 1 to 11.
        right: its neighbour, ``left`` + 1, whose first columns are.
        bands: names; all of one resolution.
        geometry: as in ``read_detector_crop``.
        gipp: as in ``read_detector_crop``.
        lines: as in ``read_detector_crop``, of the left detector.
        height: of the ground [m]; 1000 m move the right view by some 3 lines.
        margin: columns left out at the strips' ends, where bands differ.

    Raises:
        BadOptionError: not neighbours, or bands of several resolutions.
        BadInputError: the two have no ground in common.
    """
    if right != left + 1:
        raise BadOptionError(f"detectors {left} and {right} are not neighbours such as 4 and 5")
    if len({RESOLUTION[b] for b in _checked_bands(bands)}) > 1:
        raise BadOptionError(f"bands of one resolution make an overlap; {', '.join(bands)} do not")
    opened = product if isinstance(product, Product) or is_eopf(product) else open_product(product)
    crops = [
        read_detector_crop(opened, d, bands, geometry=geometry, gipp=gipp, lines=lines)
        for d in (left, right)
    ]
    windows = _common_ground(crops[0], crops[1], height, margin)
    return DetectorOverlap(*(c.crop(w) for c, w in zip(crops, windows, strict=True)))


def _common_ground(
    left: DetectorCrop, right: DetectorCrop, height: float, margin: int
) -> tuple[Window, Window]:
    """Equal windows of two detectors whose middles see the same ground."""
    a, b = left.grids[left.reference], right.grids[right.reference]
    rows, columns = a.shape
    middle = rows / 2
    # where the left one's last column lies in the right one: the columns that both see
    x, _ = b.project(*a.localize(columns - 0.5, middle, height), height)
    width = math.floor(float(x) + 0.5 + 1e-6) - 2 * margin
    if not 0 < width < columns:
        raise BadInputError(
            f"detectors {left.detector} and {right.detector} have no ground in common in "
            f"{left.attrs['product']}: the last column of one lies {-float(x):.0f} columns before "
            "the other's first; neighbours overlap by 120 to 180"
        )
    left_column = columns - margin - width
    centre = left_column + width / 2
    x, y = b.project(*a.localize(centre, middle, height), height)
    right_column, shift = round(float(x) - width / 2), round(float(y) - middle)
    right_column = min(max(right_column, 0), b.shape[1] - width)
    top = max(0, -shift)
    bottom = min(rows, b.shape[0] - shift)
    if bottom <= top:
        raise BadInputError(
            f"detectors {left.detector} and {right.detector} have no lines in common: the ground "
            f"is {shift} lines apart; choose other lines"
        )
    return (
        Window(left_column, top, width, bottom - top),
        Window(right_column, top + shift, width, bottom - top),
    )


def _checked_bands(bands: Sequence[str]) -> tuple[str, ...]:
    names = tuple(band_name(b) for b in bands)
    if not names or len(set(names)) < len(names):
        raise BadOptionError(f"bands are {', '.join(names) or 'none'}; each once, at least one")
    return names


def _only(values: Mapping[str, Any], bands: Sequence[str]) -> dict[str, Any]:
    return {b: values[b] for b in bands if b in values}


def _choose_lines(
    product: Product,
    granules: Sequence[Granule],
    bands: Sequence[str],
    lines: tuple[int, int] | None,
) -> tuple[int, int]:
    """First and one past the last 10 m line, at whole pixels of every band."""
    start, end = granules[0].position - 1, _end(product, granules[-1])
    unit = math.lcm(*(RESOLUTION[b] // 10 for b in bands))
    if lines is None:
        first, last = start, end
    else:
        first = max(start, lines[0] // unit * unit)
        last = min(end, -(-lines[1] // unit) * unit)
    if last <= first or first % unit:
        raise BadOptionError(
            f"lines {lines} choose nothing of detector {granules[0].detector} of {product.path}, "
            f"whose lines are {start} to {end}; give first,last inside those"
        )
    return first, last


def _end(product: Product, granule: Granule) -> int:
    """One past the last 10 m line of a granule, by its metadata."""
    return granule.position - 1 + granule_size(product, granule, 10)[0]


def _open_strip(product: Product, granules: Sequence[Granule], band: str) -> _Strip:
    ratio = RESOLUTION[band] // 10
    parts = []
    for granule in granules:
        if band not in granule.images:
            there = ", ".join(sorted(granule.images)) or "none"
            raise MissingInputError(
                f"{product.describe(granule.folder)} has no image of {band} (IMG_DATA/*_{band}.jp2)"
                f", it has {there}; choose other --bands or fetch the product again"
            )
        path = granule.images[band]
        source = open_source(product.gdal_path(path), name=product.describe(path))
        if (granule.position - 1) % ratio:
            raise BadInputError(
                f"{product.describe(granule.metadata)}: POSITION {granule.position} is not at a "
                f"line of {band}, whose lines are {ratio} lines of 10 m high"
            )
        rows = granule_size(product, granule, 10)[0]
        if source.shape[0] * ratio != rows:
            raise BadInputError(
                f"{product.describe(path)} has {source.shape[0]} lines, its metadata say {rows} of "
                f"10 m, {ratio} to a line of {band}; fetch the product again"
            )
        parts.append(((granule.position - 1) // ratio, source))
    first = parts[0][1]
    for _, source in parts:
        if source.shape[1] != first.shape[1] or source.dtype != first.dtype:
            raise BadInputError(
                f"{source.path} has {source.shape[1]} columns of {source.dtype}, {first.path} has "
                f"{first.shape[1]} of {first.dtype}; granules of one detector are alike"
            )
    return _Strip(band, tuple(parts))


def _band_window(band: str, strip: _Strip, first: int, last: int) -> Window:
    ratio = RESOLUTION[band] // 10
    return Window(0, first // ratio, strip.columns, last // ratio - first // ratio)


def _crop(strip: _Strip, window: Window, nodata: float) -> PixelSource:
    """The images of a window of the strip."""
    parts = tuple((row - window.row_off, source) for row, source in strip.parts)
    return MosaicSource(parts, window.shape, strip.parts[0][1].dtype, nodata)


def _warn_of_gaps(
    product: Product,
    granules: Sequence[Granule],
    first: int,
    last: int,
) -> None:
    """One warning that lists what is missing between the granules."""
    gaps = []
    line = first
    for granule in granules:
        if granule.position - 1 > line:
            gaps.append(f"lines {line} to {granule.position - 2}")
        line = max(line, _end(product, granule))
    if line < last:
        gaps.append(f"lines {line} to {last - 1}")
    if gaps:
        warnings.warn(
            L1bsrGeoWarning(
                f"{product.path} lacks granules of detector {granules[0].detector} at "
                f"{', '.join(gaps)} of the strip; they are read as no data"
            ),
            stacklevel=3,
        )

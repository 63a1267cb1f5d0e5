"""Sentinel-2 chips as references: which day, fetched part by part, kept as GeoTIFF."""

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
import shapely.errors
import shapely.geometry
from affine import Affine
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from l1bsr_geo.errors import DownloadError, MissingInputError
from l1bsr_geo.geometry.affine import lonlat_to_map
from l1bsr_geo.models.stored import data_folder
from l1bsr_geo.readers.sentinelhub import LARGEST, Service, read_config

log = logging.getLogger(__name__)

Bounds = tuple[float, float, float, float]

BANDS = ("B03", "B04")
COLLECTIONS = ("sentinel-2-l1c", "sentinel-2-l2a")
"""Where a day is looked for, one after the other."""

_PIXEL = 10.0  # [m]
_HALO = 640.0  # [m] around the outline: the largest shift that refining finds
_AROUND = timedelta(days=60)  # in which an image is looked for, before and after
_COVERED = 0.9  # share of the outline that a day's images must show
_CLEAR = 20.0  # [%] clouds of another day, at most
_HIDDEN = 80.0  # [%] clouds of the same day, which are those of the image


@dataclass(frozen=True)
class Day:
    """Images of one collection and day over an outline.

    Attributes:
        collection: its id in the catalog.
        date: UTC.
        cloud: [%] on average.
        covered: share of the outline.
        names: of the images.
    """

    collection: str
    date: date
    cloud: float
    covered: float
    names: tuple[str, ...]


def fetch_chip(
    outline: shapely.Polygon, when: datetime, crs: str, *, folder: Path | None = None
) -> Path:
    """B03 and B04 of Sentinel-2 around an outline, of the same day or the nearest clear one.

    What was fetched before is not fetched again, nor is the service asked anything then.

    Args:
        outline: lon, lat [degrees].
        when: of the image that needs a reference, with a time zone.
        crs: UTM zone of the chip, such as "EPSG:32631".
        folder: where chips are kept; ``references`` in the ``data_folder`` where None.

    Returns:
        A GeoTIFF of DN at 10 m, 0 where there is nothing, named by collection and day.

    Raises:
        MissingInputError: the package sentinelhub is not installed; no image can be used.
        BadOptionError: no credentials, or refused ones.
        DownloadError: the service cannot be reached, is too busy, or gives something else.
    """
    folder = folder or data_folder() / "references"
    wanted = shapely.transform(
        outline, lambda xy: np.column_stack(lonlat_to_map(crs).transform(*xy.T))
    ).buffer(_HALO)
    bounds = _whole_pixels(wanted.bounds)
    key = hashlib.sha256(repr((crs, bounds, when.date())).encode()).hexdigest()[:12]
    for kept in sorted(folder.glob(f"sentinel-2-*_{key}.tif")):
        log.info("the reference is there already: %s", kept)
        return kept
    service = Service(read_config())
    day = find_day(service, outline, when)
    log.info("reference: %s of %s, %.0f %% clouds", day.collection, day.date, day.cloud)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{day.collection}_{day.date}_{key}.tif"
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        _write(part, service, day, wanted, bounds, crs)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def find_day(service: Service, outline: shapely.Polygon, when: datetime) -> Day:
    """The day whose images are the best reference, of the first collection that has one.

    Raises:
        MissingInputError: there is none.
        L1bsrGeoError: what `Service` raises.
    """
    seen: list[Day] = []
    for collection in COLLECTIONS:
        items = service.search(collection, outline.bounds, when - _AROUND, when + _AROUND)
        days = group_days(collection, items, outline)
        if (best := choose_day(days, when.date())) is not None:
            return best
        seen += days
    whole = [day for day in seen if day.covered >= _COVERED]
    clearest = f", the clearest {min(d.cloud for d in whole):.0f} % clouds" if whole else ""
    raise MissingInputError(
        f"Sentinel Hub has no clear image within {_AROUND.days} days of {when.date()}: "
        f"{len(whole)} of {len(seen)} days show the whole area{clearest}; {_CLEAR:g} % at most "
        "were expected: give a reference of your own, --refine FILE"
    )


def group_days(
    collection: str, items: Iterable[Mapping[str, Any]], outline: shapely.Polygon
) -> list[Day]:
    """What STAC items of a collection show of an outline, day by day."""
    days: dict[date, list[Mapping[str, Any]]] = {}
    try:
        for item in items:
            days.setdefault(date.fromisoformat(item["properties"]["datetime"][:10]), []).append(
                item
            )
        return [_sum_up(collection, day, found, outline) for day, found in sorted(days.items())]
    except (KeyError, TypeError, ValueError, shapely.errors.ShapelyError) as error:
        raise DownloadError(
            f"{collection}: an item of the catalog is not understood ({type(error).__name__}: "
            f"{error}); is sh_base_url that of a Sentinel Hub?"
        ) from None


def choose_day(days: Iterable[Day], when: date) -> Day | None:
    """The same day, whose clouds are the image's own; else the nearest clear one."""
    whole = [day for day in days if day.covered >= _COVERED]
    same = [day for day in whole if day.date == when and day.cloud <= _HIDDEN]
    clear = [day for day in whole if day.cloud <= _CLEAR]
    return min(same or clear, key=lambda d: (abs(d.date - when), d.cloud), default=None)


def _sum_up(
    collection: str, day: date, items: list[Mapping[str, Any]], outline: shapely.Polygon
) -> Day:
    shapes = [shapely.make_valid(shapely.geometry.shape(item["geometry"])) for item in items]
    shares = [float(s.intersection(outline).area / outline.area) for s in shapes]
    clouds = [float(item["properties"].get("eo:cloud_cover", 100.0)) for item in items]
    covered = float(shapely.union_all(shapes).intersection(outline).area / outline.area)
    cloud = float(np.average(clouds, weights=np.array(shares) + 1e-9))
    return Day(collection, day, cloud, covered, tuple(str(item["id"]) for item in items))


def _whole_pixels(bounds: Bounds) -> Bounds:
    """Bounds on the lattice of Sentinel-2's tiles, so that nothing is resampled within a zone."""
    west, south, east, north = (v / _PIXEL for v in bounds)
    return floor(west) * _PIXEL, floor(south) * _PIXEL, ceil(east) * _PIXEL, ceil(north) * _PIXEL


def _write(
    path: Path, service: Service, day: Day, wanted: shapely.Polygon, bounds: Bounds, crs: str
) -> None:
    """Fetch the parts of a chip that show what is wanted."""
    west, south, east, north = bounds
    columns, rows = (round(d / _PIXEL) for d in (east - west, north - south))
    with rasterio.open(
        path, "w", driver="GTiff", width=columns, height=rows, count=len(BANDS), dtype="uint16",
        crs=crs, transform=Affine(_PIXEL, 0, west, 0, -_PIXEL, north), nodata=0, tiled=True,
        compress="deflate", predictor=2, sparse_ok=True,
    ) as chip:  # fmt: skip
        for index, band in enumerate(BANDS, 1):
            chip.set_band_description(index, band)
        chip.update_tags(
            collection=day.collection,
            date=day.date.isoformat(),
            cloud_cover=f"{day.cloud:.1f}",
            images=" ".join(day.names),
        )
        for top in range(0, rows, LARGEST):
            for left in range(0, columns, LARGEST):
                size = min(LARGEST, columns - left), min(LARGEST, rows - top)
                x, y = west + left * _PIXEL, north - top * _PIXEL
                box = x, y - size[1] * _PIXEL, x + size[0] * _PIXEL, y
                if shapely.intersects(wanted, shapely.box(*box)):
                    content = service.draw(day.collection, day.date, box, size, crs)
                    chip.write(_decode(content, size), window=Window(left, top, *size))


def _decode(content: bytes, size: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """Pixels (2, height, width) of what came."""
    try:
        with MemoryFile(content) as memory, memory.open(driver="GTiff") as image:
            found, pixels = (image.count, *image.shape), image.read()
    except RasterioError as error:
        raise DownloadError(f"Sentinel Hub sent no GeoTIFF ({error}); try again later") from None
    if found != (len(BANDS), *size[::-1]):
        raise DownloadError(
            f"Sentinel Hub sent {found} bands, rows, columns; {(len(BANDS), *size[::-1])} were "
            "asked for"
        )
    return np.asarray(pixels, np.uint16)

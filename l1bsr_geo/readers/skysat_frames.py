"""SkySat frames: their file names, and what frame_index.csv tells of them.

Source: Planet's product names and the columns of frame_index.csv as used by uw-cryo/skysat_stereo
(notebooks/skysat_l1a_bundle_adjustment.ipynb) and NeoGeographyToolkit/StereoPipeline.
"""

import csv
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isfinite
from pathlib import Path

import shapely
from shapely.errors import ShapelyError

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.readers.frame_stack import RASTERS, Frame

FRAME_INDEX = "frame_index.csv"

_FRAME = re.compile(
    r"(?P<seconds>\d{9,10}(?:\.\d+)?)_(?P<satellite>s\w*?\d+)_(?P<camera>c\d)_PAN"
    r"(?:_i(?P<index>\d+))?"
)
_SCENE = re.compile(
    r"(?P<time>\d{8}_\d{6})(?:_\d+)?_(?P<satellite>ssc\d+)(?P<camera>d\d)_(?P<index>\d{4})_basic_"
    r"(?P<l1a>l1a_)?panchromatic_dn"
)
_GPS_EPOCH = datetime(1980, 1, 6, tzinfo=UTC)
_LEAP_SECONDS = (  # GPS - UTC [s] from a date on; the first SkySat flew in 2013
    (datetime(2017, 1, 1, tzinfo=UTC), 18),
    (datetime(2015, 7, 1, tzinfo=UTC), 17),
    (datetime(2012, 7, 1, tzinfo=UTC), 16),
)


@dataclass(frozen=True)
class FrameFacts:
    """What a row of frame_index.csv tells; None where it does not.

    Attributes:
        exposure: integration time [ms].
        gsd: [m].
        azimuth: of the satellite [degrees].
        elevation: of the satellite above the horizon [degrees].
        bit_depth: bits to a pixel.
        outline: footprint, ``lon, lat``.
    """

    exposure: float | None = None
    gsd: float | None = None
    azimuth: float | None = None
    elevation: float | None = None
    bit_depth: float | None = None
    outline: shapely.Polygon | None = None


def parse_frame(path: Path) -> Frame | None:
    """A frame from its file name, or None where it is not one of SkySat's panchromatic frames."""
    if path.suffix.lower() not in RASTERS:
        return None
    if match := _FRAME.fullmatch(path.stem):
        index = None if match["index"] is None else int(match["index"])
        time, level = gps_to_utc(float(match["seconds"])), "L1A"
    elif match := _SCENE.fullmatch(path.stem):
        index, level = int(match["index"]), "L1A" if match["l1a"] else "L1B"
        try:
            time = datetime.strptime(match["time"] + "+0000", "%Y%m%d_%H%M%S%z")
        except ValueError:
            return None
    else:
        return None
    return Frame(path.stem, path, None, match["satellite"], match["camera"], index, time, level)


def gps_to_utc(seconds: float) -> datetime:
    """UTC of seconds since the GPS epoch, 1980-01-06."""
    time = _GPS_EPOCH + timedelta(seconds=seconds)
    for since, leap in _LEAP_SECONDS:
        if time - timedelta(seconds=leap) >= since:
            return time - timedelta(seconds=leap)
    return time - timedelta(seconds=_LEAP_SECONDS[-1][1])


def read_frame_index(folder: Path) -> dict[str, FrameFacts]:
    """What the frame_index.csv of a folder tells, by frame name; empty where there is none.

    Raises:
        BadInputError: it is no table of frames.
    """
    path = folder / FRAME_INDEX
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        try:
            rows = list(csv.DictReader(file, skipinitialspace=True))
        except csv.Error as error:
            raise BadInputError(f"{path} cannot be read as a table ({error})") from error
    facts = {}
    for row in rows:
        cells = {
            k.strip().lower(): (v or "").strip()
            for k, v in row.items()
            if isinstance(k, str) and not isinstance(v, list)
        }
        told = FrameFacts(
            exposure=_positive(cells.get("integration_time_ms")),
            gsd=_positive(cells.get("gsd")),
            azimuth=_number(cells.get("sat_az")),
            elevation=_number(cells.get("sat_elev")),
            bit_depth=_positive(cells.get("bit_dpth"), most=64),
            outline=parse_outline(cells.get("geom", "")),
        )
        for key in (cells.get("name"), cells.get("filename")):
            if key:
                facts[stem_of(key)] = told
    if not facts:
        raise BadInputError(f"{path} lists no frames; columns name or filename were expected")
    return facts


def stem_of(name: str) -> str:
    """A frame's name without folder and ending; the seconds in it have a dot of their own."""
    base = name.replace("\\", "/").rpartition("/")[2]
    ending = next((e for e in RASTERS if base.lower().endswith(e)), "")
    return base.removesuffix(base[len(base) - len(ending) :]) if ending else base


def parse_outline(text: str) -> shapely.Polygon | None:
    """The polygon of a WKT that may lack a space or its closing point; None where it is none."""
    if "POLYGON" not in text.upper():
        return None
    numbers = r"(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"
    points = [(float(x), float(y)) for x, y in re.findall(rf"{numbers}\s+{numbers}", text)]
    if len(points) < 3:
        return None
    try:
        polygon = shapely.make_valid(shapely.Polygon(points))
    except (ShapelyError, ValueError):
        return None
    return polygon if isinstance(polygon, shapely.Polygon) and polygon.area > 0 else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if isfinite(value) else None


def _positive(text: str | None, most: float = 1e6) -> float | None:
    value = _number(text)
    return value if value is not None and 0 < value <= most else None

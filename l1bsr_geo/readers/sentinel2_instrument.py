"""The Sentinel-2 instrument model of a product: DATASTRIP xml and GIPP files to Sentinel2Model."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.geometry.model import FloatArray
from l1bsr_geo.geometry.sentinel2 import (
    EarthOrientation,
    Sentinel2Model,
    instrument_to_itrf,
)
from l1bsr_geo.readers.sentinel2_facts import LINE_PERIOD, MAX_SIZE
from l1bsr_geo.readers.sentinel2_gipp import MadeWith, choose_directions, choose_spacecraft
from l1bsr_geo.readers.sentinel2_metadata import (
    RESOLUTION,
    band_name,
    band_of,
    find_element,
    find_number,
    find_text,
    find_value,
    numbers,
    parse_time,
    parse_xml,
)
from l1bsr_geo.readers.sentinel2_product import MAX_LINES, Product, open_product

SWIR = frozenset({"B10", "B11", "B12"})
_GPS_EPOCH = datetime(1980, 1, 6, tzinfo=UTC)
_MAX_POWERS = 8  # of time in a refined rotation; real ones have 2
_MARGIN = 120.0  # [s] of orbit and attitude kept around the strip; GPS-B points can be years off


@dataclass(frozen=True, eq=False)
class DatastripGeometry:
    """What the DATASTRIP xml says of the geometry; times are GPS seconds since 1980-01-06.

    Attributes:
        made_with: the parameter files, and the name of the xml.
        first_line_time: (band, detector) -> start of the strip's first line.
        line_period: seconds to a 10 m line.
        earth: Earth orientation.
        rotation: (3, n) refined rotation about x, y, z [rad, rad/s ...] around ``centre_time``.
        homothety: refined homothety along z, lowest power first.
        centre_time: middle of the strip.
        attitude_time: (N,).
        attitude: (N, 4) satellite to EME2000, x y z w.
        orbit_time: (M,).
        orbit_position: (M, 3) ITRF [m].
        orbit_velocity: (M, 3) ITRF [m/s].
    """

    made_with: MadeWith
    first_line_time: dict[tuple[str, int], float]
    line_period: float
    earth: EarthOrientation
    rotation: FloatArray
    homothety: FloatArray
    centre_time: float
    attitude_time: FloatArray = field(repr=False)
    attitude: FloatArray = field(repr=False)
    orbit_time: FloatArray = field(repr=False)
    orbit_position: FloatArray = field(repr=False)
    orbit_velocity: FloatArray = field(repr=False)


def read_instrument_model(
    product: str | os.PathLike[str] | Product,
    detector: int,
    band: str,
    gipp: str | os.PathLike[str] | None = None,
) -> Sentinel2Model:
    """The instrument model of one band of one detector, from the product's DATASTRIP xml.

    The viewing directions and spacecraft angles are those of the files that the datastrip names:
    from ``gipp`` where that folder has them, else the shipped figures.

    Args:
        product: an L1B product.
        detector: 1 to 12.
        band: "B02" ...
        gipp: folder of GIPP files (VIEDIR, SPAMOD; .xml or .xml.gz).

    Returns:
        A model over the pixels of the band's detector strip.

    Raises:
        MissingInputError: when the product has no datastrip, or not that detector and band.
        BadInputError: when the datastrip lacks what the model needs.

    Warns:
        GeometryWarning: when another version of a parameter file had to be used; says by how many
            metres versions differ.
    """
    product, band = open_product(product), band_name(band)
    if product.datastrip_path is None:
        raise MissingInputError(
            f"{product.path}: found no DATASTRIP xml, which holds attitude and orbit; download "
            "the datastrip too, or use --geometry footprint"
        )
    datastrip = parse_datastrip_geometry(
        product.read_bytes(product.datastrip_path), product.describe(product.datastrip_path)
    )
    columns = _columns(product, detector, RESOLUTION[band])
    return build_instrument_model(
        datastrip, detector, band, columns, None if gipp is None else Path(gipp)
    )


def build_instrument_model(
    datastrip: DatastripGeometry,
    detector: int,
    band: str,
    columns: int | None = None,
    gipp: Path | None = None,
) -> Sentinel2Model:
    """The model of one band of one detector.

    Args:
        datastrip: parsed metadata.
        detector: 1 to 12.
        band: "B02" ...
        columns: columns of the band's images where they are not one per viewing direction
            (60 m bands of old products are not binned across track).
        gipp: folder of GIPP files to use before the shipped figures.

    Raises:
        MissingInputError: when the datastrip has no time stamp of that band and detector.
    """
    key = (band, detector)
    if key not in datastrip.first_line_time:
        have = sorted({d for b, d in datastrip.first_line_time if b == band})
        raise MissingInputError(
            f"{datastrip.made_with.name}: no time stamp of band {band}, detector {detector}; found "
            f"detectors {have or 'none'} of that band; choose one of them"
        )
    directions = choose_directions(datastrip.made_with, detector, band, gipp)
    spacecraft = choose_spacecraft(datastrip.made_with, gipp)
    time = datastrip.attitude_time
    powers = (time - datastrip.centre_time)[:, None] ** np.arange(datastrip.rotation.shape[1])
    angles = -spacecraft.piloting_to_msi - powers @ datastrip.rotation.T
    plane = spacecraft.msi_to_focal_plane["SWIR" if band in SWIR else "VNIR"]
    attitude = instrument_to_itrf(time, datastrip.attitude, angles, -plane, datastrip.earth)
    epoch = float(np.floor(datastrip.centre_time))
    return Sentinel2Model(
        directions=directions,
        columns=columns or len(directions.tan_x),
        first_line_time=datastrip.first_line_time[key] - epoch,
        line_period=datastrip.line_period * RESOLUTION[band] / 10,
        z_scale=1.0 + float(datastrip.homothety[0]),
        attitude_time=time - epoch,
        attitude=attitude,
        orbit_time=datastrip.orbit_time - epoch,
        orbit_position=datastrip.orbit_position,
        orbit_velocity=datastrip.orbit_velocity,
        epoch=epoch,
    )


@lru_cache(maxsize=4)
def parse_datastrip_geometry(xml: bytes, name: str) -> DatastripGeometry:
    """Read the geometry out of a DATASTRIP xml.

    Raises:
        BadInputError: when it is no L1B datastrip, or lacks attitude, orbit or time stamps.
    """
    root = parse_xml(xml, name)
    if root.tag != "Level-1B_DataStrip_ID":
        raise BadInputError(
            f"{name}: found a document of kind {root.tag}, expected Level-1B_DataStrip_ID; "
            "give a Sentinel-2 L1B product"
        )
    start, stop = (
        _find_seconds(root, f".//DATASTRIP_SENSING_{w}", name) for w in ("START", "STOP")
    )
    bulletin = find_element(root, ".//IERS_Bulletin", name)
    earth = EarthOrientation(
        find_number(bulletin, "GPS_TIME_UTC", name, -100, 100),
        find_number(bulletin, "UT1_UTC", name, -1, 1),
        find_number(bulletin, "POLE_U_ANGLE", name, -2, 2),
        find_number(bulletin, "POLE_V_ANGLE", name, -2, 2),
    )
    centre = (start + stop) / 2 + earth.gps_minus_utc
    around = (start + earth.gps_minus_utc - _MARGIN, stop + earth.gps_minus_utc + _MARGIN)
    attitude_time, attitude = _samples(
        root, ".//Corrected_Attitudes/Values", {"QUATERNION_VALUES": 4}, around, name, "attitude"
    )
    orbit_time, orbit = _samples(
        root, ".//GPS_Point", {"POSITION_VALUES": 3, "VELOCITY_VALUES": 3}, around, name, "orbit"
    )
    stamps = find_element(root, ".//Time_Stamp", name)
    rotation, homothety = _refining(root, name)
    return DatastripGeometry(
        made_with=MadeWith(
            name,
            platform="S2" + find_text(root, ".//SPACECRAFT_NAME", name)[-1].upper(),
            tdi={
                band: (e.text or "").strip()
                for e in root.iterfind(".//TDI_CONFIGURATION")
                if (band := band_of(e)) is not None
            },
            files=frozenset((e.text or "").strip() for e in root.iterfind(".//GIPP_FILENAME")),
        ),
        first_line_time=_first_lines(stamps, name),
        line_period=find_number(stamps, "LINE_PERIOD", name, *LINE_PERIOD) * 1e-3,
        earth=earth,
        rotation=rotation,
        homothety=homothety,
        centre_time=centre,
        attitude_time=attitude_time,
        attitude=attitude,
        orbit_time=orbit_time,
        orbit_position=orbit[:, :3] * 1e-3,
        orbit_velocity=orbit[:, 3:] * 1e-3,
    )


def _columns(product: Product, detector: int, resolution: int) -> int | None:
    """Columns of the images at a resolution, where the product has a granule to say."""
    for granule in product.granules:
        if granule.detector == detector:
            size = product.read_xml(granule.metadata).find(f".//Size[@resolution='{resolution}']")
            if size is not None:
                name = product.describe(granule.metadata)
                return int(find_number(size, "NCOLS", name, 1, MAX_SIZE))
    return None


def _refining(root: Element, name: str) -> tuple[FloatArray, FloatArray]:
    """Rotation (3, n) [rad] and homothety of a refined product; zeros of one that is not."""
    state = root.find(".//Refined_Corrections/MSI_State")

    def coefficients(of: str) -> list[float]:
        e = None if state is None else state.find(f"{of}/COEFFICIENTS")
        text = "0" if e is None else e.text or "0"
        return numbers(text, f"{name}: {of}/COEFFICIENTS", 1, _MAX_POWERS)

    rows = [coefficients(f"Rotation/{axis}") for axis in "XYZ"]
    rotation = np.zeros((3, max(map(len, rows))))
    for row, values in zip(rotation, rows, strict=True):
        row[: len(values)] = values
    return rotation, np.asarray(coefficients("Homothety/Z"))


def _first_lines(stamps: Element, name: str) -> dict[tuple[str, int], float]:
    """(band, detector) to the start of line 1; the stamp is the start of REFERENCE_LINE."""
    period = find_number(stamps, "LINE_PERIOD", name, *LINE_PERIOD) * 1e-3
    times = {}
    for e in stamps.iterfind("Band_Time_Stamp"):
        band = band_of(e)
        for d in e.iterfind("Detector"):
            detector = d.get("detectorId", "")
            if band is None or not detector.isdecimal():
                continue  # whoever asks for it will miss it
            line = find_number(d, "REFERENCE_LINE", name, -MAX_LINES, MAX_LINES) - 1
            time = _find_seconds(d, "GPS_TIME", name)
            times[band, int(detector)] = time - line * period * RESOLUTION[band] / 10
    return times


def _samples(
    root: Element,
    path: str,
    values: Mapping[str, int],
    around: tuple[float, float],
    name: str,
    what: str,
) -> tuple[FloatArray, FloatArray]:
    """Times (N,) and values (N, k) of a list, sorted, once each, within ``around``.

    ``values`` says how many numbers each tag holds.
    """
    rows = {}
    for e in root.iterfind(path):
        if (e.findtext("QUATERNION_VALIDITY") or "true").strip() != "true":
            continue
        time = _find_seconds(e, "GPS_TIME", name)
        if around[0] <= time <= around[1]:
            rows[time] = [
                value
                for tag, count in values.items()
                for value in numbers(find_text(e, tag, name), f"{name}: {tag}", count, count)
            ]
    if len(rows) < 2:
        raise BadInputError(
            f"{name}: found {len(rows)} {what} samples around the sensing time, expected at least "
            "2; the file is incomplete: download it again, or use --geometry footprint"
        )
    times = sorted(rows)
    return np.asarray(times), np.asarray([rows[t] for t in times])


def gps_seconds(text: str) -> float:
    """GPS time as written in the metadata (to 1e-14 s) to seconds since 1980-01-06."""
    whole, _, fraction = text.strip().rstrip("Z").partition(".")
    delta = parse_time(whole) - _GPS_EPOCH
    if not f"0{fraction}".isdecimal():
        raise ValueError(text)
    return delta.days * 86400.0 + delta.seconds + (float(f"0.{fraction}") if fraction else 0.0)


def _find_seconds(element: Element, path: str, name: str) -> float:
    return find_value(element, path, name, gps_seconds, "a time")

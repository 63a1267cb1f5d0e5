"""The metadata of a simulated Level-1B product: DATASTRIP and GRANULE xml with the real tags.

Only what a reader of images and geometry uses is written. Source of tags and units: the real S2A
datastrip of Sen2VM's test set TDS1 (PSD 15).
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from l1bsr_geo.geometry.model import FloatArray
from l1bsr_geo.geometry.msi_figures import spacecraft_models, viewing_directions
from l1bsr_geo.geometry.sentinel2 import geodetic_to_ecef
from l1bsr_geo.simulation.overpass import BANDS, LINE_PERIOD, RESOLUTION, TDI_BANDS, Overpass

NAMESPACE = "https://psd-15.sentinel2.eo.esa.int/PSD/S2_PDI_Level-1B_{}_Metadata.xsd"
SITE = "SIMU"

# Per band: DN per W m-2 sr-1 um-1; wavelengths [nm] shortest, longest, central; noise alpha, beta.
# Source: the TDS1 datastrip (PHYSICAL_GAINS, Spectral_Information_List, Noise_Model).
RADIOMETRY: dict[str, tuple[float, tuple[float, float, float], tuple[float, float]]] = {
    "B01": (4.10907633, (412, 456, 442.7), (0.56, 0.00054)),
    "B02": (3.75048246, (456, 533, 492.7), (0.567, 0.04696)),
    "B03": (4.17298218, (538, 583, 559.8), (0.488, 0.03482)),
    "B04": (4.50361647, (646, 684, 664.6), (0.489, 0.04047)),
    "B05": (5.1868737, (695, 714, 704.1), (0.578, 0.03123)),
    "B06": (4.85163686, (731, 749, 740.5), (0.576, 0.04388)),
    "B07": (4.5154622, (769, 797, 782.8), (0.576, 0.0422)),
    "B08": (6.13501996, (760, 907, 832.8), (0.571, 0.04447)),
    "B8A": (5.11228279, (837, 881, 864.7), (0.574, 0.08714)),
    "B09": (8.48866339, (932, 958, 945.1), (0.563, 0.10258)),
    "B10": (54.8806461, (1337, 1412, 1373.5), (1.067, 0.00961)),
    "B11": (35.1806126, (1539, 1682, 1613.7), (0.683, 0.09292)),
    "B12": (106.03388763, (2078, 2320, 2202.4), (0.704, 0.08259)),
}

# Refining of the TDS1 datastrip: rotations about x, y, z [rad, rad/s], homothety along z.
REFINING = {
    "Rotation/X": "2.95053743505789e-06 -3.97553724884445e-08",
    "Rotation/Y": "3.7373972422695e-06 9.31822474193336e-09",
    "Rotation/Z": "2.12039954682666e-06 1.67202037437585e-09",
    "Homothety/Z": "-2.53929601479642e-06",
}


def write_metadata(folder: Path, overpass: Overpass, *, refined: bool = False) -> Path:
    """Write the DATASTRIP and GRANULE folders of an overpass, without images.

    Args:
        folder: the .SAFE folder to write into; made where it is not there.
        overpass: what to describe.
        refined: whether the datastrip carries refining corrections (figures of TDS1), which
            ``overpass.model`` does not have and a reader must apply.

    Returns:
        Path of the datastrip xml.
    """
    name = datastrip_id(overpass)
    path = folder / "DATASTRIP" / name / metadata_name(name)
    write_datastrip(path, overpass, refined=refined)
    for detector in overpass.detectors:
        for index in range(overpass.granules):
            name = granule_id(overpass, detector, index)
            write_granule(
                folder / "GRANULE" / name / metadata_name(name), overpass, detector, index
            )
    return path


def write_datastrip(path: Path, overpass: Overpass, *, refined: bool = False) -> None:
    """Write the DATASTRIP xml of an overpass."""
    root = ET.Element(
        "n1:Level-1B_DataStrip_ID",
        {"xmlns:n1": NAMESPACE.format("Datastrip"), "datastripIdentifier": datastrip_id(overpass)},
    )
    _put_general(root, overpass)
    _put_sensor(root, overpass)
    _put_radiometry(root, overpass)
    _put_refining(root, refined)
    _put_ancillary(root, overpass)
    _write(path, root)


def write_granule(path: Path, overpass: Overpass, detector: int, index: int) -> None:
    """Write the GRANULE xml of one chunk of one detector.

    The footprint is, as in real products, the CENTRES of the corner pixels of B04 at height 0.
    """
    root = ET.Element("n1:Level-1B_Granule_ID", {"xmlns:n1": NAMESPACE.format("Granule")})
    start = overpass.line_time(detector, "B04", index * overpass.granule_lines)
    _put(root, "n1:General_Info/GRANULE_ID", granule_id(overpass, detector, index))
    _put(root, "n1:General_Info/DETECTOR_ID", f"{detector:02d}")
    _put(root, "n1:General_Info/DATASTRIP_ID", datastrip_id(overpass))
    _put(root, "n1:General_Info/SENSING_TIME", _utc(start, 6))
    rows, columns = overpass.shape("B04")
    top = index * rows
    model = overpass.model(detector, "B04")
    x = np.array([0.5, 0.5, columns - 0.5, columns - 0.5, 0.5])  # UL, LL, LR, UR, UL
    y = np.array([0.5, rows - 0.5, rows - 0.5, 0.5, 0.5]) + top
    corners = " ".join(f"{b:.13f} {a:.13f} 0" for a, b in zip(*model.localize(x, y), strict=True))
    footprint = "n1:Geometric_Info/Granule_Footprint"
    _put(root, f"{footprint}/Granule_Footprint/Footprint/EXT_POS_LIST", corners)
    _put(root, f"{footprint}/RASTER_CS_TYPE", "POINT")
    _put(root, f"{footprint}/PIXEL_ORIGIN", 1)
    _put(root, "n1:Geometric_Info/Granule_Position/POSITION", top + 1)
    lon, lat = (float(v) for v in model.localize(columns / 2, top + rows / 2))
    middle = start + timedelta(seconds=rows / 2 * LINE_PERIOD)
    position = overpass.position(middle)
    header = "n1:Geometric_Info/Granule_Position/Geometric_Header"
    _put(root, f"{header}/GROUND_CENTER", f"{lat:.13f} {lon:.13f} 0")
    ground = geodetic_to_ecef(*(np.array(v) for v in (lon, lat, 0.0)))
    _put_angles(root, f"{header}/Incidence_Angles", position - ground, lon, lat)
    _put_angles(root, f"{header}/Solar_Angles", overpass.sun_direction(middle), lon, lat)
    for resolution, band in ((10, "B02"), (20, "B05"), (60, "B01")):
        dimensions = _add(root, "n1:Geometric_Info/Granule_Dimensions/Size", resolution=resolution)
        for tag, n in zip(("NROWS", "NCOLS"), overpass.shape(band), strict=True):
            _put(dimensions, tag, n)
    _write(path, root)


def datastrip_id(overpass: Overpass) -> str:
    """Name of the datastrip folder."""
    creation, start = _creation(overpass), overpass.sensing[0]
    return f"{_prefix(overpass)}_DS_{SITE}_{creation}_S{start:%Y%m%dT%H%M%S}_N{overpass.baseline}"


def granule_id(overpass: Overpass, detector: int, index: int) -> str:
    """Name of a granule folder; ``index`` counts along the strip from 0."""
    start = overpass.line_time(detector, "B04", index * overpass.granule_lines)
    return (
        f"{_prefix(overpass)}_GR_{SITE}_{_creation(overpass)}_S{start:%Y%m%dT%H%M%S}"
        f"_D{detector:02d}_N{overpass.baseline}"
    )


def metadata_name(identifier: str) -> str:
    """File name of the xml of a granule or datastrip."""
    return identifier.rsplit("_N", 1)[0].replace("_MSI_", "_MTD_") + ".xml"


def _put_general(root: ET.Element, overpass: Overpass) -> None:
    satellite = f"Sentinel-{overpass.platform[1:]}"
    start, stop = overpass.sensing
    general = "n1:General_Info"
    _put(root, f"{general}/Datatake_Info/SPACECRAFT_NAME", satellite)
    _put(root, f"{general}/Datatake_Info/DATATAKE_TYPE", "INS-NOBS")
    _put(root, f"{general}/Datatake_Info/DATATAKE_SENSING_START", _utc(overpass.start, 3))
    _put(root, f"{general}/Datatake_Info/SENSING_ORBIT_NUMBER", 8)
    _put(root, f"{general}/Datatake_Info/SENSING_ORBIT_DIRECTION", "DESCENDING")
    _put(root, f"{general}/Datastrip_Time_Info/DATASTRIP_SENSING_START", _utc(start, 3))
    _put(root, f"{general}/Datastrip_Time_Info/DATASTRIP_SENSING_STOP", _utc(stop, 3))
    _put(root, f"{general}/Processing_Info/PROCESSING_BASELINE", overpass.baseline)
    detectors = "n1:Image_Data_Info/Granules_Information/Detector_List"
    for detector in overpass.detectors:
        element = _add(root, f"{detectors}/Detector", detectorId=f"{detector:02d}")
        for index in range(overpass.granules):
            granule = _add(
                element,
                "Granule_List/Granule",
                granuleId=granule_id(overpass, detector, index),
            )
            _put(granule, "POSITION", index * overpass.granule_lines + 1)


def _put_sensor(root: ET.Element, overpass: Overpass) -> None:
    sensor = "n1:Image_Data_Info/Sensor_Configuration"
    acquisition = f"{sensor}/Acquisition_Configuration"
    for band in TDI_BANDS:
        tdi = f"{acquisition}/TDI_Configuration_List/TDI_CONFIGURATION"
        _put(root, tdi, "APPLIED", bandId=BANDS.index(band))
    for i, band in enumerate(BANDS):
        spectral = f"{acquisition}/Spectral_Band_Info/Spectral_Band_Information"
        element = _add(root, spectral, bandId=i)
        _put(element, "PHYSICAL_GAINS", RADIOMETRY[band][0], geometry="FULL_RESOLUTION")
    _put(root, f"{sensor}/Time_Stamp/LINE_PERIOD", f"{LINE_PERIOD * 1e3:.9f}", unit="ms")
    for i, band in enumerate(BANDS):
        stamps = _add(root, f"{sensor}/Time_Stamp/Band_Time_Stamp", bandId=i)
        for detector in overpass.detectors:
            element = _add(stamps, "Detector", detectorId=f"{detector:02d}")
            _put(element, "REFERENCE_LINE", 1)
            _put(element, "GPS_TIME", _gps(overpass, overpass.line_time(detector, band)))


def _put_radiometry(root: ET.Element, overpass: Overpass) -> None:
    radiometric = "n1:Image_Data_Info/Radiometric_Info"
    for i, band in enumerate(BANDS):
        physical = band if band == "B8A" else f"B{int(band[1:])}"
        element = _add(
            root,
            f"{radiometric}/Spectral_Information_List/Spectral_Information",
            bandId=i,
            physicalBand=physical,
        )
        _put(element, "RESOLUTION", RESOLUTION[band])
        for tag, nm in zip(("MIN", "MAX", "CENTRAL"), RADIOMETRY[band][1], strict=True):
            _put(element, f"Wavelength/{tag}", f"{nm:g}", unit="nm")
        if overpass.add_offset is not None:
            offset = f"{radiometric}/Radiometric_Offset_List/RADIO_ADD_OFFSET"
            _put(root, offset, f"{overpass.add_offset:g}", band_id=i)
        quality = _add(
            root,
            "n1:Quality_Indicators_Info/Radiometric_Info/Radiometric_Quality_List"
            "/Radiometric_Quality",
            bandId=i,
        )
        for tag, value in zip(("ALPHA", "BETA"), RADIOMETRY[band][2], strict=True):
            _put(quality, f"Noise_Model/{tag}", value)


def _put_refining(root: ET.Element, refined: bool) -> None:
    geometric = "n1:Image_Data_Info/Geometric_Info"
    _add(root, f"{geometric}/Image_Refining", flag="REFINED" if refined else "NOT_REFINED")
    if not refined:
        return
    state = f"{geometric}/Refined_Corrections_List/Refined_Corrections/MSI_State"
    for tag, coefficients in REFINING.items():
        _put(root, f"{state}/{tag}/DEGREE", len(coefficients.split()) - 1)
        _put(root, f"{state}/{tag}/COEFFICIENTS", coefficients)


def _put_ancillary(root: ET.Element, overpass: Overpass) -> None:
    satellite = "n1:Satellite_Ancillary_Data_Info"
    for t, position, velocity in zip(*overpass.orbit, strict=True):
        point = _add(root, f"{satellite}/Ephemeris/GPS_Points_List/GPS_Point")
        _put(point, "POSITION_VALUES", _rounded(position * 1e3), unit="mm")
        _put(point, "VELOCITY_VALUES", _rounded(velocity * 1e3), unit="mm/s")
        _put(point, "GPS_TIME", _gps_label(t, 0))
        _put(point, "NSM", "KALMAN_FILTER")
        _put(point, "QUALITY_INDEX", 7)
    for t, quaternion in zip(*overpass.attitude, strict=True):
        values = _add(root, f"{satellite}/Attitudes/Corrected_Attitudes/Values")
        _put(values, "QUATERNION_VALUES", " ".join(f"{v:.15g}" for v in quaternion))
        _put(values, "QUATERNION_VALIDITY", "true")
        _put(values, "GPS_TIME", _gps_label(t, 1))
    auxiliary = "n1:Auxiliary_Data_Info"
    bulletin = f"{auxiliary}/IERS_Bulletin"
    earth = overpass.earth
    _put(root, f"{bulletin}/UT1_UTC", earth.ut1_minus_utc, unit="s")
    _put(root, f"{bulletin}/GPS_TIME_UTC", f"{earth.gps_minus_utc:g}", unit="s")
    _put(root, f"{bulletin}/GPS_TIME_TAI", -19, unit="s")
    _put(root, f"{bulletin}/POLE_U_ANGLE", earth.pole_x, unit="arcsec")
    _put(root, f"{bulletin}/POLE_V_ANGLE", earth.pole_y, unit="arcsec")
    named = f"{auxiliary}/GIPP_List/GIPP_FILENAME"
    _put(root, named, spacecraft_models(overpass.platform)[-1].file, type="GIP_SPAMOD")
    for band in BANDS:
        file = viewing_directions(overpass.platform, band)[-1].file
        _put(root, named, file, type="GIP_VIEDIR")
    _put(root, f"{auxiliary}/REFERENCE_BAND", BANDS.index("B04"))


def _put_angles(root: ET.Element, path: str, towards: FloatArray, lon: float, lat: float) -> None:
    """Zenith and azimuth [degrees, clockwise from north] of a direction seen from the ground."""
    a, b = np.radians([lon, lat])
    east = np.array([-np.sin(a), np.cos(a), 0.0])
    up = np.array([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)])
    e, n, u = (float(towards @ axis) for axis in (east, np.cross(up, east), up))
    _put(
        root, f"{path}/ZENITH_ANGLE", f"{np.degrees(np.arctan2(np.hypot(e, n), u)):.9f}", unit="deg"
    )
    _put(root, f"{path}/AZIMUTH_ANGLE", f"{np.degrees(np.arctan2(e, n)) % 360:.9f}", unit="deg")


def _add(parent: ET.Element, path: str, **attributes: object) -> ET.Element:
    """A new element at the end of ``path``; the folders before it are found, or made."""
    *folders, tag = path.split("/")
    for folder in folders:
        found = parent.find(folder) if ":" not in folder else _child(parent, folder)
        parent = ET.SubElement(parent, folder) if found is None else found
    return ET.SubElement(parent, tag, {k: str(v) for k, v in attributes.items()})


def _child(parent: ET.Element, tag: str) -> ET.Element | None:
    """A child by its literal tag; ``find`` would look a prefix up."""
    return next((child for child in parent if child.tag == tag), None)


def _put(parent: ET.Element, path: str, value: object, **attributes: object) -> None:
    _add(parent, path, **attributes).text = str(value)


def _write(path: Path, root: ET.Element) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.indent(root)
    ET.ElementTree(root).write(path, encoding="UTF-8", xml_declaration=True)


def _prefix(overpass: Overpass) -> str:
    return f"{overpass.platform}_OPER_MSI_L1B"


def _creation(overpass: Overpass) -> str:
    return f"{overpass.start + timedelta(hours=3):%Y%m%dT%H%M%S}"


def _utc(t: datetime, digits: int) -> str:
    return f"{t.replace(tzinfo=None).isoformat(timespec='microseconds')[: 20 + digits]}Z"


def _gps(overpass: Overpass, utc: datetime) -> str:
    gps = utc + timedelta(seconds=overpass.earth.gps_minus_utc)
    return gps.replace(tzinfo=None).isoformat(timespec="microseconds")


def _gps_label(gps_seconds: float, digits: int) -> str:
    """GPS seconds since 1980 as a GPS-scale date with so many decimals."""
    tenths = round(gps_seconds * 10**digits)
    seconds, rest = divmod(tenths, 10**digits)
    text = (datetime(1980, 1, 6, tzinfo=UTC) + timedelta(seconds=seconds)).strftime(
        "%Y-%m-%dT%H:%M:%S"
    )
    return f"{text}.{rest:0{digits}d}" if digits else text


def _rounded(values: FloatArray) -> str:
    return " ".join(str(round(float(v))) for v in values)

"""Small Sentinel-2 L1B products: real names and xml structure, granules of 48 x 60 pixels."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

BANDS = (
    *("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08"),
    *("B8A", "B09", "B10", "B11", "B12"),
)
BAND_IDS = {b: i for i, b in enumerate(BANDS)}
RATIO = {b: 6 if b in ("B01", "B09", "B10") else 2 for b in BAND_IDS} | dict.fromkeys(
    ("B02", "B03", "B04", "B08"), 1
)
ROWS, COLUMNS = 48, 60
DATASTRIP = "S2A_OPER_MSI_L1B_DS_TEST_20240101T000000_S20200816T120220_N05.11"
ROOT_XML = "S2A_OPER_MTD_SAFL1B_TEST_20240101T000000_R023_V20200816T120221_20200816T120245.xml"


def granule_name(detector: int, position: int) -> str:
    second = 22 + 4 * (detector % 2) + position // ROWS
    return (
        f"S2A_OPER_MSI_L1B_GR_TEST_20240101T000000_S20200816T1202{second:02d}"
        f"_D{detector:02d}_N05.11"
    )


def pixel_values(detector: int, band: str, position: int) -> np.ndarray:
    """Values that tell detector, band, line and column apart."""
    ratio = RATIO[band]
    rows, columns = ROWS // ratio, COLUMNS // ratio
    line = (position - 1) // ratio + np.arange(rows)[:, None]
    column = np.arange(columns)[None, :]
    value = 1000 * detector + 100 * BAND_IDS[band] + 5 * line + column + 1
    return value.astype(np.uint16)


def write_image(
    path: Path, pixels: np.ndarray, driver: str = "JP2OpenJPEG", **options: Any
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if driver == "JP2OpenJPEG":
        options = {"QUALITY": "100", "REVERSIBLE": "YES"} | options
    bands = pixels if pixels.ndim == 3 else pixels[None]
    height, width = bands.shape[1:]
    with warnings.catch_warnings(action="ignore"), rasterio.open(
        path, "w", driver=driver, width=width, height=height, count=len(bands),
        dtype=bands.dtype, **options,
    ) as out:  # fmt: skip
        out.write(bands)


def granule_xml(detector: int, position: int, datastrip: str = DATASTRIP) -> str:
    """Footprint: 0.0001 degree a pixel, line 0 at 45 N, detectors side by side from 10 E."""
    west = 10 + 0.005 * (detector - 1)
    first, last = position - 1 + 0.5, position - 1 + ROWS - 0.5
    corners = [
        (first, 0.5),
        (last, 0.5),
        (last, COLUMNS - 0.5),
        (first, COLUMNS - 0.5),
        (first, 0.5),
    ]
    points = " ".join(f"{45 - 1e-4 * y:.10f} {west + 1e-4 * x:.10f} 0" for y, x in corners)
    sizes = "".join(
        f'<Size resolution="{10 * r}"><NROWS>{ROWS // r}</NROWS>'
        f"<NCOLS>{COLUMNS // r}</NCOLS></Size>"
        for r in (1, 2, 6)
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-1B_Granule_ID xmlns:n1="https://psd-15.sentinel2.eo.esa.int/PSD/x.xsd">
<n1:General_Info><GRANULE_ID>{granule_name(detector, position)}</GRANULE_ID>
<DETECTOR_ID>{detector:02d}</DETECTOR_ID><DATASTRIP_ID>{datastrip}</DATASTRIP_ID>
<SENSING_TIME>2020-08-16T12:02:26.430064Z</SENSING_TIME></n1:General_Info>
<n1:Geometric_Info><Granule_Footprint><Granule_Footprint><Footprint>
<EXT_POS_LIST>{points}</EXT_POS_LIST></Footprint></Granule_Footprint></Granule_Footprint>
<Granule_Position><POSITION>{position}</POSITION><Geometric_Header>
<Incidence_Angles><ZENITH_ANGLE>3</ZENITH_ANGLE>
<AZIMUTH_ANGLE>{358 + 4 * (position > 1)}</AZIMUTH_ANGLE></Incidence_Angles>
<Solar_Angles><ZENITH_ANGLE>26</ZENITH_ANGLE><AZIMUTH_ANGLE>136</AZIMUTH_ANGLE>
</Solar_Angles></Geometric_Header></Granule_Position>
<Granule_Dimensions>{sizes}</Granule_Dimensions></n1:Geometric_Info>
</n1:Level-1B_Granule_ID>"""


def datastrip_xml() -> str:
    """Radiometry and time stamps, no attitude and no orbit."""
    offsets = "".join(
        f'<RADIO_ADD_OFFSET band_id="{i}">{-100 - i}</RADIO_ADD_OFFSET>' for i in range(13)
    )
    bands = "".join(
        f'<Spectral_Band_Information bandId="{i}"><PHYSICAL_GAINS>{4 + i / 10}</PHYSICAL_GAINS>'
        "</Spectral_Band_Information>"
        for i in range(13)
    )
    waves = "".join(
        f'<Spectral_Information bandId="{i}"><Wavelength><CENTRAL>{440 + i}</CENTRAL></Wavelength>'
        "</Spectral_Information>"
        for i in range(13)
    )
    noise = "".join(
        f'<Radiometric_Quality bandId="{i}"><Noise_Model><ALPHA>0.5</ALPHA><BETA>0.0{i}</BETA>'
        "</Noise_Model></Radiometric_Quality>"
        for i in range(13)
    )
    stamps = "".join(
        f'<Band_Time_Stamp bandId="{i}">'
        + "".join(
            f'<Detector detectorId="{d:02d}"><REFERENCE_LINE>1</REFERENCE_LINE>'
            f"<GPS_TIME>2020-08-16T12:02:{40 + i}.500000</GPS_TIME></Detector>"
            for d in range(1, 13)
        )
        + "</Band_Time_Stamp>"
        for i in range(13)
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-1B_DataStrip_ID xmlns:n1="https://psd-15.sentinel2.eo.esa.int/PSD/y.xsd">
<n1:General_Info><Datatake_Info><SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME></Datatake_Info>
<Datastrip_Time_Info><DATASTRIP_SENSING_START>2020-08-16T12:02:20.458Z</DATASTRIP_SENSING_START>
<DATASTRIP_SENSING_STOP>2020-08-16T12:02:45.712Z</DATASTRIP_SENSING_STOP></Datastrip_Time_Info>
<Processing_Info><PROCESSING_BASELINE>05.11</PROCESSING_BASELINE></Processing_Info></n1:General_Info>
<n1:Image_Data_Info><Sensor_Configuration><Acquisition_Configuration><Spectral_Band_Info>{bands}
</Spectral_Band_Info></Acquisition_Configuration><Time_Stamp>
<LINE_PERIOD unit="ms">1.5</LINE_PERIOD>{stamps}</Time_Stamp></Sensor_Configuration>
<Radiometric_Info><Spectral_Information_List>{waves}</Spectral_Information_List>
<Radiometric_Offset_List>{offsets}</Radiometric_Offset_List></Radiometric_Info></n1:Image_Data_Info>
<n1:Quality_Indicators_Info><Radiometric_Info><Radiometric_Quality_List>{noise}
</Radiometric_Quality_List></Radiometric_Info></n1:Quality_Indicators_Info>
<n1:Auxiliary_Data_Info><IERS_Bulletin><GPS_TIME_UTC>18</GPS_TIME_UTC><UT1_UTC>-0.2</UT1_UTC>
<POLE_U_ANGLE>0</POLE_U_ANGLE><POLE_V_ANGLE>0</POLE_V_ANGLE></IERS_Bulletin></n1:Auxiliary_Data_Info>
</n1:Level-1B_DataStrip_ID>"""


def root_xml() -> str:
    return """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-1B_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/z.xsd"><n1:General_Info>
<Product_Image_Characteristics>
<Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
<SPECIAL_VALUE_INDEX>1</SPECIAL_VALUE_INDEX></Special_Values>
<Special_Values><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT>
<SPECIAL_VALUE_INDEX>4095</SPECIAL_VALUE_INDEX></Special_Values>
</Product_Image_Characteristics></n1:General_Info></n1:Level-1B_User_Product>"""


def write_safe(
    folder: Path,
    granules: Mapping[int, Sequence[int]],
    bands: Sequence[str] = ("B02", "B03", "B04", "B08"),
    *,
    name: str = "S2A_MSIL1B_20200816T120221_N0511_R023_20240101T000000.SAFE",
    datastrip: bool = True,
    root: bool = False,
) -> Path:
    """A product of granules {detector: positions}; returns its folder."""
    safe = folder / name
    for detector, positions in granules.items():
        for position in positions:
            full = granule_name(detector, position)
            base = full.removesuffix("_N05.11")
            granule = safe / "GRANULE" / full
            granule.mkdir(parents=True)
            (granule / f"{base.replace('_MSI_', '_MTD_')}.xml").write_text(
                granule_xml(detector, position)
            )
            for band in bands:
                write_image(
                    granule / "IMG_DATA" / f"{base}_{band}.jp2",
                    pixel_values(detector, band, position),
                )
    if datastrip:
        strip = safe / "DATASTRIP" / DATASTRIP
        strip.mkdir(parents=True)
        xml = DATASTRIP.removesuffix("_N05.11").replace("_MSI_", "_MTD_") + ".xml"
        (strip / xml).write_text(datastrip_xml())
    if root:
        (safe / ROOT_XML).write_text(root_xml())
    return safe


@pytest.fixture
def make_safe(tmp_path: Path) -> Callable[..., Path]:
    """Write a small product: make_safe({5: (1, 49)}, bands=...)."""

    def make(granules: Mapping[int, Sequence[int]] | None = None, **options: Any) -> Path:
        return write_safe(tmp_path, granules or {5: (1, 49)}, **options)

    return make

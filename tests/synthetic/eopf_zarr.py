"""An EOPF Zarr (S02MSIL1B) twin of a simulated SAFE product, for tests.

Source of the layout: eopf 2.8.1, eopf/product/models/S02MSIL1B.json.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
import zarr
from rasterio.errors import NotGeoreferencedWarning

from l1bsr_geo.geometry.model import GeometryModel
from l1bsr_geo.simulation.overpass import BANDS, RESOLUTION
from l1bsr_geo.simulation.sentinel2_product import read_granule_places


def write_eopf_zarr(
    path: Path, safe: Path, models: Mapping[tuple[int, str], GeometryModel]
) -> Path:
    """Put the strips of a SAFE product together in one store.

    Args:
        path: of the store, ``*.zarr``.
        safe: product that ``write_l1b_product`` wrote.
        models: (detector, band) of what to write; B04 also gives the footprint, so must be there.
    """
    root = zarr.open_group(path, mode="w")
    root.attrs.update(_attributes(safe))
    for detector in sorted({d for d, _ in models}):
        places = read_granule_places(safe, detector)
        lines = max(p.first + p.shapes[10][0] for p in places)
        for band in (b for d, b in models if d == detector):
            ratio = RESOLUTION[band] // 10
            columns = places[0].shapes[RESOLUTION[band]][1]
            strip = np.zeros((lines // ratio, columns), np.uint16)
            for place in places:
                strip[place.window(RESOLUTION[band]).slices] = _read_image(safe, place.name, band)
            root.create_array(
                f"measurements/d{detector:02d}/{band.lower()}/img",
                data=strip,
                chunks=(256, columns),
            )
        # both sides of the strip, along track, at pixel centres
        y = np.linspace(0.5, lines - 0.5, 9)
        x = np.array([[0.5, places[0].shapes[10][1] - 0.5]])
        lon, lat = models[detector, "B04"].localize(x, y[:, None])
        for name, values in (("longitude", lon), ("latitude", lat)):
            root.create_array(f"conditions/d{detector:02d}/footprint/{name}", data=values)
    return path


def _attributes(safe: Path) -> dict[str, object]:
    (xml,) = safe.glob("DATASTRIP/*/*.xml")
    strip = ET.parse(xml).getroot()
    text = {tag: strip.findtext(f".//{tag}") for tag in ("SPACECRAFT_NAME",)}
    start = strip.findtext(".//DATASTRIP_SENSING_START")
    facts = {
        BANDS[int(e.get("bandId"))].lower(): {"physical_gains": float(e.findtext("PHYSICAL_GAINS"))}
        for e in strip.iter("Spectral_Band_Information")
    }
    for e in strip.iter("RADIO_ADD_OFFSET"):
        facts[BANDS[int(e.get("band_id"))].lower()]["radio_add_offset"] = float(e.text)
    return {
        "stac_discovery": {
            "properties": {
                "platform": text["SPACECRAFT_NAME"],
                "start_datetime": start,
                "product:type": "S02MSIL1B",
            }
        },
        "other_metadata": {"bands": facts},
    }


def _read_image(safe: Path, granule: str, band: str) -> np.ndarray:
    (path,) = safe.glob(f"GRANULE/{granule}/IMG_DATA/*_{band}.jp2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as image:
            return image.read(1)

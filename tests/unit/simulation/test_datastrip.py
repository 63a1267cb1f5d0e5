from xml.etree import ElementTree as ET

import numpy as np
import pytest

from l1bsr_geo.readers.sentinel2_instrument import (
    build_instrument_model,
    parse_datastrip_geometry,
)
from l1bsr_geo.readers.sentinel2_product import open_product
from l1bsr_geo.simulation.datastrip import write_datastrip, write_granule, write_metadata
from l1bsr_geo.simulation.overpass import BANDS, RESOLUTION, Overpass


def read_model(path, detector, band):
    geometry = parse_datastrip_geometry(path.read_bytes(), path.name)
    return build_instrument_model(geometry, detector, band)


@pytest.mark.parametrize("platform", ["S2A", "S2B", "S2C"])
def test_a_reader_finds_the_model_that_was_written(tmp_path, platform):
    overpass = Overpass(5.0, 45.0, platform=platform, detectors=(1, 6), granule_lines=648)
    path = tmp_path / "datastrip.xml"
    write_datastrip(path, overpass)
    for band in BANDS:
        lines = overpass.lines * 10 // RESOLUTION[band]
        x = np.linspace(0, overpass.shape(band)[1], 5)[None, :]
        y = np.linspace(0, lines, 9)[:, None]
        truth, read = overpass.model(6, band), read_model(path, 6, band)
        px, py = read.project(*truth.localize(x, y, 300.0), 300.0)
        assert np.abs(px - x).max() < 1e-3  # the xml rounds orbit to mm and time to 1e-6 s
        assert np.abs(py - y).max() < 2e-3


def test_refining_moves_the_ground_by_metres(tmp_path):
    overpass = Overpass(5.0, 45.0, granule_lines=648)
    path = tmp_path / "datastrip.xml"
    write_datastrip(path, overpass, refined=True)
    x, y = read_model(path, 5, "B03").project(*overpass.model(5, "B03").localize(1276, 600))
    assert 1 < 10 * np.hypot(x - 1276, y - 600) < 10


def test_the_product_parts_are_found(tmp_path):
    overpass = Overpass(5.0, 45.0, detectors=(5, 6), granules=3, granule_lines=648)
    safe = tmp_path / "X.SAFE"
    path = write_metadata(safe, overpass)
    product = open_product(safe)
    assert safe / product.datastrip_path == path
    assert product.platform == "S2A"
    assert [(g.detector, g.position) for g in product.granules] == [
        (d, p) for d in (5, 6) for p in (1, 649, 1297)
    ]


def test_granule_footprint_is_the_corner_centres_of_b04(tmp_path):
    overpass = Overpass(5.0, 45.0, granule_lines=648)
    path = tmp_path / "granule.xml"
    write_granule(path, overpass, 5, 1)
    numbers = ET.parse(path).getroot().findtext(".//EXT_POS_LIST").split()
    lat, lon, h = np.array(numbers, float).reshape(5, 3).T
    x, y = overpass.model(5, "B04").project(lon, lat, h)
    assert x == pytest.approx([0.5, 0.5, 2551.5, 2551.5, 0.5], abs=1e-3)
    assert y == pytest.approx([648.5, 1295.5, 1295.5, 648.5, 648.5], abs=1e-3)


def test_granule_angles_are_those_of_the_satellite_and_the_sun(tmp_path):
    overpass = Overpass(5.0, 45.0, detectors=(1, 12), granule_lines=648)
    angles = {}
    for detector in (1, 12):
        path = tmp_path / f"{detector}.xml"
        write_granule(path, overpass, detector, 0)
        root = ET.parse(path).getroot()
        angles[detector] = [
            float(root.findtext(f".//{kind}/{which}_ANGLE"))
            for kind in ("Incidence_Angles", "Solar_Angles")
            for which in ("ZENITH", "AZIMUTH")
        ]
    # the ground of D01 lies west of the track and sees the satellite in the east; D12 the reverse
    assert angles[1][0] == pytest.approx(11.5, abs=1.0)
    assert angles[1][1] == pytest.approx(105, abs=10)
    assert angles[12][1] == pytest.approx(285, abs=10)
    assert angles[1][2] == pytest.approx(27, abs=2)  # July, 10:46 UTC
    assert angles[1][3] == pytest.approx(147, abs=5)


def test_products_before_the_offset_have_none(tmp_path):
    for offset, count in ((-100.0, 13), (None, 0)):
        path = tmp_path / "d.xml"
        write_datastrip(path, Overpass(5.0, 45.0, add_offset=offset))
        assert len(list(ET.parse(path).getroot().iter("RADIO_ADD_OFFSET"))) == count

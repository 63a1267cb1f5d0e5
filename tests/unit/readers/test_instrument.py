"""The instrument model read from a real datastrip, against the official Sen2VM grids."""

import re
import shutil
import warnings

import numpy as np
import pytest
import rasterio

from l1bsr_geo.errors import BadInputError, GeometryWarning, MissingInputError
from l1bsr_geo.geometry.location_grid import LocationGrid
from l1bsr_geo.geometry.model import GeometryModel
from l1bsr_geo.geometry.sentinel2 import geodetic_to_ecef
from l1bsr_geo.readers.sentinel2_instrument import read_instrument_model
from l1bsr_geo.readers.sentinel2_metadata import RESOLUTION
from l1bsr_geo.readers.sentinel2_product import open_product

STEP = {10: 600, 20: 300, 60: 100}  # of the reference grids, by resolution [px]


@pytest.fixture(scope="module")
def tds1(shared):
    return shared / "data/sen2vm_tds1"


@pytest.fixture(scope="module")
def product(tds1):
    return open_product(tds1 / "L1B_SAFE")


def official(tds1, product):
    """Every reference grid: detector, band, pixel x, y, and its lon, lat, alt."""
    start = {}
    for granule in product.granules:
        sensing = re.search(r"_S(\d{8}T\d{6})_", granule.folder)[1]
        start[sensing, granule.detector] = granule.position
    for path in sorted((tds1 / "ref_direct_grids").glob("*.tif")):
        sensing, detector, band = re.search(r"_S(\d{8}T\d{6})_D(\d\d)_(B..)", path.name).groups()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                lon, lat, alt = dataset.read()
        step = STEP[RESOLUTION[band]]
        first = (start[sensing, int(detector)] - 1) * 10 // RESOLUTION[band]
        rows, cols = lon.shape
        y = ((first + step / 2) // step + np.arange(rows))[:, None] * step + 0.5
        x = np.arange(cols)[None] * step + 0.5
        yield int(detector), band, np.broadcast_arrays(x, y), (lon, lat, alt)


@pytest.mark.parametrize("source", ["shipped", "gipp"])
def test_official_grids(tds1, product, source):
    gipp = tds1 / "GIPP" if source == "gipp" else None
    errors, count = [], 0
    for detector, band, (x, y), (lon, lat, alt) in official(tds1, product):
        model = read_instrument_model(product, detector, band, gipp=gipp)
        assert isinstance(model, GeometryModel)
        got = geodetic_to_ecef(*model.localize(x, y, alt), alt)
        errors.append(np.linalg.norm(got - geodetic_to_ecef(lon, lat, alt), axis=0).ravel())
        px, py = model.project(lon, lat, alt)
        assert np.hypot(px - x, py - y).max() < 0.05  # 0.5 m
        count += 1
    assert count == 180
    error = np.concatenate(errors)
    assert error.mean() <= 0.15
    assert error.max() <= 0.5


@pytest.mark.parametrize(("detector", "band"), [(1, "B02"), (6, "B08"), (12, "B12"), (4, "B01")])
def test_round_trip_and_sampling(product, detector, band):
    model = read_instrument_model(product, detector, band)
    height = 13824 * 10 // RESOLUTION[band]
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, model.columns, 3000), rng.uniform(0, height, 3000)
    h = rng.uniform(-100, 4000, 3000)
    px, py = model.project(*model.localize(x, y, h), h)
    assert np.hypot(px - x, py - y).max() < 0.01
    grid = LocationGrid.sample(model, (height, model.columns))
    assert max(grid.step) <= 16
    difference = geodetic_to_ecef(*grid.localize(x, y, h), h) - geodetic_to_ecef(
        *model.localize(x, y, h), h
    )
    assert np.linalg.norm(difference, axis=0).max() <= 0.15


def test_granule_footprint_is_the_unrefined_b04(product):
    """Footprint corners are corner pixel centres of B04 at h = 0, within some 10 m."""
    granule = product.granules_of(5)[2]
    text = product.read_xml(granule.metadata).findtext(".//EXT_POS_LIST")
    corners = np.array(text.split(), float).reshape(-1, 3)[:4]  # UL LL LR UR
    model = read_instrument_model(product, 5, "B04")
    y0 = granule.position - 1
    x = np.array([0.5, 0.5, 2551.5, 2551.5])
    y = y0 + np.array([0.5, 2303.5, 2303.5, 0.5])
    got = geodetic_to_ecef(*model.localize(x, y, 0.0), 0.0)
    want = geodetic_to_ecef(corners[:, 1], corners[:, 0], np.zeros(4))
    assert np.linalg.norm(got - want, axis=0).max() < 12


def edited(product, tmp_path, *edits):
    """A copy of the product's metadata with its datastrip xml changed."""
    folder = tmp_path / "copy.SAFE"
    shutil.copytree(product.path, folder)
    xml = folder / product.datastrip_path
    for path in (*xml.parents[: len(xml.parts) - len(folder.parts)], xml):
        path.chmod(0o755)
    text = xml.read_text()
    for pattern, new in edits:
        text, n = re.subn(pattern, new, text, flags=re.DOTALL)
        assert n
    xml.write_text(text)
    return folder


def test_unknown_version_warns_in_metres(product, tmp_path):
    copy = edited(product, tmp_path, (r"GIP_VIEDIR_SPS__2015", "GIP_VIEDIR_SPS__1999"))
    with pytest.warns(GeometryWarning, match=r"viewing directions .* \d\.\d m at most"):
        model = read_instrument_model(copy, 5, "B03")
    known = read_instrument_model(product, 5, "B03")
    moved = geodetic_to_ecef(*model.localize(1000.0, 1000.0), 0.0) - geodetic_to_ecef(
        *known.localize(1000.0, 1000.0), 0.0
    )
    assert 0.05 < np.linalg.norm(moved) < 8


def test_unknown_spacecraft_model_warns(product, tmp_path):
    copy = edited(product, tmp_path, (r"GIP_SPAMOD_MPC__2021", "GIP_SPAMOD_MPC__2019"))
    with pytest.warns(GeometryWarning, match=r"spacecraft model .* m at most"):
        read_instrument_model(copy, 5, "B03")


def test_gipp_folder_lacks_a_band(tds1, product):
    """B12 is not in the folder: the shipped figures serve."""
    one = read_instrument_model(product, 3, "B12", gipp=tds1 / "GIPP")
    two = read_instrument_model(product, 3, "B12")
    np.testing.assert_allclose(one.localize(5.0, 5.0), two.localize(5.0, 5.0), atol=1e-8)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ((r"<Corrected_Attitudes .*</Corrected_Attitudes>", ""), "0 attitude samples"),
        ((r"<GPS_Points_List>.*</GPS_Points_List>", ""), "0 orbit samples"),
        ((r"<IERS_Bulletin>.*</IERS_Bulletin>", ""), "IERS_Bulletin"),
        ((r"Level-1B_DataStrip_ID", "Level-1C_DataStrip_ID"), "Level-1C_DataStrip_ID"),
        ((r"<LINE_PERIOD[^<]*<", "<LINE_PERIOD>soon<"), "soon"),
    ],
)
def test_incomplete_datastrip_says_what_is_missing(product, tmp_path, edit, says):
    copy = edited(product, tmp_path, edit)
    with pytest.raises(BadInputError, match=says):
        read_instrument_model(copy, 5, "B03")


def test_absent_detector_and_folder(product, tmp_path):
    with pytest.raises(MissingInputError, match="detector 13"):
        read_instrument_model(product, 13, "B03")
    with pytest.raises(MissingInputError, match="no such folder"):
        read_instrument_model(product, 5, "B03", gipp=tmp_path / "nowhere")

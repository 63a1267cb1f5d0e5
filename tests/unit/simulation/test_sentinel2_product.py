import re
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from scipy.ndimage import map_coordinates

from l1bsr_geo.errors import MissingInputError
from l1bsr_geo.geometry.affine import lonlat_to_map
from l1bsr_geo.geometry.elevation import ConstantElevation, localize_on_terrain
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.readers.sentinel2_product import open_product
from l1bsr_geo.simulation.datastrip import write_metadata
from l1bsr_geo.simulation.demo import make_demo_product
from l1bsr_geo.simulation.overpass import Overpass
from l1bsr_geo.simulation.rendering import lonlat_bounds, map_bounds, render
from l1bsr_geo.simulation.scenes import TEN_METRE_BANDS, procedural_scene, relief
from l1bsr_geo.simulation.sentinel2_product import (
    Radiometry,
    read_granule_places,
    write_l1b_product,
)
from tests.synthetic.shifts import measure_shifts

CRS = "EPSG:32631"
OVERPASS = Overpass(5.0, 45.0, detectors=(5, 6), granule_lines=648)
WINDOW = Window(1200, 560, 150, 170)  # over the boundary of the two granules


@dataclass
class MapCoordinates:
    """A scene whose value is the map coordinate itself: bands E and N."""

    crs: str = CRS
    origin: tuple[float, float] = (0.0, 0.0)

    def sample(self, band, e, n):
        return np.asarray({"E": e, "N": n}[band])


@dataclass
class Plain:
    """The same DN everywhere."""

    value: float
    crs: str = CRS

    def sample(self, band, e, n):
        return np.full(np.shape(e), self.value, np.float32)


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    folder = tmp_path_factory.mktemp("metadata")
    write_metadata(folder, OVERPASS)
    return folder


@pytest.fixture(scope="module")
def models():
    return {(d, b): OVERPASS.model(d, b) for d in (5, 6) for b in TEN_METRE_BANDS}


def hills(model, window):
    west, south, east, north = lonlat_bounds([model], window, (0.0, 1000.0))
    return relief((west - 0.01, south - 0.01, east + 0.01, north + 0.01), low=0, high=1000)


def pixels_of(product, pattern):
    (path,) = product.glob(f"GRANULE/*/IMG_DATA/{pattern}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as image:
            return image.read(1)


@pytest.mark.parametrize("ground", ["flat", "relief"])
@pytest.mark.parametrize("key", [(5, "B02"), (5, "B08"), (6, "B04")])
def test_a_pixel_samples_the_place_that_the_exact_model_gives(models, key, ground):
    model = models[key]
    window = Window(40, 300, 400, 500)
    elevation = ConstantElevation(250.0) if ground == "flat" else hills(model, window)
    x = window.col_off + np.arange(0, 400, 7) + 0.5
    y = window.row_off + np.arange(0, 500, 7) + 0.5
    lon, lat, _ = localize_on_terrain(model, x[None, :], y[:, None], elevation)
    truth = lonlat_to_map(CRS).transform(lon, lat)
    for band, expected in zip("EN", truth, strict=True):
        places = render(MapCoordinates(), model, band, window, elevation)[::7, ::7]
        assert places.shape == expected.shape
        assert np.abs(places - expected).max() < 0.15  # metres: 0.015 px
        assert np.abs(np.mean(places - expected)) < 0.02


def test_pixels_on_disk_are_the_scene_plus_the_offset(tmp_path, metadata, models):
    one = {key: models[key] for key in [(5, "B03"), (5, "B08")]}
    scene = procedural_scene(map_bounds(one.values(), WINDOW, CRS), CRS, pixel=5.0).seen_by()
    product = write_l1b_product(tmp_path, scene, one, metadata, window=WINDOW, noise=False)
    for granule, rows in ((0, slice(560, 648)), (1, slice(648, 730))):
        start = OVERPASS.line_time(5, "B04", granule * 648)
        disk = pixels_of(product, f"*_S{start:%Y%m%dT%H%M%S}_D05_B08.jp2")
        assert disk.dtype == np.uint16
        assert disk.shape == (648, 2552)
        y, x = np.mgrid[rows, 1200:1350] + 0.5
        e, n = lonlat_to_map(CRS).transform(*models[5, "B08"].localize(x, y))
        inside = np.zeros_like(disk, bool)
        inside[rows.start - 648 * granule : rows.stop - 648 * granule, 1200:1350] = True
        expected = scene.sample("B08", e, n).ravel() + 100
        assert np.abs(disk[inside] - expected).max() <= 1.5  # rounding, and places within 0.02 px
        assert np.all(disk[~inside] == 0)
    assert len(list(product.rglob("*.jp2"))) == 4


OLD_NAME = r"S2A_OPER_PRD_MSIL1B_PDMC_\d{8}T\d{6}_R\d{3}_V\d{8}T\d{6}_\d{8}T\d{6}\.SAFE"
NEW_NAME = r"S2A_MSIL1B_\d{8}T\d{6}_N0511_R\d{3}_\d{8}T\d{6}"


@pytest.mark.parametrize(
    ("layout", "name", "zipped"),
    [
        ("compact", NEW_NAME + r"\.SAFE", False),
        ("old", OLD_NAME, False),
        ("compact", NEW_NAME + r"\.zip", True),
    ],
)
def test_a_reader_finds_every_layout(tmp_path, metadata, models, layout, name, zipped):
    two = {key: models[key] for key in [(5, "B03"), (6, "B03")]}
    path = write_l1b_product(
        tmp_path, Plain(300.0), two, metadata, window=Window(0, 10, 50, 50), layout=layout,
        zipped=zipped,
    )  # fmt: skip
    assert re.fullmatch(name, path.name)
    product = open_product(path)
    assert product.metadata_path is not None
    assert product.datastrip_path is not None
    assert [(g.detector, g.position, sorted(g.images)) for g in product.granules] == [
        (5, 1, ["B03"]),
        (6, 1, ["B03"]),
    ]


def test_sixty_and_twenty_metre_bands_have_their_own_grids(tmp_path, metadata):
    models = {(5, band): OVERPASS.model(5, band) for band in ("B01", "B11")}
    product = write_l1b_product(
        tmp_path, Plain(300.0), models, metadata, window=Window(1200, 0, 600, 600), granules=(0,)
    )
    coarse, fine = pixels_of(product, "*_B01.jp2"), pixels_of(product, "*_B11.jp2")
    assert coarse.shape == (108, 425)
    assert fine.shape == (324, 1276)
    assert (coarse > 0).sum() == pytest.approx(100 * 100, rel=0.02)
    assert (fine > 0).sum() == 300 * 300


def test_windows_differ_by_detector(tmp_path, metadata, models):
    two = {key: models[key] for key in [(5, "B03"), (6, "B03")]}
    windows = {5: Window(2500, 0, 52, 20), 6: Window(0, 0, 30, 20)}
    product = write_l1b_product(tmp_path, Plain(300.0), two, metadata, window=windows)
    assert (pixels_of(product, "*_D05_B03.jp2") > 0).sum() == 52 * 20
    assert (pixels_of(product, "*_D06_B03.jp2") > 0).sum() == 30 * 20


def test_noise_has_the_variance_of_the_noise_model():
    dn = np.full((400, 400), 480.0, np.float32)
    disk = Radiometry(-100.0, 3.75, (0.567, 0.04696)).to_disk(dn, np.random.default_rng(0))
    expected = 0.567**2 + 0.04696 * 480 / 3.75 + 1 / 12
    assert np.mean(disk) == pytest.approx(580, abs=0.05)
    assert np.var(disk) == pytest.approx(expected, rel=0.02)


def test_special_values():
    dn = np.array([[np.nan, -200.0, 0.0, 3995.0, 3996.0]], np.float32)
    disk = Radiometry(-100.0, 4.0, (0.0, 0.0)).to_disk(dn, None)
    assert disk.tolist() == [[0, 1, 100, 4095, 65535]]


def test_real_metadata_is_used_as_it_is(tmp_path, shared):
    real = shared / "data/sen2vm_tds1/L1B_SAFE"
    places = read_granule_places(real, 5)
    assert [p.first for p in places] == [0, 2304, 4608, 6912, 9216, 11520]
    model = Overpass(-17.0, 33.0).model(5, "B03")
    product = write_l1b_product(
        tmp_path, Plain(300.0), {(5, "B03"): model}, real, window=Window(0, 2300, 20, 8)
    )
    assert [g.position for g in open_product(product).granules] == [1, 2305]
    assert pixels_of(product, "*T120226_D05_B03.jp2").shape == (2304, 2552)


def test_metadata_that_is_not_there(tmp_path, models, metadata):
    with pytest.raises(MissingInputError, match="DATASTRIP"):
        write_l1b_product(tmp_path, Plain(1.0), models, tmp_path)
    with pytest.raises(MissingInputError, match="detector 7"):
        write_l1b_product(tmp_path, Plain(1.0), {(7, "B03"): models[5, "B03"]}, metadata)


@pytest.mark.slow
def test_the_demo_product_is_complete(tmp_path):
    demo = make_demo_product(tmp_path / "demo")
    product = open_product(demo.product)
    assert [sorted(g.images) for g in product.granules] == [list(TEN_METRE_BANDS)] * 2
    assert {g.detector for g in product.granules} == {demo.detector}
    with rasterio.open(demo.dem) as dem:
        west, south, east, north = demo.lonlat
        assert dem.bounds.left < west < east < dem.bounds.right
        assert dem.bounds.bottom < south < north < dem.bounds.top
    for path in demo.product.rglob("*_B08.jp2"):
        pixels = pixels_of(demo.product, path.name)[:, 900:1620]
        assert pixels.min() > 0
        assert 300 < np.median(pixels) < 700


@pytest.mark.parametrize("ground", ["flat", "relief"])
def test_inverse_location_of_the_pixels_gives_the_scene_back(tmp_path, metadata, models, ground):
    model, window = models[6, "B02"], Window(300, 500, 240, 240)
    elevation = ConstantElevation(0.0) if ground == "flat" else hills(model, window)
    scene = procedural_scene(map_bounds([model], window, CRS, (0.0, 1000.0)), CRS).seen_by()
    product = write_l1b_product(
        tmp_path, scene, {(6, "B02"): model}, metadata, window=window, elevation=elevation
    )
    strip = np.concatenate([pixels_of(product, f"*{t}_D06_B02.jp2") for t in ("24", "25")])
    middle = model.localize(420, 620, 500.0 if ground == "relief" else 0.0)
    e, n = lonlat_to_map(CRS).transform(*middle)
    transform = Affine(5, 0, e - 720, 0, -5, n + 720)
    east, north = transform @ (np.arange(288)[None, :] + 0.5, np.arange(288)[:, None] + 0.5)
    lon, lat = lonlat_to_map(CRS).transform(*np.broadcast_arrays(east, north), direction="INVERSE")
    x, y = model.project(lon, lat, elevation.height(lon, lat))
    image = map_coordinates(strip.astype(float), [y - 0.5, x - 0.5], order=5)
    shifts = measure_shifts(image, transform, scene, "B02")
    assert len(shifts) == 9
    assert np.abs(shifts.mean(0)).max() < 0.01
    assert np.hypot(*shifts.T).max() < 0.04

"""Windows, GeoGrid algebra, map model, terrain: contract tests of every geometry model."""

import numpy as np
import pyproj
import pytest
from affine import Affine

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.elevation import (
    ConstantElevation,
    SampledElevation,
    localize_on_terrain,
)
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.location_grid import LocationGrid
from l1bsr_geo.geometry.model import GeometryModel

UTM = AffineModel(Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0), "EPSG:32633")
ROTATED = AffineModel(
    Affine.translation(300_000, 5_000_000) @ Affine.rotation(20) @ Affine.scale(10, -10),
    "EPSG:32631",
)
MODELS: dict[str, GeometryModel] = {
    "map": UTM,
    "rotated map": ROTATED,
    "location grid": LocationGrid.sample(ROTATED, (400, 500)),
    "web mercator": AffineModel(Affine(10.0, 0, 1e6, 0, -10.0, 6e6), "EPSG:3857"),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_answers_the_same_questions(name):
    model = MODELS[name]
    assert isinstance(model, GeometryModel)
    x, y = np.meshgrid([0.5, 250.0, 499.5], [0.5, 399.5])
    lon, lat = model.localize(x, y, 100.0)
    assert lon.shape == lat.shape == x.shape
    assert lon.dtype == np.float64
    px, py = model.project(lon, lat, 100.0)
    np.testing.assert_allclose(px, x, atol=1e-3)
    np.testing.assert_allclose(py, y, atol=1e-3)
    column, _ = model.localize(np.arange(3.0)[None], np.arange(2.0)[:, None])
    assert column.shape == (2, 3)


def test_map_model_is_the_transform():
    lon, lat = UTM.localize(0.0, 0.0)
    east, north = pyproj.Transformer.from_crs(4326, 32633, always_xy=True).transform(lon, lat)
    assert (east, north) == pytest.approx((500_000, 4_000_000), abs=1e-6)


def test_crop_then_zoom_is_zoom_then_crop():
    grid = GeoGrid((400, 500), UTM)
    window = Window(30, 40, 100, 80)
    one = grid.crop(window).zoom(2)
    two = grid.zoom(2).crop(window.scale(2))
    assert one.shape == two.shape == (160, 200)
    np.testing.assert_allclose(one.localize(3.7, 9.1), two.localize(3.7, 9.1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3])
def test_zoom_alignments(scale):
    grid = GeoGrid((20, 30), UTM)
    corner, centre = grid.zoom(scale), grid.zoom(scale, "centre")
    assert corner.shape == centre.shape == (20 * scale, 30 * scale)
    same = {"rtol": 0, "atol": 1e-12}
    # corners: fine pixels tile the coarse ones
    np.testing.assert_allclose(corner.localize(4.0 * scale, 0.0), grid.localize(4.0, 0.0), **same)
    # centres: fine sample scale * i sits on coarse sample i
    fine = (7 * scale + 0.5, 5 * scale + 0.5)
    np.testing.assert_allclose(centre.localize(*fine), grid.localize(7.5, 5.5), **same)


def test_pad_and_project_are_in_own_pixels():
    grid = GeoGrid((20, 30), UTM).pad(5)
    assert grid.shape == (30, 40)
    place = UTM.localize(0.0, 0.0)
    assert grid.project(*place) == pytest.approx((5.0, 5.0), abs=1e-6)


def test_footprint_is_the_outline():
    polygon = GeoGrid((20, 30), UTM).footprint()
    assert polygon.is_valid
    to_utm = pyproj.Transformer.from_crs(4326, 32633, always_xy=True)
    x, y = to_utm.transform(*polygon.exterior.xy)
    assert (min(x), max(y)) == pytest.approx((500_000, 4_000_000), abs=1e-3)
    assert (max(x), min(y)) == pytest.approx((500_300, 3_999_800), abs=1e-3)


def test_no_geometry_says_so():
    with pytest.raises(BadInputError, match="no geometry"):
        GeoGrid((3, 4)).localize(0, 0)


def test_windows():
    window = Window(2, 3, 10, 20)
    assert window.grow(1) == Window(1, 2, 12, 22)
    assert window.intersect(Window(0, 0, 5, 5)) == Window(2, 3, 3, 2)
    assert window.intersect(Window(50, 0, 5, 5)).shape == (2, 0)
    assert window.slices == (slice(3, 23), slice(2, 12))
    assert window.shift(1, -1) == Window(3, 2, 10, 20)


def test_elevation_is_bilinear_and_holds_at_the_edge():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    dem = SampledElevation(values, west=10.0, north=50.0, step_lon=0.1, step_lat=0.1)
    assert dem.height(10.15, 49.95) == pytest.approx((1 + 2 + 5 + 6) / 4)
    assert dem.height(9.0, 51.0) == 0.0
    assert dem.height(11.0, 40.0) == 11.0
    single = SampledElevation(np.full((1, 1), 7.0, np.float32), 10.0, 50.0, 0.1, 0.1)
    np.testing.assert_array_equal(single.height([1.0, 2.0], 3.0), 7.0)


class Slanted:
    """Looks sideways: height moves the ground point east by half of it."""

    def localize(self, x, y, h=0.0):
        return 10 + (np.asarray(x) * 10 - 0.5 * np.asarray(h)) / 1e5, np.asarray(y) * 1e-4 + 0 * h

    def project(self, lon, lat, h=0.0):
        return ((np.asarray(lon) - 10) * 1e5 + 0.5 * np.asarray(h)) / 10, np.asarray(lat) * 1e4


def test_terrain_iteration_meets_the_slope():
    # ground rises 0.2 m per metre east: h = 0.2 e, e = 10 x - h / 2 -> e = 10 x / 1.1
    lon = 10 + np.arange(200) * 1e-4
    dem = SampledElevation(
        np.tile((0.2 * (lon - 10) * 1e5).astype(np.float32), (2, 1)), 10.0, 1.0, 1e-4, 1.0
    )
    x = np.array([10.0, 50.0, 150.0])
    got, _, h = localize_on_terrain(Slanted(), x, 0.0, dem)
    np.testing.assert_allclose((got - 10) * 1e5, 10 * x / 1.1, atol=0.02)
    np.testing.assert_allclose(h, 2 * x / 1.1, atol=0.01)
    _, _, flat = localize_on_terrain(Slanted(), x, 0.0, ConstantElevation(12.0))
    np.testing.assert_array_equal(flat, 12.0)

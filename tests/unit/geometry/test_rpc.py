"""RPC against GDAL's own, and the algebra of crops and zooms."""

import numpy as np
import pytest
import rasterio
from rasterio.rpc import RPC
from rasterio.transform import RPCTransformer

from l1bsr_geo.geometry.ellipsoid import geodetic_to_ecef
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.pinhole import PinholeModel
from l1bsr_geo.geometry.rpc import RPCModel
from l1bsr_geo.readers.rpc import from_rasterio


@pytest.fixture(scope="module")
def real(shared) -> RPC:
    with rasterio.open(shared / "data/pleiades_marseille_triplet/img_01.tif") as dataset:
        return dataset.rpcs


def test_agrees_with_gdal(real):
    model = from_rasterio(real)
    rng = np.random.default_rng(0)
    x, y, h = rng.uniform(0, 1024, 80), rng.uniform(0, 1024, 80), rng.uniform(-100, 800, 80)
    lon, lat = model.localize(x, y, h)
    with RPCTransformer(real) as transformer:
        rows, cols = transformer.rowcol(lon, lat, zs=h, op=lambda v: v)
    np.testing.assert_allclose(cols, x, atol=0.01)
    np.testing.assert_allclose(rows, y, atol=0.01)
    px, py = model.project(lon, lat, h)
    np.testing.assert_allclose((px, py), (x, y), atol=1e-3)


@pytest.mark.parametrize("aligned", ["corner", "centre"])
@pytest.mark.parametrize("factor", [2, 3])
def test_saved_rpc_is_the_grid(real, aligned, factor):
    model = from_rasterio(real)
    window = Window(100, 40, 300, 200)
    grid = GeoGrid((1024, 1024), model).crop(window).zoom(factor, aligned)
    saved = model.cropped(100, 40).zoomed(factor, aligned)
    x, y = np.array([0.5, 333.3, 599.5]), np.array([0.5, 17.2, 399.5])
    np.testing.assert_allclose(saved.localize(x, y, 150.0), grid.localize(x, y, 150.0), atol=1e-11)
    seen = model.seen_through(grid.to_model)
    assert seen is not None
    np.testing.assert_allclose(seen.localize(x, y, 150.0), grid.localize(x, y, 150.0), atol=1e-11)


def test_nowhere_is_not_a_number(real):
    lon, lat = from_rasterio(real).localize(np.array([512.0, 1e12]), np.array([512.0, 1e12]))
    assert np.isfinite(lon[0])
    assert np.isnan(lon[1])
    assert np.isnan(lat[1])


@pytest.mark.parametrize("lon", [12.0, 179.9995])  # the second scene lies across the date line
@pytest.mark.parametrize("lat", [0.0, 45.0, -80.0])
def test_an_rpc_says_what_a_camera_says(lon, lat):
    eye, target = (
        geodetic_to_ecef(*(np.array(v) for v in place))
        for place in ((lon + 1.5, lat + 1, 500e3), (lon, lat, 0.0))
    )
    z = (target - eye) / np.linalg.norm(target - eye)
    x = np.cross(z, [0.2, 0.1, 1.0])
    x /= np.linalg.norm(x)
    rotation = np.stack([x, np.cross(z, x), z])
    intrinsic = np.array([[553846.15, 0, 1280], [0, 553846.15, 540], [0, 0, 1]])
    camera = PinholeModel(intrinsic @ np.hstack([rotation, -(rotation @ eye)[:, None]]))
    np.testing.assert_allclose(camera.centre, eye, atol=1e-3)
    fitted = RPCModel.fit(camera, (1080, 2560))
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 2560, 500), rng.uniform(0, 1080, 500)
    h = rng.uniform(-500, 9000, 500)
    place = camera.localize(x, y, h)
    np.testing.assert_allclose(camera.project(*place, h), (x, y), rtol=0, atol=1e-5)
    np.testing.assert_allclose(fitted.project(*place, h), (x, y), rtol=0, atol=1e-5)
    np.testing.assert_allclose(fitted.localize(x, y, h)[1], place[1], rtol=0, atol=1e-10)


def test_a_camera_past_the_earth_sees_nothing():
    # from above the Atlantic to the zenith
    camera = PinholeModel(np.array([[1e5, 0, 0, 0], [0, 1e5, 0, 0], [0, 0, 1, -1e8]]))
    lon, lat = camera.localize(0.0, 0.0)
    assert np.isfinite([lon, lat]).all()  # straight down, on the pole
    assert lat == pytest.approx(90)
    assert np.isnan(camera.localize(2e5, 0.0)).all()

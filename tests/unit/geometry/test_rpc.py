"""RPC against GDAL's own, and the algebra of crops and zooms."""

import numpy as np
import pytest
import rasterio
from rasterio.rpc import RPC
from rasterio.transform import RPCTransformer

from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.rpc import RPCModel


def model_of(rpc: RPC) -> RPCModel:
    coefficients = (
        rpc.line_num_coeff,
        rpc.line_den_coeff,
        rpc.samp_num_coeff,
        rpc.samp_den_coeff,
    )
    keys = {"LINE": "line", "SAMP": "samp", "LAT": "lat", "LONG": "long", "HEIGHT": "height"}
    return RPCModel(
        *(np.asarray(c) for c in coefficients),
        offset={k: getattr(rpc, f"{v}_off") for k, v in keys.items()},
        scale={k: getattr(rpc, f"{v}_scale") for k, v in keys.items()},
    )


@pytest.fixture(scope="module")
def real(shared) -> RPC:
    with rasterio.open(shared / "data/pleiades_marseille_triplet/img_01.tif") as dataset:
        return dataset.rpcs


def test_agrees_with_gdal(real):
    model = model_of(real)
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
    model = model_of(real)
    window = Window(100, 40, 300, 200)
    grid = GeoGrid((1024, 1024), model).crop(window).zoom(factor, aligned)
    saved = model.cropped(100, 40).zoomed(factor, aligned)
    x, y = np.array([0.5, 333.3, 599.5]), np.array([0.5, 17.2, 399.5])
    np.testing.assert_allclose(saved.localize(x, y, 150.0), grid.localize(x, y, 150.0), atol=1e-11)


def test_nowhere_is_not_a_number(real):
    lon, lat = model_of(real).localize(np.array([512.0, 1e12]), np.array([512.0, 1e12]))
    assert np.isfinite(lon[0])
    assert np.isnan(lon[1])
    assert np.isnan(lat[1])

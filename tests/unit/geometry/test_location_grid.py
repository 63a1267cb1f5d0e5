"""The sampled model against the model it samples."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from l1bsr_geo.geometry.location_grid import METRES_PER_DEGREE, LocationGrid


@dataclass(frozen=True)
class Wobbly:
    """An analytic geometry: rotated, slanted with height (also squared), kinked along track."""

    lon0: float = 10.0
    lat0: float = 45.0
    wobble: float = 0.0
    period: float = 60.0

    def localize(self, x, y, h=0.0):
        x, y, h = np.broadcast_arrays(*(np.asarray(v, float) for v in (x, y, h)))
        shake = self.wobble * np.abs((y / self.period) % 2 - 1)
        east = 9.8 * x + 2.1 * y + 0.08 * h + 1e-7 * h**2 + 1e-5 * x**2 / 50
        north = 2.0 * x - 10.2 * y + 0.02 * h + shake
        lat = self.lat0 + north / METRES_PER_DEGREE
        lon = self.lon0 + east / METRES_PER_DEGREE / np.cos(np.radians(self.lat0))
        return (lon + 180) % 360 - 180, lat

    def project(self, lon, lat, h=0.0):
        raise NotImplementedError("the tests invert the grid, not this")


def metres(model: Wobbly, lon, lat, lon2, lat2):
    east = ((lon - lon2 + 180) % 360 - 180) * np.cos(np.radians(model.lat0))
    return np.hypot(east, lat - lat2) * METRES_PER_DEGREE


@pytest.mark.parametrize("lon0", [10.0, 179.95, -179.99])
def test_close_to_the_model_also_across_the_date_line(lon0):
    model = Wobbly(lon0=lon0, wobble=3.0)
    grid = LocationGrid.sample(model, (700, 1100))
    rng = np.random.default_rng(0)
    x, y, h = rng.uniform(0, 1100, 4000), rng.uniform(0, 700, 4000), rng.uniform(-100, 8000, 4000)
    error = metres(model, *grid.localize(x, y, h), *model.localize(x, y, h))
    assert error.max() < 0.15
    px, py = grid.project(*model.localize(x, y, h), h)
    assert np.hypot(px - x, py - y).max() < 0.03
    px, py = grid.project(*grid.localize(x, y, h), h)
    assert np.hypot(px - x, py - y).max() < 1e-5
    lon, _ = grid.localize(x, y, h)
    assert lon.min() >= -180
    assert lon.max() < 180


def test_step_follows_the_wobble():
    shape = (700, 400)
    assert LocationGrid.sample(Wobbly(), shape).step == (16.0, 16.0)
    shaken = LocationGrid.sample(Wobbly(wobble=20.0), shape)
    assert shaken.step[0] == 16.0
    assert shaken.step[1] < 16.0


def test_scalar_and_array_heights_agree():
    grid = LocationGrid.sample(Wobbly(), (200, 200))
    x, y = np.meshgrid(np.arange(0, 200, 7.0), np.arange(0, 200, 7.0))
    np.testing.assert_allclose(
        grid.localize(x, y, 1234.0), grid.localize(x, y, np.full(x.shape, 1234.0)), atol=1e-12
    )
    assert grid.localize(3.0, 4.0)[0].shape == ()


def test_continues_beyond_its_edge():
    model = Wobbly()
    grid = LocationGrid.sample(model, (160, 160), origin=(320.0, 64.0))
    lon, lat = model.localize(300.0, 40.0, 100.0)
    assert metres(model, lon, lat, *grid.localize(300.0, 40.0, 100.0)) < 0.5
    px, py = grid.project(lon, lat, 100.0)
    assert np.hypot(px - 300.0, py - 40.0) < 0.1


def test_one_layer_holds_terrain_and_ignores_height():
    lon, lat = np.meshgrid(np.linspace(10, 10.1, 5), np.linspace(45.1, 45, 4))
    grid = LocationGrid(lon[None], lat[None], (100.0, 100.0), (0.5, 0.5))
    assert grid.localize(0.5, 0.5, 900.0) == pytest.approx((10.0, 45.1))
    x, y = grid.project(10.05, 45.05, -50.0)
    assert (x, y) == pytest.approx((200.5, 150.5))


def test_pickles():
    grid = pickle.loads(pickle.dumps(LocationGrid.sample(Wobbly(), (50, 50))))
    assert np.isfinite(grid.project(*grid.localize(3.0, 4.0))).all()

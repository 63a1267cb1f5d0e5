from dataclasses import dataclass

import numpy as np
import pytest
from affine import Affine

from l1bsr_geo.geometry.affine import AffineModel, lonlat_to_map
from l1bsr_geo.geometry.elevation import ConstantElevation
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.georef.lookup import Lookup

UTM = "EPSG:32633"
TARGET = GeoGrid((400, 300), AffineModel(Affine(5, 0, 5e5, 0, -5, 5e6), UTM))


@dataclass(frozen=True)
class Wobble:
    """A map whose lines tremble: x = column + size * sin(row / length)."""

    size: float
    length: float

    def project(self, lon, lat, h=0.0):
        e, n = lonlat_to_map(UTM).transform(lon, lat)
        y = (5e6 - np.asarray(n)) / 5
        return (np.asarray(e) - 5e5) / 5 + self.size * np.sin(y / self.length), y


@dataclass(frozen=True)
class HalfBlind(Wobble):
    """Has no answer for the left part."""

    def project(self, lon, lat, h=0.0):
        x, y = super().project(lon, lat, h)
        return np.where(x < 45.0, np.nan, x), y


def locate(model, window):
    lookup = Lookup(TARGET, GeoGrid((400, 300), model), ConstantElevation())
    return lookup.locate(window), lookup.reach(window)


@pytest.mark.parametrize("length", [1.0, 4.0, 10.0, 40.0, 1000.0])
def test_nodes_are_as_dense_as_the_model_needs(length):
    window = Window(20, 30, 150, 130)
    (x, y), _ = locate(Wobble(2.0, length), window)
    rows, cols = np.indices(window.shape) + np.array([30.5, 20.5])[:, None, None]
    assert np.abs(y - rows).max() < 1e-5
    assert np.abs(x - (cols + 2.0 * np.sin(rows / length))).max() < 0.02


def test_where_the_model_has_no_answer_neighbours_still_have():
    (x, y), reach = locate(HalfBlind(0.0, 1.0), Window(0, 0, 100, 100))
    assert np.isnan(x[:, :45]).all()
    np.testing.assert_allclose(
        x[:, 45:], np.arange(45, 100)[None, :] + 0.5 + 0 * y[:, 45:], atol=1e-5
    )
    assert reach == (-np.inf, -np.inf, np.inf, np.inf)


@pytest.mark.parametrize("shape", [(1, 1), (2, 50), (33, 17), (128, 128)])
def test_reach_holds_all_that_is_located(view, hill, shape):
    lookup = Lookup(TARGET, GeoGrid((400, 300), view), hill)
    for top, left in ((0, 0), (100, 60), (250, 150)):
        window = Window(left, top, shape[1], shape[0])
        x, y = lookup.locate(window)
        x0, y0, x1, y1 = lookup.reach(window)
        assert x0 <= x.min() <= x.max() <= x1
        assert y0 <= y.min() <= y.max() <= y1
        assert x1 - x0 < x.max() - x.min() + 80  # the relief alone moves pixels by 40


def test_terrain_is_asked_at_every_pixel(view, hill):
    window = Window(10, 20, 90, 80)
    x, y = Lookup(TARGET, GeoGrid((400, 300), view), hill).locate(window)
    e = 5e5 + 5 * (np.arange(90) + 10.5)
    n = 5e6 - 5 * (np.arange(80)[:, None] + 20.5)
    true_x, true_y = view.from_map(e, n, hill.on_map(e, n))
    assert np.hypot(x - true_x, y - true_y).max() < 0.01

"""Pixels of a geometry are of their size, or it is refused."""

import numpy as np
import pytest
from affine import Affine

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.readers.ground import check_ground

WINDOW = Window(5, 7, 200, 100)


def on_map(pixel):
    return AffineModel(Affine(pixel, 0, 500_000, 0, -pixel, 5_000_000), "EPSG:32631")


def test_pixels_of_their_size_are_accepted():
    check_ground(on_map(10.0), WINDOW, "it", (2.5, 40.0))
    check_ground(on_map(0.5), WINDOW, "it")


@pytest.mark.parametrize("pixel", [1.0, 100.0])
def test_other_pixels_are_not(pixel):
    with pytest.raises(BadInputError, match=r"it leads nowhere: pixels of .* 2\.5 to 40 m"):
        check_ground(on_map(pixel), WINDOW, "it", (2.5, 40.0))


class Folded:
    """One row lies far away, or nowhere."""

    def __init__(self, where):
        self.where = where

    def localize(self, x, y, h=0.0):
        far = np.asarray(y) > 100
        return np.where(far, self.where, 5 + 1e-4 * x), 45 + 1e-4 * y + 0 * x


@pytest.mark.parametrize("where", [np.nan, np.inf, 50.0])
def test_a_part_that_is_elsewhere_is_enough(where):
    check_ground(Folded(where), Window(0, 0, 50, 50), "it")
    with pytest.raises(BadInputError, match="leads nowhere"):
        check_ground(Folded(where), WINDOW, "it")

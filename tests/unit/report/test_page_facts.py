"""What the page tells of a place."""

import math

import pytest

from l1bsr_geo.geometry.elevation import ConstantElevation
from l1bsr_geo.readers.geotiff import read_raster
from l1bsr_geo.report.correspondence import Correspondence
from l1bsr_geo.report.page_facts import say_place
from l1bsr_geo.report.result import Result
from tests.unit.report.conftest import BANDS, SIDE


def test_a_turned_raster(world):
    stack = read_raster(world.source, BANDS)
    pair = Correspondence.find(stack, Result.open(world.source), ConstantElevation(0))
    told = dict(say_place(pair))
    assert told["Pixel"] == "10 by 10"
    bounds = [float(v) for v in told["Bounds"].split(" (")[0].split(",")]
    up, along = (10 * SIDE * f(math.radians(12)) for f in (math.sin, math.cos))
    expected = 600_000, 5_000_000 - along, 600_000 + up + along, 5_000_000 + up
    assert bounds == pytest.approx(expected, abs=0.001)

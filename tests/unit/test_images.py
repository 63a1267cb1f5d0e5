"""Stacks, their windows and flows."""

import pickle
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.bands import BandScene, BandStack, DetectorCrop
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.images.pixels import PixelSource, Scene


@dataclass(frozen=True)
class ArraySource:
    """A band in memory."""

    array: np.ndarray = field(repr=False)

    @property
    def shape(self):
        return self.array.shape

    @property
    def dtype(self):
        return self.array.dtype

    def read(self, window):
        assert window.intersect(Window(0, 0, *self.shape[::-1])) == window
        return self.array[window.slices]


@pytest.fixture
def stack():
    y, x = np.mgrid[:20, :30]
    bands = {"B02": 100 + 30 * y + x, "B03": 101 + 30 * y + x, "B08": 102 + 30 * y + x}
    return BandStack(
        sources={b: ArraySource(a.astype(np.uint16)) for b, a in bands.items()},
        grids={b: GeoGrid((20, 30)) for b in bands},
        reference="B03",
        add_offset=dict.fromkeys(bands, -100.0),
        nodata=0,
    )


def test_scene_is_zero_based_with_masks(stack):
    stack.sources["B02"].array[3, 4] = 0
    scene = BandScene(stack)
    assert isinstance(scene, Scene)
    views = scene.read(Window(4, 3, 5, 6))
    assert views.pixels.shape == (1, 3, 6, 5)
    assert views.pixels.dtype == np.float32
    assert views.pixels[0, 1, 0, 0] == 1 + 30 * 3 + 4
    assert not views.valid[0, 0, 0, 0]
    assert views.valid.sum() == views.valid.size - 1
    assert views.flow is None
    assert pickle.loads(pickle.dumps(scene)).bands == ("B02", "B03", "B08")


def test_float_pixels_that_are_not_finite_are_not_valid(stack):
    array = np.ones((20, 30), np.float32)
    array[0, 0], array[1, 1] = np.nan, np.inf
    scene = BandScene(
        BandStack({"B03": ArraySource(array)}, {"B03": GeoGrid((20, 30))}, reference="B03")
    )
    assert scene.read(Window(0, 0, 30, 20)).valid.sum() == 598


def test_crop_and_shift(stack):
    crop = stack.crop(Window(10, 5, 8, 6))
    assert crop.shape == (6, 8)
    assert isinstance(crop.sources["B02"], PixelSource)
    np.testing.assert_array_equal(
        crop.sources["B02"].read(Window(1, 2, 3, 2)),
        stack.sources["B02"].read(Window(11, 7, 3, 2)),
    )
    shifted = stack.shift({"B02": (2, -3)})
    assert shifted.shape == stack.shape
    got = shifted.sources["B02"].read(Window(0, 0, 30, 20))
    np.testing.assert_array_equal(got[3:, :28], stack.sources["B02"].array[:17, 2:])
    assert not got[:3].any()  # from outside: no data
    assert not got[:, 28:].any()
    np.testing.assert_array_equal(
        shifted.sources["B03"].read(Window(0, 0, 30, 20)), stack.sources["B03"].array
    )
    assert not shifted.sources["B02"].read(Window(29, 0, 1, 20)).any()


def test_bands_of_two_resolutions_do_not_crop(stack):
    grids = {**stack.grids, "B08": GeoGrid((10, 15))}
    mixed = BandStack(stack.sources, grids, reference="B03")
    with pytest.raises(BadInputError, match="B08"):
        mixed.crop(Window(0, 0, 5, 5))
    assert mixed.only("B08").crop(Window(0, 0, 5, 5)).shape == (5, 5)


def test_pixels_are_lazy_and_travel(stack):
    pixels = stack.pixels
    assert pixels.dims == ("band", "y", "x")
    assert pixels.chunks is not None
    part = stack.sources["B08"].array[3:9, 5:7]
    np.testing.assert_array_equal(pixels.sel(band="B08")[3:9, 5:7], part)
    again = pickle.loads(pickle.dumps(pixels))
    np.testing.assert_array_equal(again.compute(), pixels.compute())
    mixed = BandStack(stack.sources, {**stack.grids, "B08": GeoGrid((10, 15))}, reference="B03")
    with pytest.raises(BadInputError, match="B08"):
        mixed.pixels.compute()


def test_saturated_pixels_are_not_valid(stack):
    stack.sources["B02"].array[2, 2] = 65535
    views = BandScene(replace(stack, saturated=65535)).read(Window(0, 0, 30, 20))
    assert not views.valid[0, 0, 2, 2]
    assert views.valid.sum() == views.valid.size - 1


def test_a_crop_knows_its_line_and_time(stack):
    facts = {"line_period": 0.0015, "time": "2024-07-14T10:46:28.505696Z"}
    crop = DetectorCrop(stack.sources, stack.grids, "B03", attrs=facts, detector=5, first_line=100)
    later = crop.crop(Window(0, 8, 30, 4))
    assert later.first_line == 108
    assert later.attrs["time"] == "2024-07-14T10:46:28.517696Z"


def test_flow_is_bilinear_between_nodes():
    y, x = np.mgrid[:4, :5] * 16.0
    nodes = np.stack([0.1 * x - 0.05 * y, 2 + 0.0 * x])[None].astype(np.float32)
    flow = FlowField(nodes, 16.0).read(Window(7, 9, 20, 13))
    assert flow.shape == (1, 2, 13, 20)
    yy, xx = np.mgrid[9:22, 7:27] + 0.5
    np.testing.assert_allclose(flow[0, 0], 0.1 * xx - 0.05 * yy, atol=1e-5)
    np.testing.assert_allclose(flow[0, 1], 2.0)
    # beyond the nodes the nearest holds
    beyond = FlowField(nodes, 16.0).read(Window(100, 0, 2, 2))
    np.testing.assert_allclose(beyond[0, 0, 0, 0], 0.1 * 64 - 0.05 * 0.5, atol=1e-5)
    single = FlowField(np.full((1, 2, 1, 1), 3, np.float32), 16.0)
    np.testing.assert_array_equal(single.read(Window(0, 0, 3, 2)), 3)

import dask
import numpy as np
import pytest

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.images.pixels import Views
from l1bsr_geo.tiling.execute import map_tiles
from l1bsr_geo.tiling.nodata import fill_nodata, find_valid, read_views
from l1bsr_geo.tiling.plan import TilePlan


def smooth_pixels(shape, bands=2):
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = 1000 + 3 * x + 2 * y + 150 * np.sin(x / 12) * np.cos(y / 15)
    return np.stack([image * (1 + band / 4) for band in range(bands)]).astype(np.uint16)


def compute(model, scene, size=24, **options):
    plan = TilePlan.for_model(model.spec, scene.grid.shape, size)
    image = map_tiles(model, scene, plan, **options)
    return [a.values for a in dask.compute(image.pixels, image.valid, scheduler="sync")]


def test_holes_take_the_nearest_pixel_of_their_band():
    pixels = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    valid = np.ones(pixels.shape, bool)
    valid[0, 0, 1:, 3] = False
    valid[0, 1, 0, 0] = False
    pixels[~valid] = np.nan
    filled = fill_nodata(pixels, valid)
    np.testing.assert_array_equal(filled[valid], pixels[valid])
    assert filled[0, 0, 1, 3] in (3, 6)
    assert filled[0, 0, 2, 3] == 10
    assert filled[0, 1, 0, 0] in (13, 16)


def test_a_frame_without_data_becomes_the_first():
    pixels = np.stack([np.full((1, 2, 2), 5.0), np.full((1, 2, 2), np.nan)]).astype(np.float32)
    valid = np.isfinite(pixels)
    np.testing.assert_array_equal(fill_nodata(pixels, valid)[1], pixels[0])
    np.testing.assert_array_equal(fill_nodata(pixels, np.zeros_like(valid)), 0)


@pytest.mark.parametrize("value", [0, 65535])
def test_nodata_does_not_bleed(make_model, make_scene, value):
    whole = smooth_pixels((70, 60))
    holed = whole.copy()
    holed[:, 22:41, 18:37] = value
    holed[0, 60:, :] = value
    model = make_model("bicubic")
    expected, _ = compute(model, make_scene(whole))
    pixels, valid = compute(model, make_scene(holed, nodata=value))
    np.testing.assert_array_equal(valid, (holed != value).all(0).repeat(2, 0).repeat(2, 1))
    assert (pixels[:, ~valid] == value).all()
    assert (pixels[:, valid] != value).all()
    error = np.abs(pixels[:, valid] / expected[:, valid] - 1)
    assert error.max() < 0.02  # the ring around the hole; without filling it is over 10 %


def test_without_nodata_a_cliff_is_a_cliff(make_model, make_scene):
    # the test above can fail: the same hole, not declared
    whole = smooth_pixels((70, 60))
    holed = whole.copy()
    holed[:, 22:41, 18:37] = 0
    model = make_model("bicubic")
    expected, _ = compute(model, make_scene(whole))
    pixels, _ = compute(model, make_scene(holed))
    outside = np.ones(pixels.shape[1:], bool)
    outside[44:82, 36:74] = False
    assert np.abs(pixels[:, outside] / expected[:, outside] - 1.0).max() > 0.1


def test_saturated_pixels_are_masked_and_do_not_bleed(make_model, make_scene):
    pixels = smooth_pixels((40, 40))
    whole, _ = compute(make_model("bicubic"), make_scene(pixels, nodata=0))
    bright = pixels.copy()
    bright[:, 10:25, 10:25] = 65535
    restored, valid = compute(make_model("bicubic"), make_scene(bright, nodata=0, saturated=65535))
    assert not valid[20:50, 20:50].any()
    outside = np.ones(valid.shape, bool)
    outside[20:50, 20:50] = False
    assert valid[outside].all()
    error = restored[:, outside] / whole[:, outside].astype(float) - 1
    assert np.abs(error).max() < 0.02


def test_tiles_without_data_cost_no_forward(make_model, make_scene):
    pixels = smooth_pixels((48, 48))
    pixels[:, :24] = 0
    model = make_model("bicubic")
    _, valid = compute(model, make_scene(pixels, nodata=0), batch=4)
    assert [shape[0] for shape in model.forwards] == [2]
    assert valid.mean() == 0.5


def test_a_scene_without_data_is_all_nodata(make_model, make_scene):
    pixels, valid = compute(make_model("pooled"), make_scene(np.zeros((2, 50, 9), "u2"), nodata=0))
    assert not valid.any()
    assert not pixels.any()


def test_what_not_finite_floats_hold_is_not_seen(make_model, make_scene):
    whole = smooth_pixels((40, 40)).astype(np.float32)
    whole[1, 7, 9] = np.nan
    whole[0, 20, 21] = np.inf
    pixels, valid = compute(make_model("bicubic"), make_scene(whole))
    assert (~valid).sum() == 8
    assert np.isnan(pixels[:, ~valid]).all()
    assert np.isfinite(pixels[:, valid]).all()


def valid_of(valid, flow=None, *, aligned="corner", scale=2, uses_flow=False):
    height, width = valid.shape[-2:]
    plan = TilePlan((height, width), max(height, width), 0, scale, aligned)
    views = Views(np.zeros((1, *valid.shape), np.float32), valid[None], flow)
    return find_valid(views, plan[0], plan, uses_flow=uses_flow)


def test_a_pixel_needs_all_bands():
    valid = np.ones((2, 3, 3), bool)
    valid[1, 1, 2] = False
    expected = np.ones((6, 6), bool)
    expected[2:4, 4:6] = False
    np.testing.assert_array_equal(valid_of(valid), expected)


def test_centre_aligned_pixels_need_both_that_they_straddle():
    valid = np.ones((1, 1, 5), bool)
    valid[0, 0, 2] = False
    # fine pixels 0, 2, 4 ... sit on pixels 0, 1, 2; those between straddle two
    assert valid_of(valid, aligned="centre")[0].tolist() == [1, 1, 1, 0, 0, 0, 1, 1, 1, 1]
    assert valid_of(valid, aligned="centre", scale=3)[0].tolist() == [1] * 5 + [0] * 3 + [1] * 7


@pytest.mark.parametrize(
    ("dx", "row"),
    [
        (0.0, [1, 1, 1, 0, 0, 0, 0, 1, 1, 1]),  # centres at -.25, .25, .75 ... around pixel 2
        (1.0, [1, 0, 0, 0, 0, 1, 1, 1, 0, 0]),  # reads one to the right; the last leave the image
        (-0.25, [1, 1, 1, 1, 0, 0, 0, 1, 1, 1]),
    ],
)
def test_motion_is_followed_to_the_pixels_it_reads(dx, row):
    valid = np.ones((1, 1, 5), bool)
    valid[0, 0, 2] = False
    flow = np.zeros((1, 1, 2, 1, 5), np.float32)
    flow[0, 0, 0] = dx
    assert valid_of(valid, flow, uses_flow=True)[0].tolist() == [bool(v) for v in row]
    still = [1, 1, 1, 1, 0, 0, 1, 1, 1, 1]
    assert valid_of(valid, flow, uses_flow=False)[0].tolist() == [bool(v) for v in still]


def test_an_unknown_motion_is_not_valid():
    flow = np.zeros((1, 1, 2, 2, 2), np.float32)
    flow[0, 0, 1, 0, 1] = np.nan
    expected = np.ones((4, 4), bool)
    expected[:2, 2:] = False
    np.testing.assert_array_equal(
        valid_of(np.ones((1, 2, 2), bool), flow, uses_flow=True), expected
    )


@pytest.mark.parametrize("aligned", ["corner", "centre"])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_no_motion_keeps_the_whole_image(aligned, scale):
    flow = np.zeros((1, 2, 2, 4, 5), np.float32)
    valid = np.ones((2, 4, 5), bool)
    valid[1, 0, 0] = False  # not the fast way
    result = valid_of(valid, flow, aligned=aligned, scale=scale, uses_flow=True)
    assert result[-1].all()
    assert result[:, -1].all()
    assert not result[0, 0]


def test_bands_moved_over_nodata_stay_right(make_model, make_scene):
    whole = smooth_pixels((60, 60))
    holed = whole.copy()
    holed[1, 20:30, 20:30] = 0
    nodes = np.zeros((2, 2, 2, 2), np.float32)
    nodes[1, 0] = 3.4
    flow = FlowField(nodes, 100.0)
    model = make_model("bicubic", flow=True)
    expected, inside = compute(model, make_scene(whole, flow))
    pixels, valid = compute(model, make_scene(holed, flow, nodata=0))
    hole = np.argwhere(inside & ~valid)
    # the hole is seen where band 1 reads it: 3.4 px to the left of itself
    assert hole.min(0).tolist() == [39, 32]
    assert hole.max(0).tolist() == [60, 53]
    error = np.abs(pixels[:, valid] / expected[:, valid] - 1)
    assert error.max() < 0.02


def test_a_scene_of_another_shape_than_asked_is_an_error(make_model, make_scene):
    class Odd:
        def read(self, window):
            return make_scene(smooth_pixels((5, 5))).read(Window(0, 0, 4, 4))

    with pytest.raises(BadInputError, match=r"\(4, 4\) pixels for a window of \(2, 3\)"):
        read_views(Odd(), Window(0, 0, 3, 2))

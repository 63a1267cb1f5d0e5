import dask
import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.elevation import ConstantElevation
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.georef.orthorectify import orthorectify
from l1bsr_geo.images.pixels import GeoImage


def compute(image):
    pixels, valid = dask.compute(image.pixels, image.valid)
    return pixels.values, valid.values


def map_centres(image):
    return np.meshgrid(image.pixels.x.values, image.pixels.y.values)


@pytest.mark.parametrize("relief", [False, True])
def test_output_is_the_closed_form(make_source, view, hill, steepest, relief):
    source = make_source(gsd=5.0)
    elevation = hill if relief else ConstantElevation(300.0)
    result = orthorectify(source.image, elevation=elevation, block=128)
    pixels, valid = compute(result)
    e, n = map_centres(result)
    h = hill.on_map(e, n) if relief else 300.0
    x, y = view.from_map(e, n, h)
    error = np.abs(pixels[0] - source.formula(x, y))[valid]
    assert valid.mean() > 0.5
    assert error.max() < 0.05 * steepest
    # nothing that could be drawn is missing
    height, width = source.image.grid.shape
    inside = (x > 1.6) & (x < width - 1.6) & (y > 1.6) & (y < height - 1.6)
    assert valid[inside].all()
    outside = (x < 0) | (x > width) | (y < 0) | (y > height)
    assert not valid[outside].any()


def test_whole_numbers_are_rounded(make_source, view):
    source = make_source((200, 200), dtype="uint16", nodata=0)
    result = orthorectify(source.image, resolution=5)
    pixels, valid = compute(result)
    x, y = view.from_map(*map_centres(result), 0.0)
    error = (pixels[0].astype(float) - source.formula(x, y))[valid]
    assert pixels.dtype == "uint16"
    assert np.abs(error.mean()) < 0.05
    assert np.abs(error).max() < 1.5
    assert (pixels[:, ~valid] == 0).all()


@pytest.mark.parametrize("kernel", ["cubic", "bilinear", "nearest"])
def test_blocks_leave_no_trace(make_source, hill, kernel):
    source = make_source((150, 140), holes=[np.s_[40:44, 60:63]])
    results = [
        compute(orthorectify(source.image, elevation=hill, block=block, kernel=kernel))
        for block in (64, 500)
    ]
    (a, a_valid), (b, b_valid) = results
    assert (a_valid == b_valid).mean() > 0.999  # a pixel may show 1/4096 px to the other side
    both = a_valid & b_valid
    tolerance = {"cubic": 0.5, "bilinear": 0.5, "nearest": 40}[kernel]
    assert np.abs(a - b)[:, both].max() < tolerance
    assert (a == b)[:, both].mean() > 0.3


def test_every_source_chunk_is_computed_once(make_source):
    source = make_source()
    result = orthorectify(source.image, block=64)
    assert not source.computed
    compute(result)
    chunks = [len(sizes) for sizes in source.image.pixels.chunks[1:]]
    assert len(source.computed) == np.prod(chunks)
    assert set(source.computed.values()) == {1}


def test_an_area_computes_only_the_chunks_that_it_shows(make_source, view):
    source = make_source()
    lon, lat = view.localize(100, 45)
    area = shapely.Point(lon, lat).buffer(1e-4)
    result = orthorectify(source.image, aoi=area, block=64)
    _, valid = compute(result)
    assert set(source.computed) == {(0, 70)}
    assert 0 < valid.sum() < valid.size
    e, n = map_centres(result)
    lon, lat = pyproj.Transformer.from_crs("EPSG:32633", 4326, always_xy=True).transform(
        e, n, direction="FORWARD"
    )
    assert (valid == shapely.contains_xy(area, lon, lat)).mean() > 0.99
    west, south, east, north = shapely.transform(
        area,
        lambda xy: np.column_stack(
            pyproj.Transformer.from_crs(4326, "EPSG:32633", always_xy=True).transform(*xy.T)
        ),
    ).bounds
    x, y = result.pixels.x.values, result.pixels.y.values
    assert west - 5 <= x[0] - 2.5 <= west
    assert east <= x[-1] + 2.5 <= east + 5
    assert south - 5 <= y[-1] - 2.5 <= south
    assert north <= y[0] + 2.5 <= north + 5


def test_a_box_cuts_and_does_not_mask(make_source, view):
    source = make_source()
    lon, lat = view.localize([100, 140], [140, 100])
    box = (lon.min(), lat.min(), lon.max(), lat.max())
    _, valid = compute(orthorectify(source.image, aoi=box))
    assert valid.all()
    assert valid.size < 100 * 100


def test_a_hole_grows_by_the_kernel_and_no_more(make_source):
    shape = (60, 50)
    model = AffineModel(Affine(5, 0, 5e5 + 2, 0, -5, 5e6), "EPSG:32633")  # off the grid in x
    source = make_source(shape, model=model, holes=[np.s_[30, 20]])
    cubic, linear, nearest = (
        compute(orthorectify(source.image, resolution=5, kernel=kernel))[1][2:-2, 2:-2]
        for kernel in ("cubic", "bilinear", "nearest")
    )
    assert [(~v).sum() for v in (cubic, linear, nearest)] == [4, 2, 1]


def test_what_a_hole_holds_does_not_matter(make_source):
    source = make_source((60, 50), holes=[np.s_[20:30, 10:20]])
    spoiled = source.image.pixels.where(source.image.valid, np.nan)
    a, a_valid = compute(orthorectify(source.image))
    b, b_valid = compute(orthorectify(GeoImage(spoiled, source.image.grid, source.image.valid)))
    c, c_valid = compute(orthorectify(GeoImage(spoiled, source.image.grid)))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c)
    assert np.isnan(a[:, ~a_valid]).all()
    np.testing.assert_array_equal(a_valid, b_valid)
    np.testing.assert_array_equal(a_valid, c_valid)


def test_the_same_grid_gives_the_same_pixels(make_source):
    model = AffineModel(Affine(5, 0, 5e5, 0, -5, 5e6), "EPSG:32633")
    source = make_source((70, 50), model=model, dtype="uint16")
    result = orthorectify(source.image)
    pixels, valid = compute(result)
    assert result.grid.shape == (70, 50)
    assert valid.all()
    np.testing.assert_array_equal(pixels, source.image.pixels.values)


def test_the_default_map_is_the_utm_zone_on_multiples_of_the_resolution(make_source, view):
    result = orthorectify(make_source().image)
    transform = result.grid.model.transform
    assert result.grid.model.crs == "EPSG:32633"
    assert transform.a == 5.0
    assert transform.c % 5 == transform.f % 5 == 0
    assert result.pixels.attrs["gsd"] == 5.0
    assert result.pixels.x.values[0] == transform.c + 2.5
    # the corners of the image are inside, by less than a pixel on each side
    e, n = view.transform @ np.array([[0, 260, 0, 260], [0, 0, 300, 300]])
    assert 0 <= e.min() - transform.c < 5
    assert 0 <= transform.f - n.max() < 5


def test_another_crs(make_source, view):
    source = make_source((120, 100))
    result = orthorectify(source.image, crs="EPSG:4326")
    pixels, valid = compute(result)
    x, y = view.project(*map_centres(result), 0.0)
    assert np.abs(pixels[0] - source.formula(x, y))[valid].max() < 1.5
    assert valid.any()
    assert 4e-5 < result.grid.model.transform.a < 8e-5
    assert "gsd" not in result.pixels.attrs


def test_onto_a_given_grid(make_source):
    first, second = make_source(), make_source((90, 80))
    grid = orthorectify(first.image).grid
    result = orthorectify(second.image, onto=grid)
    pixels, valid = compute(result)
    assert result.grid == grid
    assert pixels.shape[1:] == grid.shape
    assert 0 < valid.mean() < 0.5


def test_a_coarse_result_does_not_alias(make_source):
    source = make_source((160, 160))
    checks = source.image.pixels * 0 + (np.indices((160, 160)).sum(0) % 2) * 100.0
    image = GeoImage(checks, source.image.grid)
    pixels, valid = compute(orthorectify(image, resolution=15))
    assert pixels[0][valid].std() < 1.0
    assert np.abs(pixels[0][valid].mean() - 50) < 1.0


def test_a_single_pixel_and_a_single_row(make_source):
    model = AffineModel(Affine(5, 0, 5e5, 0, -5, 5e6), "EPSG:32633")
    for shape in ((1, 1), (1, 40), (40, 1)):
        source = make_source(shape, model=model)
        pixels, valid = compute(orthorectify(source.image))
        assert valid.all()
        np.testing.assert_allclose(pixels, source.image.pixels.values, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crs": "EPSG:1"}, "EPSG:32633"),
        ({"resolution": -1.0}, "positive"),
        ({"resolution": 1e-9}, "units of the CRS"),
        ({"kernel": "lanczos"}, "cubic"),
        ({"block": 0}, "at least 1"),
        ({"aoi": (10.0, 50.0, 10.1, 50.1)}, "does not touch"),
        ({"aoi": (10.1, 50.0, 10.0, 50.1)}, "west, south, east, north"),
        ({"aoi": shapely.Point(15, 45)}, "without an area"),
        ({"onto": GeoGrid((5, 5))}, "map grid"),
        ({"onto": GeoGrid((5, 5)), "crs": 4326}, "give one"),
    ],
)
def test_bad_options_are_refused_at_once(make_source, options, words):
    source = make_source((50, 40))
    with pytest.raises(BadOptionError, match=words):
        orthorectify(source.image, **options)
    assert not source.computed


def test_an_image_without_geometry_is_refused(make_source):
    source = make_source((50, 40))
    with pytest.raises(BadInputError, match="no geometry"):
        orthorectify(GeoImage(source.image.pixels, GeoGrid((50, 40))))


# rioxarray 0.19 multiplies affine 3 transforms with *
@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_xarray_users_find_the_crs(make_source):
    import rioxarray  # noqa: F401 - it adds the accessor

    image = orthorectify(make_source(gsd=5.0).image, crs="EPSG:32631", resolution=10)
    assert image.pixels.rio.crs.to_epsg() == 32631
    assert tuple(image.pixels.rio.transform())[:6] == tuple(image.grid.model.transform)[:6]

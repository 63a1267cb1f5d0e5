import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.report.quicklook import write_quicklook


@pytest.fixture
def picture():
    random = np.random.default_rng(0)
    return random.normal(1000, 100, (3, 40, 50))


def open_png(path):
    with Image.open(path) as image:
        return np.asarray(image)


def write_raster(path, pixels, transform, names=("B02", "B03", "B04", "B08")):
    count, height, width = pixels.shape
    options = {"crs": "EPSG:32633", "transform": transform, "nodata": 0}
    with rasterio.open(
        path, "w", width=width, height=height, count=count, dtype=pixels.dtype, **options
    ) as file:
        file.write(pixels)
        file.descriptions = names[:count]


def test_both_are_stretched_like_the_first(tmp_path, picture):
    path = write_quicklook(picture, 2 * picture, tmp_path / "a.png")
    drawn = open_png(path)
    assert drawn.shape == (40, 50 + 8 + 50, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    low, high = np.percentile(picture[0], (2, 98))
    expected = np.rint(1 + 254 * np.clip((picture[0] - low) / (high - low), 0, 1))
    np.testing.assert_array_equal(drawn[:, :50, 0], expected)
    assert (drawn[:, 50:58] == 255).all()
    assert (drawn[:, 58:] == 255).mean() > 0.99  # twice as bright


def test_a_coarse_image_is_enlarged_and_holes_are_black(tmp_path, picture):
    coarse = picture[:, ::2, ::2].copy()
    coarse[:, :5, :5] = np.nan
    drawn = open_png(write_quicklook(coarse, picture, tmp_path / "a.png"))
    assert drawn.shape == (40, 108, 3)
    assert not drawn[:10, :10].any()
    assert drawn[10:, :50].all()
    np.testing.assert_array_equal(drawn[20, 20:50:2], drawn[21, 21:50:2])


def test_grey(tmp_path, picture):
    drawn = open_png(write_quicklook(picture[0], picture[0], tmp_path / "a.png"))
    assert drawn.shape == (40, 108)


def test_files_are_shown_where_both_are(tmp_path):
    """The picture's value is its place on the map, so both halves must agree."""
    fine = Affine(5, 0, 500_000, 0, -5, 5_000_000)
    coarse = Affine(10, 0, 499_900, 0, -10, 5_000_050)
    for name, transform, shape in (("fine", fine, (700, 800)), ("coarse", coarse, (300, 500))):
        x, y = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
        e, n = transform @ (x, y)
        bands = np.stack([e - 499_000, 5_001_000 - n, e - 499_000, e * 0 + 5])
        write_raster(tmp_path / f"{name}.tif", bands.astype("float32"), transform)
    path = write_quicklook(tmp_path / "coarse.tif", tmp_path / "fine.tif", tmp_path / "q.png")
    drawn = open_png(path).astype(int)
    assert drawn.shape == (512, 512 + 8 + 512, 3)
    left, right = drawn[:, :512], drawn[:, 520:]
    assert np.abs(left - right).max() <= 1
    assert left[0, -1, 0] > 250 > 5 > left[0, 0, 0]  # B04 first: it grows to the east


def test_what_cannot_be_shown(tmp_path, picture):
    with pytest.raises(BadInputError, match="one band or three"):
        write_quicklook(picture[:2], picture[:2], tmp_path / "a.png")
    with pytest.raises(BadInputError, match="without data"):
        write_quicklook(picture * np.nan, picture, tmp_path / "a.png")
    far = Affine(10, 0, 0, 0, -10, 0)
    for name, transform in (("a", far), ("b", Affine.translation(1e4, 0) @ far)):
        write_raster(tmp_path / f"{name}.tif", np.ones((3, 9, 9), "uint8"), transform)
    with pytest.raises(BadInputError, match="no common ground"):
        write_quicklook(tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "a.png")
    assert not list(tmp_path.glob("*.png"))

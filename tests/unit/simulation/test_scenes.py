import numpy as np
import pytest
import rasterio
from affine import Affine

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.simulation.scenes import (
    MTF,
    TEN_METRE_BANDS,
    MapScene,
    procedural_scene,
    read_scene,
    relief,
    write_dem,
)

CRS = "EPSG:32631"
BOUNDS = (500_000.0, 4_900_000.0, 502_000.0, 4_901_500.0)


@pytest.fixture(scope="module")
def scene():
    return procedural_scene(BOUNDS, CRS, seed=3)


def wave(period, bands=("B02",)):
    """A vertical-stripe scene of 2.5 m pixels, amplitude 100."""
    x = (np.arange(800) + 0.5) * 2.5
    row = 300 + 100 * np.cos(2 * np.pi * x / period)
    pixels = np.broadcast_to(row, (len(bands), 60, 800)).astype(np.float32)
    return MapScene(pixels, Affine(2.5, 0, 1000, 0, -2.5, 5000), CRS, bands)


def test_sampling_a_pixel_centre_gives_the_pixel(scene):
    e, n = scene.transform @ (np.array([100.5, 33.5]), np.array([60.5, 201.5]))
    assert scene.bounds == BOUNDS
    for k, band in enumerate(scene.bands):
        expected = scene.pixels[k, [60, 201], [100, 33]]
        assert scene.sample(band, e, n) == pytest.approx(expected, rel=1e-4)


def test_sampling_between_pixels_follows_the_function():
    e = np.linspace(1100, 2800, 333)
    expected = 300 + 100 * np.cos(2 * np.pi * (e - 1000) / 20)
    assert wave(20).sample("B02", e, 4930.0) == pytest.approx(expected, abs=0.3)


def test_outside_there_is_nothing(scene):
    west, south, east, north = scene.bounds
    values = scene.sample("B03", [west - 10, east + 10, west + 50], [south, north, south + 50])
    assert np.isnan(values).tolist() == [True, True, False]


@pytest.mark.parametrize("band", TEN_METRE_BANDS)
def test_an_instrument_sees_its_mtf_at_nyquist(band):
    seen = wave(20, (band,)).seen_by().sample(band, 1000 + 20.0 * np.arange(20, 60), 4930.0)
    assert seen - 300 == pytest.approx(np.full(40, 100 * MTF[band]), rel=0.02)


def test_the_landscape_is_repeatable_and_differs_by_seed(scene):
    assert np.array_equal(procedural_scene(BOUNDS, CRS, seed=3).pixels, scene.pixels)
    assert not np.array_equal(procedural_scene(BOUNDS, CRS, seed=4).pixels, scene.pixels)


def test_radiometry_resembles_real_crops():
    seen = procedural_scene((5e5, 4.9e6, 5.08e5, 4.908e6), CRS, seed=0, pixel=10).pixels
    for band, (low, high) in zip(seen, [(160, 260)] * 2 + [(90, 220), (330, 560)], strict=True):
        assert low < np.median(band) < high
    visible = np.corrcoef(seen[0].ravel(), seen[1].ravel())[0, 1]
    infrared = np.corrcoef(seen[2].ravel(), seen[3].ravel())[0, 1]
    assert visible > 0.8
    assert infrared < 0.3  # vegetation: dark in red, bright in the near infrared
    assert seen.min() > 0
    assert seen.max() < 4000


def test_a_raster_becomes_a_scene(scene, tmp_path):
    path = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "crs": CRS, "transform": scene.transform, "dtype": "float32"}
    with rasterio.open(path, "w", count=4, width=400, height=300, **profile) as raster:
        raster.write(scene.pixels)
    back = read_scene(path)
    assert np.array_equal(back.pixels, scene.pixels)
    assert back.sample("B08", 501_000.3, 4_900_700.1) == pytest.approx(
        scene.sample("B08", 501_000.3, 4_900_700.1)
    )
    with pytest.raises(BadInputError, match="4 bands"):
        read_scene(path, ("B02",))


def test_a_raster_without_metres_is_refused(tmp_path):
    path = tmp_path / "scene.tif"
    profile = {"driver": "GTiff", "crs": "EPSG:4326", "transform": Affine(0.1, 0, 5, 0, -0.1, 45)}
    with rasterio.open(path, "w", count=4, width=4, height=3, dtype="uint8", **profile) as raster:
        raster.write(np.ones((4, 3, 4), "uint8"))
    with pytest.raises(BadInputError, match="projected"):
        read_scene(path)


def test_relief_is_written_where_it_is(tmp_path):
    hills = relief((5.0, 45.0, 5.1, 45.06), seed=1, low=100, high=700)
    assert hills.values.min() == pytest.approx(100, abs=0.1)
    assert hills.values.max() == pytest.approx(700, abs=0.1)
    write_dem(tmp_path / "dem.tif", hills)
    with rasterio.open(tmp_path / "dem.tif") as raster:
        lon, lat = raster.xy(20, 30)  # centre of a pixel
        assert raster.crs.to_epsg() == 4979
        assert hills.height(lon, lat) == pytest.approx(raster.read(1)[20, 30], abs=1e-3)

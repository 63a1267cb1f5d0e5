"""Planted faults are found, each by its own figure, and a perfect result raises no alarm."""

import re
import warnings

import numpy as np
import pytest
from rasterio.errors import NotGeoreferencedWarning
from scipy import ndimage

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.elevation import ConstantElevation
from l1bsr_geo.readers.geotiff import read_raster
from l1bsr_geo.report.correspondence import Correspondence
from l1bsr_geo.report.patches import choose_patches
from l1bsr_geo.report.quality import measure_quality
from l1bsr_geo.report.result import Result
from l1bsr_geo.simulation.scenes import procedural_scene
from tests.unit.report.conftest import BANDS, write

FLAT = ConstantElevation()


def judge(world, *arguments, **options):
    path = world.result(*arguments, **options)
    stack = read_raster(world.source, BANDS)
    pair = Correspondence.find(stack, Result.open(path), FLAT)
    return measure_quality(pair, windows=2)


@pytest.fixture(scope="module")
def perfect(world):
    return judge(world)


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:3035"])
def test_a_perfect_result_raises_no_alarm(world, perfect, crs):
    found = perfect if crs == "EPSG:32631" else judge(world, crs=crs)
    assert found.alarms == ()
    assert found.scale == pytest.approx(2, abs=0.01)
    consistency = found.consistency
    assert consistency.mtf > 0.9
    for band in consistency.bands:
        assert abs(band.bias) < 0.05
        assert 0.9 < band.rmse < 1.3  # the noise that was added, of 1 DN, and rounding
        assert np.hypot(*band.shift) < 0.01
    for band in found.band_shifts:
        assert np.hypot(*band.middle_after) < (0.2 if band.band == "B08" else 0.08)
    assert abs(found.seams.index - 1) < 5 * found.seams.index_error
    assert found.pattern.significance < 5


def test_a_shift_is_measured(world):
    found = judge(world, move=(0.2, -0.1))
    for band in found.consistency.bands:
        assert band.shift == pytest.approx((0.2, -0.1), abs=0.01)
    assert sum("beside it" in alarm for alarm in found.alarms) == 4


def test_brightness_is_measured(world):
    gains = np.array([1, 1.05, 1, 0.95])[:, None, None]
    found = judge(world, lambda pixels, x, y: pixels * gains)
    bias = {b.band: b.bias_percent for b in found.consistency.bands}
    assert bias["B03"] == pytest.approx(5, abs=0.05)
    assert abs(bias["B04"]) < 0.05
    said = " ".join(found.alarms)
    assert re.findall(r"(B\d+) is [45]\.\d\d % (\w+)", said) == [
        ("B03", "brighter"),
        ("B08", "darker"),
    ]


def test_a_seam_is_found(world, perfect):
    """Tiles that differ by 2 DN, a tenth of the contrast, whose lines slant over the map."""

    def tiles(pixels, x, y):
        return pixels + np.where((x // 100 + y // 100) % 2, 1.0, -1.0)

    found = judge(world, tiles)
    assert found.seams.step_significance > 3 > perfect.seams.step_significance + 1
    assert found.seams.step == pytest.approx(2, rel=0.4)
    assert len(found.alarms) == 1
    assert "tile lines" in found.alarms[0]


@pytest.mark.parametrize("wave", [(1, 1), (0, 1)])
def test_a_pattern_is_found(world, perfect, wave):
    """Of 1 DN at every second fine pixel of the sensor's grid, which the map's do not follow."""

    def checker(pixels, x, y):
        turns = wave[0] * (2 * x - 0.5) + wave[1] * (2 * y - 0.5)
        return pixels + np.cos(np.pi * turns)

    found = judge(world, checker)
    assert found.pattern.significance > 5 > perfect.pattern.significance
    assert found.pattern.period == wave
    assert found.pattern.amplitude == pytest.approx(0.5, rel=0.4)  # half of a wave that is real
    assert any("pattern of the fine grid" in alarm for alarm in found.alarms)


def test_bands_apart_are_found(world):
    def displace(pixels, x, y):
        pixels[3] = np.roll(pixels[3], 1, 1)
        return pixels

    found = judge(world, displace)
    apart = {b.band: b.middle_after for b in found.band_shifts}
    assert np.hypot(*apart["B08"]) == pytest.approx(0.5, abs=0.1)
    assert np.hypot(*apart["B02"]) < 0.05
    assert any(a.startswith("B08 lies") and "reference" in a for a in found.alarms)


def test_blur_and_detail(world, perfect):
    """What is blurred has less beyond the input's Nyquist frequency, and differs from the input."""
    found = judge(world, lambda pixels, x, y: ndimage.gaussian_filter(pixels, (0, 2, 2)))
    for blurred, sharp in zip(found.spectrum.detail, perfect.spectrum.detail, strict=True):
        assert blurred < 0.2 * sharp
    assert found.consistency.bands[1].rmse > 3 * perfect.consistency.bands[1].rmse


def test_a_sharpened_result_is_read_through_the_blur(world):
    """The scene as it is before the instrument: the blur that was put on is found."""
    bounds = world.scene.bounds
    sharp = procedural_scene(bounds, world.scene.crs, seed=3)
    found = judge(type(world)(world.folder, sharp, world.source))
    assert found.consistency.mtf == pytest.approx(0.28, abs=0.06)
    assert found.consistency.bands[1].rmse < 2


@pytest.mark.parametrize(("aligned", "corner"), [("corner", 0.5), ("centre", 0.0)])
def test_sensor_geometry(tmp_path, aligned, corner):
    """Without any geometry a tag says which fine pixel sits where: half a fine pixel of error."""
    source, fine = (
        interpolate(np.arange(n) / k + shift)
        for n, k, shift in (
            (96, 1, 0.0),
            (192, 2, corner / 2 - corner),
        )
    )
    tags = {"scale": "2", "aligned": aligned, "band_registration": "none"}
    written = write_plain(tmp_path / "in.tif", source)
    result = write_plain(tmp_path / "out.tif", fine, tags=tags)
    pair = Correspondence.find(read_raster(written, BANDS), Result.open(result), FLAT)
    (patch, *_) = choose_patches(pair, 2)
    apart = patch.sample(1.0) - patch.source
    assert np.abs(apart[patch.known]).max() < 0.01  # of an amplitude of 100


def interpolate(at):
    """(4, n, n): a smooth image whose value is known at any place, at rows and columns."""
    rows, columns = np.meshgrid(at, at, indexing="ij")
    wave = 100 * np.sin(0.9 * columns + 0.3 * rows) * np.cos(0.5 * rows)
    return np.stack([300 + wave] * 4).astype(np.float32)


def write_plain(path, pixels, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return write(path, pixels, **options)


def test_what_cannot_be_measured(world, tmp_path):
    plain = write_plain(tmp_path / "plain.tif", np.full((4, 64, 64), 9, np.float32))
    other = write_plain(tmp_path / "other.tif", np.full((4, 100, 77), 9, np.float32))
    with pytest.raises(BadInputError, match="no multiple"):
        Correspondence.find(read_raster(plain, BANDS), Result.open(other), FLAT)
    empty = world.result(lambda pixels, x, y: pixels * np.nan, name="empty.tif")
    stack = read_raster(world.source, BANDS)
    found = measure_quality(Correspondence.find(stack, Result.open(empty), FLAT))
    assert found.consistency is None
    assert found.alarms == ()
    assert "no window" in dict(found.missing)["consistency"]

"""A shift that is known is found, with an honest uncertainty, or the reference is refused."""

from functools import cache

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from affine import Affine
from scipy import ndimage

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.affine import AffineModel, lonlat_to_map
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.georef.refine import estimate_shift
from l1bsr_geo.images.pixels import GeoImage
from l1bsr_geo.registration.patches import match_patch
from l1bsr_geo.simulation.scenes import procedural_scene

CRS = "EPSG:32633"
WEST, NORTH, SIZE = 500_000.0, 5_003_600.0, 3600.0  # [m]
TURNED = Affine.translation(WEST + 400, NORTH - 800) @ Affine.rotation(-12) @ Affine.scale(10, -10)
SHAPE = (230, 230)


@cache
def landscape(seed):
    return procedural_scene((WEST, NORTH - SIZE, WEST + SIZE, NORTH), CRS, seed).seen_by()


def wrap(pixels, transform, crs=CRS, valid=None):
    valid = np.isfinite(pixels) if valid is None else valid
    pixels = da.from_array(np.nan_to_num(pixels)[None].astype(np.float32), chunks=(1, 128, 128))
    return GeoImage(
        xr.DataArray(pixels, {"band": ["band"]}, ("band", "y", "x")),
        GeoGrid(valid.shape, AffineModel(transform, crs)),
        xr.DataArray(da.from_array(valid, chunks=128), dims=("y", "x")),
    )


def see(scene, band, shift, seed=0, noise=3.0):
    """What a turned sensor sees at p + shift and says to be at p, and its pixels alone."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    pixels = scene.sample(band, *(TURNED @ (x + shift[0], y + shift[1])))
    return pixels + np.random.default_rng(seed).normal(0, noise, SHAPE)


@cache
def draw(scene, band, crs=CRS, pixel=10.0):
    """The scene on a map."""
    corners = np.array([(WEST, NORTH - SIZE), (WEST + SIZE, NORTH)]).T
    degrees = lonlat_to_map(CRS).transform(*corners, direction="INVERSE")
    left, right, bottom, top = np.ravel(lonlat_to_map(crs).transform(*degrees))
    transform = Affine(pixel, 0, left, 0, -pixel, top)
    rows, columns = int((top - bottom) / pixel), int((right - left) / pixel)
    x, y = np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5)
    places = lonlat_to_map(crs).transform(*(transform @ (x, y)), direction="INVERSE")
    return wrap(scene.sample(band, *lonlat_to_map(CRS).transform(*places)), transform, crs)


@pytest.mark.parametrize(
    ("band", "crs", "pixel", "shift"),
    [
        ("B03", "EPSG:32632", 7.0, (0.63, -1.21)),
        ("B03", CRS, 20.0, (-2.4, 0.3)),
        ("B04", "EPSG:4326", 1e-4, (-8.3, 19.4)),
    ],
)
def test_any_map_and_any_shift(band, crs, pixel, shift):
    scene = landscape(1)
    reference = draw(scene, band, crs, pixel)
    found = estimate_shift(wrap(see(scene, "B03", shift), TURNED), reference, match_patch)
    assert found.pixels == pytest.approx(shift, abs=0.05)
    assert found.metres == pytest.approx(
        np.subtract(TURNED @ shift, TURNED @ (0, 0)), abs=0.01 + 0.05 * 10
    )
    assert found.resolution == pytest.approx(20.0 if pixel == 20.0 else 10.0, rel=0.15)
    assert found.matches > found.patches / 2


def test_uncertainty_is_honest():
    """In near infrared, where fields and woods look otherwise: errors are as large as told."""
    ratios = []
    for seed in range(3):
        scene = landscape(seed)
        shift = np.random.default_rng(seed).uniform(-2, 2, 2)
        image = wrap(see(scene, "B03", shift, seed), TURNED)
        found = estimate_shift(image, draw(scene, "B08"), match_patch)
        error = np.subtract(found.metres, TURNED @ shift) + TURNED @ (0, 0)
        assert np.abs(error).max() < 2
        ratios.append(error / found.uncertainty)
    assert 0.2 < np.sqrt(np.mean(np.square(ratios))) < 2  # measured: 0.9


def test_clouds_over_a_third():
    """They are in the image alone, and their shadows, and they are texture, too."""
    scene, shift = landscape(2), (1.3, 0.4)
    pixels = see(scene, "B03", shift)
    noise = ndimage.gaussian_filter(np.random.default_rng(5).normal(0, 1, SHAPE), 6)
    cloudy = ndimage.gaussian_filter(noise, 8) > 0.01
    pixels[cloudy] = 900 + 2000 * noise[cloudy]
    assert 0.2 < cloudy.mean() < 0.5
    found = estimate_shift(wrap(pixels, TURNED), draw(scene, "B03"), match_patch)
    assert found.pixels == pytest.approx(shift, abs=0.05)


def test_refuses_what_does_not_match():
    scene = landscape(1)
    image = wrap(see(scene, "B03", (0, 0)), TURNED)
    another = draw(landscape(9), "B03")
    water = np.random.default_rng(0).normal(150, 3, SHAPE)
    for ours, theirs in ((image, another), (wrap(water, TURNED), draw(scene, "B03"))):
        with pytest.raises(BadInputError, match="patches match the reference"):
            estimate_shift(ours, theirs, match_patch)
    nothing = wrap(see(scene, "B03", (0, 0)), TURNED, valid=np.zeros(SHAPE, bool))
    with pytest.raises(BadInputError, match="0 of 0 patches"):
        estimate_shift(nothing, draw(scene, "B03"), match_patch)


def test_refuses_a_reference_of_elsewhere_and_one_without_a_map():
    scene = landscape(1)
    image = wrap(see(scene, "B03", (0, 0)), TURNED)
    reference = draw(scene, "B03")
    away = Affine.translation(0, 40_000) @ reference.grid.model.transform
    elsewhere = GeoImage(
        reference.pixels, GeoGrid(reference.grid.shape, AffineModel(away, CRS)), reference.valid
    )
    with pytest.raises(BadOptionError, match="does not touch"):
        estimate_shift(image, elsewhere, match_patch)
    with pytest.raises(BadOptionError, match="north up"):
        estimate_shift(image, image, match_patch)

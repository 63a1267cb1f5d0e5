"""Rasters that analysts have, with and without names, scales, geometry."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from rasterio.enums import ColorInterp

from l1bsr_geo.errors import BadInputError, L1bsrGeoWarning, MissingInputError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.rpc import RPCModel
from l1bsr_geo.georef.cog import write_cog
from l1bsr_geo.images.bands import BandScene
from l1bsr_geo.images.pixels import GeoImage
from l1bsr_geo.readers.geotiff import read_raster

WHOLE = Window(0, 0, 7, 5)
DN = (np.arange(4)[:, None, None] * 100 + np.arange(35).reshape(1, 5, 7) + 300).astype(np.uint16)
UTM: dict[str, Any] = {"crs": "EPSG:32631", "transform": Affine(10, 0, 5e5, 0, -10, 5e6)}

NAMES = ("B2", "B3", "B4", "B8")
NAMES_OF_OURS = ("B02", "B03", "B04", "B08")
KEPT = np.ones((5, 7), bool)
KEPT[1:4, 2:5] = False


def write(
    path: Path,
    pixels: np.ndarray = DN,
    names: tuple[str, ...] = (),
    scale: float | list[float] = 1.0,
    offset: float | list[float] = 0.0,
    mask: np.ndarray | None = None,
    **options: Any,
) -> Path:
    count, height, width = pixels.shape
    inside = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True)
    with inside, warnings.catch_warnings(action="ignore"), rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=count, dtype=pixels.dtype,
        **options,
    ) as out:  # fmt: skip
        out.write(pixels)
        for i, name in enumerate(names):
            out.set_band_description(i + 1, name)
        out.scales = np.broadcast_to(scale, count)
        out.offsets = np.broadcast_to(offset, count)
        if mask is not None:
            out.write_mask(mask)
    return path


def call_alpha(path: Path, index: int) -> None:
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "r+") as raster:
        colours = list(raster.colorinterp)
        colours[index - 1] = ColorInterp.alpha
        raster.colorinterp = colours


@pytest.mark.parametrize(
    "names",
    [
        NAMES,
        ("B02", "b03", "B04", "b08"),
        ("blue", "Green", "RED", "nir"),
        ("B2, central wavelength 490 nm", "B3 (560 nm)", "B4", "B8, central wavelength 842 nm"),
    ],
)
def test_bands_are_found_by_their_names_in_any_order(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    order = [2, 0, 3, 1]
    path = write(tmp_path / "a.tif", DN[order], tuple(names[k] for k in order), **UTM)
    stack = read_raster(path)
    assert stack.bands == ("B02", "B03", "B04", "B08")
    assert stack.reference == "B03"
    for k, band in enumerate(stack.bands):
        np.testing.assert_array_equal(stack.sources[band].read(WHOLE), DN[k])


def test_four_bands_without_names_are_taken_in_the_usual_order_aloud(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    with pytest.warns(L1bsrGeoWarning, match="without names, taken as B02, B03, B04, B08"):
        stack = read_raster(path)
    np.testing.assert_array_equal(stack.sources["B08"].read(WHOLE), DN[3])
    given = read_raster(path, ("B08", "B04", "B03", "B02"))
    np.testing.assert_array_equal(given.sources["B08"].read(WHOLE), DN[0])
    with pytest.warns(L1bsrGeoWarning):  # software that numbers bands does not name them
        numbered = read_raster(
            write(tmp_path / "b.tif", DN, ("Band 1", "Band 2", "Band 3", "Band 4"))
        )
    assert numbered.bands == ("B02", "B03", "B04", "B08")


def test_bands_choose_among_named_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", DN, ("B02", "B03", "B8A", "B12"), **UTM)
    assert read_raster(path).bands == ("B02", "B03", "B8A", "B12")
    stack = read_raster(path, ("B12", "B2"))
    assert stack.bands == ("B12", "B02")
    np.testing.assert_array_equal(stack.sources["B12"].read(WHOLE), DN[3])
    with pytest.raises(BadInputError, match=r"has bands B02, B03, B8A, B12; |B08 were asked for"):
        read_raster(path, ("B02", "B08"))


def test_the_map_transform_is_the_geometry(tmp_path: Path) -> None:
    stack = read_raster(write(tmp_path / "a.tif", names=NAMES, **UTM))
    grid = stack.grids["B03"]
    assert isinstance(grid.model, AffineModel)
    lon, lat = grid.localize(0.0, 0.0)
    assert float(lon) == pytest.approx(3.0, abs=1e-9)
    assert float(lat) == pytest.approx(45.1535, abs=1e-3)
    assert pickle.loads(pickle.dumps(stack)).grids["B03"].shape == (5, 7)


def test_an_rpc_is_the_geometry_of_an_image_without_a_map(shared: Path) -> None:
    path = shared / "data/pleiades_marseille_triplet/img_01.tif"
    grid = read_raster(path, ("B03",)).grids["B03"]
    assert isinstance(grid.model, RPCModel)
    lon, lat = grid.localize(512.0, 512.0, 100.0)
    with rasterio.open(path) as raster, rasterio.transform.RPCTransformer(raster.rpcs) as rpc:
        row, column = rpc.rowcol([float(lon)], [float(lat)], zs=[100.0], op=lambda v: v)
    np.testing.assert_allclose((column[0], row[0]), (512.0, 512.0), atol=1e-3)


def test_scale_and_offset_tags_become_the_add_offset(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", names=NAMES, scale=1e-4, offset=-0.1, **UTM)
    stack = read_raster(path)
    assert stack.attrs["scale_factor"]["B03"] == pytest.approx(1e-4)
    assert stack.add_offset["B03"] == pytest.approx(-1000)
    assert stack.attrs["add_offset"]["B03"] == pytest.approx(-0.1)
    assert stack.sources["B03"].dtype == np.uint16


def test_reflectance_is_brought_to_counts_aloud(tmp_path: Path) -> None:
    values = (DN / 10_000).astype(np.float32)
    values[0, 0, 0] = -1.0
    values[1, 0, 1] = 1.3  # brighter than white
    path = write(tmp_path / "a.tif", values, NAMES, nodata=-1.0, **UTM)
    with pytest.warns(L1bsrGeoWarning, match="taken as reflectance"):
        stack = read_raster(path)
    assert stack.attrs["scale_factor"]["B03"] == pytest.approx(1e-4)
    views = BandScene(stack).read(WHOLE)
    assert not views.valid[0, 0, 0, 0]
    assert views.valid.sum() == 4 * 35 - 1
    np.testing.assert_allclose(views.pixels[0, 2], DN[2], rtol=1e-5)
    assert views.pixels[0, 1, 0, 1] == pytest.approx(13_000)


def test_float_counts_stay_what_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", DN.astype(np.float32), NAMES, **UTM)
    stack = read_raster(path)
    assert set(stack.attrs["scale_factor"].values()) == {1}
    np.testing.assert_array_equal(stack.sources["B04"].read(WHOLE), DN[2])


def test_every_band_may_have_its_own_scale(tmp_path: Path) -> None:
    gains = [3.9, 4.2, 4.5, 6.1]
    scale, offset = [1 / g for g in gains], [-100 / g for g in gains]
    stack = read_raster(write(tmp_path / "a.tif", DN, NAMES, scale, offset, **UTM))
    for k, band in enumerate(stack.bands):
        assert stack.attrs["scale_factor"][band] == pytest.approx(scale[k])
        assert stack.attrs["add_offset"][band] == pytest.approx(offset[k])
        assert stack.add_offset[band] == pytest.approx(-100)
        np.testing.assert_array_equal(stack.sources[band].read(WHOLE), DN[k])
    np.testing.assert_allclose(BandScene(stack).read(WHOLE).pixels[0], DN - 100.0)


def test_an_output_of_ours_is_an_input(tmp_path: Path) -> None:
    scales = dict(zip(NAMES_OF_OURS, (0.1, 0.2, 0.3, 0.4), strict=True))
    pixels = xr.DataArray(
        DN,
        dims=("band", "y", "x"),
        coords={"band": list(scales)},
        attrs={"scale_factor": scales, "add_offset": {b: -100 * s for b, s in scales.items()}},
    )
    grid = GeoGrid((5, 7), AffineModel(UTM["transform"], UTM["crs"]))
    image = GeoImage(pixels, grid, xr.DataArray(KEPT, dims=("y", "x")))
    stack = read_raster(write_cog(image, tmp_path / "a.tif", tags={}))
    assert stack.attrs["scale_factor"] == pytest.approx(scales)
    assert stack.add_offset == pytest.approx(dict.fromkeys(scales, -100))
    views = BandScene(stack).read(WHOLE)
    np.testing.assert_array_equal(views.valid[0], np.broadcast_to(KEPT, DN.shape))
    np.testing.assert_allclose(views.pixels[0][:, KEPT], DN[:, KEPT] - 100.0)


@pytest.mark.parametrize(
    ("dtype", "declared", "expected"),
    [
        ("uint16", None, 0),
        ("int16", None, -32768),
        ("uint16", 65535, 65535),
        ("float32", None, np.nan),
        ("float32", -9999, -9999),
    ],
)
def test_a_mask_tells_which_pixels_are_data(
    tmp_path: Path, dtype: str, declared: float | None, expected: float
) -> None:
    pixels = DN.astype(dtype)
    pixels[1, 0, 0] = np.nan_to_num(expected)  # no data by its value, data by the mask
    path = write(tmp_path / "a.tif", pixels, NAMES, nodata=declared, mask=KEPT, **UTM)
    stack = pickle.loads(pickle.dumps(read_raster(path)))
    np.testing.assert_equal(stack.nodata, expected)
    scene = BandScene(stack)
    views = scene.read(WHOLE)
    assert scene.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(views.valid[0], np.broadcast_to(KEPT, DN.shape))
    np.testing.assert_allclose(views.pixels[0][:, KEPT], pixels[:, KEPT].astype(float), atol=1)
    part = Window(1, 2, 4, 3)
    np.testing.assert_array_equal(scene.read(part).valid[0, 3], KEPT[part.slices])


@pytest.mark.parametrize("declared", [None, 333])
def test_an_alpha_is_a_mask_and_no_band(tmp_path: Path, declared: int | None) -> None:
    pixels = np.concatenate([DN, np.where(KEPT, 65535, 0).astype(np.uint16)[None]])
    path = write(tmp_path / "a.tif", pixels, NAMES, nodata=declared, **UTM)
    call_alpha(path, 5)
    stack = read_raster(path)
    assert stack.bands == NAMES_OF_OURS
    assert stack.nodata == (declared or 0)
    views = BandScene(stack).read(WHOLE)
    np.testing.assert_array_equal(views.valid[0], KEPT & (declared != DN))
    np.testing.assert_array_equal(views.pixels[0][views.valid[0]], DN[views.valid[0]])


def test_a_named_band_is_no_alpha_whatever_its_colour(tmp_path: Path) -> None:
    pixels = DN.copy()
    pixels[3] = 0
    path = write(tmp_path / "a.tif", pixels, NAMES, **UTM)
    call_alpha(path, 4)
    for bands in (None, ("B02", "B03")):
        stack = read_raster(path, bands)
        assert stack.bands == NAMES_OF_OURS[: len(stack.bands)]
        assert stack.nodata is None
        assert BandScene(stack).read(WHOLE).valid.all()


def test_masked_reflectance_is_scaled(tmp_path: Path) -> None:
    values = (DN / 10_000).astype(np.float32)
    values[:, ~KEPT] = 1e20
    path = write(tmp_path / "a.tif", values, NAMES, mask=KEPT, **UTM)
    with pytest.warns(L1bsrGeoWarning, match="taken as reflectance"):
        views = BandScene(read_raster(path)).read(WHOLE)
    np.testing.assert_array_equal(views.valid[0, 0], KEPT)
    np.testing.assert_allclose(views.pixels[0][:, KEPT], DN[:, KEPT], rtol=1e-5)


def test_rasters_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("x")
    (tmp_path / "empty.tif").touch()
    refused = [
        (tmp_path / "gone.tif", None, MissingInputError, "is not there"),
        (tmp_path / "text.tif", None, BadInputError, "cannot be opened as a raster"),
        (tmp_path / "empty.tif", None, BadInputError, "is empty"),
        (tmp_path, None, BadInputError, "is a folder"),
        (write(tmp_path / "3.tif", DN[:3]), None, BadInputError, "has 3 bands.*B02,B03,B04,B08"),
        (write(tmp_path / "4.tif"), ("B02",), BadInputError, "4 bands without names, B02 were"),
        (write(tmp_path / "4.tif"), ("red",), BadInputError, "no Sentinel-2 band"),
        (
            write(tmp_path / "c.tif", DN.astype(np.complex64), NAMES),
            None, BadInputError, "one real number type",
        ),
        (
            write(tmp_path / "half.tif", DN, ("B04", "", "", "")),
            None, BadInputError, "names only some of its bands",
        ),
    ]  # fmt: skip
    for path, bands, kind, message in refused:
        with pytest.raises(kind, match=message) as error:
            read_raster(path, bands)
        assert path.name in str(error.value) or bands == ("red",)


def test_the_real_examples_are_read(shared: Path) -> None:
    with pytest.warns(L1bsrGeoWarning, match="four bands without names"):
        stack = read_raster(shared / "data/l1bsr_examples/00.tif")
    assert stack.shape == (352, 352)
    assert stack.grids["B03"].model is None

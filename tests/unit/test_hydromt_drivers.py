"""Our drivers, asked by HydroMT itself through the catalog that ships."""

import shutil
import warnings

import numpy as np
import pytest
import rasterio
import rasterio.warp
import yaml
from hydromt import DataCatalog
from hydromt.error import NoDataException, NoDataStrategy
from pyproj import CRS

from l1bsr_geo.errors import BadOptionError, GeometryWarning, L1bsrGeoWarning
from l1bsr_geo.pipelines.bands import orthorectify_bands
from l1bsr_geo.readers.data_catalog import read_entries, shipped_catalog
from l1bsr_geo.readers.sentinel2_l1b import read_detector_crop
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.skysat_collect import scene_on_map, write_skysat_collect
from tests.synthetic.small_product import BANDS, WINDOW, write_small_product
from tests.synthetic.weights import write_tiny_weights

pytestmark = [
    # HydroMT multiplies transforms with *, which affine 3 discourages:
    # https://github.com/rasterio/affine/blob/main/CHANGES.txt
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
    # no DEM; what it costs is tested in tests/e2e/test_cli.py
    pytest.mark.filterwarnings("ignore:no DEM:l1bsr_geo.errors.GeometryWarning"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder as users have it: the catalog, a product, a burst, a crop, weights."""
    folder = tmp_path_factory.mktemp("data")
    shutil.copy(shipped_catalog(), folder / "data_catalog.yaml")
    write_small_product(folder / "s2_l1b")
    write_skysat_collect(
        folder / "skysat_l1a", scene_on_map(made_city((420, 420), seed=2)), frames=3,
        shape=(64, 80), geometry=("text",), pointing_error=0.0, noise=0.0, seed=3,
    )  # fmt: skip
    (folder / "l1bsr_examples").mkdir()
    pixels = np.random.default_rng(0).integers(1, 900, (4, 20, 30), "uint16")
    with warnings.catch_warnings(action="ignore"), rasterio.open(
        folder / "l1bsr_examples/00.tif", "w", driver="GTiff", width=30, height=20, count=4,
        dtype="uint16",
    ) as raster:  # fmt: skip
        raster.write(pixels)
    return folder


@pytest.fixture(scope="module")
def catalog(root):
    return DataCatalog(str(root / "data_catalog.yaml"))


@pytest.fixture(scope="module")
def box(root):
    """West, south, east, north of the middle of the strip."""
    product = next((root / "s2_l1b").iterdir())
    grid = read_detector_crop(product, 5, ("B03",)).grids["B03"]
    lon, lat = grid.localize(WINDOW.col_off + WINDOW.width / 2, 200.0)
    return [lon - 0.01, lat - 0.01, lon + 0.01, lat + 0.01]


@pytest.fixture(scope="module")
def bands(catalog, box):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeometryWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # as above
        return catalog.get_rasterdataset("s2_l1b_product", variables=list(BANDS), bbox=box)


def other(root, tmp_path, name, **options):
    """The catalog with other options of a driver."""
    document = yaml.safe_load((root / "data_catalog.yaml").read_text())
    document["meta"]["root"] = str(root)
    document[name]["driver"]["options"] = options
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(document))
    return DataCatalog(str(tmp_path / "other.yaml"))


def test_hydromt_takes_every_source_as_we_do(catalog):
    drivers = {name: source.driver.name for name, source in catalog.list_sources()}
    assert set(drivers) == set(read_entries(shipped_catalog()))
    assert set(drivers.values()) == {"s2_l1b", "skysat_l1a", "l1bsr_weights"}
    assert drivers["weights_l1bsr-rcan"] == "l1bsr_weights"


def test_a_product_is_on_the_map_as_the_command_draws_it(root, box, bands, tmp_path):
    product = next((root / "s2_l1b").iterdir())
    west, south, east, north = box
    area = (west - 0.01, south - 0.01, east + 0.01, north + 0.01)  # what the driver reads
    orthorectify_bands(product, tmp_path / "map.tif", detector=5, bands=BANDS, aoi=area)
    with rasterio.open(tmp_path / "map.tif") as raster:
        left, bottom, right, top = bands.raster.bounds
        window = raster.window(left, bottom, right, top)
        expected = raster.read(window=window)
        assert bands.raster.crs == CRS.from_user_input(raster.crs)
        assert window.col_off == round(window.col_off)
    assert all(bands[band].chunks for band in BANDS)  # nothing was read
    pixels = np.stack([bands[band].values for band in BANDS])
    assert (pixels > 0).mean() > 0.3
    np.testing.assert_array_equal(pixels, expected)
    assert bands["B03"].raster.nodata == 0
    assert bands.attrs["source_license"] == "Copernicus Sentinel data legal notice"


def test_a_buffer_is_read_too(catalog, bands, box):
    wider = catalog.get_rasterdataset("s2_l1b_product", variables=BANDS, bbox=box, buffer=3)
    assert wider.sizes["x"] == bands.sizes["x"] + 6
    inner = wider.sel(x=bands.x, y=bands.y)
    np.testing.assert_array_equal(inner["B03"].values, bands["B03"].values)


def test_an_area_elsewhere_is_hydromts_no_data(catalog):
    elsewhere = [100.0, 10.0, 100.1, 10.1]
    with pytest.raises(NoDataException, match="nothing of it is inside"):
        catalog.get_rasterdataset("s2_l1b_product", variables=["B03"], bbox=elsewhere)
    nothing = catalog.get_rasterdataset(
        "s2_l1b_product", variables=["B03"], bbox=elsewhere, handle_nodata=NoDataStrategy.IGNORE
    )
    assert nothing is None


def test_sensor_pixels_are_those_on_disk(root, tmp_path):
    sensor = other(root, tmp_path, "s2_l1b_product", detector=5, bands=["B02"], ortho=False)
    pixels = sensor.get_rasterdataset("s2_l1b_product")
    images = sorted((root / "s2_l1b").glob("*.SAFE/GRANULE/*_D05_*/IMG_DATA/*_B02.jp2"))
    with warnings.catch_warnings(action="ignore"):
        expected = np.concatenate([rasterio.open(image).read(1) for image in images])
    np.testing.assert_array_equal(pixels.values, expected[: pixels.shape[0]])
    assert pixels.raster.crs.is_engineering
    with pytest.raises(BadOptionError, match="stays in its own pixels"):
        sensor.get_rasterdataset("s2_l1b_product", bbox=[4.0, 44.0, 5.0, 45.0])


def test_frames_of_a_burst_are_where_gdal_puts_them(root, catalog):
    """GDAL's own RPC warper as the independent truth."""
    frames = catalog.get_rasterdataset("skysat_l1a_burst")
    assert frames.dims == ("time", "y", "x")
    assert (np.diff(frames.time.values) > np.timedelta64(0)).all()
    paths = sorted((root / "skysat_l1a").glob("*.tif"))
    for path, frame in zip(paths, frames, strict=True):
        with warnings.catch_warnings(action="ignore"), rasterio.open(path) as raster:
            warped, _ = rasterio.warp.reproject(
                raster.read(1).astype("float32"), np.full(frame.shape, np.nan, "float32"),
                rpcs=raster.rpcs, src_crs="EPSG:4326", dst_crs=frames.raster.crs,
                dst_transform=frames.raster.transform, dst_nodata=np.nan,
                resampling=rasterio.warp.Resampling.cubic, RPC_HEIGHT="0",
            )  # fmt: skip
        both = np.isfinite(frame.values) & np.isfinite(warped)
        assert both.sum() > 3000
        error = (frame.values - warped)[both]
        assert np.sqrt((error**2).mean()) < 0.02 * warped[both].std()


def test_a_crop_without_geometry_stays_in_its_pixels(root, catalog):
    with pytest.warns(L1bsrGeoWarning, match="B02"):
        crop = catalog.get_rasterdataset("l1bsr_example_00")
    with warnings.catch_warnings(action="ignore"):
        expected = rasterio.open(root / "l1bsr_examples/00.tif").read()
    np.testing.assert_array_equal(crop.to_array().values, expected)
    assert crop.x.values[0] == 0.5


def test_what_is_written_reads_as_what_it_was(catalog, bands, tmp_path):
    source = catalog.get_source("s2_l1b_product")
    written = source.driver.write(tmp_path / "out/part", bands)
    with rasterio.open(written) as raster:
        assert raster.descriptions == BANDS
        np.testing.assert_array_equal(raster.read(2), bands["B03"].values)
        assert raster.crs.to_epsg() == 32631
    again = source.driver.model_copy(update={"options": type(source.driver.options)()})
    read = again.read([str(written)], variables=list(BANDS))
    np.testing.assert_array_equal(read["B02"].values, bands["B02"].values)
    with pytest.raises(BadOptionError, match="raster_xarray"):
        catalog.get_source("skysat_l1a_burst").driver.write(tmp_path / "frames", bands)


def test_several_images_are_not_mixed(root, tmp_path):
    document = {
        "all": {
            "data_type": "RasterDataset",
            "uri": "skysat_l1a/*.tif",
            "driver": {"name": "skysat_l1a"},
        }
    }
    (tmp_path / "all.yaml").write_text(yaml.safe_dump({"meta": {"root": str(root)}, **document}))
    with pytest.raises(BadOptionError, match="3 images match"):
        DataCatalog(str(tmp_path / "all.yaml")).get_rasterdataset("all")


def test_weights_are_a_dataset(root, catalog, tmp_path):
    write_tiny_weights(root / "fnet.safetensors", "fnet")
    weights = catalog.get_dataset("weights_fnet")
    assert weights.attrs["model"] == "fnet"
    source = catalog.get_source("weights_fnet")
    written = source.driver.write(tmp_path / "again", weights)
    again = source.driver.read([str(written)])
    assert again.equals(source.driver.read([str(root / "fnet.safetensors")]))
    assert again.attrs["network"] == weights.attrs["network"]

"""Sen2VM location grids: the official ones read, ours written in their manner."""

import math
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError, OutputExistsError
from l1bsr_geo.geometry.elevation import ConstantElevation
from l1bsr_geo.readers.local_raster import open_raster
from l1bsr_geo.readers.sentinel2_geo_grids import first_node, read_geo_grids
from l1bsr_geo.readers.sentinel2_instrument import read_instrument_model
from l1bsr_geo.readers.sentinel2_metadata import RESOLUTION
from l1bsr_geo.readers.sentinel2_product import open_product
from l1bsr_geo.readers.sentinel2_write_grids import write_geo_grids

Maker = Callable[..., Path]
GDAL = tuple(int(v) for v in rasterio.__gdal_version__.split(".")[:2])


def read(path: Path) -> np.ndarray:
    with warnings.catch_warnings(action="ignore"), rasterio.open(path) as raster:
        return raster.read()


@pytest.fixture
def real_product(shared: Path, tmp_path: Path) -> Path:
    """The real metadata of detector 5, with empty images of three bands."""
    tds1 = shared / "data/sen2vm_tds1/L1B_SAFE"
    safe = tmp_path / "S2A_MSIL1B_20200816T120221_N0500_R023_20240830T000000.SAFE"
    shutil.copytree(tds1 / "DATASTRIP", safe / "DATASTRIP")
    for granule in tds1.glob("GRANULE/*_D05_*"):
        target = safe / "GRANULE" / granule.name
        shutil.copytree(granule, target)
        (target / "IMG_DATA").mkdir()
        for band in ("B02", "B03", "B12"):
            name = f"{granule.name.removesuffix('_N05.00')}_{band}.jp2"
            (target / "IMG_DATA" / name).touch()
    return safe


@pytest.mark.parametrize("band", ["B02", "B12"])
def test_official_grids_are_read_where_their_nodes_lie(
    shared: Path, real_product: Path, band: str
) -> None:
    grids = shared / "data/sen2vm_tds1/ref_direct_grids"
    for granule in real_product.glob("GRANULE/*"):
        (granule / "GEO_DATA").mkdir()
        start = re.search(r"_(S\d+T\d+)_D05", granule.name)
        assert start is not None
        file = next(grids.glob(f"*_{start[1]}_D05_{band}.tif"))
        shutil.copy(file, granule / "GEO_DATA" / file.name)
    product = open_product(real_product)
    granules = product.granules_of(5)
    with warnings.catch_warnings(action="ignore"):
        grid = read_geo_grids(product, granules, band)
    step = 6000 / RESOLUTION[band]  # nothing but the sizes says so
    assert grid.step == (step, step)
    assert grid.origin == (0.5, 0.5)
    assert grid.lon.shape == (1, 24, 5)
    last = read(Path(product.gdal_path(granules[-1].geo_grids[band])))
    x, y = np.meshgrid(np.arange(5) * step + 0.5, (19 + np.arange(5)) * step + 0.5)
    lon, lat = grid.localize(x, y, 1234.0)
    np.testing.assert_allclose((lon, lat), last[:2], atol=1e-12)
    # and they are where the instrument model says, at their heights
    model = read_instrument_model(product, 5, band)
    at = model.localize(x, y, last[2])
    miss = np.hypot((at[0] - lon) * np.cos(np.radians(lat)), at[1] - lat) * 111_320
    assert miss.max() < 0.6


def test_written_grids_have_the_official_nodes(shared: Path, real_product: Path) -> None:
    """Same names, sizes and places as Sen2VM's at its step, on flat ground at its heights."""
    write_geo_grids(real_product, bands=("B03",), step=6000, elevation=ConstantElevation(45.0))
    official = shared / "data/sen2vm_tds1/ref_direct_grids"
    written = sorted(real_product.glob("GRANULE/*/GEO_DATA/*.tif"))
    assert len(written) == 6
    for path in written:
        ours, theirs = read(path), read(official / path.name)
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        flat = np.abs(theirs[2] - 45) < 5  # the sea; Madeira is higher
        assert flat.any()
        miss = np.hypot((ours[0] - theirs[0]) * np.cos(0.57), ours[1] - theirs[1]) * 111_320
        assert miss[flat].max() < 1.0
        assert np.all(ours[2] == 45)


def test_what_is_written_is_read_back(real_product: Path) -> None:
    product = open_product(real_product)
    (vrt,) = write_geo_grids(product, bands=("B12",), step=400)
    assert vrt.name == "S2A_OPER_GEO_L1B_DS_DPRM_20140630T140000_S20200816T120220_D05_B12.vrt"
    assert not list(real_product.rglob("*.part"))
    again = open_product(real_product)
    grid = read_geo_grids(again, again.granules_of(5), "B12")
    model = read_instrument_model(product, 5, "B12")
    x, y = np.meshgrid([0.5, 320.5, 1275.5], [0.5, 1152.5, 3000.25, 6911.5])
    there, here = model.localize(x, y, 0.0), grid.localize(x, y, 0.0)
    np.testing.assert_allclose(here, there, atol=3e-6)
    # the .vrt puts the granules' nodes below each other without a seam
    whole = read(vrt)
    rows = first_node(6912, 20) + 1
    assert whole.shape == (3, rows, first_node(1276, 20) + 1)
    nodes_y = np.arange(rows)[:, None] * 20 + 0.5
    lon, lat = model.localize(np.arange(whole.shape[2])[None, :] * 20 + 0.5, nodes_y, 0.0)
    np.testing.assert_allclose(whole[:2], (lon, lat), atol=1e-9)
    with rasterio.open(vrt) as raster:
        tags = raster.tags()
    assert (tags["LINE_OFFSET"], tags["LINE_STEP"]) == ("0.5", "20")
    assert tags["GEOREFERENCING_CONVENTION"] == "TOP_LEFT_CORNER"


@pytest.mark.skipif(GDAL < (3, 12), reason="GDAL < 3.12 does not know SENTINEL2_L1B_WITH_GEOLOC")
def test_gdal_opens_what_is_written(real_product: Path) -> None:
    """GDAL warps our grids to within 0.1 pixel of the instrument model."""
    from rasterio.warp import Resampling, reproject

    names = [p.name for p in real_product.glob("GRANULE/*")]
    items = "".join(f'<Granules granuleIdentifier="{n}"/>' for n in names)
    (
        real_product / "S2A_OPER_MTD_SAFL1B_PDMC_20240830T000000_R023_V20200816T120221.xml"
    ).write_text(
        '<n1:Level-1B_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/x.xsd">'
        "<n1:General_Info><Product_Info><Query_Options><Band_List><BAND_NAME>B12</BAND_NAME>"
        f"</Band_List></Query_Options><Product_Organisation><Granule_List>{items}</Granule_List>"
        "</Product_Organisation></Product_Info></n1:General_Info></n1:Level-1B_User_Product>"
    )
    columns = np.broadcast_to(16 * (np.arange(1276) + 0.5) + 100, (1, 1152, 1276))
    for granule in real_product.glob("GRANULE/*"):
        name = f"{granule.name.removesuffix('_N05.00')}_B12.jp2"
        with warnings.catch_warnings(action="ignore"), rasterio.open(
            granule / "IMG_DATA" / name, "w", driver="JP2OpenJPEG", width=1276, height=1152,
            count=1, dtype="uint16", QUALITY=100, REVERSIBLE="YES",
        ) as out:  # fmt: skip
            out.write(columns.astype(np.uint16))
    (vrt,) = write_geo_grids(real_product, bands=("B12",))
    xml = next(real_product.glob("*.xml"))
    model = read_instrument_model(real_product, 5, "B12")
    lon, lat = model.localize(600.0, 3000.0)
    step = 2e-4
    transform = rasterio.Affine(step, 0, lon, 0, -step, lat)
    out = np.zeros((100, 100), np.float32)
    crs = rasterio.CRS.from_epsg(4326)
    with open_raster(f'SENTINEL2_L1B_WITH_GEOLOC:"{xml}":{vrt.stem}') as raster:
        reproject(
            rasterio.band(raster, 1), out, src_crs=crs, dst_crs=crs, dst_transform=transform,
            resampling=Resampling.bilinear, tolerance=0.0, SRC_METHOD="GEOLOC_ARRAY",
        )  # fmt: skip
    at = (np.arange(100) + 0.5) * step
    x, _ = model.project(lon + at[None, :], lat - at[:, None])
    assert np.abs((out - 100) / 16 - x).max() < 0.1


def test_nothing_is_overwritten_or_left_half_written(real_product: Path) -> None:
    (vrt,) = write_geo_grids(real_product, bands=("B12",), step=2000)
    before = vrt.stat().st_mtime_ns
    with pytest.raises(OutputExistsError, match="is there already; --overwrite"):
        write_geo_grids(real_product, bands=("B12",), step=2000)
    assert vrt.stat().st_mtime_ns == before
    write_geo_grids(real_product, bands=("B12",), step=4000, overwrite=True)

    class Broken:
        def height(self, lon: object, lat: object) -> np.ndarray:
            raise BadInputError("no terrain")

    with pytest.raises(BadInputError, match="no terrain"):
        write_geo_grids(real_product, bands=("B02",), elevation=Broken())
    assert not list(real_product.rglob("*_B02.tif*"))
    assert not list(real_product.rglob("*.part"))


def test_another_folder_gets_the_same_tree(real_product: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    (vrt,) = write_geo_grids(real_product, out, bands=("B12",), step=4000)
    assert vrt.is_relative_to(out)
    assert not list(real_product.rglob("GEO_DATA"))
    assert np.isfinite(read(vrt)).all()


def test_damaged_grids_are_named(make_safe: Maker) -> None:
    safe = make_safe(bands=("B02",))
    for granule in safe.glob("GRANULE/*"):
        folder = granule / "GEO_DATA"
        folder.mkdir()
        name = granule.name.replace("_MSI_", "_GEO_").removesuffix("_N05.11") + "_B02.tif"
        with (
            warnings.catch_warnings(action="ignore"),
            rasterio.open(
                folder / name, "w", driver="GTiff", width=4, height=4, count=2, dtype="float64"
            ) as raster,
        ):
            raster.write(np.full((2, 4, 4), 400.0))
    product = open_product(safe)
    with pytest.raises(BadInputError, match=r"_B02\.tif is no location grid.*found 4 x 4"):
        read_geo_grids(product, product.granules_of(5), "B02")
    Path(product.gdal_path(product.granules[0].geo_grids["B02"])).write_text("x")
    with pytest.raises(BadInputError, match="cannot be read as a location grid"):
        read_geo_grids(product, product.granules_of(5), "B02")


def test_options_that_make_no_grids_are_refused(make_safe: Maker) -> None:
    safe = make_safe(bands=("B02",))
    with pytest.raises(BadOptionError, match="node spacing of 2 m"):
        write_geo_grids(safe, step=2)
    with pytest.raises(MissingInputError, match="has no images of B12"):
        write_geo_grids(safe, bands=("B12",))
    shutil.rmtree(safe / "DATASTRIP")
    with pytest.raises(MissingInputError, match="has no datastrip metadata"):
        write_geo_grids(safe)


def test_first_nodes_follow_the_official_rule() -> None:
    assert [first_node(p * 2304, 600) for p in range(7)] == [0, 4, 8, 12, 15, 19, 23]
    assert first_node(2304, 4.5) == math.floor(2304 / 4.5 + 0.5)

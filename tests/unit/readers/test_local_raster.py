"""Rasters are files here, or nothing."""

import numpy as np
import pytest
import rasterio

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.readers.local_raster import cause_of, confined, open_raster
from tests.synthetic.hostile import (
    ON_A_MAP,
    noise,
    write_map_server,
    write_raster,
    write_sparse,
    write_vrt,
)


def test_files_and_vrts_over_files_are_read(tmp_path):
    pixels = noise()
    source = write_raster(tmp_path / "a.tif", pixels)
    inner = write_vrt(tmp_path / "inner.vrt", "a.tif", relative=1)
    for path in (source, inner, write_vrt(tmp_path / "outer.vrt", inner)):
        with open_raster(path) as raster:
            np.testing.assert_array_equal(raster.read(), pixels)
        assert raster.closed


@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        ("/vsicurl/http://127.0.0.1:9/a.tif", MissingInputError, "no file here"),
        ("http://127.0.0.1:9/a.tif", MissingInputError, "no file here"),
        ("a.vrt", BadInputError, "more than 4 .vrt"),
        ("map.tif", BadInputError, "not followed"),
        ("&lt;VRTDataset/&gt;", MissingInputError, "no file here"),
    ],
)
def test_vrts_that_lead_elsewhere_are_refused(tmp_path, source, kind, said):
    write_map_server(tmp_path / "map.tif", "http://127.0.0.1:9")
    vrt = write_vrt(tmp_path / "a.vrt", source, relative=1)
    with pytest.raises(kind, match=said), open_raster(vrt):
        pass


def test_sizes_are_bounded(tmp_path):
    with (
        pytest.raises(BadInputError, match="1000000 x 1000000 pixels"),
        open_raster(write_sparse(tmp_path / "s.tif")),
    ):
        pass
    tile = {"height": 20_000, "width": 20_000, "count": 1, "dtype": "uint8", "tiled": True}
    tile |= {"blockxsize": 20_000, "blockysize": 20_000}
    with rasterio.open(
        tmp_path / "b.tif", "w", driver="GTiff", SPARSE_OK="TRUE", **tile, **ON_A_MAP
    ):
        pass
    with (
        pytest.raises(BadInputError, match="blocks of 20000 x 20000"),
        open_raster(tmp_path / "b.tif"),
    ):
        pass


def test_confinement_ends():
    with confined():
        assert rasterio.env.getenv()["GDAL_VRT_ENABLE_PYTHON"] == "NO"
    assert not rasterio.env.hasenv()
    with rasterio.Env(GDAL_VRT_ENABLE_PYTHON="YES"):
        with confined():
            pass
        assert rasterio.env.getenv()["GDAL_VRT_ENABLE_PYTHON"] == "YES"


def test_the_innermost_cause_is_told():
    error = ValueError("outer")
    error.__cause__ = OSError("two\nlines")
    assert cause_of(error) == "two lines"

"""Rasters of any format, and what they point to."""

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.synthetic import hostile
from tests.synthetic.confined import sr


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_constant_and_empty_images(run, place, dtype):
    output = place / "o.tif"
    flat = np.full((4, 40, 48), 500, dtype)
    run(*sr(hostile.write_raster(place / "flat.tif", flat), output, "--overwrite")).done(output)
    with rasterio.open(output) as raster:
        assert raster.read(masked=True).compressed() == pytest.approx(500, abs=0.01)
        assert raster.dataset_mask().mean() > 200
    output.unlink()
    run(*sr(hostile.write_raster(place / "none.tif", flat * 0, nodata=0), output)).done(output)
    with rasterio.open(output) as raster:
        assert not raster.dataset_mask().any()


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_holes_that_are_no_numbers(run, place, hole):
    pixels = np.full((4, 48, 48), 500, np.float32)
    pixels[:, 20:28, 20:28] = hole
    output = place / "o.tif"
    run(*sr(hostile.write_raster(place / "i.tif", pixels), output)).done(output)
    with rasterio.open(output) as raster:
        fine = raster.read(masked=True)
        assert np.abs(fine.compressed() - 500).max() < 0.01
        assert fine.mask[:, 44:52, 44:52].all()
        assert not fine.mask[:, 8:32, 8:32].any()


def test_images_of_nothing_else(run, place):
    output = place / "o.tif"
    pixels = np.full((4, 16, 16), np.nan, np.float32)
    for value in (np.nan, np.inf):
        output.unlink(missing_ok=True)
        run(*sr(hostile.write_raster(place / "i.tif", pixels * 0 + value), output)).done(output)
        with rasterio.open(output) as raster:
            assert not raster.dataset_mask().any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2)])
def test_tiny_images(run, place, shape):
    output = place / "o.tif"
    source = hostile.write_raster(place / "i.tif", np.full((4, *shape), 7, np.uint16))
    run(*sr(source, output)).done(output)
    with rasterio.open(output) as raster:
        assert raster.shape == (2 * shape[0], 2 * shape[1])


def test_odd_types_and_counts(run, place):
    output = place / "o.tif"
    for dtype in ("int8", "int16", "float64"):
        output.unlink(missing_ok=True)
        pixels = (hostile.noise() / 10).astype(dtype)
        run(*sr(hostile.write_raster(place / "i.tif", pixels), output)).done(output)
    output.unlink()
    many = hostile.write_raster(place / "many.tif", np.zeros((1000, 4, 4), np.uint8))
    run(*sr(many, output)).refused("1000 bands")
    waves = hostile.write_raster(place / "c.tif", hostile.noise().astype(np.complex64))
    run(*sr(waves, output)).refused("complex64")
    coloured = hostile.write_raster(place / "p.tif", hostile.noise((8, 8), "uint8"))
    with rasterio.open(coloured, "r+") as raster:
        raster.write_colormap(1, {i: (i, 0, 0, 255) for i in range(256)})
    run(*sr(coloured, output)).refused("1 bands")


@pytest.mark.parametrize("pixel", [np.nan, 1e300, 1e-300, 0.0])
def test_maps_that_are_none(run, place, pixel):
    transform = Affine(pixel, 0, 500_000, 0, -pixel, 5_000_000)
    source = hostile.write_raster(place / "i.tif", hostile.noise(), transform=transform)
    run(*sr(source, place / "o.tif")).refused("i.tif", "map transform")


def test_sizes_that_are_declared_only(run, place):
    run(*sr(hostile.write_sparse(place / "s.tif"), place / "o.tif")).refused("1000000 x 1000000")


def test_rasters_that_are_none(run, place):
    for content in (b"", b"hello", b"II*\0" + b"\xff" * 500, b"<html>not found</html>", b"{}"):
        (place / "i.tif").write_bytes(content)
        run(*sr(place / "i.tif", place / "o.tif")).refused("i.tif")
    good = hostile.write_raster(place / "good.tif", hostile.noise(), compress="deflate")
    for content in hostile.flipped(good.read_bytes(), 20, within=600):
        (place / "i.tif").write_bytes(content)
        (place / "o.tif").unlink(missing_ok=True)
        run(*sr(place / "i.tif", place / "o.tif")).harmless(place / "o.tif")


TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}


@pytest.mark.parametrize("how", ["truncated", "damaged"])
def test_a_corrupt_tile_leaves_nothing(run, process, place, how):
    """The last tile: the others are restored and waiting by then."""
    source = hostile.write_raster(place / "i.tif", hostile.noise((4, 320, 320)), **TILED)
    with rasterio.open(source) as raster:
        last = int(raster.get_tag_item("BLOCK_OFFSET_4_4", "TIFF", bidx=1))
    content = bytearray(source.read_bytes())
    content[last:] = b"" if how == "truncated" else bytes(len(content) - last)
    source.write_bytes(content)
    call = run if how == "truncated" else process
    call(*sr(source, place / "o.tif", "--tile", "64")).refused("i.tif cannot be decoded at rows")


def test_a_corrupt_tile_leaves_the_old_output(run, place):
    source = hostile.write_raster(place / "i.tif", hostile.noise((4, 192, 192)), **TILED)
    output = place / "o.tif"
    run(*sr(source, output)).done(output)
    before = output.read_bytes()
    source.write_bytes(source.read_bytes()[:-3000])
    run(*sr(source, output, "--tile", "64", "--overwrite")).refused("cannot be decoded")
    assert output.read_bytes() == before


def test_vrts_over_files_are_read(run, place):
    source = hostile.write_raster(place / "i.tif", hostile.noise())
    inner = hostile.write_vrt(place / "inner.vrt", source.name, relative=1)
    for n, name in enumerate((source, inner)):
        output = place / f"{n}.tif"
        run(*sr(hostile.write_vrt(place / "a.vrt", name), output)).done(output)


def test_vrts_that_lead_elsewhere(run, place, server):
    source = hostile.write_raster(place / "i.tif", hostile.noise())
    hostile.write_map_server(place / "map.tif", server.url)
    for name in (
        place / "a.vrt",  # itself
        place / "gone.tif",
        place / "map.tif",
        "/etc/passwd",
        "/dev/zero",
        f"/vsicurl/{server.url}/a.tif",
        f"/vsicurl_streaming/{server.url}/a.tif",
        f"/vsizip//vsicurl/{server.url}/a.zip/a.tif",
        f"{server.url}/a.tif",
        "/vsis3/bucket/key",
        f"GTIFF_DIR:1:{source}",
        "&lt;GDAL_WMS/&gt;",
    ):
        run(*sr(hostile.write_vrt(place / "a.vrt", name), place / "o.tif")).refused()
    run(*sr(place / "map.tif", place / "o.tif")).refused("map.tif")
    assert not server.reached


def test_sidecars_lead_nowhere(run, place, server):
    """GDAL opens overviews where a file beside the image says that they are."""
    pixels = hostile.noise((4, 400, 400), "float32") / 2000  # reflectance is told by a small copy
    source = hostile.write_raster(place / "i.tif", pixels)
    for way in ("vsicurl", "vsicurl_streaming"):
        (place / "i.tif.aux.xml").write_text(
            '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">'
            f"/{way}/{server.url}/o.ovr</MDI></Metadata></PAMDataset>"
        )
        (place / "o.tif").unlink(missing_ok=True)
        run(*sr(source, place / "o.tif")).done(place / "o.tif")
    assert not server.reached


def test_python_in_a_vrt(process, place, monkeypatch):
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")  # even of those who want it elsewhere
    source = hostile.write_raster(place / "i.tif", hostile.noise())
    code = f"import os\nos.mkdir({str(place / 'canary')!r})\ndef f(*a, **k):\n    pass\n"
    vrt = hostile.write_vrt(place / "a.vrt", source, python=code)
    process(*sr(vrt, place / "o.tif")).refused("Python")
    assert not (place / "canary").exists()

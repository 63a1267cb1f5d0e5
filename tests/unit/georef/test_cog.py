import os
import struct
import threading
import time
import weakref
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasterio.transform import GCPTransformer
from rio_cogeo.cogeo import cog_validate

from l1bsr_geo.errors import (
    BadInputError,
    BadOptionError,
    MissingInputError,
    OutputExistsError,
)
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.georef.cog import write_cog
from l1bsr_geo.georef.orthorectify import orthorectify
from l1bsr_geo.georef.pyramid import average
from l1bsr_geo.images.pixels import GeoImage


def read(path, **options):
    with rasterio.open(path, **options) as file:
        return file.read(), file.dataset_mask() > 0


def expected_overviews(pixels, valid, size, nodata):
    """Twice as slow and by another way: a loop over the four pixels."""
    while max(valid.shape) > size:
        height, width = ((n + 1) // 2 * 2 for n in valid.shape)
        grow = [(0, height - valid.shape[0]), (0, width - valid.shape[1])]
        pixels, valid = np.pad(pixels, [(0, 0), *grow]), np.pad(valid, grow)
        total, count = 0.0, 0
        for i, j in np.ndindex(2, 2):
            total = total + np.where(valid, pixels, 0).astype(float)[:, i::2, j::2]
            count = count + valid[i::2, j::2].astype(int)
        valid = count > 0
        mean = total / np.maximum(count, 1)
        mean = np.rint(mean) if pixels.dtype.kind in "iu" else mean
        pixels = np.where(valid, mean, nodata).astype(pixels.dtype)
        yield pixels, valid


@pytest.mark.parametrize("bigtiff", [None, True])
@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", 0),
        ("int16", -999),
        ("uint16", 0),
        ("uint32", None),
        ("float32", None),
        ("float64", 9.5),
    ],
)
def test_every_pixel_mask_and_overview_is_read_back(tmp_path, map_image, dtype, nodata, bigtiff):
    image = map_image(dtype=dtype, nodata=nodata)
    path = write_cog(image, tmp_path / "out.tif", tags={}, block=64, bigtiff=bigtiff)
    assert cog_validate(path, strict=True) == (True, [], [])
    assert os.listdir(tmp_path) == ["out.tif"]
    assert path.read_bytes()[2] == (43 if bigtiff else 42)
    hole = (np.nan if dtype.startswith("f") else 0) if nodata is None else nodata
    pixels, valid = read(path)
    np.testing.assert_array_equal(valid, image.valid.values)
    np.testing.assert_array_equal(pixels, np.where(valid, image.pixels.values, hole))
    assert pixels.dtype == dtype
    levels = list(expected_overviews(pixels, valid, 64, hole))
    assert len(levels) == 3
    for level, (mean, mean_valid) in enumerate(levels):
        pixels, valid = read(path, OVERVIEW_LEVEL=level)
        np.testing.assert_array_equal(valid, mean_valid)
        np.testing.assert_allclose(pixels, mean, rtol=1e-6)
    with rasterio.open(path) as file:
        assert file.profile["blockxsize"] == file.profile["blockysize"] == 64
        assert file.compression.name == "deflate"
        structure = file.tags(ns="IMAGE_STRUCTURE")
        assert structure["PREDICTOR"] == ("3" if dtype.startswith("f") else "2")
        assert structure["LAYOUT"] == "COG"
        assert all(
            flags == [rasterio.enums.MaskFlags.per_dataset] for flags in file.mask_flag_enums
        )
        expected = np.nan if dtype == "float32" else nodata
        assert (
            file.nodata is None if expected is None else np.array_equal(file.nodata, expected, True)
        )


def test_all_that_is_known_is_in_the_tags(tmp_path, map_image):
    image = map_image(
        wavelengths={"B02": 492.4, "B03": 559.8, "B04": 664.6},
        scale_factor={"B02": 0.1, "B03": 0.2, "B04": 0.3},
        add_offset=-100.0,
        units="W m-2 sr-1 um-1",
    )
    tags = {"software": "l1bsr_geo 9", "model": "geometric", "tile_size": "256", "note": "ä = ü"}
    path = write_cog(image, tmp_path / "out.tif", tags=tags)
    with rasterio.open(path) as file:
        assert file.tags() == tags | {"AREA_OR_POINT": "Area"}
        assert file.descriptions == ("B02", "B03", "B04")
        assert file.scales == (0.1, 0.2, 0.3)
        assert file.offsets == (-100.0,) * 3
        assert file.units == ("W m-2 sr-1 um-1",) * 3
        assert file.tags(3, ns="IMAGERY") == {"CENTRAL_WAVELENGTH_UM": "0.6646"}
        assert file.tags(2)["wavelength"] == "559.8"
        assert file.tags(2)["wavelength_unit"] == "nm"
        assert file.crs.to_epsg() == 32633
        assert file.transform == image.grid.model.transform
        assert not file.tags(ns="RPC")
        assert file.gcps[0] == []


def test_a_cropped_grid_shifts_the_transform(tmp_path, map_image):
    image = map_image((100, 80))
    grid = GeoGrid((100, 80), image.grid.model, Affine.translation(10, 20))
    path = write_cog(GeoImage(image.pixels, grid), tmp_path / "out.tif", tags={})
    with rasterio.open(path) as file:
        assert file.transform @ (0, 0) == image.grid.model.transform @ (10, 20)
        assert file.dataset_mask().all()


def test_blocks_have_leaders_and_trailers_and_masks_follow_pixels(tmp_path, map_image):
    path = write_cog(map_image(), tmp_path / "out.tif", tags={}, block=64)
    data, blocks = path.read_bytes(), 0
    with rasterio.open(path) as file:
        for row, col in np.ndindex(6, 4):
            at, size = (
                int(file.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1) or 0)
                for what in ("OFFSET", "SIZE")
            )
            if not at:
                continue
            blocks += 1
            assert struct.unpack("<I", data[at - 4 : at]) == (size,)
            assert data[at + size : at + size + 4] == data[at + size - 4 : at + size]
            (mask,) = struct.unpack("<I", data[at + size + 4 : at + size + 8])
            end = at + size + 8 + mask
            assert data[end : end + 4] == data[end - 4 : end]
    assert blocks == 6 * 4 - 2  # two blocks have no valid pixel: they are not stored


def test_sensor_geometry_gets_control_points(tmp_path, make_source, view, hill):
    image = make_source((200, 150)).image
    path = write_cog(image, tmp_path / "out.tif", tags={}, elevation=hill)
    with rasterio.open(path) as file:
        assert file.transform == Affine.identity()
        points, crs = file.gcps
    assert crs.to_epsg() == 4326
    assert len(points) == 400
    for point in points:
        x, y = view.project(point.x, point.y, hill.height(point.x, point.y))
        assert abs(x - point.col) < 0.01
        assert abs(y - point.row) < 0.01
    assert {(p.row, p.col) for p in points} > {(0, 0), (200, 0), (0, 150), (200, 150)}
    flat = write_cog(image, tmp_path / "flat.tif", tags={})
    with rasterio.open(flat) as file, GCPTransformer(file.gcps[0], tps=True) as gcps:
        lon, lat = gcps.xy(99.0, 70.0, offset="center")
    x, y = view.project(lon, lat, 0.0)
    assert abs(x - 70.5) < 0.01
    assert abs(y - 99.5) < 0.01


def test_rpcs_are_kept(tmp_path, make_source):
    one = [1.0] + [0.0] * 19
    rpcs = RPC(10.0, 500.0, 45.0, 0.1, one, one, 100.0, 80.0, 15.0, 0.1, one, one, 75.0, 70.0)
    given = {name: value for name, value in rpcs.to_dict().items() if value is not None}
    image = make_source((200, 150), rpcs=rpcs).image
    path = write_cog(image, tmp_path / "out.tif", tags={})
    with rasterio.open(path) as file:
        kept = file.rpcs.to_dict()
        assert file.gcps[0] == []
    assert {name: kept[name] for name in given} == given


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_an_image_without_geometry(tmp_path, map_image):
    image = map_image((40, 30))
    path = write_cog(GeoImage(image.pixels, GeoGrid((40, 30))), tmp_path / "out.tif", tags={})
    with rasterio.open(path) as file:
        assert file.crs is None
        assert file.gcps[0] == []
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path):
        pass


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (513, 3), (64, 64), (65, 64)])
def test_any_size(tmp_path, map_image, shape):
    image = map_image(shape)
    path = write_cog(image, tmp_path / "out.tif", tags={}, block=64)
    assert cog_validate(path, strict=True) == (True, [], [])
    pixels, valid = read(path)
    np.testing.assert_array_equal(valid, image.valid.values)
    np.testing.assert_array_equal(pixels, image.pixels.values * valid)


def test_an_image_without_any_valid_pixel(tmp_path, map_image):
    image = map_image((100, 100))
    empty = GeoImage(image.pixels, image.grid, image.valid & False)
    path = write_cog(empty, tmp_path / "out.tif", tags={}, block=64)
    pixels, valid = read(path)
    assert not valid.any()
    assert not pixels.any()
    assert path.stat().st_size < 4000


def test_floats_that_are_not_finite_are_not_valid(tmp_path, map_image):
    image = map_image((40, 40), dtype="float32")
    image.pixels.values[1, 30, 30] = np.nan
    path = write_cog(GeoImage(image.pixels, image.grid), tmp_path / "out.tif", tags={})
    pixels, valid = read(path)
    assert np.argwhere(~valid).tolist() == [[30, 30]]
    assert np.isnan(pixels[:, 30, 30]).all()


def test_nothing_is_computed_before_the_checks(tmp_path, make_source):
    source = make_source((60, 50))
    there = tmp_path / "there.tif"
    there.write_text("precious")
    for error, options in (
        (OutputExistsError, {"path": there}),
        (BadOptionError, {"path": there, "overwrite": True, "sources": [there]}),
        (BadOptionError, {"path": tmp_path, "overwrite": True}),
        (MissingInputError, {"path": tmp_path / "no" / "out.tif"}),
        (BadOptionError, {"path": tmp_path / "out.tif", "block": 100}),
    ):
        with pytest.raises(error):
            write_cog(source.image, tags={}, **options)
    assert not source.computed
    assert os.listdir(tmp_path) == ["there.tif"]
    assert there.read_text() == "precious"


def test_a_file_of_the_input_is_not_replaced(tmp_path, map_image):
    frame = tmp_path / "burst" / "frame.tif"
    frame.parent.mkdir()
    frame.write_bytes(b"mine")
    with pytest.raises(BadOptionError, match="is a file of the input"):
        write_cog(map_image, frame, tags={}, sources=[frame.parent], overwrite=True)
    assert frame.read_bytes() == b"mine"


def test_bad_images_are_refused(tmp_path, map_image):
    image = map_image((40, 30))
    for bad, words in (
        (GeoImage(image.pixels, GeoGrid((30, 40))), "their grid"),
        (GeoImage(image.pixels.astype(complex), image.grid), "complex128"),
        (GeoImage(image.pixels.assign_attrs(scale_factor=[1, 2]), image.grid), "B02, B03, B04"),
    ):
        with pytest.raises(BadInputError, match=words):
            write_cog(bad, tmp_path / "out.tif", tags={})
    assert os.listdir(tmp_path) == []


def test_a_failure_leaves_nothing_and_the_old_file(tmp_path, map_image):
    image = map_image((300, 300))
    path = tmp_path / "out.tif"
    path.write_text("old")

    def break_down(block, block_info):
        if block_info[0]["chunk-location"] == (0, 3, 3):
            raise RuntimeError("the power went out")
        return block

    pixels = da.from_array(image.pixels.values, chunks=(3, 64, 64))
    broken = image.pixels.copy(
        data=pixels.map_blocks(break_down, dtype=pixels.dtype, meta=pixels._meta)
    )
    with pytest.raises(RuntimeError, match="power"):
        write_cog(GeoImage(broken, image.grid), path, tags={}, overwrite=True, block=64)
    assert os.listdir(tmp_path) == ["out.tif"]
    assert path.read_text() == "old"
    write_cog(image, path, tags={}, overwrite=True, block=64)
    assert read(path)[0].shape == (3, 300, 300)


def test_threads_that_finish_after_a_failure_leave_nothing(tmp_path, map_image):
    image = map_image((256, 256))
    failed = threading.Event()

    def break_down(block, block_info):
        if block_info[0]["chunk-location"] == (0, 0, 0):
            failed.set()
            raise RuntimeError("the power went out")
        failed.wait(10)
        time.sleep(0.02 * block_info[0]["chunk-location"][2])
        return block

    pixels = da.from_array(image.pixels.values, chunks=(3, 64, 64))
    pixels = pixels.map_blocks(break_down, dtype=pixels.dtype, meta=pixels._meta)
    broken = GeoImage(image.pixels.copy(data=pixels), image.grid)
    with (
        dask.config.set(num_workers=8),
        pytest.raises(RuntimeError, match="power"),
    ):
        write_cog(broken, tmp_path / "out.tif", tags={}, block=64)
    assert os.listdir(tmp_path) == []
    time.sleep(0.3)
    assert os.listdir(tmp_path) == []


def test_the_file_can_be_read_by_others_as_any_new_file(tmp_path, map_image):
    path = write_cog(map_image((40, 30)), tmp_path / "out.tif", tags={})
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_progress_counts_every_block(tmp_path, map_image):
    seen = []
    write_cog(
        map_image(), tmp_path / "out.tif", tags={}, block=64, progress=lambda *n: seen.append(n)
    )
    blocks = 6 * 4 + 3 * 2 + 2 * 1 + 1
    assert seen == [(n, blocks) for n in range(1, blocks + 1)]


def test_pixels_and_mask_of_an_orthorectified_image_cost_each_chunk_once(tmp_path, make_source):
    source = make_source()
    write_cog(orthorectify(source.image, block=64), tmp_path / "out.tif", tags={}, block=64)
    assert set(source.computed.values()) == {1}
    source.computed.clear()
    write_cog(orthorectify(source.image, block=100), tmp_path / "2.tif", tags={}, block=64)
    assert set(source.computed.values()) == {1}


def test_disk_peaks_at_the_size_of_the_file(tmp_path, monkeypatch, map_image):
    """Every step that changes the disk is followed by a look at how full it is."""
    image = map_image((700, 800), count=4)
    peak = 0
    lock = threading.Lock()

    def look():
        nonlocal peak
        with lock:
            paths = [p for p in tmp_path.rglob("*") if p.is_file()]
            peak = max(peak, sum(p.stat().st_size for p in paths))

    write_bytes, unlink, replace = Path.write_bytes, Path.unlink, os.replace

    def write_and_look(path, data):
        done = write_bytes(path, data)
        look()
        return done

    def look_and_unlink(path, **options):
        look()
        unlink(path, **options)

    monkeypatch.setattr(Path, "write_bytes", write_and_look)

    def look_and_replace(*paths):
        look()
        replace(*paths)

    monkeypatch.setattr(Path, "unlink", look_and_unlink)
    monkeypatch.setattr(os, "replace", look_and_replace)
    with dask.config.set(scheduler="synchronous"):
        path = write_cog(image, tmp_path / "out.tif", tags={}, block=64)
    final = path.stat().st_size
    assert final > 1_000_000
    assert final * 0.9 < peak < final * 1.2


def test_average_of_known_pixels():
    pixels = np.array([[[1, 2, 9, 9], [3, 4, 9, 5]]], np.uint16)
    valid = np.array([[1, 1, 0, 0], [1, 1, 0, 1]], bool)
    mean, known = average(pixels, valid)
    assert mean.tolist() == [[[2.5, 5.0]]]
    assert known.tolist() == [[True, True]]
    _, none = average(pixels, valid & False)
    assert not none.any()


def test_xarray_in_memory_and_lazy_give_the_same_file(tmp_path, map_image):
    image = map_image()
    lazy = GeoImage(
        xr.DataArray(
            da.from_array(image.pixels.values, chunks=(1, 50, 70)),
            dims=image.pixels.dims,
            coords=image.pixels.coords,
        ),
        image.grid,
        image.valid.chunk({"y": 33, "x": 44}),
    )
    a, b = (
        write_cog(i, tmp_path / f"{n}.tif", tags={}, block=64).read_bytes()
        for n, i in enumerate((image, lazy))
    )
    assert a == b


@pytest.mark.parametrize("shape", [(208, 208), (48, 480)])
def test_few_source_chunks_are_held_at_a_time(tmp_path, shape):
    """A turned image is where the order of work matters: any one block shows several chunks."""
    held, most, computed = 0, 0, 0
    lock = threading.RLock()  # a finalizer can run anywhere

    def count(change):
        nonlocal held, most, computed
        with lock:
            held, most, computed = held + change, max(most, held), computed + max(change, 0)

    def draw(block_info):
        size = block_info[None]["chunk-shape"]
        pixels = np.ones(size, np.uint16)
        count(1)
        weakref.finalize(pixels, count, -1)
        return pixels

    chunks = ((1,), *da.core.normalize_chunks((16, 16), shape))
    pixels = da.map_blocks(draw, chunks=chunks, dtype="uint16", meta=np.empty((0, 0, 0), "uint16"))
    turned = Affine.translation(5e5, 5e6) @ Affine.rotation(-12) @ Affine.scale(5, -5)
    image = GeoImage(
        xr.DataArray(pixels, dims=("band", "y", "x"), coords={"band": ["B03"]}),
        GeoGrid(shape, AffineModel(turned, "EPSG:32633")),
    )
    image = orthorectify(image, resolution=5, block=16)
    write_cog(image, tmp_path / "out.tif", tags={}, block=16)
    assert computed == np.prod(pixels.numblocks)
    assert most <= 6 * min(pixels.numblocks[1:])


def test_a_cluster_writes_the_same_file(tmp_path, map_image):
    distributed = pytest.importorskip("distributed")
    image = map_image()
    here = write_cog(image, tmp_path / "here.tif", tags={}, block=64)
    with distributed.Client(processes=False, n_workers=1, dashboard_address=None):
        there = write_cog(image, tmp_path / "there.tif", tags={}, block=64)
    assert here.read_bytes() == there.read_bytes()

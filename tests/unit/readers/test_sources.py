"""Windows of files, mosaics and scaled values."""

import os
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.pixels import PixelSource
from l1bsr_geo.readers.sources import MosaicSource, ScaledSource, open_source


def write(path: Path, pixels: np.ndarray, driver: str = "GTiff", **options: object) -> str:
    height, width = pixels.shape
    with (
        warnings.catch_warnings(action="ignore"),
        rasterio.open(
            path,
            "w",
            driver=driver,
            width=width,
            height=height,
            count=1,
            dtype=pixels.dtype,
            **options,
        ) as out,
    ):
        out.write(pixels, 1)
    return str(path)


@pytest.fixture
def image() -> np.ndarray:
    return np.arange(40 * 30, dtype=np.uint16).reshape(40, 30)


def test_a_window_is_read(tmp_path: Path, image: np.ndarray) -> None:
    source = open_source(write(tmp_path / "a.tif", image))
    assert isinstance(source, PixelSource)
    assert source.shape == (40, 30)
    assert source.dtype == np.uint16
    window = Window(3, 5, 7, 11)
    np.testing.assert_array_equal(source.read(window), image[window.slices])
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.read(window), image[window.slices])


def test_threads_share_a_file(tmp_path: Path, image: np.ndarray) -> None:
    source = open_source(write(tmp_path / "a.jp2", image, "JP2OpenJPEG", QUALITY=100, REVERSIBLE=1))
    windows = [Window(k % 20, k % 30, 5, 5) for k in range(200)]
    with ThreadPoolExecutor(4) as threads:
        for window, pixels in zip(windows, threads.map(source.read, windows), strict=True):
            np.testing.assert_array_equal(pixels, image[window.slices])


def test_a_file_written_anew_is_read_anew(tmp_path: Path, image: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    before = open_source(write(path, image)).read(Window(0, 0, 2, 2))
    write(path, image + 7)
    os.utime(path, ns=(1, 1))
    after = open_source(str(path)).read(Window(0, 0, 2, 2))
    np.testing.assert_array_equal(after, before + 7)


def test_many_files_are_not_all_kept_open(tmp_path: Path, image: np.ndarray) -> None:
    sources = [open_source(write(tmp_path / f"{k}.tif", image + k)) for k in range(70)]
    for k, source in enumerate(sources):
        assert source.read(Window(0, 0, 1, 1))[0, 0] == k
    assert len(os.listdir("/proc/self/fd")) < 200


def test_a_mosaic_has_gaps(tmp_path: Path, image: np.ndarray) -> None:
    a = open_source(write(tmp_path / "a.tif", image))
    b = open_source(write(tmp_path / "b.tif", image + 2000))
    mosaic = MosaicSource(((0, a), (60, b)), (100, 30), np.dtype(np.uint16), fill=9)
    whole = np.full((100, 30), 9)
    whole[:40], whole[60:] = image, image + 2000
    for window in (Window(0, 0, 30, 100), Window(4, 35, 9, 30), Window(0, 45, 5, 5)):
        np.testing.assert_array_equal(mosaic.read(window), whole[window.slices])


def test_only_the_files_that_a_window_touches_are_opened(tmp_path: Path, image: np.ndarray) -> None:
    a = open_source(write(tmp_path / "a.tif", image))
    b = open_source(write(tmp_path / "b.tif", image))
    mosaic = MosaicSource(((0, a), (40, b)), (80, 30), np.dtype(np.uint16))
    (tmp_path / "b.tif").unlink()
    assert mosaic.read(Window(0, 0, 30, 40)).shape == (40, 30)
    with pytest.raises(MissingInputError, match=r"b\.tif is not there"):
        mosaic.read(Window(0, 0, 30, 41))


def test_scaled_values_keep_nodata(tmp_path: Path) -> None:
    values = np.array([[0.1, -9999.0], [0.25, np.nan]], np.float32)
    source = ScaledSource(open_source(write(tmp_path / "r.tif", values)), 10_000, -9999.0)
    out = source.read(Window(0, 0, 2, 2))
    assert out.dtype == source.dtype == np.float32
    np.testing.assert_allclose(out, [[1000, -9999], [2500, np.nan]])


def test_files_that_cannot_be_read_are_named(tmp_path: Path, image: np.ndarray) -> None:
    with pytest.raises(MissingInputError, match=r"gone\.jp2 is not there"):
        open_source(str(tmp_path / "gone.jp2"))
    (tmp_path / "empty.jp2").touch()
    with pytest.raises(BadInputError, match=r"empty\.jp2 is empty"):
        open_source(str(tmp_path / "empty.jp2"))
    (tmp_path / "text.tif").write_text("not an image")
    with pytest.raises(BadInputError, match=r"text\.tif cannot be opened as an image"):
        open_source(str(tmp_path / "text.tif"))
    # cut anywhere, also where the decoder would make do with what there is
    whole = Path(write(tmp_path / "whole.jp2", image, "JP2OpenJPEG", QUALITY=100, REVERSIBLE=1))
    cut = tmp_path / "cut.jp2"
    for keep in (0.3, 0.6, 0.99):
        cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * keep)])
        with pytest.raises(BadInputError, match=r"cut\.jp2 (is truncated|cannot be opened)"):
            open_source(str(cut))

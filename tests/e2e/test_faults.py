"""Runs that are killed, stopped or starved: right pixels in the end, nothing half done."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import copy, copytree

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from scipy.ndimage import gaussian_filter

from l1bsr_geo import super_resolve
from l1bsr_geo.errors import BadOptionError, L1bsrGeoError
from tests.synthetic import slow_restoration
from tests.synthetic.slow_restoration import NotingNetwork, count_tiles

TILE = 256
TILES = 5 * 3


@pytest.fixture(scope="module")
def raster(tmp_path_factory) -> Path:
    """Two bands on a map, 5 x 3 tiles."""
    path = tmp_path_factory.mktemp("raster") / "in.tif"
    rng = np.random.default_rng(5)
    green = gaussian_filter(rng.normal(size=(5 * TILE, 3 * TILE)), 1.5) * 1500 + 2000
    bands = np.stack([green, 0.8 * green]) + rng.normal(size=(2, *green.shape)) * 10
    write_raster(path, np.clip(bands, 1, 4095).astype(np.uint16))
    return path


def write_raster(path: Path, pixels: np.ndarray) -> None:
    count, height, width = pixels.shape
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 5e5, 0, -10, 5e6)}
    shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, **shape, **place) as file:
        file.write(pixels)
        file.descriptions = ("B03", "B04")[:count]


class Run:
    """A super-resolution in a process of its own, 15 tiles turned on another map."""

    def __init__(self, source: Path, output: Path, seconds: float = 0.1, **options) -> None:
        self.notes, self.output = output.with_suffix(".notes"), output
        self.notes.unlink(missing_ok=True)
        options = {"tile": TILE, "crs": "EPSG:32637"} | options
        script = [sys.executable, slow_restoration.__file__, source, output, self.notes]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*map(str, script), json.dumps(options), str(seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    @property
    def tiles(self) -> int:
        return count_tiles(self.notes, TILE)

    def wait_for(self, tiles: int) -> None:
        """Until so many tiles are being restored, or were."""
        wait_until(lambda: self.tiles >= tiles or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()

    def end(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=90)
        return self.process.returncode, errors


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".notes")


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


@pytest.fixture(scope="module")
def expected(raster, tmp_path_factory) -> np.ndarray:
    """The result of a run that nothing happens to."""
    run = Run(raster, tmp_path_factory.mktemp("expected") / "out.tif", seconds=0)
    assert run.end()[0] == 0
    assert run.tiles == TILES
    return read(run.output)


@pytest.fixture(scope="module")
def killed(raster, tmp_path_factory) -> Run:
    """What a run leaves that is killed when it has begun 80 % of its tiles."""
    run = Run(raster, tmp_path_factory.mktemp("killed") / "out.tif")
    run.wait_for(int(0.8 * TILES))
    run.process.kill()
    assert run.end()[0] == -signal.SIGKILL
    assert leftovers(run.output.parent) == [".out.tif.parts"]
    return run


def test_a_run_that_was_killed_goes_on_where_it_was(raster, killed, expected, tmp_path):
    """On another, turned map, where many blocks share a tile: the hard case."""
    copytree(killed.output.parent / ".out.tif.parts", tmp_path / ".out.tif.parts")
    resumed = Run(raster, tmp_path / "out.tif", resume=True)
    assert resumed.end() == (0, "")
    assert resumed.tiles <= TILES - killed.tiles + 2  # those in flight, one per thread
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), expected)
    assert leftovers(tmp_path) == ["out.tif"]


def test_without_resume_it_begins_anew(raster, killed, expected, tmp_path):
    copytree(killed.output.parent / ".out.tif.parts", tmp_path / ".out.tif.parts")
    again = Run(raster, tmp_path / "out.tif", seconds=0)
    assert again.end() == (0, "")
    assert again.tiles == TILES
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), expected)
    assert leftovers(tmp_path) == ["out.tif"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tile": 200}, "tile_size was 256 and is 200"),
        ({"dtype": "float32"}, "dtype was source and is float32"),
        ({"crs": "EPSG:32636"}, "crs was EPSG:32637 and is EPSG:32636"),
        ({"model": "geometric"}, "model was noting and is geometric"),
        ({"model": "other weights"}, "weights_sha256 was"),
        ({"source": "other pixels"}, "source was in.tif"),
    ],
)
def test_another_input_model_or_option_is_not_resumed(raster, killed, tmp_path, change, words):
    copytree(killed.output.parent / ".out.tif.parts", tmp_path / ".out.tif.parts")
    before = sorted(p.name for p in (tmp_path / ".out.tif.parts").iterdir())
    model = NotingNetwork(tmp_path / "notes", 0)
    if change.get("model") == "other weights":
        with torch.no_grad():
            model.blur.weight.mul_(0.5)
        change = {}
    if "source" in change:
        (tmp_path / "there").mkdir()
        raster = Path(copy(raster, tmp_path / "there" / "in.tif"))
        change = {}
    options = {"tile": TILE, "crs": "EPSG:32637", "model": model, "resume": True} | change
    with pytest.raises(BadOptionError, match=words):
        super_resolve(raster, tmp_path / "out.tif", **options)
    assert sorted(p.name for p in (tmp_path / ".out.tif.parts").iterdir()) == before


def test_two_runs_do_not_write_the_same_file(raster, tmp_path):
    first = Run(raster, tmp_path / "out.tif")
    first.wait_for(2)
    with pytest.raises(BadOptionError, match="another run is writing it"):
        super_resolve(raster, tmp_path / "out.tif", model="geometric")
    first.process.kill()
    first.end()


def test_a_full_disk(raster, tmp_path):
    """Of a file system of 2 MiB; the result needs more."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        with pytest.raises(L1bsrGeoError, match=r"out\.tif: the disk is full"):
            super_resolve(raster, disk / "out.tif", model="geometric")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_move_into_the_final_file_that_was_cut_short_goes_on(raster, tmp_path):
    """A limit on the size of a file cuts it."""
    super_resolve(raster, tmp_path / "whole.tif", model="geometric")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "whole.tif").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        with pytest.raises(BadOptionError, match="cannot be written"):
            super_resolve(raster, tmp_path / "out.tif", model="geometric", resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    parts = tmp_path / ".out.tif.parts"
    assert parts.joinpath("whole.tif").stat().st_size > size // 3
    with pytest.raises(BadOptionError, match="model was geometric"):
        super_resolve(
            raster, tmp_path / "out.tif", model=NotingNetwork(tmp_path / "n.notes", 0), resume=True
        )
    super_resolve(raster, tmp_path / "out.tif", model="geometric", resume=True)
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), read(tmp_path / "whole.tif"))
    assert leftovers(tmp_path) == ["out.tif", "whole.tif"]


def test_ctrl_c_leaves_nothing(raster, tmp_path):
    command = [sys.executable, "-m", "l1bsr_geo", "sr", str(raster), str(tmp_path / "out.tif")]
    run = subprocess.Popen(
        [*command, "--model", "geometric", "--tile", "32"], stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: list(tmp_path.glob(".out.tif.parts/*-*.tif")) or run.poll() is not None)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert "Traceback" not in errors
    assert leftovers(tmp_path) == []


def wait_until(there) -> None:
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.005)

"""A real dask cluster: the same pixels, and what happens when parts of it die."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from threading import Thread

import dask
import numpy as np
import pytest
import rasterio
from affine import Affine
from distributed import Client, LocalCluster
from scipy.ndimage import gaussian_filter

from l1bsr_geo import super_resolve
from l1bsr_geo.errors import BadOptionError, ClusterError
from l1bsr_geo.tiling.cluster import connect, current_client
from tests.synthetic.slow_restoration import NotingNetwork

TILE = 128
ONTO = {"tile": TILE, "crs": "EPSG:32637"}

# dask leaves sockets to the garbage collector when processes are killed
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def raster(tmp_path_factory) -> Path:
    """Two bands on a map, 5 x 4 tiles."""
    path = tmp_path_factory.mktemp("raster") / "in.tif"
    rng = np.random.default_rng(6)
    shape = {"count": 2, "height": 5 * TILE, "width": 4 * TILE, "dtype": "uint16"}
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 5e5, 0, -10, 5e6)}
    green = gaussian_filter(rng.normal(size=(5 * TILE, 4 * TILE)), 1.5) * 1500 + 2000
    bands = np.stack([green, 0.8 * green]) + rng.normal(size=(2, *green.shape)) * 10
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as file:
        file.write(np.clip(bands, 1, 4095).astype(np.uint16))
        file.descriptions = ("B03", "B04")
    return path


@pytest.fixture(scope="module")
def expected(raster, tmp_path_factory) -> np.ndarray:
    """The pixels of one process and one thread."""
    folder = tmp_path_factory.mktemp("expected")
    with dask.config.set(scheduler="synchronous"):
        super_resolve(raster, folder / "a.tif", model=NotingNetwork(folder / "notes", 0), **ONTO)
    return read(folder / "a.tif")


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def spans(notes: Path) -> dict[int, list[tuple[float, float]]]:
    """When each process began and ended to restore something."""
    begun: dict[int, float] = {}
    found: dict[int, list[tuple[float, float]]] = {}
    for line in notes.read_text().splitlines():
        first, _, pid, at = line.split()
        if first != "end":
            begun[int(pid)] = float(at)
        else:
            found.setdefault(int(pid), []).append((begun[int(pid)], float(at)))
    return found


def test_workers_started_for_the_run_give_the_same_pixels(raster, expected, tmp_path):
    said: list[tuple[int, int]] = []
    super_resolve(
        raster,
        tmp_path / "out.tif",
        model=NotingNetwork(tmp_path / "notes", 0.02),
        workers=2,
        progress=lambda done, total: said.append((done, total)),
        **ONTO,
    )
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), expected)
    pids = spans(tmp_path / "notes").keys() - {os.getpid()}
    assert len(pids) == 2
    assert said[-1][0] == said[-1][1]
    assert [done for done, _ in said] == sorted(done for done, _ in said)
    assert current_client() is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes", "out.tif"]


def test_a_client_that_the_program_has_is_used_and_slots_are_kept(raster, expected, tmp_path):
    """Four threads, but one GPU slot: never two tiles at once, though reading goes on beside."""
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=4,
            resources={"GPU": 1},
            dashboard_address=":0",
            processes=True,
        ) as cluster,
        Client(cluster),
    ):
        super_resolve(
            raster, tmp_path / "out.tif", model=NotingNetwork(tmp_path / "notes", 0.05), **ONTO
        )
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), expected)
    (worked,) = [s for pid, s in spans(tmp_path / "notes").items() if pid != os.getpid()]
    assert len(worked) >= 20
    for (_, end), (begin, _) in pairwise(worked):
        assert begin >= end


def test_a_worker_that_dies_is_made_up_for(raster, expected, tmp_path):
    notes = tmp_path / "notes"

    def kill_one() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            time.sleep(0.02)
            there = spans(notes) if notes.exists() else {}
            busy = [pid for pid, s in there.items() if pid != os.getpid() and len(s) >= 3]
            if busy:
                os.kill(busy[0], signal.SIGKILL)
                return

    killer = Thread(target=kill_one)
    killer.start()
    with connect(workers=2):
        super_resolve(raster, tmp_path / "out.tif", model=NotingNetwork(notes, 0.1), **ONTO)
    killer.join()
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), expected)
    died, *others = sorted(
        (s for pid, s in spans(notes).items() if pid != os.getpid()), key=lambda s: s[-1]
    )
    assert others[-1][-1] > died[-1]  # the work went on elsewhere


def test_a_scheduler_that_vanishes(raster, tmp_path):
    """A clear line, and nothing left."""
    notes = tmp_path / "notes"
    scheduler = start_dask("scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1")
    at = next(w for line in scheduler.stderr for w in line.split() if w.startswith("tcp://"))
    worker = start_dask("worker", at, "--nthreads", "1", "--no-dashboard", "--no-nanny")

    def kill() -> None:
        while scheduler.poll() is None:
            time.sleep(0.02)
            if notes.exists() and any(pid != os.getpid() for pid in spans(notes)):
                scheduler.kill()

    killer = Thread(target=kill)
    killer.start()
    output = tmp_path / "out.tif"
    try:
        model = NotingNetwork(notes, 0.3)
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
            pytest.raises(ClusterError, match=r"tcp://127.0.0.1.*went away"),
        ):
            super_resolve(raster, output, model=model, scheduler=at, **ONTO)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.communicate()
        killer.join()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes"]


def start_dask(*words: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]  # workers must find the network of these tests
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *words],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )


def test_nobody_at_the_address(raster, tmp_path, monkeypatch):
    monkeypatch.setattr("l1bsr_geo.tiling.cluster._PATIENCE", 1)
    with pytest.raises(BadOptionError, match="no dask scheduler answers there"):
        super_resolve(
            raster, tmp_path / "out.tif", model="geometric", scheduler="tcp://127.0.0.1:9"
        )
    with pytest.raises(BadOptionError, match="give one of the two"):
        super_resolve(raster, tmp_path / "o.tif", model="geometric", scheduler="a", workers=2)
    assert list(tmp_path.iterdir()) == []

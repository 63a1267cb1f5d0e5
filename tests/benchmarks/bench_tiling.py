"""What tiling costs: time over the bare network, and memory over the area.

    python tests/benchmarks/bench_tiling.py --json out.json      shallow network, under 3 minutes
    ... --groups 10 --blocks 20 --shape 512 512                  REC as published, 15.4 M parameters
    ... --groups 10 --blocks 20 --shape 2304 2552 --repeats 1    a whole granule; hours on a CPU

Time: `map_tiles` from a compressed GeoTIFF on disk to an array, against the same network called on
tiles that are in memory already, with their halo and without, in turns. The default network is as
wide as REC but has 4 of its 200 attention blocks: everything but the network weighs 40 times more
in the ratio than with REC. Two things that happen once per scene are left out of the turns and
told apart: measuring the halo and taking the scene's statistics.

Memory: peak resident memory beyond that of a process that has loaded everything and restored one
tile; each area in its own process, from a GeoTIFF (with GDAL's block cache) or from nothing, to
Zarr.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import dask
import dask.array as da
import numpy as np
import rasterio
import torch
import zarr

from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.bands import BandScene, BandStack
from l1bsr_geo.models.rcan import REC
from l1bsr_geo.models.registry import Model
from l1bsr_geo.readers.geotiff import read_raster
from l1bsr_geo.tiling.execute import map_tiles
from l1bsr_geo.tiling.plan import TilePlan
from l1bsr_geo.tiling.statistics import take_statistics

BANDS = ("B02", "B03", "B04", "B08")


@dataclass(frozen=True)
class MadePixels:
    """A band that takes no memory: a function of place."""

    shape: tuple[int, int]
    dtype: np.dtype

    def read(self, window):
        y, x = (np.arange(s.start, s.stop) for s in window.slices)
        return (300 + y[:, None] % 97 * 5 + x % 89 * 3).astype(self.dtype)


def made_scene(shape):
    source = MadePixels(shape, np.dtype("uint16"))
    grids = dict.fromkeys(BANDS, GeoGrid(shape))
    return BandScene(BandStack(dict.fromkeys(BANDS, source), grids, "B03", nodata=0))


def raster_scene(path, shape):
    """The same on disk: tiled, deflated, with noise so that it does not compress away."""
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 4, "compress": "deflate"}
    profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256, "nodata": 0}
    scene, random = made_scene(shape), np.random.default_rng(0)
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    with rasterio.open(path, "w", height=shape[0], width=shape[1], **profile) as raster:
        raster.descriptions = BANDS
        for tile in TilePlan(shape, 512):
            pixels = scene.read(tile.core).pixels[0] + random.normal(0, 3, tile.core.shape)
            c = tile.core
            raster.write(
                pixels.astype("u2"),
                window=rasterio.windows.Window(c.col_off, c.row_off, c.width, c.height),
            )
    return BandScene(read_raster(path))


def seconds(function):
    """Elapsed, and of all cores together: the latter hardly sees a machine's other load."""
    start, cpu_start = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - cpu_start


def measure_time(options, folder):
    torch.manual_seed(0)
    network = REC(groups=options.groups, blocks=options.blocks).eval()
    network.requires_grad_(False).to(memory_format=torch.channels_last)
    model = Model.from_restorer(network, device="cpu")
    scene = raster_scene(folder / "scene.tif", tuple(options.shape))
    plan = TilePlan.for_model(model.spec, scene.grid.shape, options.size)
    statistics = {}
    once = {
        "halo_probe": seconds(lambda: model.probe_halo(0.5)),
        "scene_statistics": seconds(lambda: statistics.update(take_statistics(model, scene, plan))),
    }
    frozen = {name: torch.as_tensor(value) for name, value in statistics.items()}
    target = np.zeros((4, *(2 * n for n in options.shape)), "u2")

    def tiled():
        image = map_tiles(model, scene, plan)
        da.store(image.pixels.data, target, lock=False)

    def bare(windows):
        tiles = [torch.from_numpy(scene.read(w).pixels[None] / model.spec.gain) for w in windows]

        def run():
            with torch.inference_mode():
                for tile in tiles:
                    network(tile, None, frozen)

        # in a thread of dask's, as the tiles are: allocation differs from the main thread's
        return lambda: dask.delayed(run)().compute(scheduler="threads")

    runs = {
        "tiled": tiled,
        "bare_with_halo": bare([tile.read for tile in plan]),
        "bare_without_halo": bare([tile.core for tile in plan]),
    }
    # the halo and the statistics were taken above; tiled() must not take them again
    model.probe_halo = lambda tolerance: 0
    model.scene_statistics = lambda views: statistics
    times = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            times[name].append(seconds(run))
    medians = {name: np.median(values, 0).tolist() for name, values in times.items()}
    over = {
        f"over_{name}": [t / b for t, b in zip(medians["tiled"], medians[name], strict=True)]
        for name in ("bare_with_halo", "bare_without_halo")
    }
    read, whole = sum(t.read.width * t.read.height for t in plan), np.prod(options.shape)
    granule = TilePlan.for_model(model.spec, (2304, 2552))
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "shape": options.shape,
        "tile_size": plan.size,
        "tile_halo": plan.halo,
        "tiles": len(plan),
        "threads": torch.get_num_threads(),
        "columns": ["elapsed [s]", "of all cores [s]"],
        "runs": times,
        "medians": medians,
        **over,
        "halo_area_ratio": read / whole,
        "once_per_scene": once,
        "granule_halo_area_ratio": sum(t.read.width * t.read.height for t in granule)
        / (2304 * 2552),
    }


def store(scene, model, path):
    plan = TilePlan.for_model(model.spec, scene.grid.shape, 256)
    image = map_tiles(model, scene, plan)
    arrays = [image.pixels.data, image.valid.data]
    group = zarr.open_group(path, mode="w")
    targets = [
        group.create_array(name, shape=a.shape, chunks=a.chunksize, dtype=a.dtype)
        for name, a in zip(("pixels", "valid"), arrays, strict=True)
    ]
    with dask.config.set(scheduler="threads", num_workers=2):
        da.store(arrays, targets, lock=False)


def peak():
    """Most resident memory of this process so far [bytes].

    Not ru_maxrss where it can be helped: on Linux a child starts with its parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (v for v in status.read_text().splitlines() if v.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure_memory_here(length, source, folder):
    """In a fresh process: prints the peak beyond that of one tile's run [bytes]."""
    model = Model("bicubic", device="cpu")
    store(made_scene((300, 300)), model, folder / "warm.zarr")
    before = peak()
    shape = (length, length)
    scene = made_scene(shape) if source == "made" else BandScene(read_raster(folder / "scene.tif"))
    store(scene, model, folder / "result.zarr")
    print(peak() - before)


def measure_memory(side, folder):
    results = {"result_bytes": [], "area": [1, 4, 16]}
    for source in ("made", "geotiff"):
        results[source] = []
        for factor in (1, 2, 4):
            length = side * factor
            if source == "geotiff":
                raster_scene(folder / "scene.tif", (length, length))
            command = [sys.executable, __file__, "--child", str(length), source, str(folder)]
            results[source].append(int(subprocess.check_output(command, text=True)))
    results["result_bytes"] = [4 * 2 * (2 * side * f) ** 2 for f in (1, 2, 4)]
    return results


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--shape", type=int, nargs=2, default=(512, 512), metavar=("H", "W"))
    parser.add_argument("--size", type=int, default=256, help="tile size; 0 is the default size")
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", type=int, default=1024, help="of the 1x area of the memory test")
    parser.add_argument("--skip", choices=["time", "memory"], action="append", default=[])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        length, source, folder = options.child
        measure_memory_here(int(length), source, Path(folder))
        return
    options.size = options.size or None
    results = {"machine": {"cpus": os.cpu_count(), "torch": torch.__version__}}
    with tempfile.TemporaryDirectory() as folder:
        if "time" not in options.skip:
            results["time"] = measure_time(options, Path(folder))
        if "memory" not in options.skip:
            results["memory"] = measure_memory(options.side, Path(folder))
    text = json.dumps(results, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()

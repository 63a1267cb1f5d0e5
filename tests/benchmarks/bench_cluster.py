"""Work given to a dask cluster: throughput, the start of a very large job, and what weights cost.

    python tests/benchmarks/bench_cluster.py --json out.json      all three, 10 minutes
    ... --only throughput --side 2048 --turns 5                   longer runs
    ... --only throughput --network l1bsr-rcan --side 512         REC, made-up weights
    ... --only start --tiles 1000000

Throughput: the same job on one worker and on two, of one thread each, in turns; the workers are
there and have done a small job before time is taken. How many pixels differ from those of this
process alone is told. On two cores the scheduler and this process take their part from the second
worker. Where other programs are busy, too, only CPU seconds tell how even the work was.

Start: a job of 100,000 tiles of a scene that makes its pixels up, from the call of `write_cog` to
its first block (so a tile was restored and encoded, and came back), then it is stopped. Memory is
the peak of the process that asks, beyond that of a small job. The first run of the graph is what
the scheduler is sent at once; the model in it is REC with 62 MB of weights.

Weights: how often each worker process loads a model's, over two jobs, and what a model pickles to.
"""

import argparse
import json
import logging
import os
import pickle
import platform
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import cloudpickle
import numpy as np
import rasterio
import torch
from bench_end_to_end import in_fresh_process, make_weights, print_table
from dask.system import CPU_COUNT
from peers.landscape import BANDS, make_landscape, write_raster
from peers.measure import peak_memory

from l1bsr_geo import super_resolve
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.georef.cog import write_cog
from l1bsr_geo.georef.pyramid import TileFormat, encode_lazily
from l1bsr_geo.images.pixels import Views
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.checkpoint import find_weights
from l1bsr_geo.models.registry import MODELS, Model
from l1bsr_geo.models.single_image import SingleImage
from l1bsr_geo.tiling import stream
from l1bsr_geo.tiling.execute import map_tiles
from l1bsr_geo.tiling.plan import TilePlan

BLOCK = 512  # [px] of the output


def make_model(name: str, weights: Path, precision: str = "fp32") -> Model:
    """A model by name, or eight plain convolutions: 1.2 million multiplications a pixel."""
    if name != "convolutions":
        given = weights if name == "l1bsr-rcan" else None
        return Model(name, weights=given, device="cpu", precision=precision)
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = [torch.nn.Conv2d(4, 128, 3, padding=1)]
    for _ in range(8):
        layers += [torch.nn.ReLU(), torch.nn.Conv2d(128, 128, 3, padding=1)]
    layers += [torch.nn.Conv2d(128, 16, 3, padding=1), torch.nn.PixelShuffle(2)]
    spec = ModelSpec("convolutions", BANDS, scale=2, halo=10, gain=4000.0)
    return Model.from_restorer(SingleImage(torch.nn.Sequential(*layers), spec), "cpu", precision)


@contextmanager
def start_workers(count: int):
    """Worker processes of one thread each."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def measure_throughput(folder: Path, network: str, side: int, tile: int, turns: int, precision):
    """Seconds of one job, by workers, and whether the pixels are the same."""
    source = write_raster(folder / "scene.tif", make_landscape(side))
    small = write_raster(folder / "small.tif", make_landscape(2 * tile))
    model = make_model(network, folder / "made_up.safetensors", precision)
    alone = folder / "alone.tif"
    super_resolve(source, alone, model=model, tile=tile)
    expected = read(alone)
    taken: dict[int, list] = {1: [], 2: []}
    differing = {1: 0, 2: 0}
    for turn in range(turns):
        for count, turns_of in taken.items():
            with start_workers(count) as client:
                output = folder / "out.tif"
                super_resolve(small, output, model=model, tile=tile, overwrite=True)
                before = client.run(time.process_time)
                start = time.perf_counter()
                super_resolve(source, output, model=model, tile=tile, overwrite=True)
                wall = time.perf_counter() - start
                after = client.run(time.process_time)
            cpu = [after[worker] - before[worker] for worker in after]
            differing[count] += int((read(output) != expected).sum())
            turns_of.append((wall, sum(cpu), max(cpu)))
            print(f"turn {turn + 1}, {count} workers: {wall:.1f} s, CPU {cpu} s", flush=True)
    rows = []
    for count, turns_of in taken.items():
        wall, cpu, busiest = np.median(turns_of, axis=0).tolist()
        ratios = [one[0] / own[0] for one, own in zip(taken[1], turns_of, strict=True)]
        rows.append(
            {
                "workers": count,
                "wall [s]": wall,
                "CPU of all workers [s]": cpu,
                "CPU of the busiest worker [s]": busiest,
                "input [Mpx/s]": side * side / 1e6 / wall,
                "throughput / one worker": float(np.median(ratios)),
                "pixels that differ": differing[count],
            }
        )
    return rows


class Far:
    """A scene that takes no memory."""

    bands = BANDS
    dtype = np.dtype("uint16")
    nodata = None
    add_offset = (0.0,) * len(BANDS)

    def __init__(self, tiles: int, size: int) -> None:
        rows = max(1, int(tiles**0.5))
        self.grid = GeoGrid((rows * size, -(-tiles // rows) * size), None)

    def read(self, window) -> Views:
        y, x = (np.arange(s.start, s.stop) for s in window.slices)
        pixels = (300 + y[:, None] % 97 * 5 + x % 89 * 3).astype(np.float32)
        views = np.broadcast_to(pixels, (1, len(BANDS), *pixels.shape)).copy()
        return Views(views, np.ones(views.shape, bool))


class FirstBlockError(Exception):
    """The first block is there: enough was seen."""


def stop(done: int, total: int) -> None:
    raise FirstBlockError


def time_first_block(file: Path, scene: Far, model: Model, size: int) -> dict[str, float]:
    """Seconds from the call to the plan, and to the first block of the output."""
    start = time.perf_counter()
    plan = TilePlan.for_model(model.spec, scene.grid.shape, size=size)
    image = map_tiles(model, scene, plan)
    planned = time.perf_counter() - start
    try:
        write_cog(image, file, tags={}, progress=stop)
    except FirstBlockError:
        return {
            "tiles": len(plan),
            "until tiles are planned [s]": planned,
            "until the first block is there [s]": time.perf_counter() - start,
        }
    raise SystemExit("no block was written")


def measure_start(workers: int, tiles: int, size: int) -> dict:
    """In a fresh process: time and memory of a job's start; without workers on its own threads."""
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        file, model = Path(temporary) / "far.tif", Model("bicubic", device="cpu")
        with start_workers(workers) if workers else nullcontext():
            write_cog(map_tiles(model, Far(16, size)), file, tags={})
            before = peak_memory(os.getpid())
            figures = time_first_block(file.with_name("far2.tif"), Far(tiles, size), model, size)
            beyond = peak_memory(os.getpid()) - before
    where = f"{workers} workers" if workers else "threads"
    return {"on": where} | figures | {"memory beyond a small job's [MiB]": beyond / 2**20}


def measure_graph(tiles: int, size: int, weights: Path) -> dict:
    """What is sent to the scheduler at once, and what all of it would be."""
    torch.set_num_threads(1)
    model, scene = make_model("l1bsr-rcan", weights), Far(tiles, size)
    before, start = peak_memory(os.getpid()), time.perf_counter()
    plan = TilePlan.for_model(model.spec, scene.grid.shape, size=size)
    image = map_tiles(model, scene, plan)
    form = TileFormat(len(BANDS), np.dtype("uint16"), None, BLOCK)
    height, width = image.grid.shape
    blocks = list(np.ndindex(-(-height // BLOCK), -(-width // BLOCK)))
    graph, places = encode_lazily(form, image.pixels.data, image.valid.data, blocks)
    threads = max(CPU_COUNT, stream.LEAST_THREADS)
    runs = stream.Runs.plan(graph, list(places), stream.CLUSTER_RUN * threads)
    taken, beyond = time.perf_counter() - start, peak_memory(os.getpid()) - before
    first = {key: graph[key] for key in runs.tasks[0]}
    return {
        "tiles": len(plan),
        "blocks": len(places),
        "tasks": len(graph),
        "runs": len(runs.keys),
        "planning [s]": taken,
        "memory of the plan [MiB]": beyond / 2**20,
        "tasks of the first run": len(first),
        "first run, pickled [kB]": len(cloudpickle.dumps(first)) / 1e3,
        "weights file [kB]": weights.stat().st_size / 1e3,
    }


def count_loads() -> None:
    """To be run by a worker: from now on it counts how often weights are loaded."""
    from l1bsr_geo.models.entries import Entry

    plain = Entry.load
    Entry.loads = 0

    def load(self, *arguments, **options):
        Entry.loads += 1
        return plain(self, *arguments, **options)

    Entry.load = load


def told_loads() -> int:
    from l1bsr_geo.models.entries import Entry

    return Entry.loads


def measure_weights(folder: Path) -> list[dict]:
    """Loads of a worker process over two jobs; bytes of models."""
    made, rows = folder / "made_up.safetensors", []
    for name, side in (("l1bsr", 256), ("l1bsr-rcan", 64)):
        model = make_model(name, made)
        file = made if name == "l1bsr-rcan" else find_weights(name, None, MODELS[name].weights)
        source, output = folder / f"{side}.tif", folder / "out.tif"
        write_raster(source, make_landscape(side))
        with start_workers(2) as client:
            client.run(count_loads)
            for _ in range(2):
                super_resolve(source, output, model=model, tile=side // 4, overwrite=True)
            loads = list(client.run(told_loads).values())
        rows.append(
            {
                "model": name,
                "weights file [kB]": file.stat().st_size / 1e3,
                "pickled [kB]": len(pickle.dumps(model)) / 1e3,
                "loads of each worker, two jobs": " and ".join(map(str, loads)),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parts = ["throughput", "start", "weights"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    networks = ["convolutions", "l1bsr", "l1bsr-rcan"]
    parser.add_argument("--network", choices=networks, default="convolutions")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="fp32")
    parser.add_argument("--side", type=int, default=1536, help="of the raster [px]")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--tiles", type=int, default=100_000)
    arguments = parser.parse_args()
    result: dict = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load before": os.getloadavg()[0],
        "torch": torch.__version__,
        "options": {k: str(v) for k, v in vars(arguments).items()},
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = make_weights(folder / "made_up.safetensors")
        if "throughput" in arguments.only:
            options = (arguments.network, arguments.side, arguments.tile, arguments.turns)
            rows = measure_throughput(folder, *options, arguments.precision)
            print_table(f"Throughput, {arguments.network}", rows)
            result["throughput"] = rows
        if "start" in arguments.only:
            size = 512
            starts = [in_fresh_process(measure_start, n, arguments.tiles, size) for n in (0, 2)]
            graph = in_fresh_process(measure_graph, arguments.tiles, size, made)
            print_table("Start of a large job", starts)
            print_table("What the scheduler is sent", [graph])
            result["start"], result["graph"] = starts, graph
        if "weights" in arguments.only:
            rows = measure_weights(folder)
            print_table("Weights", rows)
            result["weights"] = rows
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""The whole command on a granule: `sr`, from JP2 to COG, beside the bare network.

    python tests/benchmarks/bench_end_to_end.py --json out.json                 geometric, minutes
    python tests/benchmarks/bench_end_to_end.py --model l1bsr-rcan --json out.json  REC, 30 minutes

A granule of 2304 x 2552 x 4 (or fewer lines) is made first, and once more of 4 granules for memory.
Each run is a process of its own: wall time, CPU time, peak memory, and the largest total size of
the output's folder while it runs, over the size of the final file. With `--model l1bsr-rcan` (15.4
M parameters, made-up weights: nothing here depends on their values) the bare network is timed in
the same session on tiles in memory, with the same threads, the halo included and left out.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

COLUMNS = 2552


def make_product(folder: Path, granules: int, lines: int) -> Path:
    """A product whose pixels are cheap to make: smooth hills and noise, true metadata."""
    from l1bsr_geo.simulation.datastrip import write_metadata
    from l1bsr_geo.simulation.overpass import Overpass
    from l1bsr_geo.simulation.sentinel2_product import write_l1b_product

    overpass = Overpass(lon=5.0, lat=44.75, granules=granules, granule_lines=lines)
    bands = ("B02", "B03", "B04", "B08")
    models = {(5, b): overpass.model(5, b) for b in bands}
    metadata = folder / "metadata"
    write_metadata(metadata, overpass)

    class Waves:
        """A landscape in closed form, DN of every band."""

        crs = "EPSG:32631"

        def sample(self, band, e, n):
            rng = np.random.default_rng(0)
            value = np.full(np.shape(e), 300.0)
            for wavelength in (40.0, 90.0, 400.0, 3000.0):
                angle, phase = rng.uniform(0, 2 * np.pi, 2)
                value += 40 * np.sin(
                    2 * np.pi * (np.cos(angle) * e + np.sin(angle) * n) / wavelength + phase
                )
            return value

    return write_l1b_product(folder, Waves(), models, metadata)


def run(command: list[str], watched: Path) -> dict[str, float]:
    """A command's wall time, CPU time, peak memory and peak size of a folder."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            sizes = []
            for file in watched.rglob("*"):
                try:
                    sizes.append(file.stat().st_size)
                except FileNotFoundError:
                    continue
            peak[0] = max(peak[0], sum(sizes))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    done.set()
    watcher.join()
    if status:
        raise SystemExit(process.stderr.read().decode() if process.stderr else "failed")
    return {
        "wall [s]": wall,
        "cpu [s]": usage.ru_utime + usage.ru_stime,
        "peak memory [MiB]": usage.ru_maxrss / 1024,
        "peak disk [MB]": peak[0] / 1e6,
    }


def bare_network(weights: Path, tile: int | None, lines: int) -> dict[str, float]:
    """CPU and wall seconds of the network alone for a granule, from its largest tile, twice."""
    from l1bsr_geo.models.registry import Model
    from l1bsr_geo.tiling.plan import TilePlan

    model = Model("l1bsr-rcan", weights=weights, device="cpu")
    plan = TilePlan.for_model(model.spec, (lines, COLUMNS), size=tile)
    rng = np.random.default_rng(0)
    shapes = {
        "with halo": [t.read.shape for t in plan],
        "without halo": [t.core.shape for t in plan],
    }
    result = {}
    for kind, all_shapes in shapes.items():
        shape = max(all_shapes)
        views = rng.uniform(200, 600, (1, 1, 4, *shape)).astype(np.float32)
        model.restore(views[..., :64, :64])
        wall, cpu = [], []
        for _ in range(2):
            start = time.perf_counter(), time.process_time()
            model.restore(views)
            wall.append(time.perf_counter() - start[0])
            cpu.append(time.process_time() - start[1])
        share = sum(h * w for h, w in all_shapes) / (shape[0] * shape[1])
        result[f"wall {kind} [s]"] = float(np.median(wall)) * share
        result[f"cpu {kind} [s]"] = float(np.median(cpu)) * share
    return result


def make_weights(path: Path) -> Path:
    """Made-up weights of REC."""
    import torch
    from safetensors.torch import save_file

    from l1bsr_geo.models.registry import MODELS

    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in MODELS["l1bsr-rcan"].shapes().items():
        value = torch.randn(shape, generator=generator)
        fan_in = value[0].numel() if value.ndim > 1 else 1
        tensors[name] = value * (0.35 / fan_in**0.5 if value.ndim > 1 else 0.05)
    save_file(tensors, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="geometric")
    parser.add_argument("--tile", type=int)
    parser.add_argument("--granules", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--lines", type=int, default=2304, help="lines of a granule")
    parser.add_argument("--kinds", nargs="+", default=["map", "sensor"])
    arguments = parser.parse_args()
    result: dict = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "model": arguments.model,
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        options = ["--model", arguments.model, "--device", "cpu"]
        if arguments.tile:
            options += ["--tile", str(arguments.tile)]
        if arguments.model == "l1bsr-rcan":
            weights = make_weights(folder / "made_up.safetensors")
            options += ["--weights", str(weights)]
            result["bare network"] = bare_network(weights, arguments.tile, arguments.lines)
            print("bare network", json.dumps(result["bare network"]), flush=True)
        for granules in arguments.granules:
            place = folder / f"product{granules}"
            place.mkdir()
            product = make_product(place, granules, arguments.lines)
            for kind in arguments.kinds:
                more = ["--no-ortho"] if kind == "sensor" else []
                output = folder / f"out_{granules}_{kind}"
                output.mkdir()
                command = [sys.executable, "-m", "l1bsr_geo", "sr", str(product)]
                command += [str(output / "out.tif"), *options, *more]
                figures = run(command, output)
                figures["final file [MB]"] = (output / "out.tif").stat().st_size / 1e6
                figures["peak disk / final"] = (
                    figures["peak disk [MB]"] / figures["final file [MB]"]
                )
                result[f"{granules} granule(s), {kind}"] = figures
                print(granules, kind, json.dumps(figures), flush=True)
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""The whole command, `sr` from JP2 to COG: its growth, and its time beside the bare network's.

    python tests/benchmarks/bench_end_to_end.py --json out.json     geometric, 1 and 4 granules
    ... --granules 1 4 16 --lines 642 --kinds map                   16 times the area
    ... --model l1bsr-rcan --granules 1 --kinds map --turns 2       REC beside its bare network
    ... --host --model l1bsr-rcan l1bsr --lines 384                 host work for each tile

Products of 2552 columns and four bands are made first. Each run of the command is a process of its
own: wall and CPU time from starting Python to the finished file, its peak memory, and the most that
the output's folder (temporary files in it) takes while it runs, over the size of the final file.

Networks (`l1bsr-rcan`, REC with 15.4 M made-up parameters, and `l1bsr`) are then timed alone, in
turns with the command and at the precision that it chose: on tiles in memory, of the sizes that it
used, with their halo and without. `--bare-tiles` says how many of them are timed; all is scaled by
their pixels. They get the threads and the allocator that the command has.

Host work (`--host`) is a profile: one thread, one task at a time, in one process; CPU seconds of
every kind of task, and within those that restore tiles those of the network. The rest is the host's
also where the network has a GPU.
"""

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from host_work import profile_host, read_tags
from peers.measure import allocated, peak_memory

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


def in_fresh_process(function, *arguments):
    """What a function gives in a process of its own: what it loads and keeps ends with it."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *arguments).result()


def run(command: list[str], watched: Path) -> dict[str, float]:
    """A command's wall time, CPU time, peak memory and peak size of a folder."""
    temporary = watched / "temporary"
    temporary.mkdir(exist_ok=True)
    environment = os.environ | {"TMPDIR": str(temporary)}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    memory, disk, done = [0], [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            memory[0] = max(memory[0], peak_memory(process.pid))
            disk[0] = max(disk[0], allocated(watched))

    watcher = threading.Thread(target=watch)
    watcher.start()
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    done.set()
    watcher.join()
    if status:
        raise SystemExit(said)
    return {
        "wall [s]": wall,
        "CPU [s]": usage.ru_utime + usage.ru_stime,
        "peak memory [MiB]": memory[0] / 2**20,
        "peak disk [MB]": max(disk[0], allocated(watched)) / 1e6,
    }


def time_bare_network(
    name: str, weights: Path | None, precision: str, tile: int, lines: int, count: int
) -> dict[str, float]:
    """Wall and CPU seconds of a network alone for all tiles of an image, from some of them."""
    from l1bsr_geo.models.registry import Model
    from l1bsr_geo.tiling.allocator import reuse_large_arrays
    from l1bsr_geo.tiling.plan import TilePlan

    reuse_large_arrays()  # as the command does
    model = Model(name, weights=weights, device="cpu", precision=precision)
    plan = TilePlan.for_model(model.spec, (lines, COLUMNS), size=tile)
    rng = np.random.default_rng(0)

    def restore(shape: tuple[int, int]) -> tuple[float, float]:
        views = rng.uniform(200, 600, (1, 1, 4, *shape)).astype(np.float32)
        flow = rng.uniform(-1, 1, (1, 1, 4, 2, *shape)).astype(np.float32)
        start = time.perf_counter(), time.process_time()
        model.restore(views, flow if model.spec.flow else None)
        return time.perf_counter() - start[0], time.process_time() - start[1]

    some = np.unique(np.linspace(0, len(plan) - 1, min(count or len(plan), len(plan))).astype(int))
    result = {}
    restore(plan[int(some[0])].read.shape)
    for halo in ("with", "without"):
        shapes = [(t.read if halo == "with" else t.core).shape for t in plan]
        wall, cpu = np.sum([restore(shapes[i]) for i in some], axis=0)
        share = sum(h * w for h, w in shapes) / sum(np.prod(shapes[i]) for i in some)
        result[f"bare wall {halo} halo [s]"] = float(wall * share)
        result[f"bare CPU {halo} halo [s]"] = float(cpu * share)
    return result


def measure_run(arguments, model, weights, product: Path, place: Path, lines: int, kind: str):
    """Medians of some turns: the command, then its network."""
    turns = []
    for turn in range(arguments.turns):
        output = place / f"{model} {kind} {turn}"
        output.mkdir()
        file = output / "out.tif"
        command = [sys.executable, "-m", "l1bsr_geo", "sr", str(product), str(file)]
        command += ["--model", model, "--device", "cpu", "--precision", arguments.precision]
        command += ["--weights", str(weights)] if weights else []
        command += ["--tile", str(arguments.tile)] if arguments.tile else []
        figures = run(command + (["--no-ortho"] if kind == "sensor" else []), output)
        figures["final file [MB]"] = file.stat().st_size / 1e6
        tags = read_tags(file)
        file.unlink()
        if model.startswith("l1bsr"):
            figures |= in_fresh_process(
                time_bare_network,
                model,
                weights,
                tags["precision"],
                int(tags["tile_size"]),
                lines,
                arguments.bare_tiles,
            )
        print(
            f"{place.name}, {model}, {kind}, {tags['precision']}: {json.dumps(figures)}", flush=True
        )
        turns.append(figures)
    row = {name: float(np.median([turn[name] for turn in turns])) for name in turns[0]}
    row["peak disk / final"] = row["peak disk [MB]"] / row["final file [MB]"]
    for halo in ("with", "without"):
        for what in ("wall", "CPU"):
            if (bare := f"bare {what} {halo} halo [s]") in row:
                ratios = [turn[f"{what} [s]"] / turn[bare] for turn in turns]
                row[f"{what} / bare {halo} halo"] = float(np.median(ratios))
    return {"kind": kind, "model": model, "precision": tags["precision"], "lines": lines} | row


def compare_growth(rows: list[dict]) -> None:
    """Add what each run is to the smallest of its kind and model."""
    for row in rows:
        alike = [r for r in rows if (r["kind"], r["model"]) == (row["kind"], row["model"])]
        first = min(alike, key=lambda r: r["lines"])
        if len(alike) == 1:
            continue
        for figure in ("lines", "wall [s]", "CPU [s]", "peak memory [MiB]"):
            row[f"{figure.split(' [')[0]} / first"] = row[figure] / first[figure]
        row["wall for each area / first"] = row["wall / first"] / row["lines / first"]


def print_table(title: str, rows: list[dict]) -> None:
    """Every run as a column."""
    print(f"\n### {title}\n")
    figures = [name for name, value in rows[0].items() if not isinstance(value, dict)]
    for figure in figures:
        cells = [f"{c:.4g}" if isinstance(c := row[figure], float) else str(c) for row in rows]
        print(f"| {figure} | {' | '.join(cells)} |")
        if figure == figures[0]:
            print("|---" * (len(rows) + 1) + "|")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    models = ["geometric", "bicubic", "l1bsr", "l1bsr-rcan"]
    parser.add_argument("--model", nargs="+", choices=models, default=["geometric"])
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--tile", type=int)
    parser.add_argument("--granules", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--lines", type=int, default=2304, help="of a granule")
    parser.add_argument("--kinds", nargs="+", choices=["map", "sensor"], default=["map", "sensor"])
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--bare-tiles", type=int, default=4, help="0 for all")
    parser.add_argument("--host", action="store_true", help="profile the host's work")
    arguments = parser.parse_args()
    machine = {"machine": platform.machine(), "cores": os.cpu_count()}
    machine["load before"] = os.getloadavg()[0]
    result: dict = {**machine, "options": {k: str(v) for k, v in vars(arguments).items()}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = folder / "made_up.safetensors"
        if "l1bsr-rcan" in arguments.model:
            in_fresh_process(make_weights, made)
        rows = []
        for granules in arguments.granules[:1] if arguments.host else arguments.granules:
            place = folder / f"{granules} granules"
            place.mkdir()
            product = in_fresh_process(make_product, place, granules, arguments.lines)
            for model in arguments.model:
                weights = made if model == "l1bsr-rcan" else None
                if arguments.host:
                    options = (model, weights, arguments.precision, arguments.tile, product)
                    rows.append(in_fresh_process(profile_host, *options))
                    continue
                lines = granules * arguments.lines
                for kind in arguments.kinds:
                    row = measure_run(arguments, model, weights, product, place, lines, kind)
                    rows.append({"granules": granules} | row)
    if arguments.host:
        print_table("Host work", rows)
    else:
        compare_growth(rows)
        for model in arguments.model:
            print_table(f"`sr --model {model}`", [r for r in rows if r["model"] == model])
    result["host" if arguments.host else "runs"] = rows
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

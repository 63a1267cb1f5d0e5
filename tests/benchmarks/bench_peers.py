"""The same torch module, raster and machine: opensr-utils and ours, in turns.

    python tests/benchmarks/bench_peers.py --json out.json         2048 x 2048 x 4, some 15 minutes
    python tests/benchmarks/bench_peers.py --quick                 512 x 512 x 4, under 2 minutes
    ... --network large --side 768 --turns 1                       REC's size, no pooling
    ... --search                                                   more of opensr-utils' settings

opensr-utils comes from PyPI into an environment of its own (`--environment`; made on the first run,
1.5 GB), with the torch version of this one. Every run is a process of its own, from starting Python
to the finished file, with the options that a user has who gives none, unless a row says otherwise.

Seams are differences from the module on the whole raster in one go, in float32 and unrounded: 0.5
DN is what rounding to uint16 costs. Holes: a second raster has no data in places; valid pixels
beside them are compared with the whole result of the raster that has none, in rings of input
pixels.

The last table is against the L1BSR authors' script, which could not be had: a reconstruction from
its description (peers/run_script.py) runs the same REC weights, made up, on one crop.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pooch
import rasterio
import torch
from bench_end_to_end import make_weights
from peers.environment import make_environment
from peers.figures import compare_holes, compare_whole, median_costs, print_table
from peers.landscape import make_holes, make_landscape, write_raster
from peers.measure import run

PEERS = Path(__file__).parent / "peers"
SCRIPT = "plain script (reconstruction)"
OURS = {"ours": {}, "ours, fp32": {"precision": "fp32"}}
OPENSR = {
    "opensr-utils": {},
    "opensr-utils, fastest": {"window_size": [256, 256], "batch_size": 1},
    "opensr-utils, best seams": {
        "window_size": [256, 256],
        "batch_size": 1,
        "overlap": 32,
        "eliminate_border_px": 10,
    },
}
"""What opensr-utils can do: its defaults, and the best of `--search` for time and for seams."""

SEARCH = [
    *(
        {"window_size": [n, n], "batch_size": b}
        for n, b in ((128, 1), (128, 4), (256, 1), (512, 1))
    ),
    {"window_size": [256, 256], "batch_size": 1, "num_workers": 1},
    *(
        {"window_size": [n, n], "batch_size": 1, "overlap": 32, "eliminate_border_px": 10}
        for n in (128, 256, 512)
    ),
]


class Bench:
    """Runs contestants on rasters in a folder."""

    def __init__(self, folder: Path, environment: Path, network: str) -> None:
        self.folder, self.network, self.runs = folder, network, 0
        self.environment = environment

    def contest(self, contestants: dict[str, list[str]], source: Path, turns: int) -> dict:
        """Costs of every contestant, A B C A B C ..., and the results of the last turn."""
        costs = {name: [] for name in contestants}
        results = {}
        for turn in range(turns):
            for name, command in contestants.items():
                place = self._place()
                output = place / "out" / "result.tif"
                output.parent.mkdir()
                words = [str({"IN": source, "OUT": output}.get(w, w)) for w in command]
                cost = run(words, place, self.folder / f"{place.name}.log")
                costs[name].append(asdict(cost))
                print(f"  {turn + 1}/{turns} {name}: {cost.wall:.1f} s", flush=True)
                results[name] = output.rename(self.folder / f"{place.name}.tif")
                costs[name][-1]["size"] = results[name].stat().st_size
                shutil.rmtree(place)
        return {"costs": costs, "results": results}

    def ours(self, options: dict) -> list[str]:
        return [sys.executable, str(PEERS / "run_ours.py"), *self._arguments(options)]

    def opensr(self, options: dict) -> list[str]:
        python = str(make_environment(self.environment))
        return [python, str(PEERS / "run_opensr.py"), *self._arguments(options)]

    def whole(self, source: Path) -> np.ndarray:
        """(4, 2 side, 2 side) float32 [DN]."""
        place = self._place()
        output = self.folder / "whole.npy"
        command = [sys.executable, str(PEERS / "run_whole.py"), str(source), str(output)]
        run([*command, self.network], place, self.folder / "whole.log")
        return np.load(output, mmap_mode="r")

    def _arguments(self, options: dict) -> list[str]:
        return ["IN", "OUT", self.network, json.dumps(options)]

    def _place(self) -> Path:
        self.runs += 1
        place = self.folder / f"run{self.runs}"
        place.mkdir()
        return place


def compare_tiling(bench: Bench, side: int, turns: int, opensr: dict, holes_too: bool) -> dict:
    """Time, memory, disk, seams and holes of both tools."""
    pixels, holes = make_landscape(side), make_holes(side)
    source = write_raster(bench.folder / "scene.tif", pixels)
    holed = np.where(holes, 0, pixels).astype(pixels.dtype)
    holed_source = write_raster(bench.folder / "holed.tif", holed, nodata=0)
    contestants = {name: bench.ours(o) for name, o in OURS.items()}
    contestants |= {name: bench.opensr(o) for name, o in opensr.items()}
    made = bench.contest(contestants, source, turns)
    made_holed = bench.contest(contestants, holed_source, 1) if holes_too else None
    whole = bench.whole(source)
    rows = {}
    for name in contestants:
        rows[name] = median_costs(made["costs"][name])
        rows[name] |= compare_whole(made["results"][name], whole)
        if made_holed:
            rows[name] |= compare_holes(made_holed["results"][name], whole, holes)
    return {"options": OURS | opensr, "rows": rows, "runs": made["costs"]}


def compare_script(bench: Bench, side: int, turns: int) -> dict:
    """The command line against a plain forward in float32, with the same weights of REC."""
    source = write_raster(bench.folder / "crop.tif", make_landscape(side) // 5)  # radiance-like DN
    weights = make_weights(bench.folder / "made_up.safetensors")
    command = [sys.executable, "-m", "l1bsr_geo", "sr", "IN", "OUT", "--device", "cpu"]
    command += ["--model", "l1bsr-rcan", "--weights", str(weights)]
    script = [sys.executable, str(PEERS / "run_script.py"), "IN", "OUT", str(weights)]
    contestants = {
        "ours": command,
        "ours, fp32": [*command, "--precision", "fp32"],
        "ours, bf16": [*command, "--precision", "bf16"],
        SCRIPT: script,
    }
    made = bench.contest(contestants, source, turns)
    rows = {name: median_costs(costs) for name, costs in made["costs"].items()}
    with rasterio.open(made["results"][SCRIPT]) as raster:
        plain = raster.read().astype(np.float32)
    for name, path in made["results"].items():
        rows[name] |= compare_whole(path, plain)
    return {"rows": rows, "runs": made["costs"]}


def report(result: dict) -> None:
    """Everything as markdown tables."""
    if "tiling" in result:
        rows = result["tiling"]["rows"]
        print_table(f"Network `{result['network']}`, {result['side']} px", rows, "opensr-utils")
        options = result["tiling"]["options"]
        print("\n".join(f"- {name}: {o or 'defaults'}" for name, o in options.items()))
    if "script" in result:
        title = f"REC on {result['crop']} x {result['crop']} px"
        print_table(title, result["script"]["rows"], SCRIPT)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="small rasters, one turn")
    parser.add_argument("--side", type=int, default=2048, help="of the raster [px]")
    parser.add_argument("--crop", type=int, default=500, help="of the script's crop [px]")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--network", choices=["small", "large"], default="small")
    parser.add_argument("--skip", choices=["tiling", "script"], action="append", default=[])
    parser.add_argument("--search", action="store_true", help="opensr-utils in many settings")
    cache = Path(pooch.os_cache("l1bsr_geo-benchmarks")) / "opensr-utils"
    parser.add_argument("--environment", type=Path, default=cache, help="of opensr-utils")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.side, arguments.crop, arguments.turns = 512, 128, 1
    opensr = {"opensr-utils": {}} if arguments.quick else OPENSR
    if arguments.search:
        opensr = {"opensr-utils": {}} | {" ".join(map(str, o.values())): o for o in SEARCH}
    result = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "network": arguments.network,
        "side": arguments.side,
        "crop": arguments.crop,
    }
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary), arguments.environment.absolute(), arguments.network)
        if "tiling" not in arguments.skip:
            make_environment(bench.environment)
            result["tiling"] = compare_tiling(
                bench, arguments.side, arguments.turns, opensr, not arguments.search
            )
        if "script" not in arguments.skip:
            result["script"] = compare_script(bench, arguments.crop, arguments.turns)
    report(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

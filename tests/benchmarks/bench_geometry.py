"""Localisation speed on one core: a sampled location grid beside the exact instrument model.

python tests/benchmarks/bench_geometry.py --json out.json
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np

from l1bsr_geo.geometry.location_grid import LocationGrid
from l1bsr_geo.geometry.sentinel2 import geodetic_to_ecef
from l1bsr_geo.simulation.overpass import Overpass

SHAPE = (2304, 2552)


def time_of(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def measure(repeats: int) -> dict[str, float]:
    """Millions of pixels a second, medians of alternated runs."""
    model = Overpass(lon=5.0, lat=44.75, granules=1).model(5, "B03")
    start = time.perf_counter()
    grid = LocationGrid.sample(model, SHAPE)
    sampled = time.perf_counter() - start
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, SHAPE[1], 1_000_000), rng.uniform(0, SHAPE[0], 1_000_000)
    h = rng.uniform(0, 2000, x.size)
    lon, lat = model.localize(x, y, h)
    runs = {
        "grid, localize, one height": (grid.localize, x, y, 100.0),
        "grid, localize, a height each": (grid.localize, x, y, h),
        "grid, project": (grid.project, lon, lat, h),
        "exact, localize": (model.localize, x, y, h),
        "exact, project": (model.project, lon, lat, h),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, (function, *arguments) in runs.items():
            times[name].append(time_of(function, *arguments))
    speed = {name: x.size / statistics.median(t[1:]) / 1e6 for name, t in times.items()}
    exact = geodetic_to_ecef(lon, lat, h)
    error = np.linalg.norm(geodetic_to_ecef(*grid.localize(x, y, h), h) - exact, axis=0)
    return speed | {
        "sampling a granule [s]": sampled,
        "grid step x [px]": grid.step[0],
        "grid step y [px]": grid.step[1],
        "grid error, mean [m]": float(error.mean()),
        "grid error, max [m]": float(error.max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    result = {"machine": platform.processor() or platform.machine(), **measure(arguments.repeats)}
    print("| what | Mpx/s or as said |\n|---|---|")
    for name, value in result.items():
        print(f"| {name} | {value:.3g} |" if isinstance(value, float) else f"| {name} | {value} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Figures of a run: costs, differences from the whole image, errors beside holes; and tables."""

from pathlib import Path

import numpy as np
import rasterio
from peers.landscape import rings
from rasterio.windows import Window

_STRIP = 256  # rows compared at a time


def median_costs(runs: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the turns, and peak disk over the final file."""
    median = {name: float(np.median([run[name] for run in runs])) for name in runs[0]}
    return {
        "wall [s]": median["wall"],
        "CPU [s]": median["cpu"],
        "peak memory [MB]": median["memory"] / 1e6,
        "peak disk [MB]": median["disk"] / 1e6,
        "final file [MB]": median["size"] / 1e6,
        "peak disk / final": median["disk"] / median["size"],
    }


def compare_whole(path: Path, whole: np.ndarray) -> dict[str, float]:
    """Differences [DN] of a result from the whole image."""
    largest, squares, above = 0.0, 0.0, 0
    with rasterio.open(path) as raster:
        if (raster.count, raster.height, raster.width) != whole.shape:
            raise SystemExit(f"{path} is {raster.shape}, expected {whole.shape}")
        for top in range(0, raster.height, _STRIP):
            rows = min(_STRIP, raster.height - top)
            pixels = raster.read(window=Window(0, top, raster.width, rows)).astype(np.float64)
            difference = np.abs(pixels - whole[:, top : top + rows])
            largest = max(largest, float(difference.max()))
            squares += float((difference**2).sum())
            above += int((difference > 1).sum())
    return {
        "largest difference [DN]": largest,
        "difference, rms [DN]": (squares / whole.size) ** 0.5,
        "> 1 DN [%]": 100 * above / whole.size,
    }


def compare_holes(path: Path, whole: np.ndarray, holes: np.ndarray) -> dict[str, float]:
    """Mean relative error [%] in rings around holes, and how many valid pixels are lost [%]."""
    with rasterio.open(path) as raster:
        pixels = raster.read().astype(np.float64)
        valid = raster.dataset_mask() > 0
    scale = pixels.shape[-1] // holes.shape[-1]
    found = {}
    for name, ring in rings(holes, scale).items():
        error = np.abs(pixels[:, ring] - whole[:, ring]) / whole[:, ring]
        found[f"beside nodata, ring {name} [%]"] = 100 * float(error.mean())
    near = np.logical_or.reduce(list(rings(holes, scale).values()))
    found["of these masked [%]"] = 100 * float((~valid[near]).mean())
    hole = holes.repeat(scale, 0).repeat(scale, 1)
    found["nodata masked [%]"] = 100 * float((~valid[hole]).mean())
    return found


def print_table(title: str, rows: dict[str, dict[str, float]], rival: str) -> None:
    """Contestants as columns; ours over the rival's in brackets where it is a cost."""
    print(f"\n### {title}\n")
    print(f"| | {' | '.join(rows)} |")
    print("|---" * (len(rows) + 1) + "|")
    for figure in next(iter(rows.values())):
        cells = [
            f"{row[figure]:.3g}" if row[figure] < 1000 else f"{row[figure]:.0f}"
            for row in rows.values()
        ]
        print(f"| {figure} | {' | '.join(cells)} |")
    for figure in ("wall [s]", "CPU [s]", "peak memory [MB]", "peak disk [MB]"):
        ratios = [f"{row[figure] / rows[rival][figure]:.3g}" for row in rows.values()]
        print(f"| {figure.rsplit(' ', 1)[0]} over {rival} | {' | '.join(ratios)} |")
    print()

"""End to end: a map scene seen by the instrument comes back where it was.

A scene is rendered through the instrument model into a SAFE product, every band of every detector
with its own parallax; the command line super-resolves and orthorectifies it; the output is compared
with the scene itself, block by block. Shifts are in pixels of the OUTPUT (5 m), so 0.1 px is 0.5 m,
a twentieth of an input pixel.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio

from l1bsr_geo.geometry.elevation import ConstantElevation
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.readers.sentinel2_l1b import open_product, read_instrument_model
from l1bsr_geo.simulation.datastrip import write_metadata
from l1bsr_geo.simulation.overpass import Overpass
from l1bsr_geo.simulation.rendering import lonlat_bounds, map_bounds
from l1bsr_geo.simulation.scenes import (
    TEN_METRE_BANDS,
    MapScene,
    procedural_scene,
    relief,
    write_dem,
)
from l1bsr_geo.simulation.sentinel2_product import write_l1b_product
from tests.synthetic.shifts import measure_shifts

pytestmark = pytest.mark.slow

DETECTORS = (5, 6)
PLAIN = 120.0  # [m] height of the flat ground
HILLS = (0.0, 1000.0)
HALF = 1150.0  # [m] half the side of the area of interest


@dataclass(frozen=True)
class Rendered:
    """A product, what it shows, and where its pixels are."""

    product: Path
    scene: MapScene
    ground: list[str]
    areas: dict[int, str]


def render(folder: Path, metadata: Path, crs: str, granule_lines: int, ground: str) -> Rendered:
    """Both sides of the seam of two detectors and of two granules."""
    product = open_product(metadata)
    models = {
        (d, b): read_instrument_model(product, d, b) for d in DETECTORS for b in TEN_METRE_BANDS
    }
    top = granule_lines - 180
    windows = {5: Window(2180, top, 360, 360), 6: Window(12, top, 360, 360)}
    heights = HILLS if ground == "relief" else (PLAIN,)
    views = [([models[d, b] for b in TEN_METRE_BANDS], windows[d]) for d in DETECTORS]
    boxes = np.array([map_bounds(*view, crs, heights) for view in views])
    scene = procedural_scene((*boxes[:, :2].min(0), *boxes[:, 2:].max(0)), crs, seed=7).seen_by()
    elevation, options = ConstantElevation(PLAIN), ["--height", str(PLAIN)]
    if ground == "relief":
        degrees = np.array([lonlat_bounds(*view, heights) for view in views])
        elevation = relief(
            (*(degrees[:, :2].min(0) - 0.02), *(degrees[:, 2:].max(0) + 0.02)), 3, *HILLS
        )
        write_dem(folder / "dem.tif", elevation)
        options = ["--dem", str(folder / "dem.tif")]
    safe = write_l1b_product(folder, scene, models, metadata, window=windows, elevation=elevation)
    areas = {}
    for d, window in windows.items():
        middle = window.col_off + window.width / 2, window.row_off + window.height / 2
        lon, lat = models[d, "B03"].localize(*middle, float(np.mean(heights)))
        dy = HALF / 111_320
        dx = dy / np.cos(np.radians(lat))
        areas[d] = f"{lon - dx:.6f},{lat - dy:.6f},{lon + dx:.6f},{lat + dy:.6f}"
    return Rendered(safe, scene, options, areas)


def check_every_band(rendered: Rendered, detector: int, output: Path) -> None:
    """Run the command line and compare its output with the scene."""
    command = [
        *(sys.executable, "-m", "l1bsr_geo", "sr", str(rendered.product), str(output)),
        *("--model", "geometric", "--detector", str(detector), "--aoi", rendered.areas[detector]),
        *rendered.ground,
    ]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with rasterio.open(output) as raster:
        assert raster.descriptions == TEN_METRE_BANDS
        assert raster.res == (5.0, 5.0)
        assert raster.crs.to_string() == rendered.scene.crs
        pixels, transform = raster.read(), raster.transform
    for band, image in zip(TEN_METRE_BANDS, pixels, strict=True):
        shifts = measure_shifts(image, transform, rendered.scene, band)
        assert len(shifts) >= 9, band
        assert np.abs(shifts.mean(0)).max() < 0.05, (band, shifts.mean(0))  # measured: 0.025
        assert np.hypot(*shifts.T).max() < 0.1, (band, shifts)  # measured: 0.071


@pytest.mark.parametrize("ground", ["flat", "relief"])
def test_real_metadata(tmp_path, shared, ground):
    metadata = shared / "data/sen2vm_tds1/L1B_SAFE"
    rendered = render(tmp_path, metadata, "EPSG:32628", 2304, ground)
    for detector in DETECTORS:
        check_every_band(rendered, detector, tmp_path / f"D{detector:02d}.tif")


def test_generated_metadata(tmp_path):
    overpass = Overpass(5.0, 45.0, detectors=DETECTORS, platform="S2B", granule_lines=648)
    write_metadata(tmp_path / "metadata", overpass, refined=True)
    rendered = render(tmp_path, tmp_path / "metadata", "EPSG:32631", 648, "relief")
    check_every_band(rendered, 5, tmp_path / "D05.tif")

"""An input and perfect results of it, made from a scene that is known everywhere."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine

from l1bsr_geo.simulation.scenes import MapScene, procedural_scene

CRS = "EPSG:32631"
BANDS = ("B02", "B03", "B04", "B08")
SIDE = 256  # [px] of the input
TO_MAP = Affine.translation(600_000, 5_000_000) @ Affine.rotation(12) @ Affine.scale(10, -10)


def write(path, pixels, *, tags=(), **options):
    """A GeoTIFF of (C, H, W)."""
    count, height, width = pixels.shape
    size = {"width": width, "height": height, "count": count, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", **size, **options) as file:
        file.write(pixels)
        file.descriptions = BANDS[:count]
        file.update_tags(**dict(tags))
    return Path(path)


@dataclass(frozen=True)
class World:
    """A folder with an input, and what a perfect result of it holds."""

    folder: Path
    scene: MapScene
    source: Path

    def result(self, change=None, *, move=(0.0, 0.0), crs=CRS, name="result.tif"):
        """A north-up raster of 5 m.

        Args:
            change: takes (C, H, W) and the input's x, y of each pixel; gives what is written.
            move: the ground that is shown at an input's pixel lies this far from it [px].
            crs: of the result.
            name: of the file.
        """
        there = pyproj.Transformer.from_crs(CRS, crs, always_xy=True)
        e, n = TO_MAP @ np.mgrid[0:SIDE:9j, 0:SIDE:9j].reshape(2, -1)
        e, n = there.transform(e, n)
        left, top = e.min() // 5 * 5, n.max() // 5 * 5
        shape = int((top - n.min()) // 5), int((e.max() - left) // 5)
        transform = Affine(5, 0, left, 0, -5, top)
        col, row = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
        e, n = there.transform(*(transform @ (col, row)), direction="INVERSE")
        x, y = ~TO_MAP @ (e, n)
        e, n = TO_MAP @ (x - move[0], y - move[1])
        pixels = np.stack([self.scene.sample(b, e, n) for b in BANDS]).astype(np.float64)
        if change is not None:
            pixels = change(pixels, x, y)
        tags = {"scale": "2", "band_registration": "none", "tile_core": "[100, 100]"}
        options = {"crs": crs, "transform": transform, "tags": tags}
        return write(self.folder / name, pixels.astype(np.float32), **options)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    corners = np.array([TO_MAP @ at for at in ((0, 0), (SIDE, 0), (0, SIDE), (SIDE, SIDE))])
    (west, south), (east, north) = corners.min(0) - 300, corners.max(0) + 300
    scene = procedural_scene((west, south, east, north), CRS, seed=3).seen_by()
    x, y = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
    pixels = np.stack([scene.sample(b, *(TO_MAP @ (x, y))) for b in BANDS])
    noise = np.random.default_rng(1).normal(0, 1.0, pixels.shape)
    folder = tmp_path_factory.mktemp("world")
    dn = np.rint(pixels + noise).astype(np.uint16)
    return World(folder, scene, write(folder / "in.tif", dn, crs=CRS, transform=TO_MAP))

"""Rasters for the comparison: a made-up landscape of four bands, whole or with holes."""

from pathlib import Path

import numpy as np
import rasterio
from scipy.ndimage import distance_transform_cdt, gaussian_filter

BANDS = ("B02", "B03", "B04", "B08")


def make_landscape(side: int, seed: int = 0) -> np.ndarray:
    """(4, side, side) uint16: 2000 DN with structures of 1 to 64 px, alike in all bands.

    Neighbouring pixels differ by some 6 % on average, half as much as in real Sentinel-2 L1B.
    """
    rng = np.random.default_rng(seed)
    common, relative = np.zeros((side, side)), []
    for sigma, share in ((64, 0.12), (16, 0.09), (4, 0.07), (1, 0.09)):
        common += share * _waves(rng, side, sigma)
    for _ in BANDS:
        own = 0.04 * _waves(rng, side, 3) + 0.02 * rng.standard_normal((side, side))
        relative.append(np.exp(common + own))
    return np.round(2000 * np.stack(relative)).clip(1, 9000).astype(np.uint16)


def _waves(rng: np.random.Generator, side: int, sigma: float) -> np.ndarray:
    """Smooth noise of mean 0 and deviation 1."""
    field = gaussian_filter(
        rng.standard_normal((side, side)).astype(np.float32), sigma, mode="wrap"
    )
    return (field - field.mean()) / field.std()


def make_holes(side: int) -> np.ndarray:
    """(side, side), true where there is no data: a slanted edge, as of a swath, and some discs."""
    rows, columns = np.mgrid[:side, :side] / side
    holes = columns + 0.2 * rows < 0.15
    for row, column, radius in ((0.3, 0.6, 0.1), (0.7, 0.4, 0.02), (0.8, 0.8, 0.005)):
        holes |= (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    return holes


def rings(holes: np.ndarray, scale: int) -> dict[str, np.ndarray]:
    """Masks of the fine pixels that are 1, 2, and 3 to 4 pixels of the input from a hole."""
    distance = distance_transform_cdt(~holes, "chessboard")
    masks = {"1": distance == 1, "2": distance == 2, "3-4": (distance == 3) | (distance == 4)}
    return {name: mask.repeat(scale, 0).repeat(scale, 1) for name, mask in masks.items()}


def write_raster(path: Path, pixels: np.ndarray, nodata: float | None = None) -> Path:
    """A plain tiled GeoTIFF on a map, 10 m pixels."""
    bands, height, width = pixels.shape
    profile = {"driver": "GTiff", "dtype": pixels.dtype, "tiled": True, "crs": "EPSG:32631"}
    transform = rasterio.Affine(10, 0, 600_000, 0, -10, 5_000_000)
    with rasterio.open(
        path,
        "w",
        width=width,
        height=height,
        count=bands,
        transform=transform,
        nodata=nodata,
        **profile,
    ) as raster:
        raster.write(pixels)
        raster.descriptions = BANDS[:bands]
    return path

"""Ortho references of a known scene, as other maps are: another CRS, pixel, unit."""

from pathlib import Path

import numpy as np
import pyproj
import rasterio
from affine import Affine

from l1bsr_geo.simulation.scenes import MapScene


def write_reference(
    path: Path,
    scene: MapScene,
    band: str,
    *,
    crs: str | None = None,
    pixel: float = 10.0,
    gain: float = 1.0,
    offset: float = 0.0,
    margin: float = 60.0,
) -> Path:
    """What a band of a scene shows, exactly where it is, as uint16 with nodata 0.

    Args:
        path: GeoTIFF to write.
        scene: as the reference's instrument samples it.
        band: of the scene.
        crs: projected [m]; the scene's where None.
        pixel: [m].
        gain: of the values; a negative one inverts the contrast.
        offset: of the values.
        margin: left out along the scene's edge [m].
    """
    crs = crs or scene.crs
    change = pyproj.Transformer.from_crs(scene.crs, crs, always_xy=True)
    west, south, east, north = scene.bounds
    box = change.transform_bounds(west + margin, south + margin, east - margin, north - margin)
    left, top = np.ceil(box[0] / pixel) * pixel, np.floor(box[3] / pixel) * pixel
    columns, rows = int((box[2] - left) // pixel), int((top - box[1]) // pixel)
    transform = Affine(pixel, 0, left, 0, -pixel, top)
    x, y = np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5)
    places = change.transform(*(transform @ (x, y)), direction="INVERSE")
    values = offset + gain * scene.sample(band, *places)
    pixels = np.nan_to_num(np.rint(values)).clip(0, 65535).astype(np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", width=columns, height=rows, count=1, dtype="uint16",
        crs=crs, transform=transform, nodata=0,
    ) as raster:  # fmt: skip
        raster.write(pixels, 1)
    return path

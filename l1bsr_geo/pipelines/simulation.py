"""Products with known truth, for users' own trials."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.errors import RasterioError

from l1bsr_geo.errors import BadInputError, BadOptionError, OutputExistsError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.elevation import AnyElevation, ConstantElevation
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.pipelines.job import PathLike
from l1bsr_geo.readers.dem import read_elevation
from l1bsr_geo.simulation.scenes import MapScene, read_scene
from l1bsr_geo.simulation.skysat_collect import StoredGeometry, write_skysat_collect

_NOWHERE = Affine.translation(500_000, 4_500_000), "EPSG:32631"  # an image that has no place


def simulate_skysat(
    image: PathLike,
    folder: PathLike,
    *,
    pixel: float | None = None,
    mean: float | None = None,
    frames: int = 15,
    shape: tuple[int, int] = (256, 320),
    geometry: Sequence[str] = ("tags",),
    pointing_error: float = 3.0,
    exposures: Sequence[float] = (1.0,),
    noise: float = 1.0,
    dem: PathLike | None = None,
    geoid: PathLike | None = None,
    seed: int = 0,
) -> Path:
    """Write a SkySat all-frames collect as a camera over an image would have taken it.

    Args:
        image: high-resolution raster of one band, on a map, at 0.6 m or finer.
        folder: to be made; must not be there.
        pixel: pixel size [m] of an image that is not on a map; it is put somewhere.
        mean: brightness that the image is scaled to [DN]; as it is where None.
        frames: how many.
        shape: ``(height, width)`` of a frame; real ones have (1080, 2560).
        geometry: "tags" (RPC in the TIFF), "text" (``_RPC.TXT``), "pinhole" (json).
        pointing_error: of the stored geometry, per axis [px].
        exposures: relative; one for each frame, or some to draw from.
        noise: factor on the SkySat noise.
        dem: the ground.
        geoid: added to the DEM.
        seed: of everything random.

    Returns:
        The folder.

    Raises:
        L1bsrGeoError: what a user can cause and mend.
    """
    folder = Path(folder)
    if folder.exists():
        raise OutputExistsError(f"{folder}: exists already; name a folder that is not there")
    known = get_args(StoredGeometry)
    if not geometry or not set(geometry) <= set(known):
        raise BadOptionError(
            f"--geometry {','.join(geometry)}: expected some of {', '.join(known)}"
        )
    scene = read_scene(Path(image), ("PAN",)) if pixel is None else _read_unplaced(image, pixel)
    if mean is not None:
        present = float(scene.pixels.mean())
        if not (mean > 0 and present > 0):
            raise BadOptionError(f"--mean {mean}: of an image whose mean is {present:g}")
        scene = replace(scene, pixels=scene.pixels * np.float32(mean / present))
    ground: AnyElevation = ConstantElevation()
    if dem is not None:
        grid = GeoGrid(scene.pixels.shape[1:], AffineModel(scene.transform, scene.crs))
        ground = read_elevation(dem, shapely.bounds(grid.footprint()), geoid=geoid)
    write_skysat_collect(
        folder,
        scene,
        frames=frames,
        shape=shape,
        elevation=ground,
        geometry=cast("Sequence[StoredGeometry]", geometry),
        pointing_error=pointing_error,
        exposures=exposures,
        noise=noise,
        seed=seed,
    )
    return folder


def _read_unplaced(image: PathLike, pixel: float) -> MapScene:
    """A scene from an image without a map, put somewhere."""
    try:
        with rasterio.open(image) as raster:
            pixels = raster.read(1, out_dtype="float32")
    except RasterioError as error:
        raise BadInputError(f"{image} cannot be read ({error}); give a raster") from None
    place, crs = _NOWHERE
    return MapScene(pixels[None], place @ Affine.scale(pixel, -pixel), crs, ("PAN",))

"""Fine scenes to simulate from: photographs of a folder, or made-up ground where there are none."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.simulation.fine_scenes import made_city, scene_from_photograph

F32 = npt.NDArray[np.float32]

_MADE = 8  # made-up scenes where no photographs are given
_SIDE = 1024  # [px] of each


def find_images(patterns: Sequence[str | Path]) -> list[Path]:
    """The files that paths and patterns (``folder/*.jpg``) name, sorted within each.

    Raises:
        MissingInputError: a pattern names no file.
    """
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        here = [path] if path.is_file() else sorted(path.parent.glob(path.name))
        if not here:
            raise MissingInputError(f"{pattern}: there is no such image to simulate from")
        found += here
    return found


def read_fine_scenes(patterns: Sequence[str | Path], seed: int = 0) -> list[F32]:
    """Radiance [DN], (rows, columns) float32 each.

    Eight-bit photographs are averaged over their bands and halved, which removes what compression
    and colour filters left. Other rasters (panchromatic) keep their pixels; their 0.1 to 99.9
    percentiles are laid on the same range.

    Args:
        patterns: files, or patterns of files; made-up cities where there is none.
        seed: of the made-up ones.

    Raises:
        MissingInputError: a pattern names no file.
    """
    if not patterns:
        return [made_city((_SIDE, _SIDE), 1000 * seed + k) for k in range(_MADE)]
    return [_read(path) for path in find_images(patterns)]


def _read(path: Path) -> F32:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # photographs have no map
        with rasterio.open(path) as raster:
            pixels = raster.read()
    if pixels.dtype == np.uint8:
        return scene_from_photograph(pixels.mean(0))
    grey = pixels.mean(0, dtype=np.float32)
    dark, bright = np.percentile(grey, (0.1, 99.9))
    if not bright > dark:
        raise BadInputError(f"{path}: all its pixels are alike; a scene needs texture")
    fraction = np.clip((grey - dark) / (bright - dark), 0, 1)
    return np.asarray(FULL_SCALE * (0.08 + 0.65 * fraction), np.float32)

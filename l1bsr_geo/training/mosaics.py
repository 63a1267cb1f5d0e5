"""Bursts of raw mosaics to learn from, simulated from photographs, with known truth and motion."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning
from scipy import ndimage

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.ops.mosaic import Pattern
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.mosaics import simulate_mosaics
from l1bsr_geo.simulation.videos import PEAK, reduce_photograph
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.photographs import find_images

F32 = npt.NDArray[np.float32]

_SIDE = 512  # [px] of made-up scenes
_ROOM = 16  # [px] of the scene around the motion, for the spline and the linear part


@dataclass(frozen=True, eq=False)
class SimulatedMosaics:
    """Bursts of colour photographs, simulated as they are drawn.

    Attributes:
        images: files or patterns of photographs; made-up cities in grey where empty.
        size: [px] of the frames.
        frames: T, the reference included; 1 is enough to learn with truth.
        pattern: of all frames, as in `ops.mosaic`.
        noise: standard deviation [DN], or its least and most.
        shift: of the motion, see `simulate_mosaics`.
        affine: of the motion.
        seed: of made-up scenes.
    """

    images: Sequence[str | Path] = ()
    size: int = 64
    frames: int = 1
    pattern: Pattern = "rggb"
    noise: float | tuple[float, float] = 0.0
    shift: float = 6.0
    affine: float = 2e-3
    seed: int = 0

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Samples: views (B, T, 1, H, W), flow, and truth (B, 3, H, W) of view 0; see `Source`."""
        bursts = [self._draw_one(rng) for _ in range(count)]
        views, flow, truth = (
            torch.from_numpy(np.stack(part)) for part in zip(*bursts, strict=True)
        )
        return Batch(views[:, :, None], flow[:, :, None], None, truth)

    def _draw_one(self, rng: np.random.Generator) -> tuple[F32, F32, F32]:
        scene = self._scenes[rng.integers(len(self._scenes))]
        around = 0 if self.frames == 1 else int(np.ceil(self.shift)) + _ROOM
        side = self.size + 2 * around
        if min(scene.shape[1:]) < side:
            raise BadOptionError(
                f"a scene of {scene.shape[1]} x {scene.shape[2]} px is too small for mosaics of "
                f"{self.size} px and their motion: {side} are needed"
            )
        top, left = (int(rng.integers(n - side + 1)) for n in scene.shape[1:])
        crop = scene[:, top : top + side, left : left + side].astype(np.float32)
        crop = np.rot90(crop, int(rng.integers(4)), (1, 2))[..., :: 1 - 2 * int(rng.integers(2))]
        noise = self.noise if isinstance(self.noise, int | float) else rng.uniform(*self.noise)
        burst = simulate_mosaics(
            np.ascontiguousarray(crop),
            (self.size, self.size),
            self.frames,
            pattern=self.pattern,
            noise=float(noise),
            shift=self.shift,
            affine=self.affine,
            seed=int(rng.integers(2**31)),
        )
        return burst.frames, burst.flow, burst.truth[0]

    @cached_property
    def _scenes(self) -> list[npt.NDArray[np.floating[Any]]]:
        if not self.images:
            return [_made_up(1000 * self.seed + k) for k in range(4)]
        return [read_colours(path).astype(np.float16) for path in find_images(self.images)]


def read_colours(path: Path) -> F32:
    """Red, green and blue [DN, 0 to 255] of an eight-bit photograph, half its size, (3, H, W).

    Raises:
        BadInputError: it has not three bands of eight bits.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # photographs have no map
        with rasterio.open(path) as raster:
            if raster.count < 3 or raster.dtypes[0] != "uint8":
                raise BadInputError(
                    f"{path}: {raster.count} bands of {raster.dtypes[0]}; a colour photograph of "
                    "eight bits was expected"
                )
            return reduce_photograph(raster.read((1, 2, 3)), 2)


def _made_up(seed: int) -> F32:
    """A city whose roofs have colours, (3, rows, columns) [DN, 0 to 255]."""
    tone = made_city((_SIDE, _SIDE), seed) / np.float32(FULL_SCALE)
    rng = np.random.default_rng(seed)
    lights = ndimage.gaussian_filter(
        rng.standard_normal((3, _SIDE, _SIDE), np.float32), (0, 20, 20)
    )
    lights *= 0.3 / lights.std()
    return np.asarray(np.float32(PEAK) * np.clip(tone * (1 + lights), 0, 1), np.float32)

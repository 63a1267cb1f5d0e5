"""Simulated overlaps of two Sentinel-2 detectors to learn from, with known truth and motion."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import torch

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.simulation.multiband import CROPS, CropFigures, bands_from_photograph, match_crop
from l1bsr_geo.simulation.overlap_motion import BandShifts
from l1bsr_geo.simulation.overlaps import SimulatedOverlap, needed_scene, simulate_overlap
from l1bsr_geo.simulation.scenes import procedural_scene
from l1bsr_geo.training.crops import augment
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.photographs import find_images

F32 = npt.NDArray[np.float32]

_WINDOW = 640  # [fine px] of a photograph that take on the figures of one real crop
_OVERLAPS = 16  # of one such window


@dataclass(frozen=True, eq=False)
class SimulatedOverlaps:
    """A pool of overlaps, simulated once, when first asked for; the same for the same seed.

    Attributes:
        images: files or patterns of photographs, red, green, blue; made-up landscapes where empty.
        count: overlaps in the pool; 1000 of size 64 take 350 MB.
        size: [px] of the views, which are square.
        infrared: images with this in their path have the near infrared in place of the red.
        reduce: pixels of a photograph to one of 5 m.
        shifts: how large the displacements are.
        noise: factor on the standard deviation of the noise.
        alias: False takes out of the views what aliases.
        turns: whether what is drawn is turned and mirrored by chance.
        seed: of the pool.

    Raises:
        BadOptionError: an empty pool.
    """

    images: Sequence[str | Path] = ()
    count: int = 256
    size: int = 64
    infrared: str = "seneca"
    reduce: int = 2
    shifts: BandShifts = field(default_factory=BandShifts)
    noise: float = 1.0
    alias: bool = True
    turns: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.size < 1 or self.reduce < 2:
            raise BadOptionError(
                f"count is {self.count}, size {self.size} and reduce {self.reduce}; at least 1, 1 "
                "and 2 were expected"
            )

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Random overlaps of the pool.

        Args:
            rng: decides which, and how they are turned.
            count: B.

        Returns:
            views (B, 2, 4, H, W), flow (B, 2, 4, 2, H, W), and truth (B, 4, 2H, 2W) on the
            corner-aligned grid of B03 of view 0.
        """
        batch = _batch([self.pool[k] for k in rng.integers(self.count, size=count)])
        return augment(batch, rng, aligned="corner") if self.turns else batch

    def all(self) -> Batch:
        """The whole pool in its order, unturned: a fixed set to score on."""
        return _batch(self.pool)

    @cached_property
    def pool(self) -> tuple[SimulatedOverlap, ...]:
        """The overlaps.

        Raises:
            MissingInputError: a pattern of images names no file.
            BadInputError: an image cannot be read, has not three channels, or is too small.
        """
        shape = (self.size, self.size)
        needed = needed_scene(shape, self.shifts)
        made: dict[int, SimulatedOverlap] = {}
        for first, scene in self._scenes(max(_WINDOW, *needed)):
            rng = np.random.default_rng((self.seed, 1, first))
            for k in range(first, min(first + _OVERLAPS, self.count)):
                y, x = (int(rng.integers(scene.shape[i + 1] - needed[i] + 1)) for i in range(2))
                made[k] = simulate_overlap(
                    scene[:, y : y + needed[0], x : x + needed[1]],
                    shape,
                    shifts=self.shifts,
                    noise=self.noise,
                    alias=self.alias,
                    seed=int(rng.integers(2**62)),
                )
        return tuple(made[k] for k in range(self.count))

    def _scenes(self, side: int) -> Iterator[tuple[int, F32]]:
        """Number of the first overlap, and a scene for it and those after it."""
        firsts = range(0, self.count, _OVERLAPS)
        if not self.images:
            for first in firsts:
                seed = int(np.random.default_rng((self.seed, 0, first)).integers(2**62))
                made = procedural_scene((0, 0, 5.0 * side, 5.0 * side), "EPSG:32631", seed)
                yield first, match_crop(made.pixels, _crop(first))
            return
        paths = find_images(self.images)
        order = np.random.default_rng((self.seed, 0)).permutation(len(paths))
        for k, path in enumerate(paths[i] for i in order[: len(firsts)]):
            bands = self._read(path)
            if min(bands.shape[1:]) < side:
                raise BadInputError(
                    f"{path} has {bands.shape[1]} x {bands.shape[2]} pixels after reduction by "
                    f"{self.reduce}; {side} x {side} are needed: reduce less, or give a larger one"
                )
            for first in firsts[k :: len(paths)]:  # one image is in memory at a time
                rng = np.random.default_rng((self.seed, 0, first))
                y, x = (int(rng.integers(n - side + 1)) for n in bands.shape[1:])
                yield first, match_crop(bands[:, y : y + side, x : x + side], _crop(first))

    def _read(self, path: Path) -> F32:
        """Four bands of a photograph, any unit."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                with rasterio.open(path) as photograph:
                    pixels = photograph.read()
        except rasterio.errors.RasterioIOError as error:
            raise BadInputError(f"{path} cannot be read as an image: {error}") from error
        if len(pixels) != 3 or pixels.dtype != np.uint8:
            raise BadInputError(
                f"{path} has {len(pixels)} channels of {pixels.dtype}; three of uint8 were expected"
            )
        infrared = bool(self.infrared) and self.infrared in str(path)
        return bands_from_photograph(pixels, "infrared" if infrared else "colour", self.reduce)


def _crop(first: int) -> CropFigures:
    """The real crop that a scene shall be like: one after the other."""
    return CROPS[first // _OVERLAPS % len(CROPS)]


def _batch(overlaps: Sequence[SimulatedOverlap]) -> Batch:
    views = np.stack([o.views for o in overlaps]).astype(np.float32)
    flow = np.stack([o.flow for o in overlaps])
    truth = np.stack([o.truth for o in overlaps])
    return Batch(
        torch.from_numpy(views), flow=torch.from_numpy(flow), truth=torch.from_numpy(truth)
    )

"""Simulated clips to learn denoising from, with known truth and noise of a known kind."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.noise import Bernoulli, NoiseRange
from l1bsr_geo.simulation.videos import (
    PEAK,
    MotionRange,
    reduce_photograph,
    simulate_video,
    vary_look,
)
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.photographs import find_images

F32 = npt.NDArray[np.float32]

_MADE = 4  # made-up scenes where no photographs are given
_SIDE = 512  # [px] of each
_GAUSSIAN = {"family": "gaussian", "sigma": (5.0, 55.0)}


class _Sample(NamedTuple):
    views: F32
    truth: F32
    noise: F32
    pair: F32
    visible: F32


@dataclass(frozen=True, eq=False)
class SimulatedVideos:
    """A pool of clips, simulated once; what is drawn are crops of them, each in another light.

    Every sample draws the parameters of its noise, which is alike in all frames and new in each.

    Attributes:
        images: files or patterns of photographs, 8 bits; made-up cities where empty.
        count: clips in the pool.
        size: [px] of the frames that are drawn.
        frames: T, odd; the middle one is the reference.
        bands: 3 for the photographs' colours, 1 for their mean.
        noise: ``family`` and its parameters, each a value or a range; see `NoiseRange`. In DN, and
            so to be chosen for ``peak``.
        pair: give a second look at the reference, with noise of its own.
        tell: give the noise's standard deviation. That of noise that depends on the light is an
            image of the truth, in which a network learns to read: for one that is to be trained
            for such noise, do not tell.
        reduction: of the photographs; 3 or more removes what compression left.
        motion: how clips move.
        varied: whether samples are turned, mirrored, played backwards and lit otherwise.
        crop: [px] of the frames in the pool; ``size`` where None.
        peak: [DN] of white: 255, or 4095 for data of 12 bits.
        seed: of the pool.

    Raises:
        BadOptionError: sizes or noise that are impossible.
    """

    images: Sequence[str | Path] = ()
    count: int = 256
    size: int = 64
    frames: int = 5
    bands: int = 3
    noise: Mapping[str, Any] = field(default_factory=lambda: _GAUSSIAN)
    pair: bool = False
    tell: bool = True
    reduction: int = 4
    motion: MotionRange = field(default_factory=MotionRange)
    varied: bool = True
    crop: int | None = None
    peak: float = PEAK
    seed: int = 0

    def __post_init__(self) -> None:
        _ = self._noise  # a wrong one is said before clips are made
        if self.frames < 1 or self.frames % 2 == 0:
            raise BadOptionError(f"frames: found {self.frames}, allowed 1, 3, 5 and so on")
        if self.bands not in (1, 3):
            raise BadOptionError(f"bands: found {self.bands}, allowed 1 or 3")
        if self.side < self.size:
            raise BadOptionError(f"crops of {self.size} px from frames of {self.side} px")
        for name in ("count", "size", "reduction"):
            if getattr(self, name) < 1:
                raise BadOptionError(f"{name}: found {getattr(self, name)}, allowed 1 or more")

    @property
    def side(self) -> int:
        """[px] of the frames in the pool."""
        return self.crop or self.size

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Samples: views (B, T, C, H, W) with truth, noise, and pair and mask; see `Source`."""
        samples = [self._draw_one(rng) for _ in range(count)]
        views, truth, noise, pair, visible = (
            torch.from_numpy(np.stack(part)) for part in zip(*samples, strict=True)
        )
        told = noise if self.tell else None
        if not self.pair:
            return Batch(views, truth=truth, noise=told)
        return Batch(views, truth=truth, noise=told, pair=pair, visible=visible)

    def _draw_one(self, rng: np.random.Generator) -> _Sample:
        clip = self._pool[rng.integers(self.count)]
        top, left = (int(v) for v in rng.integers(0, self.side - self.size + 1, 2))
        clean = clip[..., top : top + self.size, left : left + self.size].astype(np.float32)
        if self.varied:
            clean = vary_look(_turn(clean, rng), rng)
        clean *= np.float32(self.peak / PEAK)
        noise, truth = self._noise.draw(rng), clean[self.frames // 2]
        told = noise.spread(truth).mean(0, keepdims=True)
        views, seen = noise.add(clean, rng), np.ones_like(told)
        if not self.pair:
            return _Sample(views, truth, told, truth, seen)
        if isinstance(noise, Bernoulli):
            second, seen = noise.look(truth, rng)
        else:
            second = noise.add(truth, rng)
        return _Sample(views, truth, told, second, seen)

    @cached_property
    def _noise(self) -> NoiseRange:
        parameters = dict(self.noise)
        return NoiseRange(parameters.pop("family", ""), parameters)

    @cached_property
    def _pool(self) -> list[npt.NDArray[np.float16]]:
        rng = np.random.default_rng([self.seed, 0])
        scenes = read_colour_scenes(self.images, self.reduction, self.bands, self.seed)
        clips = []
        for _ in range(self.count):
            ground, over = (scenes[k] for k in rng.integers(len(scenes), size=2))
            shape = (self.side, self.side)
            video = simulate_video(ground, over, shape, self.frames, rng, self.motion)
            clips.append(video.frames.astype(np.float16))  # to an eighth of a step of 8 bits
        return clips


def read_colour_scenes(
    patterns: Sequence[str | Path], reduction: int, bands: int, seed: int = 0
) -> list[F32]:
    """Photographs, reduced, (bands, rows, columns) from 0 to 255.

    Args:
        patterns: files, or patterns of files; made-up cities where there is none.
        reduction: pixels of a photograph to a pixel.
        bands: 3, or 1 for their mean.
        seed: of what is made up.

    Raises:
        MissingInputError: a pattern names no file.
        BadInputError: a photograph has other than 8 bits and 3 bands.
    """
    if patterns:
        scenes = [reduce_photograph(_read(path), reduction) for path in find_images(patterns)]
    else:
        scenes = [_make_up(1000 * seed + k) for k in range(_MADE)]
    return [scene.mean(0, keepdims=True) for scene in scenes] if bands == 1 else scenes


def _read(path: Path) -> npt.NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # photographs have no map
        with rasterio.open(path) as raster:
            pixels: npt.NDArray[Any] = raster.read()
    if pixels.dtype != np.uint8 or len(pixels) != 3:
        raise BadInputError(
            f"{path}: found {len(pixels)} bands of {pixels.dtype}; a photograph of 3 bands of 8 "
            "bits was expected"
        )
    return pixels


def _make_up(seed: int) -> F32:
    grey = made_city((_SIDE, _SIDE), seed) / FULL_SCALE
    tints = np.random.default_rng([seed, 1]).uniform(0.6, 1.6, (3, 1, 1))
    return np.asarray(PEAK * grey**tints, np.float32)


def _turn(clip: F32, rng: np.random.Generator) -> F32:
    """The clip turned by quarters, mirrored and played backwards by chance."""
    backwards, mirrored = rng.random(2) < 0.5
    clip = np.rot90(clip, int(rng.integers(4)), (-2, -1))
    clip = clip[::-1] if backwards else clip
    return clip[..., ::-1] if mirrored else clip

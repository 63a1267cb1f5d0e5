"""Simulated push-frame bursts to learn from, with known truth and known motion."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.simulation.bursts import SimulatedBurst, simulate_burst
from l1bsr_geo.training.crops import augment
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.photographs import F32, read_fine_scenes

_MARGIN = 24  # [px] of the scene around the frames, for motion and the Fourier shift


@dataclass(frozen=True, eq=False)
class SimulatedBursts:
    """A pool of bursts, simulated once; what is drawn are crops of some of their frames.

    Saturated pixels are no data, but for the reference, which restorers want whole.

    Attributes:
        images: files or patterns of photographs; made-up cities where empty.
        count: bursts in the pool.
        size: [px] of the frames that are drawn.
        frames: least and most frames drawn, the reference included; one number for all samples
            drawn together, few as often as twice as many (uniform in its logarithm).
        scale: fine pixels to a pixel.
        noise: factor on SkySat's noise, or its least and most; METHODS' 2.5 reproduces the
            published figures of the baselines.
        exposures: of the frames, to draw from.
        exposure_error: relative, uniform; 0 where the product knows them exactly.
        flow_error: [px] standard deviation of a constant error of the flow of every frame, as
            registration would leave it.
        options: others of `simulate_burst` (affine, jitter, parallax, defocus).
        crop: [px] of the frames in the pool; ``size`` where None.
        seed: of the pool.
    """

    images: Sequence[str | Path] = ()
    count: int = 512
    size: int = 64
    frames: tuple[int, int] = (4, 30)
    scale: int = 2
    noise: float | tuple[float, float] = 2.5
    exposures: Sequence[float] = (1.0,)
    exposure_error: float = 0.02
    flow_error: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    crop: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        least, most = self.frames
        if not 1 <= least <= most:
            raise BadOptionError(f"frames are {least} to {most}; 1 or more, in this order, needed")
        if self.side < self.size:
            raise BadOptionError(f"crops of {self.size} px from frames of {self.side} px")

    @property
    def side(self) -> int:
        """[px] of the frames in the pool."""
        return self.crop or self.size

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Samples: views (B, T, 1, H, W) with flow, exposures and truth; see `Source`."""
        least, most = np.log(self.frames[0]), np.log(self.frames[1] + 1)
        number = int(np.exp(rng.uniform(least, most)))
        samples = [self._draw_one(rng, number) for _ in range(count)]
        views, flow, exposures, truth = (
            torch.from_numpy(np.stack(part)) for part in zip(*samples, strict=True)
        )
        batch = Batch(views[:, :, None], flow[:, :, None], exposures, truth[:, None])
        return augment(batch, rng, aligned="centre", scale=self.scale)

    def _draw_one(self, rng: np.random.Generator, number: int) -> tuple[F32, F32, F32, F32]:
        burst = self._pool[rng.integers(self.count)]
        others = 1 + rng.permutation(self.frames[1] - 1)[: number - 1]
        chosen = np.concatenate([[0], others])
        top, left = (int(v) for v in rng.integers(0, self.side - self.size + 1, 2))
        here = np.s_[..., top : top + self.size, left : left + self.size]
        fine = slice(self.scale * top, self.scale * (top + self.size))
        across = slice(self.scale * left, self.scale * (left + self.size))
        flow = burst.flow[chosen][here].astype(np.float32)
        if self.flow_error:
            error = rng.normal(0, self.flow_error, (number, 2, 1, 1))
            error[0] = 0
            flow += error.astype(np.float32)
        views = burst.counts[chosen][here].astype(np.float32)
        clipped = views >= FULL_SCALE
        clipped[0] = False
        if number > 1:  # restorers want a first frame without gaps: the least clipped stays whole
            clipped[1 + clipped[1:].sum((1, 2)).argmin()] = False
        views[clipped] = np.nan
        return (
            views,
            flow,
            burst.exposures[chosen],
            burst.truth[fine, across],
        )

    @cached_property
    def _pool(self) -> list["_Pooled"]:
        rng = np.random.default_rng([self.seed, 0])
        scenes = read_fine_scenes(self.images, self.seed)
        return [_Pooled.of(self._simulate(rng, scenes, k)) for k in range(self.count)]

    def _simulate(self, rng: np.random.Generator, scenes: Sequence[F32], k: int) -> SimulatedBurst:
        scene = scenes[int(rng.integers(len(scenes)))]
        side = self.scale * (self.side + 2 * _MARGIN)
        if min(scene.shape) < side:
            raise BadOptionError(
                f"a scene of {scene.shape[0]} x {scene.shape[1]} fine px is too small for bursts "
                f"of {self.side} px at scale {self.scale}: {side} are needed"
            )
        top, left = (int(rng.integers(0, n - side + 1)) for n in scene.shape)
        noise = self.noise if isinstance(self.noise, int | float) else rng.uniform(*self.noise)
        return simulate_burst(
            scene[top : top + side, left : left + side],
            (self.side, self.side),
            self.frames[1],
            scale=self.scale,
            noise=float(noise),
            exposures=self.exposures,
            exposure_error=self.exposure_error,
            seed=int(rng.integers(2**31)) + k,
            **self.options,
        )


@dataclass(frozen=True, eq=False)
class _Pooled:
    """A burst as the pool keeps it: whole DN, and flow to a thousandth of a pixel."""

    counts: npt.NDArray[np.uint16]
    flow: npt.NDArray[np.float16]
    exposures: F32
    truth: F32

    @classmethod
    def of(cls, burst: SimulatedBurst) -> "_Pooled":
        return cls(burst.counts, burst.flow.astype(np.float16), burst.exposures, burst.truth)

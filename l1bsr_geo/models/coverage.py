"""What a burst can tell of each fine pixel: how many frames saw it, and how much noise is left."""

from dataclasses import dataclass

import torch
from torch import Tensor

from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.burst import MOST_FRAMES, MOTION, BurstViews
from l1bsr_geo.ops.splat import Splat


@dataclass(frozen=True)
class FrameCount:
    """Frames that have data where a fine pixel is.

    Attributes:
        scale: fine pixels to a pixel, per axis.
    """

    scale: int = 2

    @property
    def spec(self) -> ModelSpec:
        """What it takes and gives."""
        return _spec("frame-count", self.scale)

    def __call__(
        self, views: Tensor, flow: Tensor | None = None, *, exposures: Tensor | None = None
    ) -> Tensor:
        """Count: (B, T, C, H, W) to (B, C, scale * H, scale * W)."""
        burst = BurstViews.of(views, flow, exposures)
        count = torch.stack([burst.known(t) for t in range(len(burst))]).sum(0)
        fine = count.repeat_interleave(self.scale, -2).repeat_interleave(self.scale, -1)
        return burst.join_bands(fine[:, 0])


@dataclass(frozen=True)
class NoiseGain:
    """Noise of averaging what falls on a fine pixel, over that of one frame.

    With splatting weights w and exposure ratios e it is sqrt(sum w^2) / sum (w e): 1 where one
    sample lies right there, 1 / sqrt(n) where n do. It is infinite in a hole.

    Attributes:
        scale: fine pixels to a pixel, per axis.
    """

    scale: int = 2

    @property
    def spec(self) -> ModelSpec:
        """What it takes and gives."""
        return _spec("noise-gain", self.scale)

    def __call__(
        self, views: Tensor, flow: Tensor | None = None, *, exposures: Tensor | None = None
    ) -> Tensor:
        """Noise gain: (B, T, C, H, W) to (B, C, scale * H, scale * W)."""
        burst = BurstViews.of(views, flow, exposures).without_empty()
        squares = weight = torch.zeros(())
        for t in range(len(burst)):
            places, known = Splat(burst.motion(t), self.scale, "drop"), burst.known(t)
            squares = squares + places.add_squares(known)
            weight = weight + places.add(known * burst.exposure(t))
        return burst.join_bands((squares.sqrt() / weight.clamp_min(1e-6))[:, 0])


def _spec(name: str, scale: int) -> ModelSpec:
    return ModelSpec(
        name=name,
        frames=(1, MOST_FRAMES),
        scale=scale,
        aligned="centre",
        halo=MOTION + 1,
        flow=True,
        exposures=True,
        source="weights of shift-and-add",
    )

"""Shift-and-add: every pixel of a burst dropped where it belongs on the fine grid, and averaged."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.burst import MOST_FRAMES, MOTION, BurstViews, accumulate
from l1bsr_geo.models.precision import in_full_precision

_HOLE = 0.05  # a fine pixel with less weight than this is a hole
_REACH = 4  # [fine px] of the Gaussian that fills holes


@dataclass(frozen=True)
class ShiftAndAdd:
    """Bilinear splatting, divided by its weight; holes are filled from around them.

    Frames count by their exposure, as photons do. Holes are filled by a normalised convolution with
    a Gaussian of one fine pixel.

    Attributes:
        scale: fine pixels to a pixel, per axis.
    """

    scale: int = 2

    @property
    def spec(self) -> ModelSpec:
        """What it takes and gives; the halo holds motion, splat (1) and holes."""
        return ModelSpec(
            name="shift-and-add",
            frames=(1, MOST_FRAMES),
            scale=self.scale,
            aligned="centre",
            halo=MOTION + 1 + -(-_REACH // self.scale),
            flow=True,
            exposures=True,
            source="baseline of Nguyen et al., DSA, CVPRW EarthVision 2021",
        )

    @in_full_precision
    def __call__(
        self, views: Tensor, flow: Tensor | None = None, *, exposures: Tensor | None = None
    ) -> Tensor:
        """Restore, frame by frame; see Restorer.

        Args:
            views: (B, T, C, H, W) [DN].
            flow: (B, T, C, 2, H, W) [px].
            exposures: (B, T).

        Returns:
            (B, C, scale * H, scale * W) [DN at the exposure of the first frame].
        """
        burst = BurstViews.of(views, flow, exposures).without_empty()
        added, weight = accumulate(burst, self.scale)
        return burst.join_bands(_fill_holes(added, weight)[:, 0])


def _fill_holes(added: Tensor, weight: Tensor) -> Tensor:
    known = weight >= _HOLE
    mean = added / weight.clamp_min(_HOLE)
    if bool(known.all()):
        return mean
    at = torch.arange(-_REACH, _REACH + 1, device=added.device, dtype=added.dtype)
    kernel = torch.exp(-0.5 * at.square())

    def spread(image: Tensor) -> Tensor:
        across = functional.conv2d(image, kernel.view(1, 1, 1, -1), padding=(0, _REACH))
        return functional.conv2d(across, kernel.view(1, 1, -1, 1), padding=(_REACH, 0))

    around = spread(torch.where(known, mean, 0)) / spread(known.to(mean)).clamp_min(1e-12)
    return torch.where(known, mean, around)

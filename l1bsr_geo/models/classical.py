"""Restorers without training: the baselines, and the default where no network fits the input."""

import math
import warnings
from dataclasses import dataclass

from torch import Tensor

from l1bsr_geo.errors import L1bsrGeoWarning
from l1bsr_geo.geometry.model import Aligned
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.burst import MOST_FRAMES
from l1bsr_geo.ops.sampling import SPLINE_REACH, pixel_centres, upsample, upsample_flow
from l1bsr_geo.ops.warp import sample


@dataclass(frozen=True)
class Bicubic:
    """Every band of the first frame enlarged on its own; motion between bands stays.

    Attributes:
        scale: fine pixels to a pixel, per axis; 1 gives the input back.
        aligned: which fine pixel sits where.
    """

    scale: int = 2
    aligned: Aligned = "corner"

    @property
    def spec(self) -> ModelSpec:
        """What it takes and gives."""
        return ModelSpec(
            name="bicubic",
            frames=(1, MOST_FRAMES),
            scale=self.scale,
            aligned=self.aligned,
            halo=2,
            source="Keys, Cubic convolution interpolation, IEEE TASSP 1981",
        )

    def __call__(self, views: Tensor, flow: Tensor | None = None) -> Tensor:
        """Restore: (B, T, C, H, W) to (B, C, scale * H, scale * W); the flow is not used."""
        return upsample(views[:, 0], self.scale, self.aligned)


@dataclass(frozen=True)
class Geometric:
    """Every band resampled once, from where the flow says it is onto the fine reference grid.

    Attributes:
        scale: fine pixels to a pixel, per axis; 1 registers the bands at the input's resolution.
        motion: largest motion per component [px]. A larger one is cut to it, with a warning, so
            that a tile never reads beyond its halo: take whole pixels out before (the readers'
            windows), or raise this.
    """

    scale: int = 2
    motion: float = 12.0

    @property
    def spec(self) -> ModelSpec:
        """What it takes and gives; the halo holds motion, kernel and flow interpolation."""
        return ModelSpec(
            name="geometric",
            scale=self.scale,
            halo=math.ceil(self.motion) + SPLINE_REACH + 4,
            flow=True,
            source="bands onto the reference by geometry and matching, cubic B-spline",
        )

    def __call__(self, views: Tensor, flow: Tensor | None = None) -> Tensor:
        """Restore; see Restorer.

        Args:
            views: (B, 1, C, H, W) [DN].
            flow: (B, 1, C, 2, H, W) [px], bilinear between pixel centres; without one the bands
                are only enlarged.

        Returns:
            (B, C, scale * H, scale * W) [DN].
        """
        image = views[:, 0]
        height, width = image.shape[-2:]
        x, y = pixel_centres(height, width, self.scale, like=image)
        if flow is None:
            return image if self.scale == 1 else sample(image, x, y, "spline")
        motion = upsample_flow(self._bounded(flow[:, 0].flatten(0, 1)), self.scale)
        bands = image.flatten(0, 1)[:, None]
        return sample(bands, x + motion[:, 0], y + motion[:, 1], "spline").view(
            *image.shape[:2], self.scale * height, self.scale * width
        )

    def _bounded(self, flow: Tensor) -> Tensor:
        most = float(flow.abs().max()) if flow.numel() else 0.0
        if not most <= self.motion:
            warnings.warn(
                f"a motion of {most:.1f} px between bands is beyond the {self.motion:g} px that "
                "the geometric restorer reads around a tile; it was cut there",
                L1bsrGeoWarning,
                stacklevel=2,
            )
        return flow.clamp(-self.motion, self.motion)

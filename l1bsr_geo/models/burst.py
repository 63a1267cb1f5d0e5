"""What all multi-frame restorers share: a burst one band at a time, frame by frame."""

import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from l1bsr_geo.errors import L1bsrGeoWarning
from l1bsr_geo.models.precision import in_full_precision
from l1bsr_geo.ops.flow import invert_flow
from l1bsr_geo.ops.splat import Splat

MOST_FRAMES = 1000
"""No limit: memory does not grow with the frames."""

MOTION = 4
"""Largest motion that the halos hold [px], once whole pixels are taken out by the reader."""


@dataclass(frozen=True)
class BurstViews:
    """The views of a restorer with the bands in the batch: each band is restored by itself.

    Attributes:
        frames: (N, T, H, W), NaN where a frame has no data; frame 0, the reference, has no NaN.
        flow: (N, T, 2, H, W) [px]: reference pixel p reads frame t at p + flow_t(p); None is no
            motion, or one that is not known yet.
        ratios: (N, T), exposures over that of the first frame.
        bands: how many bands a batch entry had.
    """

    frames: Tensor
    flow: Tensor | None
    ratios: Tensor
    bands: int

    @classmethod
    def of(cls, views: Tensor, flow: Tensor | None, exposures: Tensor | None) -> "BurstViews":
        """From what a restorer is called with; see BurstRestorer."""
        bands = views.shape[2]
        if flow is not None:
            _check_motion(flow)
            flow = flow.movedim(2, 1).flatten(0, 1)
        if exposures is None:
            exposures = views.new_ones(views.shape[:2])
        ratios = (exposures / exposures[:, :1]).to(views).repeat_interleave(bands, 0)
        return cls(views.movedim(2, 1).flatten(0, 1), flow, ratios, bands)

    def __len__(self) -> int:
        return self.frames.shape[1]

    def without_empty(self) -> "BurstViews":
        """Without the frames that have no data at all."""
        seen = [bool(~frame.isnan().all()) for frame in self.frames.unbind(1)]
        if all(seen):
            return self
        kept = [t for t, s in enumerate(seen) if s]
        flow = None if self.flow is None else self.flow[:, kept]
        return replace(self, frames=self.frames[:, kept], flow=flow, ratios=self.ratios[:, kept])

    def pixels(self, frame: int) -> Tensor:
        """A frame as exposed, (N, 1, H, W); where it has no data, what the reference would give."""
        seen = self.frames[:, frame, None]
        return torch.where(seen.isnan(), self.frames[:, :1] * self.exposure(frame), seen)

    def known(self, frame: int) -> Tensor:
        """One where a frame has data, (N, 1, H, W)."""
        return (~self.frames[:, frame, None].isnan()).to(self.frames)

    def exposure(self, frame: int) -> Tensor:
        """A frame's exposure ratio, (N, 1, 1, 1)."""
        return self.ratios[:, frame, None, None, None]

    def motion(self, frame: int) -> Tensor:
        """(N, 2, H, W) [px]: the sample at q of a frame belongs at q + motion in the reference."""
        if self.flow is None:
            count, _, height, width = self.frames.shape
            return self.frames.new_zeros(count, 2, height, width)
        return invert_flow(self.flow[:, frame])

    def join_bands(self, image: Tensor) -> Tensor:
        """(N, ...) to (B, C, ...)."""
        return image.view(-1, self.bands, *image.shape[1:])


def accumulate(views: BurstViews, scale: int) -> tuple[Tensor, Tensor]:
    """All frames splatted; what falls outside the fine grid is dropped.

    Args:
        views: the burst.
        scale: fine pixels to a pixel.

    Returns:
        Sum of DN and sum of exposure ratios, (N, 1, scale * H, scale * W) each. Their quotient is
        the radiance, and the latter counts frames (in frames exposed as the first).
    """
    added = weight = torch.zeros(())
    for t in range(len(views)):
        places, known = Splat(views.motion(t), scale, "drop"), views.known(t)
        here = places.add(torch.cat([views.pixels(t) * known, views.exposure(t) * known], 1))
        added, weight = added.to(here) + here[:, :1], weight.to(here) + here[:, 1:]
    return added, weight


@in_full_precision
def blur(image: Tensor, sigma: float = 1.0, radius: int = 5) -> Tensor:
    """Gaussian blur with reflected borders, (B, 1, H, W)."""
    at = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    taps = torch.exp(-0.5 * (at / sigma).square())
    taps = taps / taps.sum()
    for axis, pad in ((-1, (radius, radius, 0, 0)), (-2, (0, 0, radius, radius))):
        # as far as there is something to reflect; else the edge is repeated
        mode = "reflect" if image.shape[axis] > radius else "replicate"
        kernel = taps.view((1, 1, 1, -1) if axis == -1 else (1, 1, -1, 1))
        image = functional.conv2d(functional.pad(image, pad, mode=mode), kernel)
    return image


def enlarge_centred(image: Tensor, scale: int) -> Tensor:
    """Bilinear, fine sample ``scale * i`` on sample i; beyond the last sample its value goes on.

    (The published code leaves zeros there.)
    """
    height, width = (scale * (n - 1) + 1 for n in image.shape[-2:])
    fine = functional.interpolate(image, (height, width), mode="bilinear", align_corners=True)
    return functional.pad(fine, (0, scale - 1, 0, scale - 1), mode="replicate")


def _check_motion(flow: Tensor) -> None:
    most = float(flow.detach().abs().max())
    if most > MOTION:
        warnings.warn(
            f"frames move by up to {most:.1f} px against the reference, beyond the {MOTION} px "
            "that are read around a tile: tiles may not meet; take whole pixels out first",
            L1bsrGeoWarning,
            stacklevel=4,
        )

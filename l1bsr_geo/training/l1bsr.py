"""Learning Sentinel-2 super-resolution from overlaps of detectors, with the motion known.

The network restores view 0. What the other detector's bands would be of its result, at their own
places, is compared with the pixels of view 1, which the network never sees: their noise and their
aliases are independent of what it saw. With ``supervised`` it is compared with the truth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.l1bsr import BANDS
from l1bsr_geo.models.precision import in_full_precision
from l1bsr_geo.ops.flow import invert_flow, read_flow
from l1bsr_geo.ops.sampling import pixel_centres, spline_coefficients, spline_weights
from l1bsr_geo.training.objective import Batch, Example, Figures

GAIN = 400.0
"""DN per unit, of the networks and of the figures (a peak of 1)."""

_SCALE = 2


@dataclass(frozen=True)
class L1BSRObjective:
    """L1BSR's loss on overlaps, for the compact network and for the paper's.

    Attributes:
        supervised: whether the truth is the target in place of view 1.
        kernel: standard deviation of a Gaussian [fine px], of each band or of all, that makes the
            pixels of view 1 (and the truth) of the network's result, which is then sharper; None
            where the result is as blurred as the pixels are.
        border: of the target, is not compared [coarse px].
        both: share of the batches in which a supervised network sees the second view, too.

    Source: Nguyen et al., L1BSR, CVPRW EarthVision 2023 (arXiv 2304.06871), section 3.
    """

    supervised: bool = False
    kernel: float | Sequence[float] | None = None
    border: int = 4
    both: float = 0.0

    def hold_out(self, batch: Batch, rng: np.random.Generator) -> Example:
        """View 0 is seen, view 1 is the target; or the truth, and then view 1 may be seen, too.

        Targets are NaN where they are not compared: at the border, where there are no data, and
        where view 0 does not show the band.
        """
        if batch.flow is None:
            raise BadInputError("L1BSR learns from overlaps whose flow is known; it is not given")
        if self.supervised:
            views = 1 + (rng.random() < self.both)
            target, places = self._of_truth(batch), None
        else:
            views = 1
            target, places = self._of_second_view(batch)
        return Example(
            views=batch.views[:, :views] / GAIN,
            flow=batch.flow[:, :views],
            exposures=None,
            target=target / GAIN,
            places=places,
        )

    @in_full_precision
    def observe(self, restored: Tensor, example: Example) -> Tensor:
        """The bands of view 1, at their own places, or the truth's.

        Args:
            restored: (B, C, 2 H, 2 W).
            example: its ``places``: of view 1's pixels; None gives the truth's grid.

        Returns:
            (B, C, H, W), or (B, C, 2 H, 2 W).
        """
        fine = self._blur(restored.float())
        if example.places is None:
            return fine
        height, width = example.places.shape[-2:]
        x, y = pixel_centres(height, width, like=fine)
        dx, dy = example.places.flatten(0, 1).unbind(1)
        planes = fine.flatten(0, 1)[:, None]
        there = _read_spline(planes, _SCALE * (x + dx), _SCALE * (y + dy))
        return there.view(*example.places.shape[:2], height, width)

    def loss(
        self, network: nn.Module, batch: Batch, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """Mean absolute difference [DN / 400], of all bands and of each."""
        example = self.hold_out(batch, rng)
        restored = _restore(cast("Restorer", network), example.views, example.flow)
        compared = ~example.target.isnan()
        apart = (self.observe(restored, example) - example.target.nan_to_num()).abs() * compared
        each = apart.sum((0, 2, 3)) / compared.sum((0, 2, 3)).clamp_min(1)
        parts = {f"l1_{b.lower()}": v.detach() for b, v in zip(BANDS, each, strict=True)}
        return each.mean(), parts

    @torch.no_grad()
    def score(self, network: nn.Module, batch: Batch) -> Figures:
        """PSNR [dB] of each band against the truth, peak 400 DN, mean over images.

        The border, and places that view 0 does not show, are left out. Where a network may learn
        from both views, ``psnr_both`` says what it makes of them.
        """
        if batch.flow is None:
            raise BadInputError("L1BSR is scored on overlaps whose flow is known; it is not given")
        restorer = cast("Restorer", network)
        target = self._of_truth(batch) / GAIN
        views = batch.views / restorer.spec.gain
        each = self._psnr(restorer, views[:, :1], batch.flow[:, :1], target)
        figures = {"score": float(each.mean())}
        figures |= {f"psnr_{b.lower()}": float(v) for b, v in zip(BANDS, each, strict=True)}
        if self.both and restorer.spec.frames[1] > 1:
            figures["psnr_both"] = float(self._psnr(restorer, views, batch.flow, target).mean())
        return figures

    def _psnr(self, restorer: Restorer, views: Tensor, flow: Tensor, target: Tensor) -> Tensor:
        """Mean over images, (C,) [dB]."""
        restored = self._blur(_restore(restorer, views, flow) * (restorer.spec.gain / GAIN))
        compared = ~target.isnan()
        squares = (restored - target.nan_to_num()).square() * compared
        mse = squares.sum((2, 3)) / compared.sum((2, 3))  # NaN where a band is compared nowhere
        return (-10 * mse.log10()).nanmean(0)

    def _of_truth(self, batch: Batch) -> Tensor:
        """The truth [DN] where it is compared, (B, C, 2 H, 2 W)."""
        if batch.truth is None:
            raise BadInputError("these overlaps have no truth, which supervision and scores need")
        seen = self._inside(cast("Tensor", batch.flow)[:, 0].flatten(0, 1))
        fine = seen.repeat_interleave(_SCALE, 1).repeat_interleave(_SCALE, 2)
        return batch.truth.where(fine.view_as(batch.truth), math.nan)

    def _of_second_view(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """View 1 [DN] where it is compared, and the places of its pixels (B, C, 2, H, W) [px]."""
        if batch.views.shape[1] < 2:
            raise BadInputError("L1BSR learns from two views of an overlap; there is one")
        own, other = cast("Tensor", batch.flow)[:, :2].unbind(1)
        own, places = own.flatten(0, 1), invert_flow(other.flatten(0, 1))
        compared = self._inside(places) & self._inside(places + read_flow(own, places))
        target = batch.views[:, 1].where(compared.view_as(batch.views[:, 1]), math.nan)
        return target, places.view_as(other)

    def _inside(self, motion: Tensor) -> Tensor:
        """Which pixels, moved, are in the image, and at no border themselves; (N, H, W)."""
        height, width = motion.shape[-2:]
        x, y = pixel_centres(height, width, like=motion)
        to_x, to_y = x + motion[:, 0], y + motion[:, 1]
        core = torch.zeros_like(to_x, dtype=torch.bool)
        b = self.border
        core[:, b : height - b, b : width - b] = True
        return core & (to_x > 0) & (to_x < width) & (to_y > 0) & (to_y < height)

    def _blur(self, fine: Tensor) -> Tensor:
        if self.kernel is None:
            return fine
        sigma = fine.new_tensor(self.kernel).expand(fine.shape[1])
        reach = math.ceil(4 * float(sigma.max()))
        at = torch.arange(-reach, reach + 1, device=fine.device, dtype=fine.dtype)
        taps = torch.exp(-0.5 * (at / sigma[:, None]).square())
        taps = (taps / taps.sum(1, keepdim=True))[:, None]
        fine = functional.pad(fine, (reach,) * 4, mode="replicate")
        fine = functional.conv2d(fine, taps[:, :, None], groups=len(taps))
        return functional.conv2d(fine, taps[..., None], groups=len(taps))


def _read_spline(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """``ops.warp.sample`` with the spline, by four bilinear readings: faster by far in training.

    The spline loses 3 % at the pixels' Nyquist frequency half-way between fine pixels, Keys' kernel
    12 %, which a network would learn to make up for.

    Source: Sigg and Hadwiger, Fast third-order texture filtering, GPU Gems 2, 2005.
    """
    image = spline_coefficients(image, margin=2)
    size = image.new_tensor([image.shape[-1], image.shape[-2]])
    read = torch.zeros(())
    for row, row_weight in _pairs(y + 2):
        for column, weight in _pairs(x + 2):
            at = 2 * torch.stack([column, row], -1) / size - 1
            two_by_two = functional.grid_sample(
                image, at, mode="bilinear", padding_mode="border", align_corners=False
            )
            read = read.to(image) + two_by_two * (weight * row_weight)[:, None]
    return read


def _pairs(at: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Where to read two spline coefficients at once, between them, and their common weight."""
    first = (at - 0.5).floor()
    a, b, c, d = spline_weights(at - 0.5 - first)
    return [(first - 0.5 + b / (a + b), a + b), (first + 1.5 + d / (c + d), c + d)]


def _restore(restorer: Restorer, views: Tensor, flow: Tensor | None) -> Tensor:
    fine = restorer(views, flow) if restorer.spec.flow else restorer(views)
    return fine.float()

"""Pre-training of FNet: the motion between two frames, from images alone or from known motion.

There is nothing to hold out: a smooth motion cannot copy the noise of the frame it explains.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.models.burst import BurstViews, blur
from l1bsr_geo.ops.flow import invert_flow
from l1bsr_geo.ops.warp import warp
from l1bsr_geo.training.burst_loss import (
    is_clean,
    join_subset,
    mean_error,
)
from l1bsr_geo.training.objective import Batch, Example, Figures

Estimate = Callable[[Tensor, Tensor], Tensor]

_REACH = 3  # [px] within which a saturated pixel spoils the detail


@dataclass(frozen=True)
class MotionObjective:
    """What FNet learns from: pairs of the reference and another frame of the burst.

    A network is a ``FrameRegistration``, or anything with its ``network.estimate``.

    Attributes:
        supervised: learn the simulated motion itself (L1), which small schedules need, instead of
            comparing details.
        smoothness: weight of the total variation where not supervised; of 0.1, 0.03, 0.01 and
            0.003 the authors found the first and the last to work.
        border: [px] left out of the comparison of details.
        unit: [DN] of the details, against which the smoothness is weighed; the authors' is 1000.
        saturated: [DN] pixels from here on are not compared.

    Source: Nguyen et al., HDR-DSP, CVPR 2022, and its published training of FNet.
    """

    supervised: bool = False
    smoothness: float = 0.003
    border: int = 5
    unit: float = 1000.0
    saturated: float = FULL_SCALE

    def hold_out(self, batch: Batch, rng: np.random.Generator) -> Example:
        """Each reference and a random other frame.

        Returns:
            Views (B, 2, C, H, W) [DN / 3400], the reference first; the target is the true motion
            (B * C, 2, H, W) [px] of the other frame's samples where supervised, else the other
            frame's radiance (B * C, 1, H, W) [DN / 3400], NaN where it is not to be compared.
        """
        pair = join_subset(batch, rng, 2, 2)
        views = pair.views / FULL_SCALE
        burst = BurstViews.of(views, pair.flow, pair.exposures)
        if self.supervised:
            target = true_motion(burst, 1)
        else:
            seen = is_clean(burst.frames[:, 1:], self.saturated / FULL_SCALE)
            target = torch.where(seen, burst.pixels(1) / burst.exposure(1), torch.nan)
        return Example(views, pair.flow, pair.exposures, target)

    def observe(self, restored: Tensor, example: Example) -> Tensor:
        """The reference as the other frame would see it after a motion.

        Args:
            restored: (B * C, 2, H, W) [px], the motion of the frame's samples to the reference.
            example: of ``hold_out``.

        Returns:
            As the target: the motion itself where supervised, else (B * C, 1, H, W) [DN / 3400],
            NaN where a saturated pixel was read.
        """
        if self.supervised:
            return restored
        burst = BurstViews.of(example.views, None, example.exposures)
        return _read_clean(burst.pixels(0), restored, self.saturated / FULL_SCALE)

    def loss(
        self, network: nn.Module, batch: Batch, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """Error of the motion, or of details with total variation; see Objective."""
        example = self.hold_out(batch, rng)
        burst = BurstViews.of(example.views, None, example.exposures)
        radiance = burst.pixels(1) / burst.exposure(1)
        motion = _estimator(network)(radiance, burst.pixels(0)).float()
        seen = self.observe(motion, example)
        if self.supervised:
            error = (seen - example.target).abs().mean()
            return error, {"motion": error.detach()}
        details = FULL_SCALE / self.unit * compare_details(seen, example.target, self.border)
        variation = total_variation(motion)
        parts = {"details": details.detach(), "variation": variation.detach()}
        return details + self.smoothness * variation, parts

    def score(self, network: nn.Module, batch: Batch) -> Figures:
        """End-point error [px] over all frames, ``score`` its negative; columns and rows apart.

        ``error_x`` and ``error_y`` are mean absolute errors: a network may learn one component
        and leave the other at zero.

        Raises:
            BadInputError: the motion is not known.
        """
        burst = BurstViews.of(batch.views / FULL_SCALE, batch.flow, batch.exposures)
        inside = slice(self.border, -self.border or None)
        errors = []
        with torch.inference_mode():
            for t in range(1, len(burst)):
                radiance = burst.pixels(t) / burst.exposure(t)
                motion = _estimator(network)(radiance, burst.pixels(0)).float()
                errors.append((motion - true_motion(burst, t))[..., inside, inside])
        error = torch.stack(errors)
        epe = float(error.norm(dim=2).mean())
        x, y = (float(error[:, :, k].abs().mean()) for k in (0, 1))
        return {"score": -epe, "epe": epe, "error_x": x, "error_y": y}


def true_motion(burst: BurstViews, frame: int) -> Tensor:
    """Where the samples of a frame belong, (N, 2, H, W) [px].

    Raises:
        BadInputError: the motion is not known.
    """
    if burst.flow is None:
        raise BadInputError("the motion of these bursts is not known; take simulated ones")
    return burst.motion(frame)


def motion_terms(
    estimate: Estimate, batch: Batch, border: int, saturated: float
) -> tuple[Batch, Tensor, Tensor]:
    """Estimate the motion of all frames to the reference, for training along with the rest.

    The reference's pixels are seen by the motion estimator, as published, but not by what is
    restored with the motion.

    Args:
        estimate: as ``FrameFlow.estimate``.
        batch: bursts [DN] of one band; a flow that they have is not used.
        border: [px] left out of the comparison.
        saturated: [DN] pixels from here on are not compared.

    Returns:
        The batch with the flow that was estimated, differentiable; the error of the details
        [DN / 3400]; the total variation [px].
    """
    burst = BurstViews.of(batch.views / FULL_SCALE, None, batch.exposures)
    reference = burst.pixels(0)
    flows = [torch.zeros_like(reference).expand(-1, 2, -1, -1)]
    errors, variations = [], []
    for t in range(1, len(burst)):
        radiance = burst.pixels(t) / burst.exposure(t)
        motion = estimate(radiance, reference).float()
        clean = is_clean(burst.frames[:, t, None], saturated / FULL_SCALE)
        target = torch.where(clean, radiance, torch.nan)
        seen = _read_clean(reference, motion, saturated / FULL_SCALE)
        errors.append(compare_details(seen, target, border))
        variations.append(total_variation(motion))
        flows.append(invert_flow(motion))
    flow = torch.stack(flows, 1)[:, :, None]
    moved = Batch(batch.views, flow, batch.exposures, batch.truth)
    return moved, torch.stack(errors).mean(), torch.stack(variations).mean()


def compare_details(seen: Tensor, target: Tensor, border: int) -> Tensor:
    """Mean absolute difference of what a blur of one pixel takes away; NaN is not compared."""
    difference = seen - target
    known = is_clean(difference.abs(), torch.inf, _REACH)
    difference = torch.where(difference.isnan(), 0, difference)
    return mean_error(difference - blur(difference), torch.zeros_like(seen), border, known)


def total_variation(motion: Tensor, border: int = 2) -> Tensor:
    """Mean absolute step of a motion (N, 2, H, W) between neighbours, both ways added."""
    inside = motion[..., border:-border, border:-border]
    return inside.diff(dim=-1).abs().mean() + inside.diff(dim=-2).abs().mean()


def _read_clean(image: Tensor, motion: Tensor, saturated: float) -> Tensor:
    """An image where a motion reads it; NaN where it reads what is saturated."""
    dirty = (~is_clean(image, saturated, 1)).to(image)  # the bicubic kernel reaches one further
    with torch.no_grad():
        spoilt = warp(dirty, motion, "bilinear") > 0
    return torch.where(spoilt, torch.nan, warp(image, motion))


def _estimator(network: nn.Module) -> Estimate:
    return cast("Estimate", cast("Any", network).network.estimate)

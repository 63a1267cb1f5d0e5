"""Training of HDR-DSP from noisy bursts alone: the reference is held out, and foretold.

The exposures that the product tells are a few per cent wrong. HDR-DSP therefore passes the smooth
part of the frames by, the base, and its network restores the detail only; in the published loss it
is the detail alone that is compared with the detail of the reference. That is not the same as
comparing what is fine in result and reference: the network's smooth part is compared too, with
none, and what a wrong exposure does to the base never reaches the loss.

What the published loss leaves to nobody is what the base itself lacks, because blurred frames are
enlarged bilinearly: without noise and with any number of frames, the detail that this loss asks for
leaves simulated bursts of a made-up city at 46.5 dB, of houses at 50 dB, of bare ground beyond 56.
``compare="whole"`` lets the network restore that too: the result is compared with the reference,
times the one factor that brings their smooth parts together.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.models.burst import blur
from l1bsr_geo.models.burst_network import BurstNetwork
from l1bsr_geo.models.precision import in_full_precision
from l1bsr_geo.training.burst_loss import (
    COUNTS,
    fuse_subset,
    is_clean,
    mean_error,
    random_shift,
    sample_reference,
    score_restored,
    shift_grid,
)
from l1bsr_geo.training.fnet import motion_terms
from l1bsr_geo.training.objective import Batch, Example, Figures

Compare: TypeAlias = Literal["detail", "whole"]

SHARPENING = 13.1
"""Of the published blur kernel: it undoes ACT's sharpening 1 + 13.1 f, f in cycles per fine px."""

_TAPS = 61  # of that kernel
_REACH = 3  # [px] within which a saturated pixel spoils the detail
_FINE = 1e-9


@dataclass(frozen=True)
class HDRDSPObjective:
    """The held-out reference, seen through a restored image on a grid moved at random.

    Attributes:
        scale: fine pixels to a pixel.
        frames: least and most frames fused in training, the reference not counted.
        compare: ``"detail"`` is the published loss, for networks with the base of HDR-DSP.
        sharpening: s of the blur 1 / (1 + s * f) that the restored image has to lose, f in cycles
            per fine pixel: ``SHARPENING`` is the published one, 0 leaves the optics' blur in.
        border: [px] left out of the loss.
        joint: whether the network's own motion estimator gives the flow and learns with it.
        warping: weight of its error, where joint.
        smoothness: weight of its total variation, where joint.
        saturated: [DN] pixels of the reference from here on are not compared.
        counts: of frames, the reference included, for ``score``.

    Source: Nguyen et al., HDR-DSP, CVPR 2022 (arXiv 2205.02031), sections 3.2 to 3.4.
    """

    scale: int = 2
    frames: tuple[int, int] = (3, 14)
    compare: Compare = "detail"
    sharpening: float = 0.0
    border: int = 5
    joint: bool = False
    warping: float = 3.0
    smoothness: float = 0.01
    saturated: float = FULL_SCALE
    counts: tuple[int, ...] = COUNTS

    def hold_out(self, batch: Batch, rng: np.random.Generator) -> Example:
        """Hold the reference out, choose among the others, move the grid by whole fine pixels.

        Returns:
            Views in random order [DN / 3400]; exposures in units of the held-out reference's; the
            target is the reference (B, C, H, W) [DN / 3400 as exposed], and ``places`` the shift.

        Raises:
            BadInputError: no motion is known, or there is nothing to fuse.
        """
        if batch.flow is None:
            raise BadInputError(
                "the motion of these bursts is not known: register them first, or train the "
                "motion estimator along (joint)"
            )
        subset = fuse_subset(batch, rng, *self.frames)
        shift = random_shift(rng, len(batch.views), self.scale).to(batch.views)
        exposures = subset.exposures
        if exposures is not None and batch.exposures is not None:
            exposures = exposures / batch.exposures[:, :1]
        target = batch.views[:, 0] / FULL_SCALE
        return Example(
            views=subset.views / FULL_SCALE,
            flow=shift_grid(cast("Tensor", subset.flow), shift),
            exposures=exposures,
            target=target,
            places=shift[:, None, :, None, None].expand(*target.shape[:2], 2, *target.shape[2:]),
        )

    def observe(self, restored: Tensor, example: Example) -> Tensor:
        """What the held-out reference would be of a restored image, or of a part of one.

        Args:
            restored: (B, C, scale * H, scale * W) [DN / 3400 at the exposure of the first view].
            example: of ``hold_out``.

        Returns:
            (B, C, H, W) [DN / 3400 at the reference's exposure].
        """
        if self.sharpening:
            restored = blur_restored(restored, self.sharpening)
        seen = sample_reference(restored, self.scale, cast("Tensor", example.places))
        if example.exposures is None:
            return seen
        return seen / example.exposures[:, :1, None, None]

    def loss(
        self, network: nn.Module, batch: Batch, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """L1 against the held-out reference, with the motion's terms where joint; see Objective.

        Raises:
            BadOptionError: the network has no base to leave out, or no motion estimator.
        """
        burst_network = self._checked(network)
        warped = variation = torch.zeros((), device=batch.views.device)
        if self.joint:
            estimate = cast("Any", burst_network.fnet).estimate
            batch, warped, variation = motion_terms(estimate, batch, self.border, self.saturated)
        example = self.hold_out(batch, rng)
        base, detail = burst_network.restore_parts(
            example.views, example.flow, exposures=example.exposures
        )
        anchor = None if burst_network.base == "none" else base.detach()
        error = self._compare(base, detail, anchor, example)
        parts = {"image": error.detach()}
        if not self.joint:
            return error, parts
        parts |= {"warping": warped.detach(), "variation": variation.detach()}
        return error + self.warping * warped + self.smoothness * variation, parts

    def score(self, network: nn.Module, batch: Batch) -> Figures:
        """PSNR of full inference; what was to be sharpened is blurred again before."""

        def restored(first: Batch) -> Tensor:
            flow = None if self.joint else first.flow
            base, detail = self._checked(network).restore_parts(
                first.views / FULL_SCALE, flow, exposures=first.exposures
            )
            if self.sharpening and self.compare == "whole":
                fine = blur_restored(base + detail, self.sharpening)
            elif self.sharpening:
                fine = base + blur_restored(detail, self.sharpening)
            else:
                fine = base + detail
            fine = FULL_SCALE * fine
            return fine if first.exposures is None else fine / first.exposures[:, :1, None, None]

        return score_restored(restored, batch, self.counts)

    def _compare(
        self, base: Tensor, detail: Tensor, anchor: Tensor | None, example: Example
    ) -> Tensor:
        target, saturated = example.target, self.saturated / FULL_SCALE
        if self.compare == "detail":
            known = is_clean(target, saturated, _REACH)
            target = _detail(target, is_clean(target, saturated))
            return mean_error(self.observe(detail, example), target, self.border, known)
        known = is_clean(target, saturated)
        seen = self.observe(base + detail, example)
        if anchor is not None:  # what is learnt cannot move it
            smooth = replace(self, sharpening=0.0).observe(anchor, example)
            target = _fit(smooth, target, self.border, known) * target
        return mean_error(seen, target, self.border, known)

    def _checked(self, network: nn.Module) -> BurstNetwork:
        found = cast("BurstNetwork", network)
        if self.compare == "detail" and found.base != "detail":
            raise BadOptionError(
                f"{found.spec.name} has no base of blurred frames (base is {found.base!r}), so "
                "its detail cannot be compared alone; set compare to 'whole'"
            )
        if self.joint and found.fnet is None:
            raise BadOptionError(f"{found.spec.name} has no motion estimator to train along")
        return found


@in_full_precision
def blur_restored(image: Tensor, sharpening: float = SHARPENING) -> Tensor:
    """The filter 1 / (1 + sharpening * f), f in cycles per pixel, with reflected borders.

    Args:
        image: (B, C, h, w).
        sharpening: s.

    Raises:
        BadInputError: the image is too small for the kernel.
    """
    middle = _TAPS // 2
    if min(image.shape[-2:]) <= middle:
        raise BadInputError(
            f"a restored image of {tuple(image.shape[-2:])} is too small for a kernel of {_TAPS} "
            f"pixels; it must have more than {middle} a side"
        )
    kernel = blur_kernel(sharpening).to(image)
    planes = image.flatten(0, 1)[:, None]
    padded = functional.pad(planes, (middle,) * 4, mode="reflect")
    return functional.conv2d(padded, kernel[None, None]).view(image.shape)


def blur_kernel(sharpening: float = SHARPENING) -> Tensor:
    """The kernel of 1 / (1 + sharpening * f) on 61 x 61 fine pixels, (61, 61) float64, sum 1.

    Source: the transfer function of the published ``blur_kernel.npy`` of HDR-DSP-SR follows this
        law to its edge; made here of the formula.
    """
    f = torch.fft.fftfreq(_TAPS, dtype=torch.float64)
    gain = 1 / (1 + sharpening * torch.hypot(f[:, None], f))
    kernel: Tensor = torch.fft.fftshift(torch.fft.ifft2(gain).real)
    return kernel


def _detail(image: Tensor, known: Tensor) -> Tensor:
    """What a blur of one pixel takes away, of what is known alone."""
    planes, weight = torch.where(known, image, 0).flatten(0, 1)[:, None], known.to(image)
    smooth = blur(planes) / blur(weight.flatten(0, 1)[:, None]).clamp_min(_FINE)
    return (planes - smooth).view(image.shape)


def _fit(seen: Tensor, target: Tensor, border: int, known: Tensor) -> Tensor:
    """The factor of each sample that brings the target to what is seen, (B, 1, 1, 1)."""
    inside = (..., slice(border, -border or None), slice(border, -border or None))
    seen, target = (torch.where(known, image, 0)[inside].flatten(1) for image in (seen, target))
    factor = seen.sum(1) / target.sum(1).clamp_min(_FINE)
    return factor[:, None, None, None]

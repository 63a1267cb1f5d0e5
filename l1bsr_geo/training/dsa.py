"""DSA: learning to fuse frames from frames that were left out.

Source: Nguyen et al., Self-supervised multi-image super-resolution for push-frame satellite images,
CVPRW EarthVision 2021; the random move of the grid is HDR-DSP's (CVPR 2022).
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.models.base import BurstRestorer
from l1bsr_geo.models.precision import in_full_precision
from l1bsr_geo.ops.flow import invert_flow
from l1bsr_geo.ops.sampling import double
from l1bsr_geo.training.burst_loss import (
    choose_frames,
    fuse_subset,
    mean_error,
    random_shift,
    sample_reference,
    score_frames,
    shift_grid,
)
from l1bsr_geo.training.objective import Batch, Example, Figures


@dataclass(frozen=True)
class DSAObjective:
    """Frames divided by their exposures are fused, and compared with frames that were not.

    Attributes:
        supervised: compare with the truth instead; the reference is then fused too, as it is when
            the network is used.
        held_out: frames that are left out, the reference first. The paper leaves out the reference
            alone; every further one lowers the noise of what is compared, which is most of the
            loss, for the price of reading the result once more.
        scale: fine pixels to a pixel.
        border: [px] that the loss leaves out.
        gain: DN per unit of the network.
        saturated: [DN] from this value on a pixel may have received more light than it tells.
    """

    supervised: bool = False
    held_out: int = 1
    scale: int = 2
    border: int = 4
    gain: float = FULL_SCALE
    saturated: float = FULL_SCALE

    def hold_out(self, batch: Batch, rng: np.random.Generator) -> Example:
        """Leave frames out; the others go to the network in random order, on a moved grid.

        The target is (B, K, C, H, W) [DN / gain at exposure 1], NaN where it is saturated, and the
        places are (B, K, C, 2, H, W).

        Raises:
            BadInputError: there are not more frames than are left out, or no flow.
        """
        count, there = batch.views.shape[:2]
        if there <= self.held_out:
            raise BadInputError(
                f"bursts of {there} frames, of which {self.held_out} are to be held out; more are "
                "needed"
            )
        if batch.flow is None:
            raise BadInputError("these bursts have no flow, without which frames cannot be fused")
        order = np.stack([np.append(0, 1 + rng.permutation(there - 1)) for _ in range(count)])
        target = choose_frames(batch, order[:, : self.held_out])
        # the reference leads both: fuse_subset drops the first
        rest = choose_frames(batch, np.delete(order, np.s_[1 : self.held_out], 1))
        seen = fuse_subset(rest, rng, there - self.held_out, there - self.held_out)
        shift = random_shift(rng, count, self.scale).to(batch.views)
        places = [
            torch.zeros_like(flow) if k == 0 else _invert(flow)
            for k, flow in enumerate(cast("Tensor", target.flow).unbind(1))
        ]
        usable = target.views < self.saturated  # NaN is not
        held = torch.where(usable, _radiance(target.views, target.exposures), torch.nan)
        return Example(
            seen.views / self.gain,
            shift_grid(cast("Tensor", seen.flow), shift),
            seen.exposures,
            held / self.gain,
            torch.stack(places, 1) + shift[:, None, None, :, None, None],
        )

    @in_full_precision
    def observe(self, restored: Tensor, example: Example) -> Tensor:
        """The fine image (B, C, sH, sW) where the samples of the held-out frames lie.

        Where they lie between fine samples, an error of reading would be learnt, as it does not
        average out like noise: the image is doubled, and then read by a spline.
        """
        finer, places = double(restored.float()), cast("Tensor", example.places)
        seen = [sample_reference(finer, 2 * self.scale, at, "spline") for at in places.unbind(1)]
        return torch.stack(seen, 1)

    def loss(
        self, network: nn.Module, batch: Batch, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """Mean absolute difference [DN / gain at exposure 1]; see `Objective`."""
        restorer = cast("BurstRestorer", network)
        if self.supervised:
            return self._supervised(restorer, batch), {}
        example = self.hold_out(batch, rng)
        fine = restorer(example.views, example.flow, exposures=example.exposures)
        restored = _radiance(fine[:, None], example.exposures)[:, 0]
        seen = self.observe(restored, example)
        known = ~example.target.isnan()
        # a difference to NaN has a gradient of NaN even where it is not counted
        return mean_error(seen, example.target.nan_to_num(), self.border, known), {}

    def score(self, network: nn.Module, batch: Batch) -> Figures:
        """PSNR of full inference for 5, 16 and 30 frames [dB], and their mean."""
        return score_frames(cast("BurstRestorer", network), batch)

    def _supervised(self, restorer: BurstRestorer, batch: Batch) -> Tensor:
        if batch.truth is None:
            raise BadInputError("supervised learning needs truth, but these bursts have none")
        fine = restorer(batch.views / self.gain, batch.flow, exposures=batch.exposures)
        restored = _radiance(fine.float()[:, None], batch.exposures)[:, 0]
        return mean_error(restored, batch.truth / self.gain, self.scale * self.border)


def _radiance(frames: Tensor, exposures: Tensor | None) -> Tensor:
    """Frames (B, T, C, H, W) over their exposures; of one image those of its first frame."""
    if exposures is None:
        return frames
    return frames / exposures[:, : frames.shape[1], None, None, None]


def _invert(flow: Tensor) -> Tensor:
    return invert_flow(flow.flatten(0, 1)).view(flow.shape)

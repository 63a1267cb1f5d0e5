"""Training of HighRes-net, with truth.

The authors register each result to its truth with a small network (ShiftNet), because the PROBA-V
truth lies at an unknown offset. Simulated truth is on the reference's own grid: there is no need.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.training.burst_loss import COUNTS, join_subset, score_frames
from l1bsr_geo.training.objective import Batch, Example, Figures


@dataclass(frozen=True)
class HighResNetObjective:
    """Minus the PSNR after the brightness was corrected (cPSNR).

    Attributes:
        frames: least and most frames seen, the reference included; the network takes up to 32.
        border: [fine px] left out.
        counts: of frames, for ``score``.

    Source: Deudon et al., HighRes-net, 2020 (arXiv 2002.06460), section 4.
    """

    frames: tuple[int, int] = (4, 32)
    border: int = 3
    counts: tuple[int, ...] = COUNTS

    def hold_out(self, batch: Batch, rng: np.random.Generator) -> Example:
        """The reference and random other frames are seen; the target is the truth.

        Returns:
            Views [DN / 3400]; the target (B, C, scale * H, scale * W) is at the reference's
            exposure [DN / 3400].

        Raises:
            BadInputError: there is no truth.
        """
        if batch.truth is None:
            raise BadInputError("HighRes-net learns from truth, but these bursts have none")
        target = batch.truth / FULL_SCALE
        if batch.exposures is not None:
            target = target * batch.exposures[:, :1, None, None]
        subset = join_subset(batch, rng, *self.frames)
        return Example(subset.views / FULL_SCALE, subset.flow, subset.exposures, target)

    def observe(self, restored: Tensor, example: Example) -> Tensor:
        """The restored image itself: truth is on its grid, at its exposure."""
        return restored

    def loss(
        self, network: nn.Module, batch: Batch, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """Minus the mean cPSNR [dB], peak 1; see Objective."""
        example = self.hold_out(batch, rng)
        restored = network(example.views, example.flow, exposures=example.exposures)
        seen = self.observe(restored.float(), example)
        loss = -corrected_psnr(seen, example.target, self.border).mean()
        return loss, {"cpsnr": -loss.detach()}

    def score(self, network: nn.Module, batch: Batch) -> Figures:
        """PSNR, brightness not corrected; see ``score_frames``."""
        return score_frames(network, batch, self.counts)


def corrected_psnr(image: Tensor, truth: Tensor, border: int) -> Tensor:
    """PSNR of each sample but for a constant, peak 1; (B, C, h, w) to (B,) [dB]."""
    inside = (..., slice(border, -border or None), slice(border, -border or None))
    error = (image - truth)[inside].flatten(1)
    return -10 * torch.log10(error.var(1, correction=0))

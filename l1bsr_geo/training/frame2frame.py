"""F2F: a network of single frames, tuned on one noisy video by the frames beside.

Source: Ehret et al., Model-blind video denoising via frame-to-frame training, CVPR 2019
(arXiv 1811.12766), with the loss as the paper writes it: the restored frame is warped onto the
noisy neighbour, not the neighbour's noise onto the frame.
"""

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from l1bsr_geo.training.mf2f import MF2FObjective


@dataclass(frozen=True)
class Frame2FrameObjective(MF2FObjective):
    """MF2F with a stack of one frame, for networks that are told no noise.

    The published code sums over pixels where this averages: Adam does not see the difference. It
    holds out the frame before alone, and normalises with the statistics of the frame at hand, which
    here made the result worse than the start.

    Attributes:
        stack: the reference alone.
        border: [px] of the neighbour that is not compared.
    """

    stack: tuple[int, ...] = (0,)
    border: int = 1

    def _restore(self, network: nn.Module, views: Tensor, noise: Tensor | None) -> Tensor:
        return cast("Tensor", network(views)).float()

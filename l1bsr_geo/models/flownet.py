"""The hourglass flow network that DSA and CSR share (FNet of FRVSR, without skips)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from l1bsr_geo.models.precision import in_full_precision


class FlowNet(nn.Module):
    """Two stacked images in, the flow between them out.

    Every level is two 3 x 3 convolutions with leaky ReLU (0.2) and reflected borders, then a
    halving (maximum) on the way down or a doubling (bilinear, corners aligned) on the way up.

    Args:
        down: channels of the levels on the way down.
        up: channels of the levels on the way up, as many.
        reach: largest flow, per component [px].

    Source: Sajjadi et al., Frame-recurrent video super-resolution, CVPR 2018; parameter names and
        the padding as in the weights of Nguyen et al. (L1BSR, HDR-DSP).
    """

    def __init__(self, down: Sequence[int], up: Sequence[int], reach: float) -> None:
        super().__init__()
        self.reach = reach
        self.multiple = 2 ** len(down)
        self._levels: list[tuple[str, str]] = []
        channels = 2
        for kind, widths in (("convPool", down), ("convBinl", up)):
            for level, width in enumerate(widths, 1):
                self.add_module(f"{kind}{level}", _Level(channels, width))
                self._levels.append((kind, f"{kind}{level}"))
                channels = width
        self.conv1 = _conv(channels, 32)
        self.conv2 = _conv(32, 2)

    @in_full_precision
    def forward(self, pair: Tensor) -> Tensor:
        """The flow of the second image to the first, whatever precision surrounds it.

        Args:
            pair: (B, 2, H, W): the reference, then the moving image; inside, its edge is repeated
                to two cells of the pooling lattice at least (the deepest reflected border needs two
                pixels), and to whole cells.

        Returns:
            (B, 2, H, W) [px], (dx, dy): reference pixel p reads the moving image at p + flow(p).
        """
        height, width = pair.shape[-2:]
        below, right = (max(2 * self.multiple - n, -n % self.multiple) for n in (height, width))
        x = functional.pad(pair, (0, right, 0, below), mode="replicate")
        for kind, name in self._levels:
            x = getattr(self, name)(x)
            if kind == "convPool":
                x = functional.max_pool2d(x, 2)
            else:
                x = functional.interpolate(
                    x, scale_factor=2.0, mode="bilinear", align_corners=False
                )
        x = functional.leaky_relu(self.conv1(x), 0.2)
        flow = torch.tanh(self.conv2(x)) * self.reach
        return flow[..., :height, :width]


class _Level(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.convleaky = _TwoConvolutions(channels, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convleaky(x)
        return out


class _TwoConvolutions(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, width)
        self.conv2 = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.leaky_relu(self.conv1(x), 0.2)
        return functional.leaky_relu(self.conv2(x), 0.2)


def _conv(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1, padding_mode="reflect")

"""Plain torch networks that any tool can run; needs torch alone.

Reflectance (B, C, H, W) in, (B, C, 2 H, 2 W) out. Weights are made up from a seed: a bilinear
doubling, which mixes neighbours as any super-resolution does, and detail from random convolutions,
which is what seams are made of.
"""

import torch
from torch import nn

BANDS = 4


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class Doubler(nn.Module):
    """Bilinear doubling and the detail of a convolutional body."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.smooth, self.body, self.shuffle = _conv(BANDS, 4 * BANDS), body, nn.PixelShuffle(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shuffle(self.smooth(x) + self.body(x))


def _bilinear_kernels() -> torch.Tensor:
    sides = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]])
    kernels = torch.zeros(4 * BANDS, BANDS, 3, 3)
    for band in range(BANDS):
        for i in range(2):
            for j in range(2):
                kernels[4 * band + 2 * i + j, band] = torch.outer(sides[i], sides[j])
    return kernels


def _small_body() -> nn.Sequential:
    """Ten convolutions: what is 11 px away cannot matter."""
    width = 32
    inner = [layer for _ in range(8) for layer in (_conv(width, width), nn.ReLU())]
    return nn.Sequential(_conv(BANDS, width), nn.ReLU(), *inner, _conv(width, 4 * BANDS))


def _large_body() -> nn.Sequential:
    """As many and as wide convolutions as REC, 14.8 M parameters, without its pooling."""
    width = 64
    blocks = [_Residual(width) for _ in range(200)]
    return nn.Sequential(_conv(BANDS, width), *blocks, _conv(width, 4 * BANDS))


BODIES = {"small": (_small_body, 10, 0.1), "large": (_large_body, 32, 0.015)}
"""Name: what makes the body, the halo that it needs [px], and the gain of its last convolution, at
which detail has a deviation of some 6 % of the image."""

_BRANCH = 0.05  # gain of residual branches: 200 of them then hardly add to the deviation


def make_network(name: str) -> nn.Module:
    """The network of a name, the same on every call and machine."""
    build, _, detail = BODIES[name]
    network = Doubler(build())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel()
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5)
        for block in network.modules():
            if isinstance(block, _Residual):
                block.body[-1].weight.mul_(_BRANCH)
        network.body[-1].weight.mul_(detail)
        network.smooth.weight.copy_(_bilinear_kernels())
    return network.eval().requires_grad_(False)

"""HighRes-net: frames beside a shared reference, fused two by two. It takes no motion."""

import torch
from torch import Tensor, nn

from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.burst import BurstViews

_ANCHORS = 9  # the shared reference is the median of the first frames, up to so many


def make_spec(scale: int = 2) -> ModelSpec:
    """HighRes-net's spec; the halo holds encoder (6) and five levels of fusion (3 each)."""
    return ModelSpec(
        name="highres-net",
        frames=(1, 32),
        scale=scale,
        aligned="centre",
        halo=24,
        gain=FULL_SCALE,
        exposures=True,
        source="Deudon et al., HighRes-net: recursive fusion for multi-frame super-resolution of "
        "satellite imagery, 2020 (arXiv 2002.06460)",
    )


class HighResNet(nn.Module):
    """Recursive fusion; parameter names as in the authors' network.

    Frames must be registered to whole pixels. Which fine sample sits where is what it was trained
    for: here the centre-aligned grid, as DSA. Fusion by halves needs all frames at once: memory
    grows with them.

    Args:
        scale: fine pixels to a pixel, per axis; the authors' is 3.
    """

    def __init__(self, scale: int = 2) -> None:
        super().__init__()
        self.spec = make_spec(scale)
        self.encode = _Encoder()
        self.fuse = _Fusion()
        self.decode = _Decoder(scale)

    def forward(
        self, views: Tensor, flow: Tensor | None = None, *, exposures: Tensor | None = None
    ) -> Tensor:
        """Restore; see Restorer.

        Args:
            views: (B, T, C, H, W) [DN / gain].
            flow: not used.
            exposures: (B, T).

        Returns:
            (B, C, scale * H, scale * W) [DN / gain at the exposure of the first frame].
        """
        burst = BurstViews.of(views, None, exposures).without_empty()
        radiances = [burst.pixels(t) / burst.exposure(t) for t in range(len(burst))]
        frames = torch.cat(radiances, 1)
        shared = frames[:, :_ANCHORS].median(1, keepdim=True).values.expand_as(frames)
        pairs = torch.stack([frames, shared], 2)
        hidden = self.encode(pairs.flatten(0, 1)).unflatten(0, pairs.shape[:2])
        height, width = (self.spec.scale * n for n in views.shape[-2:])
        fine = self.decode(self.fuse(hidden))[:, 0, :height, :width]
        return burst.join_bands(fine)


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.init_layer = nn.Sequential(_conv(2, 64), nn.PReLU())
        self.res_layers = nn.Sequential(_Residual(64), _Residual(64))
        self.final = nn.Sequential(_conv(64, 64))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.final(self.res_layers(self.init_layer(x)))
        return out


class _Fusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fuse = nn.Sequential(_Residual(128), _conv(128, 64), nn.PReLU())

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, 64, H, W) to (B, 64, H, W): the second half, reversed, joins the first.

        The frames are filled up to a power of two; a place that is only filled adds nothing.
        """
        while hidden.shape[1] > 1:
            half = 2 ** ((hidden.shape[1] - 1).bit_length() - 1)
            alone = 2 * half - hidden.shape[1]  # frames of the first half without a partner
            partners = hidden[:, half:].flip(1)
            alice = hidden[:, alone:half]
            fused = self.fuse(torch.cat([alice, partners], 2).flatten(0, 1))
            joined = alice + fused.unflatten(0, alice.shape[:2])
            hidden = torch.cat([hidden[:, :alone], joined], 1)
        return hidden[:, 0]


class _Decoder(nn.Module):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.deconv = nn.Sequential(nn.ConvTranspose2d(64, 64, 3, stride=scale), nn.PReLU())
        self.final = nn.Conv2d(64, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.final(self.deconv(x))
        return out


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(_conv(width, width), nn.PReLU(), _conv(width, width), nn.PReLU())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.block(x)
        return out


def _conv(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1)

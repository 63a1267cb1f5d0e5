"""The compact L1BSR: four bands whose motion is known, restored on the grid of the green one.

The paper's network (``models.rcan``) finds the motion of the bands by itself, which takes most of
its 15 M parameters. Here the flow is given: each band is encoded at its own resolution, and its
features are splatted where they belong on the fine grid, which keeps the phases of its aliases.
What comes out is the bands resampled by a spline (``Geometric``) plus a learned detail, which is
zero before training. The convolutions run on the coarse grid, four fine pixels as channels.

Input and output are DN / 400. A second view (the other detector of an overlap) adds four frames.
Nothing is pooled over the image and no level is seen, only the difference from a local mean, so
that tiles meet and an offset of all DN passes through unchanged.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.classical import Geometric
from l1bsr_geo.models.precision import in_full_precision
from l1bsr_geo.ops.flow import invert_flow
from l1bsr_geo.ops.splat import Splat, fine_positions, read_at

BANDS = ("B02", "B03", "B04", "B08")
_SCALE = 2
_CORNER = 0.25  # [px] from a sample-aligned fine grid, which splats use, to a corner-aligned one
_DETAIL = 10.0  # brings the differences from the local mean, in DN / 400, near one
_SIGMA, _REACH = 2.0, 6  # [px] of the local mean
_ORDER = 8  # of the filter against checkerboards, which is twice as long and one more [fine px]


def make_spec(blocks: int = 6, motion: float = 12.0) -> ModelSpec:
    """The spec; the halo holds local mean, resampling of the detail with its motion, and trunk."""
    return ModelSpec(
        name="l1bsr",
        bands=BANDS,
        frames=(1, 2),
        scale=_SCALE,
        aligned="corner",
        halo=_REACH + Geometric(_SCALE, motion).spec.halo + 2 * blocks + 2 + _ORDER // _SCALE,
        gain=400.0,
        flow=True,
        source="after Nguyen et al., L1BSR, CVPRW EarthVision 2023 (arXiv 2304.06871), with the "
        "feature splatting of DSA (CVPRW EarthVision 2021)",
    )


class L1BSR(nn.Module):
    """Encode bands, splat their features by their flow, decode four aligned bands.

    Args:
        width: channels of the trunk.
        blocks: residual blocks of the trunk, two convolutions each.
        features: channels that are splatted for every band.
        hidden: channels inside the encoder.
        motion: largest motion per component [px], as for ``Geometric``; pixels that move farther
            give no features.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: int = 6,
        features: int = 8,
        hidden: int = 16,
        motion: float = 12.0,
    ) -> None:
        super().__init__()
        self.spec = make_spec(blocks, motion)
        self.resample = Geometric(_SCALE, motion)
        self.encoder = _Encoder(hidden, features)
        cells = len(BANDS) * _SCALE**2
        self.head = _conv(cells * (features + 2), width)
        self.trunk = nn.Sequential(*[_Block(width) for _ in range(blocks)])
        self.tail = _conv(width, cells)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(cast("Tensor", self.tail.bias))

    def forward(self, views: Tensor, flow: Tensor | None = None) -> Tensor:
        """Restore; see Restorer.

        Args:
            views: (B, T, 4, H, W) [DN / gain], T = 1 or 2; the first has no NaN, the second is NaN
                where it has no data.
            flow: (B, T, 4, 2, H, W) [px]; None is no motion.

        Returns:
            (B, 4, 2 H, 2 W) [DN / gain].
        """
        views = views.float()
        if flow is None:
            flow = views.new_zeros(*views.shape[:3], 2, *views.shape[3:])
        flow = flow.float()
        known = ~views.isnan()
        pixels = views.nan_to_num(0.0)
        detail = _DETAIL * _subtract_mean(pixels, known)
        base, aligned = self._resample(pixels[:, :1], detail[:, :1], flow[:, :1])
        known &= flow.detach().abs().amax(3) <= self.resample.motion
        splatted = self._splat(self.encoder(detail), known, flow)
        seen = torch.cat([splatted, aligned[:, :, None]], 2)
        cells = functional.pixel_unshuffle(seen.flatten(1, 2), _SCALE)
        deep = self.head(cells.contiguous(memory_format=torch.channels_last))
        learned: Tensor = functional.pixel_shuffle(self.tail(self.trunk(deep)), _SCALE)
        restored: Tensor = base + _without_checkerboard(learned.float()) / _DETAIL
        return restored

    @in_full_precision
    def _resample(self, pixels: Tensor, detail: Tensor, flow: Tensor) -> Tensor:
        """Pixels and detail (B, 1, C, H, W) on the fine grid: (2, B, C, 2 H, 2 W); no gradient.

        One call for both, as bands of one image.
        """
        both = self.resample(torch.cat([pixels, detail], 2), torch.cat([flow, flow], 2))
        base, aligned = both.chunk(2, 1)
        return torch.stack([base, aligned])

    @in_full_precision
    def _splat(self, features: Tensor, known: Tensor, flow: Tensor) -> Tensor:
        """Features and weights on the fine grid, averaged over the views that reach a place.

        They are not divided by their weights: a convolution of what is left is an interpolation
        between the samples wherever they lie, which a quotient would destroy.

        Args:
            features: (B, T, C, F, H, W).
            known: (B, T, C, H, W), where there are data.
            flow: (B, T, C, 2, H, W) [px].

        Returns:
            (B, C, F + 1, 2 H, 2 W).
        """
        count, (height, width) = features.shape[:3], features.shape[-2:]
        read = flow.flatten(0, 2)
        have = known.flatten(0, 2)[:, None].to(flow)
        samples = torch.cat([features.flatten(0, 2).to(flow) * have, have], 1)
        places = Splat(invert_flow(read) + _CORNER, _SCALE, "drop")
        fine = places.add(samples).view(*count, -1, _SCALE * height, _SCALE * width).sum(1)
        if count[1] == 1:
            return fine
        x, y = fine_positions(read, 1)
        inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        reached = (read_at(have, x, y)[:, 0] * inside).view(*count, height, width).sum(1)
        views = functional.interpolate(reached.clamp_min(1), scale_factor=float(_SCALE))
        return fine / views[:, :, None]


class _Encoder(nn.Module):
    """Features of every band at its own resolution, by one network that is told the band."""

    def __init__(self, hidden: int, features: int) -> None:
        super().__init__()
        self.first = _conv(1, hidden)
        self.band = nn.Parameter(0.1 * torch.randn(len(BANDS), hidden))
        self.last = _conv(hidden, features - 1)

    def forward(self, detail: Tensor) -> Tensor:
        """(B, T, C, H, W) to (B, T, C, features, H, W); the first feature is the detail itself."""
        frames = detail.flatten(0, 2)[:, None]
        told = self.band.repeat(detail.shape[0] * detail.shape[1], 1)[:, :, None, None]
        learned: Tensor = self.last(functional.relu(self.first(frames) + told))
        features = torch.cat([frames, learned.to(frames)], 1)
        return features.view(*detail.shape[:3], *features.shape[1:])


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = _conv(width, width)
        self.conv2 = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(functional.relu(self.conv1(x)))
        return out


@in_full_precision
def _subtract_mean(pixels: Tensor, known: Tensor) -> Tensor:
    """Differences from the local mean of what is known, zero elsewhere; (B, T, C, H, W)."""
    at = torch.arange(-_REACH, _REACH + 1, device=pixels.device, dtype=pixels.dtype)
    taps = torch.exp(-0.5 * (at / _SIGMA).square())
    taps = taps / taps.sum()
    have = known.to(pixels)
    planes = torch.stack([pixels * have, have]).flatten(0, 3)[:, None]
    for shape, padding in (((1, 1, 1, -1), (0, _REACH)), ((1, 1, -1, 1), (_REACH, 0))):
        planes = functional.conv2d(planes, taps.view(shape), padding=padding)
    added, weight = planes.view(2, *pixels.shape)
    # where nothing near is known, both are zero
    difference: Tensor = (pixels - added / weight.clamp_min(math.ulp(1.0))) * have
    return difference


@in_full_precision
def _without_checkerboard(image: Tensor) -> Tensor:
    """Without what alternates from pixel to pixel, which a pixel shuffle leaves behind.

    Rows and columns are filtered by 1 - sin(pi f)^16, f in cycles per pixel: half at f = 0.41.
    """
    alternating = image.new_ones(1)
    for _ in range(_ORDER):
        alternating = functional.conv1d(
            functional.pad(alternating, (2, 2))[None, None],
            image.new_tensor([[[-0.25, 0.5, -0.25]]]),
        )[0, 0]
    taps = -alternating
    taps[_ORDER] += 1
    planes = image.flatten(0, 1)[:, None]
    for shape, around in (
        ((1, 1, 1, -1), (_ORDER, _ORDER, 0, 0)),
        ((1, 1, -1, 1), (0, 0, _ORDER, _ORDER)),
    ):
        planes = functional.conv2d(functional.pad(planes, around, "replicate"), taps.view(shape))
    return planes.view(image.shape)


def _conv(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1)

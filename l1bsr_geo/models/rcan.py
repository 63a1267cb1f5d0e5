"""REC: the reconstruction network of L1BSR, an RCAN that doubles four misaligned bands.

Input and output are DN / 400; the result's four bands are aligned with the green band of the input.

Channel attention pools over the whole image, so a tile's result depends on the tile. Here the
pooled vectors can be taken once per scene and frozen (``statistics``), which leaves convolutions
only. Their receptive field is finite, 413 px, and its influence fades long before: measured on a
real crop (224 x 224, statistics of the crop) with the conformance weights, a tile of 32 px with a
halo of h px differs from the whole image by at most [DN, result scaled to a deviation of 100 DN]

    weights' gain    h = 0     8      16      24      32     64    attention pooled by tile, h = 32
    0.35 (rule)        160   0.13    4e-4    2e-4    4e-4   4e-4                          0.0025
    0.50               180    2.7   0.003   5e-4    4e-4   4e-4                            0.13
    0.60               224    9.5    0.06   6e-4    6e-4   5e-4                            0.86
    0.70               246     33    0.71   0.005   0.001  8e-4                             6.2

(4e-4 is float32's noise.) Hence a halo of 32 px: below 0.5 DN even where the random weights are
twice as strong. ``Model.probe_halo`` finds 9 px with the conformance weights; the published weights
could not be measured where this was written, and with them it says what they need.

In bf16 the body alone has half the bits: head, tail and the sums that carry the image from group to
group are float32. The result differs from float32's by 0.4 DN rms (of a deviation of 100 DN) at the
rule's gain and by 1.2 DN at 0.50; all in bf16 it was 0.65 and 1.4 DN.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.precision import full_precision, in_full_precision

SPEC = ModelSpec(
    name="l1bsr-rcan",
    bands=("B02", "B03", "B04", "B08"),
    scale=2,
    aligned="corner",
    halo=32,
    gain=400.0,
    scene_statistics=True,
    source="Nguyen et al., L1BSR, CVPRW EarthVision 2023 (arXiv 2304.06871); "
    "network: Zhang et al., RCAN, ECCV 2018",
)


class REC(nn.Module):
    """RCAN x2, four bands in, four out; parameter names as in the published weights.

    Args:
        groups: residual groups.
        blocks: attention blocks to a group.
        width: channels inside.
        reduction: squeeze of the channel attention.
        spec: what the rest of the package must know.
    """

    def __init__(
        self,
        groups: int = 10,
        blocks: int = 20,
        width: int = 64,
        reduction: int = 16,
        spec: ModelSpec = SPEC,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.layers = (groups, blocks, width)
        bands = len(spec.bands or ())
        self.head = nn.Sequential(_conv(bands, width))
        body: list[nn.Module] = [_Group(blocks, width, reduction) for _ in range(groups)]
        self.body = nn.Sequential(*body, _conv(width, width))
        enlarge = nn.Sequential(_conv(width, spec.scale**2 * width), nn.PixelShuffle(spec.scale))
        self.tail = nn.Sequential(enlarge, _conv(width, bands))

    def forward(
        self,
        views: Tensor,
        flow: Tensor | None = None,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Restore; see Restorer.

        Args:
            views: (B, 1, C, H, W) [DN / gain].
            flow: not used: the network finds the motion of the bands by itself.
            statistics: ``{"pooled": (groups, blocks, width)}`` as ``scene_statistics`` gives them,
                to be used in place of the pooling over this very image.

        Returns:
            (B, C, 2 H, 2 W) [DN / gain].
        """
        return self._run(views[:, 0], None if statistics is None else statistics["pooled"])[0]

    def scene_statistics(self, views: Tensor) -> dict[str, Tensor]:
        """What every attention layer pools on these views, (B, 1, C, H, W), averaged over them.

        With the statistics of one image, that image is restored as without.
        """
        return {"pooled": self._run(views[:, 0], None)[1].mean(0).reshape(self.layers)}

    def _run(self, x: Tensor, frozen: Tensor | None) -> tuple[Tensor, Tensor]:
        # what carries the image has all its bits: only what groups add to it may have half of them
        with full_precision():
            shallow = self.head(x)
        deep: Tensor = shallow
        pooled: list[Tensor] = []
        *groups, last = self.body
        for i, group in enumerate(groups):
            deep, seen = group(deep, None if frozen is None else frozen[i])
            pooled += seen
        deep = shallow + last(deep).to(shallow)
        with full_precision():
            return self.tail(deep), torch.stack(pooled, 1)


class PoolingREC(nn.Module):
    """REC as one graph, for files: it is told what is pooled, or, where that is NaN, it pools.

    Args:
        rec: whose layers it uses.
    """

    def __init__(self, rec: REC) -> None:
        super().__init__()
        self.rec = rec

    def forward(self, image: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """Restore.

        Args:
            image: (B, C, H, W) [DN / gain].
            told: (groups, blocks, width), as ``REC.scene_statistics`` gives them, or NaN.

        Returns:
            (B, C, 2 H, 2 W) [DN / gain], and what was used, averaged over the batch.
        """
        deep = shallow = self.rec.head(image)
        used: list[Tensor] = []
        *groups, last = self.rec.body
        for group, of_group in zip(groups, told.unbind(0), strict=True):
            before = deep
            *blocks, end = cast("_Group", group).body
            for block, frozen in zip(blocks, of_group.unbind(0), strict=True):
                first, rectify, second, attention = cast("_Block", block).body
                added = second(rectify(first(deep)))
                frozen = frozen[None, :, None, None]
                pooled = torch.where(frozen.isnan(), added.mean((-2, -1), keepdim=True), frozen)
                factors, seen = attention(pooled)
                deep = deep + added * factors
                used.append(seen.mean(0))
            deep = before + end(deep)
        return self.rec.tail(shallow + last(deep)), torch.stack(used).reshape(told.shape)


class _Group(nn.Module):
    def __init__(self, blocks: int, width: int, reduction: int) -> None:
        super().__init__()
        body: list[nn.Module] = [_Block(width, reduction) for _ in range(blocks)]
        self.body = nn.Sequential(*body, _conv(width, width))

    def forward(self, x: Tensor, frozen: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        deep, pooled = x, []
        *blocks, last = self.body
        for i, block in enumerate(blocks):
            deep, seen = block(deep, None if frozen is None else frozen[i])
            pooled.append(seen)
        return x + last(deep).to(x), pooled


class _Block(nn.Module):
    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(width, width), nn.ReLU(), _conv(width, width), _Attention(width, reduction)
        )

    def forward(self, x: Tensor, frozen: Tensor | None) -> tuple[Tensor, Tensor]:
        first, rectify, second, attention = self.body
        # folded and in place: passes over the image took a quarter of the time in float32
        deep = rectify(first(x))
        if frozen is None:
            deep = second(deep)
            factors, pooled = attention(functional.adaptive_avg_pool2d(deep, 1))
            return (deep * factors.to(deep)).add_(x.to(deep)), pooled
        factors, pooled = attention(frozen[None, :, None, None])
        weight, bias = second.weight * factors[0, :, None], second.bias * factors.flatten()
        deep = functional.conv2d(deep, weight, bias, padding=1)
        return deep.add_(x.to(deep)), pooled


class _Attention(nn.Module):
    """A factor for every channel, of all channels' means."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        squeezed = width // reduction
        self.conv_du = nn.Sequential(
            nn.Conv2d(width, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, width, 1),
            nn.Sigmoid(),
        )

    @in_full_precision
    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Factors and means, (B, width, 1, 1) and (B, width), of means (B, width, 1, 1)."""
        pooled = pooled.to(next(self.conv_du.parameters()))
        return self.conv_du(pooled), pooled.flatten(1)


def _conv(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1)

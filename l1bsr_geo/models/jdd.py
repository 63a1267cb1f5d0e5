"""JDD: a raw Bayer mosaic to colours without noise, by one network.

The mosaic is packed into four planes of half the size, one for each place in a cell of 2 x 2. All
deep layers work there; the last ones work at full size, beside the mosaic itself, and what they
give is added to a bilinear demosaicking. Whatever the phase of the pattern, the network sees cells
that begin with red: a mosaic that does not is enlarged by reflection, which keeps every colour in
its place.

A pixel of the result depends on pixels at most ``2 * depth + 2`` px away.
"""

from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.ops.mosaic import Pattern, colour_masks, demosaick_bilinear

_CELL = 4  # places in a cell of the pattern
_COLOURS = ("red", "green", "blue")
_RED_FIRST: Pattern = "rggb"


def make_spec(name: str = "jdd", depth: int = 15, gain: float = 255.0) -> ModelSpec:
    """What the rest of the package must know of a JDD."""
    return ModelSpec(
        name=name,
        bands=("mosaic",),
        scale=1,
        halo=2 * depth + 2,
        gain=gain,
        multiple=2,
        padding="reflect",
        result_bands=_COLOURS,
        source="Gharbi et al., SIGGRAPH Asia 2016; Ehret et al., ICCV 2019 (arXiv 1905.05092)",
    )


class JDD(nn.Module):
    """A mosaic in; red, green and blue out.

    Args:
        depth: convolutions at half the size; there are two more at full size.
        width: channels inside.
        pattern: colours of the first two rows of the mosaics, such as ``"rggb"``.
        gain: DN per unit of its input.
        name: registry name.

    Raises:
        BadOptionError: fewer than two convolutions, or no such pattern.

    Source: Gharbi et al., Deep joint demosaicking and denoising, SIGGRAPH Asia 2016; with batch
    normalisation as in Ehret et al., ICCV 2019 (arXiv 1905.05092).
    """

    def __init__(
        self,
        depth: int = 15,
        width: int = 64,
        pattern: Pattern = _RED_FIRST,
        gain: float = 255.0,
        name: str = "jdd",
    ) -> None:
        super().__init__()
        if depth < 2:
            raise BadOptionError(f"{name} of {depth} convolutions; it has 2 or more")
        self.spec = make_spec(name, depth, gain)
        self.pattern = pattern
        inner = [layer for _ in range(depth - 2) for layer in _active(width, width)]
        self.packed = nn.Sequential(*_active(_CELL, width), *inner, _conv(width, _CELL * 3))
        self.full = nn.Sequential(*_active(2 * 3, width), nn.Conv2d(width, 3, 1))

    @property
    def pattern(self) -> Pattern:
        """Colours of the first two rows of the mosaics; may be changed: the network serves all.

        Raises:
            BadOptionError: there is no such pattern.
        """
        return self._pattern

    @pattern.setter
    def pattern(self, pattern: Pattern) -> None:
        if pattern not in get_args(Pattern):
            raise BadOptionError(
                f"pattern is {pattern!r}; it must be one of {', '.join(get_args(Pattern))}"
            )
        self._pattern: Pattern = pattern

    def forward(self, views: Tensor, flow: Tensor | None = None) -> Tensor:
        """Restore; see Restorer.

        Args:
            views: (B, 1, 1, H, W) [DN / gain], of ``pattern``; any H and W from 2.
            flow: not used.

        Returns:
            (B, 3, H, W) [DN / gain].

        Raises:
            BadInputError: more than one band, or a mosaic that is smaller than a cell.
        """
        height, width = views.shape[-2:]
        if views.shape[2] != 1 or min(height, width) < 2:
            raise BadInputError(
                f"{self.spec.name} takes mosaics (batch, 1, 1, row, column) of 2 px or more; got "
                f"{tuple(views.shape)}"
            )
        above, left = divmod(self.pattern.index("r"), 2)
        sides = (left, (left + width) % 2, above, (above + height) % 2)
        colours = self._restore(functional.pad(views[:, 0], sides, mode="reflect"))
        return colours[..., above : above + height, left : left + width]

    def _restore(self, mosaic: Tensor) -> Tensor:
        """(B, 1, H, W) of whole cells that begin with red, to (B, 3, H, W)."""
        coarse = functional.pixel_shuffle(self.packed(functional.pixel_unshuffle(mosaic, 2)), 2)
        known = mosaic * colour_masks(_RED_FIRST, *mosaic.shape[-2:], like=mosaic).to(mosaic)
        rest: Tensor = self.full(torch.cat([known, coarse.to(known)], 1))
        return demosaick_bilinear(mosaic, _RED_FIRST) + rest.to(mosaic)


def _active(channels: int, width: int) -> tuple[nn.Module, ...]:
    return _conv(channels, width, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)


def _conv(channels: int, width: int, bias: bool = True) -> nn.Conv2d:
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=bias)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv

"""Mosaic to mosaic: learning to make colour frames from the raw mosaics of one burst.

A frame is demosaicked, moved onto another frame, sampled by the colour filters of that one, and
compared with its raw pixels. Their noise is their own, so it cannot be foretold; and since the
pattern moves over the scene, every colour is asked for in every place sooner or later.

    loss = mask * | M_s (T_{t -> s} F(m_t) - m_s) | ^ p

Source: Ehret, Davy, Arias, Facciolo, Joint demosaicking and denoising by fine-tuning of bursts of
raw images, ICCV 2019.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.precision import in_full_precision
from l1bsr_geo.ops.flow import invert_flow
from l1bsr_geo.ops.mosaic import Pattern, colour_masks
from l1bsr_geo.ops.occlusion import compare_residual
from l1bsr_geo.ops.sampling import pixel_centres, spline_coefficients, spline_weights
from l1bsr_geo.training.burst_loss import psnr
from l1bsr_geo.training.objective import Batch, Example, Figures

PEAK = 255.0  # [DN]

_MARGIN = 2  # [px] that the spline reaches beyond the edge


@dataclass(frozen=True)
class Mosaic2MosaicObjective:
    """View 0 of a burst is made a colour frame, and compared with the mosaics of other views.

    Sources draw view 0 from all frames by turns, so that all ordered pairs are learnt from.

    Attributes:
        supervised: compare with the truth instead, in all colours: how networks are trained first,
            to demosaick, with noise or without.
        held_out: views that are compared; all but view 0 where None.
        power: of the absolute difference: 1 or 2.
        occlusions: leave out where frames differ by more than noise: what moved, or is hidden.
        pattern: of the mosaics, as in `ops.mosaic`.
        border: [px] that the loss leaves out.
        gain: DN per unit of the network.

    Raises:
        BadOptionError: view 0 is among those held out: what the network sees holds its noise, and
            a label must not be a function of the input.
    """

    supervised: bool = False
    held_out: tuple[int, ...] | None = None
    power: Literal[1, 2] = 1
    occlusions: bool = True
    pattern: Pattern = "rggb"
    border: int = 4
    gain: float = PEAK

    def __post_init__(self) -> None:
        if self.held_out is not None and (0 in self.held_out or not self.held_out):
            raise BadOptionError(
                f"held_out: found {self.held_out}; one view at least is needed, and never view 0, "
                "which the network sees: a frame that is its own target teaches to keep its noise"
            )

    def hold_out(self, batch: Batch, rng: np.random.Generator) -> Example:
        """View 0 to the network; the target is (B, K, 1, H, W), NaN where it is not compared.

        Raises:
            BadInputError: there is no other view, no flow, or a view that is view 0 again.
        """
        there = batch.views.shape[1]
        others = list(range(1, there) if self.held_out is None else self.held_out)
        if not others or max(others) >= there:
            raise BadInputError(
                f"bursts of {there} mosaics, of which {others or 'others than the first'} are to "
                "be held out; give more"
            )
        if batch.flow is None:
            raise BadInputError("these mosaics have no flow, without which they are not compared")
        seen, target = batch.views[:, :1], batch.views[:, others]
        same = (seen == target).flatten(2).all(2)
        if bool(same.any()):
            view = others[int(same.any(0).nonzero()[0, 0])]
            raise BadInputError(
                f"views 0 and {view} of a burst are the same to the last pixel; a frame cannot be "
                "its own target: leave repeated frames out"
            )
        flow = batch.flow[:, others]
        places = invert_flow(flow.flatten(0, 2)).view(flow.shape)
        known = torch.isfinite(target) & _inside(places)
        target = torch.where(known, target / self.gain, torch.nan)
        return Example(seen / self.gain, None, None, target, places)

    @in_full_precision
    def observe(self, restored: Tensor, example: Example) -> Tensor:
        """The colour frame (B, 3, H, W) as the filters of every held-out mosaic see it."""
        return read_mosaics(restored.float(), cast("Tensor", example.places), self.pattern)

    def loss(
        self, network: nn.Module, batch: Batch, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """Mean of the absolute difference to a power [(DN / gain)^p]; see `Objective`."""
        restorer = cast("Restorer", network)
        if self.supervised:
            truth = _truth(batch) / self.gain
            return self._mean(restorer(batch.views[:, :1] / self.gain).float(), truth), {}
        example = self.hold_out(batch, rng)
        seen, target = self.observe(restorer(example.views), example), example.target
        if self.occlusions:
            target = torch.where(find_differing(seen.detach(), target), torch.nan, target)
        return self._mean(seen, target), {}

    def score(self, network: nn.Module, batch: Batch) -> Figures:
        """PSNR of the colour frame against truth [dB], with a peak of 255."""
        restored = cast("Restorer", network)(batch.views[:, :1] / self.gain).float() * self.gain
        return {"score": float(psnr(restored, _truth(batch), self.border, PEAK).mean())}

    def _mean(self, image: Tensor, target: Tensor) -> Tensor:
        inside = (..., *[slice(self.border, -self.border or None)] * 2)
        image, target = image[inside], target[inside]
        known = ~target.isnan()
        # before the difference: its gradient would be NaN even where it is not counted
        image, target = (torch.where(known, v, 0) for v in (image, target))
        return (image - target).abs().pow(self.power).sum() / known.sum().clamp_min(1)


def read_mosaics(colours: Tensor, places: Tensor, pattern: Pattern) -> Tensor:
    """A colour frame where the pixels of mosaics lie, each in the colour of its filter.

    The same as moving the whole frame by a cubic spline and then sampling it, at a third of the
    work: only the colour that counts is read.

    Args:
        colours: (B, 3, H, W).
        places: (B, K, 1, 2, H, W) [px], (dx, dy): pixel q reads at q + places(q); what lies
            outside reads the edge.
        pattern: of the mosaics.

    Returns:
        (B, K, 1, H, W).
    """
    height, width = colours.shape[-2:]
    coefficients = spline_coefficients(colours, margin=_MARGIN)
    rows, columns = coefficients.shape[-2:]
    x, y = pixel_centres(height, width, like=places)
    taps = []
    for at, count in ((y + places[..., 1, :, :], rows), (x + places[..., 0, :, :], columns)):
        at = (at - 0.5 + _MARGIN).clamp(1, count - 2 - 1e-3)
        first = at.floor()
        taps.append((first.long() - 1, torch.stack(spline_weights(at - first), -1)))
    (top, vertical), (left, horizontal) = taps
    colour = colour_masks(pattern, height, width, like=colours)[0].long().argmax(0)
    sample = torch.arange(len(colours), device=colours.device).view(-1, 1, 1, 1, 1)
    corner = ((3 * sample + colour) * rows + top) * columns + left
    four = torch.arange(4, device=colours.device)
    around = corner[..., None] + (four[:, None] * columns + four).flatten()
    weights = (vertical[..., :, None] * horizontal[..., None, :]).flatten(-2)
    read = _mix(coefficients.flatten(), around.flatten(0, -2), weights.flatten(0, -2))
    return read.view(corner.shape)


class _Mix(Function):
    """Weighted sums (N,) of values at places (N, 16); differentiable in the values.

    torch differentiates ``embedding_bag`` itself, but that takes five times as long.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(places, weights)
        ctx.count = len(values)
        return functional.embedding_bag(
            places, values[:, None], per_sample_weights=weights, mode="sum"
        )[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        places, weights = ctx.saved_tensors
        shares = (weights * grad[:, None]).flatten()
        return grad.new_zeros(ctx.count).index_add(0, places.flatten(), shares), None, None


_mix = cast("Callable[..., Tensor]", _Mix.apply)


def find_differing(seen: Tensor, target: Tensor) -> Tensor:
    """Where mosaics differ by more than noise does: something moved there, or is hidden.

    Args:
        seen: (B, K, 1, H, W) as foretold, in units of full scale.
        target: the same as it was; NaN where it is not known.

    Returns:
        (B, K, 1, H, W) bool; False where the one or the other is not known.
    """
    seen = torch.where(target.isnan(), torch.nan, seen)  # both are blurred with the same gaps
    light = [_luminance(image.flatten(0, 1)) for image in (target, seen)]
    residual, threshold = compare_residual(light[0], light[1], full_scale=1.0)
    return (residual > threshold.view(-1, 1, 1, 1)).view(target.shape)


def _inside(places: Tensor) -> Tensor:
    """Whether pixels read between pixel centres, (..., H, W) of places (..., 2, H, W)."""
    height, width = places.shape[-2:]
    x, y = pixel_centres(height, width, like=places)
    x, y = x + places[..., 0, :, :], y + places[..., 1, :, :]
    return (x >= 0.5) & (x <= width - 0.5) & (y >= 0.5) & (y <= height - 0.5)


def _luminance(mosaic: Tensor) -> Tensor:
    """(red + 2 green + blue) / 4 around every pixel, whatever the pattern, (B, 1, H, W)."""
    taps = torch.tensor([0.25, 0.5, 0.25], dtype=mosaic.dtype, device=mosaic.device)
    padded = functional.pad(mosaic, (1, 1, 1, 1), "reflect")  # keeps the colours in turn
    return functional.conv2d(padded, (taps[:, None] * taps)[None, None])


def _truth(batch: Batch) -> Tensor:
    if batch.truth is None:
        raise BadInputError("these mosaics have no truth; it is needed to learn from, or to score")
    return batch.truth

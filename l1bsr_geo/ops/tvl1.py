"""TV-L1 optical flow: the smooth motion with edges that matches grey values, outliers allowed.

The flow minimises ``integral of |D u1| + |D u2| + smoothness * |second(x + u) - first(x)|``, from
coarse to fine. It is written here because opencv-contrib's and scikit-image's flows of that name
are not the published one (median distances 0.35 and 0.12 px) and take longer.

Source: Zach, Pock, Bischof, A duality based approach for realtime TV-L1 optical flow, DAGM 2007;
    numerical scheme and parameters: Sanchez, Meinhardt-Llopis, Facciolo, TV-L1 optical flow
    estimation, IPOL 2013.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.ops.gaussian import blur
from l1bsr_geo.ops.sampling import pixel_centres
from l1bsr_geo.ops.warp import sample

_PRESMOOTHING = 0.8  # [px] standard deviation
_HALVING = 0.6 * 3**0.5  # [px] standard deviation before every second pixel is taken
_COARSEST = 16  # [px] diagonal of the smallest image that still has a flow
_FULL_SCALE = 255.0  # the images are stretched to it, which gives the parameters their meaning
_STEP = 0.25  # of the dual variables (tau)
_COUPLING = 0.3  # between the flow and its data-fitting twin (theta)


@torch.no_grad()
def estimate_flow(
    first: Tensor,
    second: Tensor,
    *,
    smoothness: float = 0.15,
    finest: int = 0,
    outliers: float = 0.0,
    warps: int = 5,
    iterations: int = 300,
    tolerance: float = 0.01,
) -> Tensor:
    """Motion between grey images; in any unit, each pair is stretched to 0..255 by its extremes.

    Args:
        first: (B, 1, H, W); NaN where nothing is known, there the flow is carried on smoothly.
        second: as ``first``.
        smoothness: weight of the data (lambda); the smaller, the smoother the flow.
        finest: the scale to stop at: 0 is the image, 2 leaves the two finest scales out, which
            withstands more noise.
        outliers: share of the pixels at either end that the stretch leaves out; a few glints in
            a dark scene would otherwise make its flow too smooth. The published flow has 0.
        warps: how often the second image is warped at every scale.
        iterations: at most, between two warps.
        tolerance: [px] rms change of the flow in an iteration that ends them.

    Returns:
        flow (B, 2, H, W) [px], float32, (dx, dy): pixel p of ``first`` is at p + flow(p) in
        ``second``. Not differentiable.

    Raises:
        BadInputError: the images are not of one channel and the same shape.
        BadOptionError: ``outliers`` is not in [0, 0.5).
    """
    if not 0 <= outliers < 0.5:
        raise BadOptionError(f"outliers is {outliers}; it must be at least 0 and less than 0.5")
    if first.shape != second.shape or first.ndim != 4 or first.shape[1] != 1:
        raise BadInputError(
            f"a flow is between two images (B, 1, H, W) of the same shape, but they are "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    solver = _Solver(smoothness, warps, iterations, tolerance)
    # a CPU is bound by its cache: it takes pair after pair
    each = 1 if first.device.type == "cpu" else max(len(first), 1)
    pairs = zip(torch.split(first.float(), each), torch.split(second.float(), each), strict=True)
    stretched = (_stretch(a, b, outliers) for a, b in pairs)
    return torch.cat([_descend(a, b, solver, finest) for a, b in stretched])


@dataclass(frozen=True)
class _Solver:
    smoothness: float
    warps: int
    iterations: int
    tolerance: float

    def refine(self, flow: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """The flow (B, 2, H, W) of one scale, from an approximate one."""
        across, down = _slopes(second)
        known = torch.cat([second, across, down], 1)
        duals = (torch.zeros_like(flow), torch.zeros_like(flow))
        for _ in range(self.warps):
            data = _linearise(first, known, flow)
            flow, duals = self._iterate(flow, duals, data)
        return flow

    def _iterate(
        self, flow: Tensor, duals: tuple[Tensor, Tensor], data: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Iterate until the flow rests; what rests earlier in the batch leaves it."""
        state = (flow, *duals)
        result = tuple(torch.empty_like(s) for s in state)
        where = torch.arange(len(flow), device=flow.device)
        pixels = flow.shape[-2] * flow.shape[-1]
        work = _Work(state, data, self.smoothness * _COUPLING)
        for _ in range(self.iterations):
            moving = work.step() >= self.tolerance**2 * pixels
            if bool(moving.all()):
                continue
            for whole, part in zip(result, work.state, strict=True):
                whole[where[~moving]] = part[~moving]
            where = where[moving]
            if len(where) == 0:
                break
            work = work.keep(moving)
        if len(where):
            for whole, part in zip(result, work.state, strict=True):
                whole[where] = part
        return result[0], (result[1], result[2])


class _Work:
    """One problem linearised around a warp: the flow, its duals and the step that improves them.

    Args:
        state: the flow (B, 2, H, W), and the dual variables of its slopes across and down, alike.
        data: the residual at no flow divided by the squared gradient (B, 1, H, W), the gradient
            and the gradient divided by its square (B, 2, H, W); zero where there is no data.
        limit: of a data step, in gradients.
    """

    def __init__(
        self, state: tuple[Tensor, Tensor, Tensor], data: tuple[Tensor, ...], limit: float
    ) -> None:
        self.state, self._data, self._limit = state, data, limit
        self._next, self._across, self._down = (torch.zeros_like(s) for s in state)

    def keep(self, which: Tensor) -> "_Work":
        """The same for a part of the batch, (B,) bool."""
        flow, across, down = (s[which] for s in self.state)
        return _Work((flow, across, down), tuple(d[which] for d in self._data), self._limit)

    def step(self) -> Tensor:
        """One iteration, in place; returns (B,) the squared changes [px^2], summed."""
        flow, across, down = self.state
        moved = self._next
        self._move(flow, moved)
        self._tighten(moved)
        self.state, self._next = (moved, across, down), flow
        return flow.sub_(moved).square_().sum((1, 2, 3))  # the old flow is not needed any more

    def _move(self, flow: Tensor, moved: Tensor) -> None:
        """A bounded step towards the data, and the pull of the duals."""
        residual, gradient, unit = self._data
        _, across, down = self.state
        excess = torch.addcmul(residual, unit[:, :1], flow[:, :1])
        excess.addcmul_(unit[:, 1:], flow[:, 1:]).clamp_(-self._limit, self._limit)
        torch.addcmul(flow, gradient, excess, value=-1, out=moved)
        moved.add_(across, alpha=_COUPLING).add_(down, alpha=_COUPLING)
        moved[..., 1:].sub_(across[..., :-1], alpha=_COUPLING)
        moved[..., 1:, :].sub_(down[..., :-1, :], alpha=_COUPLING)

    def _tighten(self, flow: Tensor) -> None:
        """The duals: towards the slopes of the flow, no longer than one."""
        across, down = self._across, self._down  # zero in the last column, the last row
        torch.sub(flow[..., 1:], flow[..., :-1], out=across[..., :-1])
        torch.sub(flow[..., 1:, :], flow[..., :-1, :], out=down[..., :-1, :])
        length = across.square().addcmul_(down, down).sqrt_()
        length.mul_(_STEP / _COUPLING).add_(1)
        for dual, slope in zip(self.state[1:], (across, down), strict=True):
            dual.add_(slope, alpha=_STEP / _COUPLING).div_(length)


def _descend(first: Tensor, second: Tensor, solver: _Solver, finest: int) -> Tensor:
    """From the coarsest scale to the finest: (B, 2, H, W)."""
    firsts, seconds = (_pyramid(image) for image in (first, second))
    finest = min(finest, len(firsts) - 1)
    flow = torch.zeros_like(firsts[-1]).repeat(1, 2, 1, 1)
    for scale in reversed(range(len(firsts))):
        if flow.shape[-2:] != firsts[scale].shape[-2:]:
            flow = _enlarge(flow, *firsts[scale].shape[-2:])
        if scale >= finest:
            flow = solver.refine(flow, firsts[scale], seconds[scale])
    return flow


def _stretch(first: Tensor, second: Tensor, outliers: float) -> tuple[Tensor, Tensor]:
    """Both images from their common extremes, pair by pair, to 0..255."""
    pair = torch.cat([first, second], 1).flatten(1)
    if outliers > 0:
        known = (~pair.isnan()).sum(1, keepdim=True)  # and sorted first
        rank = (known * outliers).long()
        ends = torch.cat([rank, (known - 1 - rank).clamp(min=0)], 1)
        least, most = pair.sort(1).values.gather(1, ends).unbind(1)
    else:
        least, most = pair.nan_to_num(torch.inf).amin(1), pair.nan_to_num(-torch.inf).amax(1)
    gain = torch.where(most > least, _FULL_SCALE / (most - least), 1)
    least, gain = least.view(-1, 1, 1, 1), gain.view(-1, 1, 1, 1)
    return (first - least) * gain, (second - least) * gain


def _pyramid(image: Tensor) -> list[Tensor]:
    """The smoothed image and its halves, finest first."""
    diagonal = math.hypot(*image.shape[-2:])
    scales = [blur(image, _PRESMOOTHING)]
    for _ in range(int(math.log2(max(diagonal / _COARSEST, 1)))):
        scales.append(blur(scales[-1], _HALVING)[..., ::2, ::2])
    return scales


def _enlarge(flow: Tensor, height: int, width: int) -> Tensor:
    """A flow at twice the scale, bicubic; pixel 2 i lies on pixel i."""
    x, y = pixel_centres(height, width, like=flow)
    ratio_x, ratio_y = flow.shape[-1] / width, flow.shape[-2] / height
    return 2 * sample(flow, (x - 0.5) * ratio_x + 0.5, (y - 0.5) * ratio_y + 0.5)


def _slopes(image: Tensor) -> tuple[Tensor, Tensor]:
    """Centred differences across and down, one-sided halves at the edges."""
    padded = functional.pad(image, [1, 1, 1, 1], mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return across / 2, down / 2


def _linearise(first: Tensor, known: Tensor, flow: Tensor) -> tuple[Tensor, ...]:
    """The data of ``_Work`` around a flow; ``known`` is the second image and its slopes.

    No data where the kernel leaves the image, where something is NaN, or where nothing varies.
    """
    height, width = flow.shape[-2:]
    x, y = pixel_centres(height, width, like=flow)
    x, y = x + flow[:, 0], y + flow[:, 1]
    warped = sample(known, x, y)
    inside = (x >= 1.5) & (x < width - 1.5) & (y >= 1.5) & (y < height - 1.5)
    gradient = warped[:, 1:]
    square = gradient.square().sum(1, keepdim=True)
    residual = warped[:, :1] - first - (gradient * flow).sum(1, keepdim=True)
    usable = inside[:, None] & (square > 1e-10) & residual.isfinite()
    square = torch.where(usable, square, 1)
    gradient = torch.where(usable, gradient, 0)
    return torch.where(usable, residual / square, 0), gradient, gradient / square

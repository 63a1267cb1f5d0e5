"""Bilinear splatting: samples of an image added into a finer grid where they belong.

Here coordinates count samples, not corners: fine sample ``scale * i`` lies on coarse sample i
(``aligned="centre"``), and a motion (dx, dy) says that the sample at q belongs at q + motion(q) on
the coarse grid, hence at ``scale * (q + motion(q))`` on the fine one. A flow, which says where the
reference reads an image, is the inverse of such a motion (``ops.flow.invert_flow``).
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

Outside: TypeAlias = Literal["clamp", "drop"]

_FEW = 3  # channels up to which unsorted additions are faster than sorting once, measured on a CPU


class Splat:
    """Where the samples of an image go; worked out once, whatever the number of channels.

    Every sample is shared among the four fine samples around its place with bilinear weights, so
    the weights of a sample sum to one. Differentiable in the samples and in the motion.

    Args:
        motion: (B, 2, H, W) [coarse px], (dx, dy).
        scale: fine samples to a sample, per axis.
        outside: a place outside the fine grid is moved to its border (``"clamp"``, as in the
            published networks) or gets nothing (``"drop"``, for measuring).

    Source: Tao et al., Detail-revealing deep video super-resolution (SPMC), ICCV 2017; Nguyen et
        al., DSA, CVPRW EarthVision 2021.
    """

    def __init__(self, motion: Tensor, scale: int, outside: Outside = "clamp") -> None:
        batch, height, width = len(motion), *motion.shape[-2:]
        self.shape = (batch, scale * height, scale * width)
        x, y = fine_positions(motion, scale)
        columns, horizontal = _two_taps(x, self.shape[2], outside)
        rows, vertical = _two_taps(y, self.shape[1], outside)
        image = torch.arange(batch, device=motion.device)[:, None, None] * self.shape[1]
        lines = [(image + row) * self.shape[2] for row in rows]
        # (4 * B * H * W,) each: the corners one after another
        self._to = torch.cat([(line + column).flatten() for line in lines for column in columns])
        self._shares = torch.cat([(v * h).flatten() for v in vertical for h in horizontal])

    @cached_property
    def weight(self) -> Tensor:
        """What ones add up to: (B, 1, scale * H, scale * W)."""
        return _add_up(self._shares, self._to, self._size).view(self.shape)[:, None]

    def add(self, samples: Tensor) -> Tensor:
        """Add samples into a grid of zeros.

        Args:
            samples: (B, C, H, W).

        Returns:
            (B, C, scale * H, scale * W), not divided by ``weight``.
        """
        channels = samples.shape[1]
        samples = samples.to(self._shares)  # autocast may have made them half as wide
        if channels > _FEW:
            rows = samples.movedim(1, -1).flatten(0, 2)
            added = _add_rows(rows, self._shares, self._to, *self._order)
            return added.view(*self.shape, channels).movedim(-1, 1)
        flat = [
            _add_up(s.flatten().repeat(4) * self._shares, self._to, self._size)
            for s in samples.unbind(1)
        ]
        return torch.stack([f.view(self.shape) for f in flat], 1)

    def add_squares(self, samples: Tensor) -> Tensor:
        """The same with squared weights, (B, 1, H, W): the variance of what was added."""
        shares = self._shares.square()
        flat = _add_up(samples.flatten().repeat(4) * shares, self._to, self._size)
        return flat.view(self.shape)[:, None]

    @property
    def _size(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    @cached_property
    def _order(self) -> tuple[Tensor, Tensor]:
        return sort_by_place(self._to, self._size)


def splat(
    samples: Tensor, motion: Tensor, scale: int, outside: Outside = "clamp"
) -> tuple[Tensor, Tensor]:
    """Splat once; see ``Splat``.

    Args:
        samples: (B, C, H, W).
        motion: (B, 2, H, W) [coarse px], (dx, dy).
        scale: fine samples to a sample, per axis.
        outside: what happens to places outside the fine grid.

    Returns:
        What was added, (B, C, scale * H, scale * W), and the weights, (B, 1, scale * H, scale * W).
    """
    places = Splat(motion, scale, outside)
    return places.add(samples), places.weight


def fine_positions(motion: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Where samples go on the fine grid, in its samples: x and y, (B, H, W) each."""
    height, width = motion.shape[-2:]
    rows = torch.arange(height, device=motion.device, dtype=motion.dtype)
    columns = torch.arange(width, device=motion.device, dtype=motion.dtype)
    return scale * (columns + motion[:, 0]), scale * (rows[:, None] + motion[:, 1])


def read_at(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear values of an image at places counted in its samples; its border is repeated.

    Args:
        image: (B, C, h, w).
        x: (B, H, W), columns; 0 is the first sample.
        y: (B, H, W), rows.

    Returns:
        (B, C, H, W).
    """
    size = image.new_tensor([image.shape[-1], image.shape[-2]])
    at = (2 * torch.stack([x, y], -1) + 1) / size - 1
    return functional.grid_sample(
        image, at, mode="bilinear", padding_mode="border", align_corners=False
    )


def sort_by_place(places: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Bring what goes to the same place together.

    Args:
        places: (N,) whole numbers in [0, count).
        count: of places.

    Returns:
        The order (N,) that sorts the places, and where each place begins in it, (count,) int32.
    """
    _, order = torch.sort(places.int(), stable=True)
    counts = torch.bincount(places, minlength=count)
    return order, (counts.cumsum(0) - counts).int()


def add_rows(rows: Tensor, source: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows, place by place; not differentiable.

    This is the fastest way that torch has on a CPU: a third of ``index_add``'s time at 64 channels.

    Args:
        rows: (N, C).
        source: (M,) int32: which row each contribution takes, sorted by place.
        starts: (count,) int32: where in ``source`` each place begins.
        weights: (M,) of the contributions.

    Returns:
        (count, C).
    """
    return functional.embedding_bag(source, rows, starts, mode="sum", per_sample_weights=weights)


class _AddRows(Function):
    """Splatting of rows (N, C); its adjoint reads the four places of each row back.

    torch differentiates ``embedding_bag`` itself, but its forward is then 20 times slower.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, shares: Tensor, to: Tensor, order: Tensor, starts: Tensor
    ) -> Tensor:
        ctx.save_for_backward(rows, shares, to)
        return add_rows(rows, (order % len(rows)).int(), starts, shares[order])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, shares, to = ctx.saved_tensors
        count = len(rows)
        grad = grad.contiguous()
        for_rows = for_shares = None
        if ctx.needs_input_grad[0]:
            corners = to.view(4, count).T.contiguous()
            for_rows = functional.embedding_bag(
                corners, grad, mode="sum", per_sample_weights=shares.view(4, count).T.contiguous()
            )
        if ctx.needs_input_grad[1]:
            for_shares = torch.cat(
                [(grad.index_select(0, t) * rows).sum(1) for t in to.view(4, count)]
            )
        return for_rows, for_shares, None, None, None


_add_rows = cast("Callable[..., Tensor]", _AddRows.apply)


def _two_taps(
    at: Tensor, count: int, outside: Outside
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two fine samples around each place along an axis, and their shares."""
    if outside == "clamp":
        at = at.clamp(0, count - 1)
    first = at.detach().floor()
    past = at - first
    before, after = 1 - past, past
    # bounded before it becomes an integer: a place may be anything, even not a number
    start = first.clamp(-2, count).nan_to_num(-2).long()
    if outside == "drop":
        before = torch.where((start >= 0) & (start < count), before, 0)
        after = torch.where((start >= -1) & (start < count - 1), after, 0)
    taps = start.clamp(0, count - 1), (start + 1).clamp(0, count - 1)
    return taps, (before, after)


def _add_up(values: Tensor, places: Tensor, count: int) -> Tensor:
    return values.new_zeros(count).index_add(0, places, values)

"""Least squares of a cubic spline on irregular samples, summed up in constant memory.

The spline is ``u(x, y) = sum_k c_k b(x - k_x) b(y - k_y)`` with the cubic B-spline b and knots at
the whole numbers. A sample touches 4 x 4 knots, so the normal matrix couples a knot with 7 x 7.
All samples in one cell of the grid of knots enter it through 7 x 7 moments, the sums of
``w dx^a dy^b`` for a, b = 0..6, and the right hand side through 4 x 4 sums of ``w y dx^a dy^b``.
"""

from collections.abc import Callable
from functools import cache
from itertools import product

import torch
from numpy.polynomial import Polynomial
from torch import Tensor
from torch.nn import functional

from l1bsr_geo.ops.splat import add_rows, sort_by_place

_BEFORE, _AFTER = 2, 3  # knots beyond the grid: samples up to one spacing outside it count
_STRIP = 1 << 15  # cells at a time, so that what is between the steps stays in the cache
_CLOSE = 1e-4  # of the first residual: the equations are solved

_LEAST = 1e-5  # of the largest weight of a knot: with less, what it carries is rounding

# half of the 7 x 7 neighbours; the matrix is symmetric
_OFFSETS = [(dy, dx) for dy in range(4) for dx in range(-3, 4) if (dy, dx) >= (0, 0)]


class SplineFit:
    """The normal equations of a spline, to which samples are added.

    Args:
        height: rows of knots wanted.
        width: columns of knots wanted.
        like: gives dtype and device.
    """

    def __init__(self, height: int, width: int, like: Tensor) -> None:
        self.shape = (height + _BEFORE + _AFTER, width + _BEFORE + _AFTER)
        cells = self.shape[0] * self.shape[1]
        self._normal = like.new_zeros(cells, 49)
        self._right = like.new_zeros(cells, 16)

    def add(self, values: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> None:
        """Add samples; those farther than one spacing outside the grid are left out.

        Args:
            values: (N,).
            x: (N,) columns, in knots; 0 is the first knot wanted.
            y: (N,) rows.
            weights: (N,).
        """
        height, width = self.shape
        column, row = x.floor(), y.floor()
        inside = (column >= -1) & (column <= width - _BEFORE - _AFTER)
        inside &= (row >= -1) & (row <= height - _BEFORE - _AFTER)
        weights = torch.where(inside, weights, 0)
        powers_x, powers_y = (_powers(torch.where(inside, v, 0)) for v in (x - column, y - row))
        cell = (row + _BEFORE) * width + column + _BEFORE
        cell = torch.where(inside, cell, 0).long()
        order, starts = sort_by_place(cell, height * width)
        order = order.int()
        for moments, degree, weight in (
            (self._normal, 7, weights),
            (self._right, 4, weights * values),
        ):
            rows = powers_y[:, :degree, None] * powers_x[:, None, :degree]
            moments += add_rows(rows.flatten(1), order, starts, weight[order])

    def solve(self, regularisation: Tensor, iterations: int) -> Tensor:
        """The spline at its knots, (height, width); nothing can be added any more.

        Args:
            regularisation: (height, width), weights of the squared Laplacian of the coefficients.
            iterations: of the conjugate gradient, at most.
        """
        matrix, right = self._matrix(), _fold(self._right_side())
        del self._normal, self._right

        def apply(c: Tensor) -> Tensor:
            data = _fold(_multiply(matrix, _extend(c)))
            return data + _laplacian(regularisation * _laplacian(c))

        # starts from a normalised convolution, which is right for constants
        total = _fold(_multiply(matrix, torch.ones_like(matrix[0])))
        least = _LEAST * float(total.max())
        mean = right.sum() / total.sum()
        start = torch.where(total > least, right / total.clamp_min(least), mean)
        scale = (_fold(matrix[0]) + 20 * regularisation).clamp_min(least)
        c = _extend(_conjugate_gradient(apply, right, start, scale, iterations))
        return _smooth(c)[_BEFORE:-_AFTER, _BEFORE:-_AFTER]

    def _matrix(self) -> Tensor:
        """(25, height, width): entry k of knot p couples it with knot p + _OFFSETS[k]."""
        height, width = self.shape
        matrix = self._normal.new_zeros(len(_OFFSETS), height, width)
        pairs, coefficients = _products()
        coefficients = coefficients.to(self._normal)
        moments = self._normal.view(height, width, 49)
        lines = max(1, _STRIP // width)
        for top in range(1, height - 2, lines):
            strip = moments[top : min(top + lines, height - 2), 1 : width - 2]
            entries = coefficients @ strip.reshape(-1, 49).T
            entries = entries.view(-1, *strip.shape[:2])
            for entry, (offset, row, column) in zip(entries, pairs, strict=True):
                matrix[
                    offset,
                    top + row : top + row + strip.shape[0],
                    1 + column : 1 + column + strip.shape[1],
                ] += entry
        return matrix

    def _right_side(self) -> Tensor:
        height, width = self.shape
        right = self._right.new_zeros(height, width)
        taps = _taps().to(self._right)
        entries = torch.einsum(
            "ia,jb,hwab->ijhw", taps, taps, self._right.view(height, width, 4, 4)[1:-2, 1:-2]
        )
        for i, j in product(range(4), range(4)):
            right[i : i + height - 3, j : j + width - 3] += entries[i, j]
        return right


def _powers(fraction: Tensor) -> Tensor:
    """(N, 7): the powers 0..6 of twice the distance to the middle of the cell."""
    at = 2 * fraction - 1
    powers = [torch.ones_like(at)]
    for _ in range(6):
        powers.append(powers[-1] * at)
    return torch.stack(powers, 1)


@cache
def _pieces() -> list[Polynomial]:
    """The four pieces of the cubic B-spline, at knots -1, 0, 1, 2 of a cell, in ``_powers``."""
    f = Polynomial([0.5, 0.5])
    g = 1 - f
    return [
        g**3 / 6,
        (3 * f**3 - 6 * f**2 + 4) / 6,
        (3 * g**3 - 6 * g**2 + 4) / 6,
        f**3 / 6,
    ]


@cache
def _taps() -> Tensor:
    return torch.tensor([p.coef.tolist() for p in _pieces()], dtype=torch.float64)


@cache
def _products() -> tuple[list[tuple[int, int, int]], Tensor]:
    """Which entry of the matrix each pair of taps adds to, and its coefficients for the moments.

    Returns:
        Per pair the number of the offset and the knot, (row, column) from the cell; (pairs, 49).
    """
    pieces = _pieces()
    pairs, coefficients = [], []
    for i, j, k, m in product(range(4), repeat=4):
        offset = (j - i, m - k)
        if offset in _OFFSETS:
            pairs.append((_OFFSETS.index(offset), i - 1, k - 1))
            vertical = (pieces[i] * pieces[j]).coef.tolist()
            horizontal = (pieces[k] * pieces[m]).coef.tolist()
            coefficients.append([a * b for a in vertical for b in horizontal])
    return pairs, torch.tensor(coefficients, dtype=torch.float64)


def _extend(c: Tensor) -> Tensor:
    """Knots beyond the grid are those at its border once more: nothing else would hold them."""
    around = (_BEFORE, _AFTER, _BEFORE, _AFTER)
    return functional.pad(c[None, None], around, mode="replicate")[0, 0]


def _fold(values: Tensor) -> Tensor:
    """The adjoint of ``_extend``."""
    rows = values[_BEFORE:-_AFTER].clone()
    rows[0] += values[:_BEFORE].sum(0)
    rows[-1] += values[-_AFTER:].sum(0)
    folded = rows[:, _BEFORE:-_AFTER].clone()
    folded[:, 0] += rows[:, :_BEFORE].sum(1)
    folded[:, -1] += rows[:, -_AFTER:].sum(1)
    return folded


def _multiply(matrix: Tensor, c: Tensor) -> Tensor:
    height, width = c.shape
    out = matrix[0] * c
    for entry, (dy, dx) in zip(matrix[1:], _OFFSETS[1:], strict=True):
        here = (slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
        there = (slice(dy, height), slice(max(0, dx), width + min(0, dx)))
        out[here].addcmul_(entry[here], c[there])
        out[there].addcmul_(entry[here], c[here])
    return out


def _laplacian(c: Tensor) -> Tensor:
    """Of the grid as a graph: symmetric, and zero for constants up to the border."""
    across, down = c.diff(dim=1), c.diff(dim=0)
    out = torch.zeros_like(c)
    out[:, :-1] += across
    out[:, 1:] -= across
    out[:-1] += down
    out[1:] -= down
    return out


def _smooth(c: Tensor) -> Tensor:
    """The spline at the knots."""
    padded = functional.pad(c[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    rows = (padded[:-2] + 4 * padded[1:-1] + padded[2:]) / 6
    return (rows[:, :-2] + 4 * rows[:, 1:-1] + rows[:, 2:]) / 6


def _conjugate_gradient(
    apply: Callable[[Tensor], Tensor], right: Tensor, start: Tensor, scale: Tensor, iterations: int
) -> Tensor:
    """Solve apply(c) = right from a start, with the diagonal as preconditioner."""
    c = start
    residual = right - apply(c)
    z = residual / scale
    direction = z
    gain = (residual * z).sum()
    first = gain
    for _ in range(iterations):
        if float(gain) <= _CLOSE**2 * float(first):
            break
        image = apply(direction)
        step = gain / (direction * image).sum()
        c = c + step * direction
        residual = residual - step * image
        z = residual / scale
        gain, before = (residual * z).sum(), gain
        direction = z + (gain / before) * direction
    return c

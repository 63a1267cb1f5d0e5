"""A smooth displacement field from many weak local measurements."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import splu

F64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]

_AREA_STEP = 128.0  # [px] knots of the field: focal plane, relief
_LINE_STEP = 16.0  # [px] knots of what all columns share: attitude
# What the fields are allowed a priori, standard deviations [px] between neighbouring knots.
_AREA_BEND, _AREA_SLOPE, _LINE_BEND, _LINE_SIZE = 0.05, 0.5, 0.03, 1.0


@dataclass(frozen=True)
class Measurements:
    """Local quadratic measurements of a displacement d: minimise d' A d / 2 - h' d.

    Attributes:
        y: (rows,) centres.
        x: (columns,) centres.
        info: (rows, columns, 3) xx, xy, yy of A [1 / px^2].
        pull: (rows, columns, 2) h = A times the measured displacement [1 / px].
    """

    y: Floats
    x: Floats
    info: F64
    pull: F64

    def scaled(self, weight: F64) -> "Measurements":
        """The same, worth ``weight`` (rows, columns) times as much."""
        return replace(self, info=self.info * weight[..., None], pull=self.pull * weight[..., None])

    @classmethod
    def join(cls, parts: "list[Measurements]") -> "Measurements":
        """Stack along rows; all have the same columns."""
        return cls(
            np.concatenate([p.y for p in parts]),
            parts[0].x,
            np.concatenate([p.info for p in parts]),
            np.concatenate([p.pull for p in parts]),
        )


@dataclass(frozen=True)
class SmoothField:
    """A bicubic spline over the area plus a cubic spline along the lines.

    An attitude wobble moves a whole line at once and changes within tens of lines; focal plane and
    relief change slowly in both directions. Two terms let every column help to see the wobble.

    Attributes:
        shape: ``(height, width)`` [px].
        area: (2, rows, columns) spline coefficients [px], (dx, dy).
        line: (2, knots) spline coefficients [px].
    """

    shape: tuple[int, int]
    area: F64
    line: F64

    def at(self, y: Floats, x: Floats) -> F64:
        """(dx, dy) on the grid of rows ``y`` and columns ``x``, (2, len(y), len(x)) [px]."""
        by, bx = _splines(y, self.shape[0], _AREA_STEP), _splines(x, self.shape[1], _AREA_STEP)
        lines = self.line @ _splines(y, self.shape[0], _LINE_STEP).T
        area = np.stack([(by @ c) @ bx.T for c in self.area])
        return np.asarray(area + lines[:, :, None], np.float64)


def fit_field(
    measured: Measurements, shape: tuple[int, int], rounds: int = 4
) -> tuple[SmoothField, F64]:
    """The smooth field that explains the measurements, outliers down-weighted (Cauchy).

    Where nothing is measured it goes on smoothly and flattens out; with no measurement it is zero.

    Args:
        measured: what is known, where.
        shape: ``(height, width)`` of the image [px].
        rounds: of robust reweighting.

    Returns:
        The field, and how far each measurement was believed, (rows, columns) from 0 to 1.
    """
    height, width = shape
    by, bx = _splines(measured.y, height, _AREA_STEP), _splines(measured.x, width, _AREA_STEP)
    ly = _splines(measured.y, height, _LINE_STEP)
    basis = sp.hstack([sp.kron(by, bx), sp.kron(ly, np.ones((len(measured.x), 1)))]).tocsr()
    prior = _penalty(by.shape[1], bx.shape[1], ly.shape[1])
    prior = sp.block_diag([prior, prior])
    info, pull = measured.info.reshape(-1, 3), measured.pull.reshape(-1, 2)
    seen = info[:, 0] + info[:, 2] > 0
    basis, info, pull = basis[seen], info[seen], pull[seen]
    weight = np.ones(len(info))
    solution = np.zeros(2 * basis.shape[1])
    for _ in range(rounds if len(info) else 0):
        xx, xy, yy = (basis.T @ sp.diags(weight * info[:, k]) @ basis for k in range(3))
        normal = sp.bmat([[xx, xy], [xy, yy]]) + prior
        rhs = np.concatenate([basis.T @ (weight * pull[:, k]) for k in range(2)])
        solution = splu(normal.tocsc(), permc_spec="MMD_AT_PLUS_A").solve(rhs)
        d = np.stack([basis @ s for s in np.split(solution, 2)])
        weight = _cauchy(info, pull, d)
    split = by.shape[1] * bx.shape[1]
    both = solution.reshape(2, -1)
    area = both[:, :split].reshape(2, by.shape[1], bx.shape[1])
    believed = np.ones(len(seen))
    believed[seen] = weight
    field = SmoothField(shape, area, both[:, split:])
    return field, believed.reshape(measured.info.shape[:2])


def _cauchy(info: F64, pull: F64, d: F64) -> F64:
    """Weights by how far each measurement is from the fit, in its own metric."""
    xx, xy, yy = info.T
    gx = pull[:, 0] - xx * d[0] - xy * d[1]
    gy = pull[:, 1] - xy * d[0] - yy * d[1]
    det = np.maximum(xx * yy - xy * xy, 1e-6 * (xx + yy) ** 2)
    chi2 = (yy * gx * gx - 2 * xy * gx * gy + xx * gy * gy) / det
    scale = np.median(chi2) / 1.386 + 1e-9  # 1.386: the median of chi2 with two degrees of freedom
    return np.asarray(1 / (1 + chi2 / (12 * scale)) ** 2, np.float64)


def _splines(at: Floats, length: int, step: float) -> sp.csr_matrix:
    """Uniform cubic B-splines at positions, (len(at), knots)."""
    intervals = max(1, int(np.ceil(length / step)))
    t = np.clip(np.asarray(at, np.float64) / step, 0, intervals)
    i = np.minimum(t.astype(np.intp), intervals - 1)
    u = t - i
    weights = np.stack(
        [(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], 1
    )
    rows = np.repeat(np.arange(len(t)), 4)
    cols = (i[:, None] + np.arange(4)).ravel()
    return sp.csr_matrix((weights.ravel() / 6, (rows, cols)), (len(t), intervals + 3))


def _penalty(rows: int, cols: int, lines: int) -> sp.csr_matrix:
    one_y, one_x = sp.identity(rows), sp.identity(cols)
    bend = [
        sp.kron(_differences(rows, 2), one_x),
        sp.kron(one_y, _differences(cols, 2)),
        np.sqrt(2) * sp.kron(_differences(rows, 1), _differences(cols, 1)),
    ]
    slope = [sp.kron(_differences(rows, 1), one_x), sp.kron(one_y, _differences(cols, 1))]
    area = sum(d.T @ d for d in bend) / _AREA_BEND**2 + sum(d.T @ d for d in slope) / _AREA_SLOPE**2
    second = _differences(lines, 2)
    line = second.T @ second / _LINE_BEND**2 + sp.identity(lines) / _LINE_SIZE**2
    tiny = 1e-6 * sp.identity(rows * cols)  # a constant costs nothing; the matrix must be regular
    return sp.block_diag([area + tiny, line])


def _differences(n: int, order: int) -> sp.csr_matrix:
    """Differences of n values, (n - order, n)."""
    taps = np.diff(np.eye(order + 1), order, axis=0)[0]
    return sp.diags(taps, np.arange(order + 1), shape=(n - order, n)).tocsr()

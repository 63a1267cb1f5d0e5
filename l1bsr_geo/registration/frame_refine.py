"""The sub-pixel affine between two frames by robust least squares on their details.

Lucas-Kanade on blocks spread over the overlap: gradients of both images, Cauchy weights of the
pixels, normal equations summed over cells of 16 px. One affine explains all cells; how much better
each would fit on its own tells how far to trust it.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.registration.frame_levels import Level
from l1bsr_geo.registration.frame_search import INDEPENDENT

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]

CELL = 16  # [px]
BLOCKS = 40
LINEAR = 1e-3  # standard deviation of the linear part from what is expected, per pixel
_ROUNDS = 12
_SETTLED = 0.002  # [px]
_FAR = 3.0  # standard deviations at which a pixel counts half
_FEWEST = 256  # pixels that must be compared
_FINE = 1.2  # [px] detail below this scale shows how sharp an image is


@dataclass(frozen=True, eq=False)
class Cells:
    """Local measurements of the displacement that an affine leaves.

    Attributes:
        at: (N, 2) centres (x, y) [px].
        info: (N, 2, 2) inverse covariance of the displacement [1 / px^2].
        pull: (N, 2) info times the displacement [1 / px].
    """

    at: F64
    info: F64
    pull: F64


@dataclass(frozen=True, eq=False)
class Fit:
    """How a frame lies on another.

    Attributes:
        motion: (3, 3) affine: reference pixel p is at ``motion @ (x, y, 1)`` of the frame.
        uncertainty: expected length of the error, root mean square over the overlap [px].
        correlation: of the details.
        pixels: that were compared.
        sharpness: fine detail of the frame against that of the reference, relative to coarser.
        misfit: mean square of what cells want beyond the affine, in units of their noise.
        cells: what is left.
    """

    motion: F64
    uncertainty: float
    correlation: float
    pixels: float
    sharpness: float
    misfit: float
    cells: Cells


def translation(dx: float, dy: float) -> F64:
    """A motion."""
    return np.array([[1.0, 0, dx], [0, 1, dy], [0, 0, 1]])


def scaled(motion: F64, factor: float) -> F64:
    """The same motion in pixels ``factor`` times smaller."""
    return motion * [[1, 1, factor], [1, 1, factor], [1, 1, 1]]


def refine(
    reference: Level,
    frame: Level,
    motion: F64,
    *,
    remainder: FlowField | None = None,
    rounds: int = _ROUNDS,
    blocks: int = BLOCKS,
) -> Fit | None:
    """The affine that matches ``frame`` to ``reference`` best.

    Args:
        reference: a level.
        frame: the same level of another frame.
        motion: (3, 3), right to about a pixel; its linear part is what is expected.
        remainder: a known motion beyond the affine, one band [px].
        rounds: at most so many; with none the motion stays and is judged.
        blocks: at most so many are looked at; they say enough of a large frame.

    Returns:
        The fit, or None where too little overlaps.
    """
    windows = _overlapping(reference, frame, motion, blocks)
    pieces = [_piece(reference, w, remainder) for w in windows]
    size = np.array(reference.detail.shape[::-1]) / 2
    expected, settled = motion, False
    state = _compare(pieces, frame, motion)
    for _ in range(rounds):
        if state is None or settled:
            break
        theta, _ = _solve(state.cells, _theta(motion - expected, size), size)
        motion = motion + _step(theta, size)
        settled = bool(np.abs(theta).sum() < _SETTLED)
        state = _compare(pieces, frame, motion)
    if state is None:
        return None
    sure = replace(state.cells, info=state.certain)
    _, covariance = _solve(sure, _theta(motion - expected, size), size)
    basis = affine_basis(sure.at, size)
    error = float(np.einsum("nki,ij,nkj->n", basis, covariance, basis).mean())
    misfit = _misfit(sure)
    correlation, sharpness, pixels = _likeness(state.pairs)
    uncertainty = float(np.sqrt(error * max(misfit, 1.0)))
    return Fit(motion, uncertainty, correlation, pixels, sharpness, misfit, sure)


@dataclass(frozen=True, eq=False)
class _Piece:
    """A block of the reference: what does not change while the motion is sought."""

    detail: F32
    slope: F32  # (2, height, width), along x and y
    weight: F32
    places: F64  # (2, height, width), x and y of the pixel centres
    remainder: F32 | float


@dataclass(frozen=True, eq=False)
class _State:
    """What a motion leaves."""

    cells: Cells
    certain: F64  # (N, 2, 2) information without what noise adds to the gradients
    pairs: list[tuple[F32, F32, F32]]  # per block: reference, resampled frame, weight


def _overlapping(reference: Level, frame: Level, motion: F64, most: int) -> list[Window]:
    """Blocks of the reference that the frame covers in part at least, spread and textured."""
    inside = []
    for window, texture in reference.blocks:
        x, y = window.col_off + window.width / 2, window.row_off + window.height / 2
        centre = motion[:2] @ [x, y, 1]
        covered = 1.0
        for at, length, whole in zip(centre, window[2:], frame.detail.shape[::-1], strict=True):
            first, last = max(at - length / 2, 0), min(at + length / 2, whole)
            covered *= max(last - first, 0) / length
        if covered > 0.1:
            inside.append((window, texture * covered))
    if len(inside) > most:
        # of neighbours in reading order, the one with most texture
        groups = np.array_split(np.arange(len(inside)), most)
        inside = [max((inside[i] for i in group), key=lambda b: b[1]) for group in groups]
    return [window for window, _ in inside]


def _piece(reference: Level, window: Window, remainder: FlowField | None) -> _Piece:
    detail = reference.detail[window.slices]
    dy, dx = np.gradient(detail)
    weight = np.zeros_like(detail)
    # one-sided differences at the border share noise with the pixels that they are compared with
    weight[1:-1, 1:-1] = reference.valid[window.slices][1:-1, 1:-1]
    y, x = np.mgrid[window.slices] + 0.5
    return _Piece(
        detail,
        np.stack([dx, dy]),
        weight,
        np.stack([x, y]),
        0.0 if remainder is None else remainder.read(window)[0],
    )


def _resample(piece: _Piece, frame: Level, motion: F64) -> tuple[F32, F32]:
    """The frame at a block's pixels, and where both are known."""
    linear, constant = motion[:2, :2], motion[:2, 2]
    q = np.einsum("ij,jhw->ihw", linear, piece.places) + constant[:, None, None]
    q += piece.remainder
    column, row = q - 0.5
    i, j = np.rint(row).astype(np.intp), np.rint(column).astype(np.intp)
    height, width = frame.detail.shape
    inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
    known = inside * frame.valid[np.clip(i, 0, height - 1), np.clip(j, 0, width - 1)]
    image = ndimage.map_coordinates(
        frame.spline, [row, column], np.float32, 3, "nearest", prefilter=False
    )
    return image, piece.weight * known


def _compare(pieces: list[_Piece], frame: Level, motion: F64) -> _State | None:
    """Normal equations of the displacement that is still missing, cell by cell."""
    resampled = [_resample(p, frame, motion) for p in pieces]
    count = sum(float(w.sum()) for _, w in resampled)
    if count < _FEWEST:
        return None
    cross = sum(
        float((w * p.detail * i).sum()) for p, (i, w) in zip(pieces, resampled, strict=True)
    )
    power = sum(float((w * i * i).sum()) for i, w in resampled)
    gain = np.float32(max(cross, 0.0) / max(power, 1e-20))
    residuals = [p.detail - gain * i for p, (i, _) in zip(pieces, resampled, strict=True)]
    known = np.concatenate([r[w > 0] for r, (_, w) in zip(residuals, resampled, strict=True)])
    variance = float(np.median(np.abs(known)) / 0.6745) ** 2 + 1e-12
    at, info, pull, certain = [], [], [], []
    for piece, residual, (image, weight) in zip(pieces, residuals, resampled, strict=True):
        dy, dx = np.gradient(gain * image)
        own, other = piece.slope, np.stack([dx, dy])
        w = np.float32(INDEPENDENT / variance) * weight
        w = np.asarray(w / (1 + residual**2 / np.float32(_FAR**2 * variance)), np.float32)
        mean = (own + other) / 2
        at.append(_centres(piece))
        info.append(_products(w, mean, mean))
        certain.append(_products(w, own, other))
        pull.append(np.stack([_sums(w * m * residual) for m in mean], -1).reshape(-1, 2))
    cells = Cells(np.concatenate(at), np.concatenate(info), np.concatenate(pull))
    pairs = [(p.detail, i, w) for p, (i, w) in zip(pieces, resampled, strict=True)]
    return _State(cells, _at_least(np.concatenate(certain)), pairs)


def _products(weight: F32, a: Floats, b: Floats) -> F64:
    """Sums over cells of the symmetric part of a b', (N, 2, 2)."""
    xx, yy = (_sums(weight * a[k] * b[k]).ravel() for k in (0, 1))
    xy = _sums(weight * (a[0] * b[1] + a[1] * b[0]) / 2).ravel()
    return np.stack([xx, xy, xy, yy], -1).reshape(-1, 2, 2)


def _at_least(info: F64) -> F64:
    """The nearest matrices that are not negative: noise may make cross products so."""
    values, vectors = np.linalg.eigh(info)
    return np.asarray(
        (vectors * np.maximum(values, 0)[:, None]) @ vectors.swapaxes(1, 2), np.float64
    )


def _sums(values: Floats) -> F64:
    """Over cells."""
    rows, columns = (np.arange(0, n, CELL) for n in values.shape)
    return np.add.reduceat(np.add.reduceat(values, rows, 0), columns, 1).astype(np.float64)


def _centres(piece: _Piece) -> F64:
    """(N, 2) places (x, y) of the cells."""
    x0, y0 = piece.places[:, 0, 0] - 0.5
    height, width = piece.detail.shape
    y, x = (
        start + (np.arange(0, n, CELL) + np.minimum(np.arange(0, n, CELL) + CELL, n)) / 2
        for start, n in ((y0, height), (x0, width))
    )
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)


def affine_basis(at: F64, size: F64) -> F64:
    """(N, 2, 6): what six parameters [px] displace places: a shift and its growth to the edges."""
    u = np.column_stack([np.ones(len(at)), at / size - 1])
    basis = np.zeros((len(at), 2, 6))
    basis[:, 0, :3] = basis[:, 1, 3:] = u
    return basis


def _theta(change: F64, size: F64) -> F64:
    """The six parameters of a change of motion."""
    linear = change[:2, :2] * size
    return np.column_stack([change[:2, :2] @ size + change[:2, 2], linear]).ravel()


def _step(theta: F64, size: F64) -> F64:
    """The change of motion of six parameters."""
    shift, linear = theta.reshape(2, 3)[:, 0], theta.reshape(2, 3)[:, 1:] / size
    change = np.zeros((3, 3))
    change[:2] = np.column_stack([linear, shift - linear @ size])
    return change


def _solve(cells: Cells, so_far: F64, size: F64) -> tuple[F64, F64]:
    """Six parameters that explain the cells, outliers counting less, and their covariance.

    Args:
        cells: what is missing.
        so_far: parameters of the motion against what was expected of it; its linear part is not
            expected to be large.
        size: half the width and height [px].
    """
    basis = affine_basis(cells.at, size)
    deviation = LINEAR * np.concatenate([[np.inf], size, [np.inf], size])
    prior = np.diag(1 / deviation**2)
    weight = np.ones(len(cells.at))
    for _ in range(2):
        info = weight[:, None, None] * cells.info
        normal = np.einsum("nki,nkl,nlj->ij", basis, info, basis) + prior + 1e-6 * np.eye(6)
        right = np.einsum("nki,n,nk->i", basis, weight, cells.pull) - prior @ so_far
        theta = np.linalg.solve(normal, right)
        chi2 = _chi2(cells, np.einsum("nki,i->nk", basis, theta))
        weight = 1 / (1 + chi2 / (6 * max(float(np.median(chi2)), 1.0)))
    return theta, np.linalg.inv(normal)


def _chi2(cells: Cells, shift: F64) -> F64:
    """How far cells disagree with displacements (N, 2), squared, in units of their noise."""
    left = cells.pull - np.einsum("nkl,nl->nk", cells.info, shift)
    trace = np.trace(cells.info, axis1=1, axis2=2)
    sound = cells.info + (1e-3 * trace[:, None, None] + 1e-9) * np.eye(2)
    return np.asarray(np.einsum("nk,nkl,nl->n", left, np.linalg.inv(sound), left), np.float64)


def _misfit(cells: Cells) -> float:
    """Of the median cell that knows something: 1 where noise explains all."""
    known = np.trace(cells.info, axis1=1, axis2=2) > 1e-6
    if not known.any():
        return 1.0
    return float(np.median(_chi2(cells, np.zeros_like(cells.pull))[known])) / 1.386


def _likeness(pairs: list[tuple[F32, F32, F32]]) -> tuple[float, float, float]:
    """Correlation, relative sharpness of the second image, and how many pixels were compared."""
    sums = np.zeros(7)
    for a, b, weight in pairs:
        (a0, a1), (b0, b1) = (_split(image) for image in (a, b))
        pixels = [a * a, a * b, b * b, a0 * a0, a0 * b0, a1 * a1, a1 * b1]
        sums += [float((weight * p).sum()) for p in pixels]
    aa, ab, bb, coarse_own, coarse, fine_own, fine = sums
    correlation = ab / max(aa * bb, 1e-30) ** 0.5
    sharpness = (fine / max(fine_own, 1e-20)) / max(coarse / max(coarse_own, 1e-20), 1e-6)
    return correlation, float(sharpness), sum(float(w.sum()) for _, _, w in pairs)


def _split(image: F32) -> tuple[F32, F32]:
    """Coarse and fine detail."""
    coarse = ndimage.gaussian_filter(image, _FINE)
    return coarse, image - coarse

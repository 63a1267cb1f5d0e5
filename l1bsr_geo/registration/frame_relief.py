"""The parallax of relief, which all frames of a burst share.

What relief moves in a frame is one map of heights times one vector, that of the frame's baseline.
So one map is found from the residual displacements of all frames together, and one vector to each;
and what of it an affine had explained in the part of the reference that a frame covers is put back.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from l1bsr_geo.registration.frame_refine import CELL, Cells, affine_basis

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_SLOPE = 0.35  # deviation of neighbouring cells of the map, which itself is about 1
_LARGEST, _TILT = 3.0, 0.1  # deviations of the vectors and of what an affine took [px]
_ROUNDS = 10
_GROUP = 64  # [px] over which cells are averaged to see whether there is relief
_MISFIT, _LEAST = 2.5, 0.01  # what is left, in units of its noise, and [px]


def shows_relief(cells: Cells) -> bool:
    """Whether an affine leaves a displacement that noise does not explain."""
    group = np.unique(cells.at // _GROUP, axis=0, return_inverse=True)[1].ravel()
    info, pull = np.zeros((group.max() + 1, 2, 2)), np.zeros((group.max() + 1, 2))
    np.add.at(info, group, cells.info)
    np.add.at(pull, group, cells.pull)
    seen = np.linalg.eigvalsh(info)[:, 0] > 1 / (10 * _LEAST) ** 2
    if seen.sum() < 4:
        return False
    left = np.linalg.solve(info[seen], pull[seen][..., None])[..., 0]
    chi2 = float(np.median((left * pull[seen]).sum(1))) / 1.386
    return chi2 > _MISFIT and float(np.median(np.hypot(*left.T))) > _LEAST


def common_relief(measured: Mapping[int, Cells], shape: tuple[int, int]) -> dict[int, F32]:
    """The displacement by relief of every frame.

    Args:
        measured: frame index to what its affine leaves, over all of the reference that it covers.
        shape: ``(height, width)`` of the reference [px].

    Returns:
        Frame index to (2, rows, columns) displacements (dx, dy) at the centres of the cells [px].
    """
    rows, columns = (-(-n // CELL) for n in shape)
    frames = list(measured)
    info = np.zeros((len(frames), rows * columns, 2, 2))
    pull = np.zeros((len(frames), rows * columns, 2))
    for k, cells in enumerate(measured.values()):
        j, i = (cells.at // CELL).astype(int).T
        info[k, i * columns + j], pull[k, i * columns + j] = cells.info, cells.pull
    y, x = np.mgrid[:rows, :columns] * CELL + CELL / 2
    places = np.stack([x.ravel(), y.ravel()], -1)
    affine = affine_basis(places, np.array(shape[::-1]) / 2)
    vectors, tilts = np.zeros((len(frames), 2)), np.zeros((len(frames), rows * columns, 2))
    strongest = int(np.argmax([_strength(i, p) for i, p in zip(info, pull, strict=True)]))
    vectors[strongest] = np.linalg.eigh(pull[strongest].T @ pull[strongest])[1][:, -1] * 0.1
    smooth = _smoothness(rows, columns)
    heights = np.zeros(rows * columns)
    for _ in range(_ROUNDS):
        certain = np.einsum("ki,knij,kj->n", vectors, info, vectors)
        left = pull - np.einsum("knij,knj->kni", info, tilts)
        heights = splu((sp.diags(certain) + smooth).tocsc()).solve(
            np.einsum("ki,kni->n", vectors, left)
        )
        heights /= max(float(np.sqrt(np.mean(heights**2))), 1e-12)
        basis = np.concatenate([heights[:, None, None] * np.eye(2), affine], 2)
        for k in range(len(frames)):
            vectors[k], tilts[k] = _explain(basis, info[k], pull[k])
    return {
        frame: np.asarray(
            (vector[:, None] * heights + tilt.T).reshape(2, rows, columns), np.float32
        )
        for frame, vector, tilt in zip(frames, vectors, tilts, strict=True)
    }


def _explain(basis: F64, info: F64, pull: F64) -> tuple[F64, F64]:
    """The vector (2,) of one frame, and the affine (N, 2) that its fit took for relief before."""
    normal = np.einsum("nki,nkl,nlj->ij", basis, info, basis, optimize=True)
    normal += np.diag([1 / _LARGEST**2] * 2 + [1 / _TILT**2] * 6)
    answer = np.linalg.solve(normal, np.einsum("nki,nk->i", basis, pull))
    return answer[:2], np.asarray(basis[..., 2:] @ answer[2:], np.float64)


def _strength(info: F64, pull: F64) -> float:
    """How much of a displacement a frame shows, in units of its noise."""
    return float(np.square(pull).sum() / max(float(np.trace(info.sum(0))), 1e-20))


def _smoothness(rows: int, columns: int) -> sp.csr_matrix:
    """Inverse covariance of the map before anything is measured."""
    across = sp.kron(sp.identity(rows), _differences(columns))
    down = sp.kron(_differences(rows), sp.identity(columns))
    gradients = across.T @ across + down.T @ down
    return (gradients / _SLOPE**2 + 0.1 * sp.identity(rows * columns)).tocsr()


def _differences(n: int) -> sp.csr_matrix:
    return sp.diags([-np.ones(n - 1), np.ones(n - 1)], [0, 1], shape=(n - 1, n)).tocsr()

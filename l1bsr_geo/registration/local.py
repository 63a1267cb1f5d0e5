"""Sub-pixel residual displacement by least squares, cell by cell, across spectral bands.

Lucas-Kanade with one addition: what is compared with a band is not another band but its best local
linear prediction from the bands that are aligned already. Locally a near-infrared image is some
mixture of the visible ones, inverted where there is vegetation; where it is none the prediction
vanishes and so does the weight. Where the mixture changes faster than it can be learnt, edges still
agree in orientation, so gradient orientations are compared in the same way.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from l1bsr_geo.registration.phase import orientation

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

CELL = 16  # [px]
_INDEPENDENT = 0.2  # share of the pixels that count: their residuals are correlated
_CHANCE = 0.015  # share of variance that unrelated images explain by chance
_EDGES = 4.0  # weight of orientation: all its edges count alike, so less of it is explained
_NOISE = 1e-6  # variance of the relative noise that is always there


def cell_centres(length: int) -> F64:
    """Centres of the cells along an axis [px]; the last cell may be short."""
    starts = np.arange(0, length, CELL)
    return np.asarray((starts + np.minimum(starts + CELL, length)) / 2, np.float64)


@dataclass(frozen=True)
class Predictor:
    """An image on the reference grid and its derivatives, each (channels, height, width)."""

    image: F32
    dy: F32
    dx: F32

    @classmethod
    def of(cls, image: F32) -> "Predictor":
        """From a band-passed image, (height, width)."""
        return cls(image[None], *np.gradient(image[None], axis=(-2, -1)))

    @classmethod
    def of_edges(cls, image: F32) -> "Predictor":
        """From the gradient orientation of a band-passed image, (height, width)."""
        edges = _edges(image)
        return cls(edges, *np.gradient(edges, axis=(-2, -1)))


def residual_displacement(
    predictors: list[Predictor], edges: Predictor, target: F32, weight: F32
) -> tuple[F64, F64]:
    """Normal equations of the displacement of ``target`` against what is foretold.

    Args:
        predictors: bands that are aligned, the reference first.
        edges: those of the reference.
        target: (height, width), band-passed, resampled to the reference grid with the current flow.
        weight: (height, width), 0 where the reference or the target is unknown.

    Returns:
        info (rows, columns, 3): xx, xy, yy of A [1 / px^2]; and pull (rows, columns, 2): A times
        the displacement that is still missing in the flow [1 / px].
    """
    info, pull = _normal_equations(predictors, target[None], weight)
    edge_info, edge_pull = _normal_equations([edges], _edges(target), weight)
    return info + _EDGES * edge_info, pull + _EDGES * edge_pull


def _edges(image: F32) -> F32:
    z = orientation(image)
    return np.stack([z.real, z.imag])


def _normal_equations(predictors: list[Predictor], target: F32, weight: F32) -> tuple[F64, F64]:
    """Of images that share one displacement and one mixture."""
    prediction = _predict(predictors, target, weight)
    gy, gx = prediction.dy, prediction.dx
    residual = target - prediction.image
    area = _pool(_cells(weight)) + 1e-6
    variance = _pool(_cells((weight * residual * residual).sum(0))) / area + _NOISE
    total = _pool(_cells((weight * target * target).sum(0))) / area + _NOISE
    explained = 1 - variance / total
    trust = np.maximum(explained - _CHANCE, 0) / np.maximum(explained, _CHANCE)
    # Cauchy weights: moving things, shadows and glints are not explained by a displacement.
    error = (residual * residual).sum(0)
    spread = _spread(variance.astype(np.float32), weight.shape)
    w = weight / (spread + error / 4)
    scale = _INDEPENDENT * trust
    info = [_cells((w * a * b).sum(0)) * scale for a, b in ((gx, gx), (gx, gy), (gy, gy))]
    pull = [-_cells((w * g * residual).sum(0)) * scale for g in (gx, gy)]
    return np.stack(info, -1), np.stack(pull, -1)


def _predict(predictors: list[Predictor], target: F32, weight: F32) -> Predictor:
    """The local linear prediction of ``target``."""
    n = len(predictors)
    weighted = [weight * p.image for p in predictors]
    gram = np.empty((*(-(-s // CELL) for s in weight.shape), n, n))
    right = np.empty((*gram.shape[:2], n, 1))
    for i in range(n):
        right[..., i, 0] = _pool(_cells((weighted[i] * target).sum(0)))
        for j in range(i, n):
            product = (weighted[i] * predictors[j].image).sum(0)
            gram[..., i, j] = gram[..., j, i] = _pool(_cells(product))
    trace = np.trace(gram, axis1=-2, axis2=-1)[..., None, None]
    gram += (1e-3 * trace + 1e-9) * np.eye(n)
    mix = np.linalg.solve(gram, right)[..., 0].astype(np.float32)
    image, dy, dx = (np.zeros_like(target) for _ in range(3))
    for i, p in enumerate(predictors):
        # the mixture is constant in a cell: differentiate the images, not their product with it
        gain = _spread(mix[..., i], weight.shape)
        image += gain * p.image
        dy += gain * p.dy
        dx += gain * p.dx
    return Predictor(image, dy, dx)


def _cells(values: F32) -> F64:
    """Sums over cells."""
    rows, cols = (np.arange(0, n, CELL) for n in values.shape)
    return np.add.reduceat(np.add.reduceat(values, rows, 0), cols, 1).astype(np.float64)


def _pool(cells: F64) -> F64:
    """Averages over neighbouring cells, so that few pixels do not decide alone."""
    return np.asarray(ndimage.gaussian_filter(cells, 1.0, mode="constant"), np.float64)


def _spread(cells: F32, shape: tuple[int, int]) -> F32:
    """Cell values at every pixel."""
    return np.repeat(np.repeat(cells, CELL, 0), CELL, 1)[: shape[0], : shape[1]]

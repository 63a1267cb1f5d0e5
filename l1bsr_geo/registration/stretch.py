"""Displacement of every band in one stretch of lines, from its pixels alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.registration.local import Predictor, cell_centres, residual_displacement
from l1bsr_geo.registration.phase import band_pass, block_starts, correlate_blocks, orientation
from l1bsr_geo.registration.smooth import Measurements, SmoothField, fit_field

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_BLOCK, _STRIDE = 96, 64  # [px] of the phase correlation
_SIGNIFICANT = 6.0  # noise reaches 5
_COARSE_SIGMA = 0.3  # [px] what a block's phase correlation is worth
_EDGE = 2  # [px] left out around what is unknown
_ROUNDS = 3  # of local refinement, at most
_SETTLED = 0.05  # [px] a smaller change needs no further round: each leaves a tenth of it


def measure_stretch(
    stack: BandStack, base: FlowField, window: Window, search: int
) -> dict[str, Measurements]:
    """Displacement from ``base`` of every band, in a window of full width.

    Phase correlation finds it roughly, then least squares refines it a few times.

    Args:
        stack: the bands.
        base: what is expected.
        window: the stretch, in the reference grid.
        search: largest deviation from ``base`` [px].

    Returns:
        Band to measurements, at cells, in pixel coordinates of the image; without the reference.
    """
    image, known = _read(stack, stack.reference, window)
    reference = band_pass(image, known)
    weight = _shrink(known)
    features = orientation(reference) * weight
    flow = base.read(window)
    found: dict[str, _Band] = {}
    for index, band in enumerate(stack.bands):
        if band != stack.reference:
            found[band] = _find(stack, band, window, features, flow[index], search)
    # the bands that are seen best first: they help to foretell the others
    order = sorted(found, key=lambda b: -found[b].significance)
    first, edges = Predictor.of(reference), Predictor.of_edges(reference)
    result: dict[str, Measurements] = {}
    for _ in range(_ROUNDS):
        predictors, moved = [first], list[float]()
        ground = np.ones(_nothing(window).info.shape[:2])
        for band in order:
            if not found[band].gate.any():
                result[band] = _nothing(window)
                continue
            target, seen, used = found[band].resample(window.shape)
            normal = residual_displacement(predictors, edges, target, weight * seen)
            result[band] = _absolute(*normal, used, found[band].gate)
            found[band].field, believed = fit_field(result[band].scaled(ground), window.shape, 2)
            ground = ground * believed
            moved.append(_moved(found[band].field, used, window.shape))
            predictors.append(Predictor.of(target * seen))
        if max(moved, default=0.0) < _SETTLED:
            break
    return {
        b: Measurements(m.y + window.row_off, m.x + window.col_off, m.info, m.pull)
        for b, m in result.items()
    }


@dataclass
class _Band:
    """A band in one stretch, with room around it for the displacement.

    Attributes:
        spline: (height, width) cubic spline coefficients of the band-passed image.
        valid: (height, width) float32, 1 where known.
        whole: whether only the margin is not.
        offset: (dx, dy) of the stretch's first pixel in ``spline``.
        prior: (2, height, width) of the stretch [px].
        field: the correction so far, in the coordinates of the stretch.
        significance: of the phase correlation, on average.
        gate: (cell rows, cell columns), False where phase correlation saw nothing.
    """

    spline: F32
    valid: F32
    whole: bool
    offset: tuple[int, int]
    prior: F32
    field: SmoothField
    significance: float
    gate: Mask

    def resample(self, shape: tuple[int, int]) -> tuple[F32, F32, F64]:
        """The band on the reference grid, where it is known, and the correction used."""
        y, x = (np.arange(n) + 0.5 for n in shape)
        flow = self.field.at(y, x)
        at = np.stack(
            [
                flow[1] + self.prior[1] + (y - 0.5 + self.offset[1])[:, None],
                flow[0] + self.prior[0] + (x - 0.5 + self.offset[0]),
            ]
        )
        image = ndimage.map_coordinates(self.spline, at, np.float32, 3, "nearest", prefilter=False)
        return image, self._known(at), flow

    def _known(self, at: F64) -> F32:
        if self.whole:  # the usual case, without an interpolation
            height, width = self.valid.shape
            y_inside = (at[0] >= _EDGE) & (at[0] <= height - 1 - _EDGE)
            inside = y_inside & (at[1] >= _EDGE) & (at[1] <= width - 1 - _EDGE)
            return np.asarray(inside, np.float32)
        known = ndimage.map_coordinates(self.valid, at, np.float32, 1, "constant", 0.0)
        return np.asarray(known > 0.999, np.float32)


def _find(
    stack: BandStack,
    band: str,
    window: Window,
    features: npt.NDArray[np.complex64],
    prior: F32,
    search: int,
) -> _Band:
    """Read a band around a stretch and find its displacement by phase correlation."""
    reach = int(np.ceil(np.abs(prior).max())) + search + 8
    around = window.grow(reach).intersect(stack.grids[stack.reference].window)
    image, known = _read(stack, band, around)
    passed = band_pass(image, known)
    offset = window.col_off - around.col_off, window.row_off - around.row_off
    valid = _shrink(known)
    other = orientation(passed) * valid
    # the stretch's frame: features of the band moved so that both start at the same pixel
    shape = window.shape
    block = min(_BLOCK, shape[0]), min(_BLOCK, shape[1])
    y0, x0 = (block_starts(n, b, _STRIDE) for n, b in zip(shape, block, strict=True))
    centre_y, centre_x = y0 + block[0] // 2, x0 + block[1] // 2
    expected = prior[:, centre_y[:, None], centre_x].transpose(1, 2, 0).astype(np.float64)
    shifts = correlate_blocks(features, other, expected + np.asarray(offset), y0, x0, block, search)
    seen = shifts.significance > _SIGNIFICANT
    info = np.zeros((*seen.shape, 3))
    info[..., [0, 2]] = (seen / _COARSE_SIGMA**2)[..., None]
    missing = shifts.shift - offset - expected
    coarse = Measurements(shifts.y, shifts.x, info, missing * info[..., [0, 2]])
    near = [
        np.abs(cell_centres(n)[:, None] - c).argmin(1)
        for n, c in zip(shape, (shifts.y, shifts.x), strict=True)
    ]
    return _Band(
        np.asarray(ndimage.spline_filter(passed, output=np.float32)),
        valid,
        bool(known.all()),
        offset,
        prior,
        fit_field(coarse, shape)[0],
        float(np.mean(shifts.significance)),
        seen[near[0][:, None], near[1]],
    )


def _absolute(info: F64, pull: F64, used: F64, gate: Mask) -> Measurements:
    """Measurements of the whole displacement from those of what is missing in ``used``."""
    info, pull = info * gate[..., None], pull * gate[..., None]
    y, x = (cell_centres(n) for n in used.shape[1:])
    dx, dy = used[:, y.astype(np.intp)[:, None], x.astype(np.intp)]
    pull[..., 0] += info[..., 0] * dx + info[..., 1] * dy
    pull[..., 1] += info[..., 1] * dx + info[..., 2] * dy
    return Measurements(y, x, info, pull)


def _moved(field: SmoothField, used: F64, shape: tuple[int, int]) -> float:
    """The largest change of the correction, at cells [px]."""
    y, x = (cell_centres(n) for n in shape)
    now = field.at(y, x)
    return float(np.abs(now - used[:, y.astype(np.intp)[:, None], x.astype(np.intp)]).max())


def _nothing(window: Window) -> Measurements:
    y, x = (cell_centres(n) for n in window.shape)
    return Measurements(y, x, np.zeros((len(y), len(x), 3)), np.zeros((len(y), len(x), 2)))


def _read(stack: BandStack, band: str, window: Window) -> tuple[F32, Mask]:
    """Zero-based pixels and where they can be used."""
    raw = stack.sources[band].read(window)
    valid: Mask = np.isfinite(raw)
    for special in (stack.nodata, stack.saturated):
        if special is not None:
            valid &= raw != special
    image = raw.astype(np.float32) + np.float32(stack.add_offset.get(band, 0.0))
    return image, valid


def _shrink(valid: Mask) -> F32:
    """1 where no unknown pixel is near, and the image's edge is not."""
    kept: Mask = ndimage.binary_erosion(valid, np.ones((2 * _EDGE + 1, 2 * _EDGE + 1), bool))
    return kept.astype(np.float32)

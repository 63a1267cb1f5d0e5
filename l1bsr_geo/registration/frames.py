"""The motion of every frame of a burst to its reference: from geometry, then from the images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1bsr_geo.errors import BadInputError, L1bsrGeoError
from l1bsr_geo.geometry.elevation import ConstantElevation, Elevation, localize_on_terrain
from l1bsr_geo.images import Burst, BurstFlow, FlowField
from l1bsr_geo.registration.frame_checks import CHANCE, Alignment
from l1bsr_geo.registration.frame_levels import Frame, read_frame
from l1bsr_geo.registration.frame_refine import CELL, Fit, refine, scaled
from l1bsr_geo.registration.frame_search import correlation_score, find_place
from l1bsr_geo.registration.smooth import Measurements, fit_field

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_STEP = 32  # [px] between nodes of what an affine does not explain
_BRIGHT = 0.5  # share of saturated pixels above which a frame tells too little
_GROUP = 64  # [px] over which cells are averaged to see what the affine leaves
_MISFIT, _RELIEF = 3.0, 0.03  # what is left, in units of its noise, and [px]: worth a dense field


def align_frames(
    burst: Burst,
    *,
    elevation: Elevation | None = None,
    doubt: float = 100.0,
    min_overlap: float = 0.15,
    max_uncertainty: float = 0.1,
) -> BurstFlow:
    """Measure the motion of every frame of a burst to its reference, frame 0.

    Where frames have geometry it foretells the motion. Phase correlation finds the place of each
    frame on the reference in the whole range that leaves some overlap; least squares refine an
    affine, with Cauchy weights, and a smooth field where relief leaves more than that. Gain and
    local means do not matter, so exposures may differ; saturated pixels are left out.

    A frame is used only where it proves its place: it correlates beyond chance and better than at
    any other place, its expected error is small, it is as sharp as the others, and the way to it
    over the frame before agrees with the direct one. All others come back as rejected, with reason.

    Args:
        burst: the frames.
        elevation: the ground, for the geometry; height 0 by default.
        doubt: standard deviation of what geometry foretells [px].
        min_overlap: share of the reference that a frame must cover.
        max_uncertainty: expected error beyond which a frame is rejected [px].

    Returns:
        The flow, all frames in order, the reference with zero.

    Raises:
        BadInputError: the reference shows nothing, or no other frame could be aligned.
    """
    reference = read_frame(burst, 0)
    _check_reference(burst, reference)
    found, remainders = Alignment(), dict[int, FlowField]()
    before: tuple[int, Frame] | None = None
    for t in range(1, len(burst)):
        try:
            frame = read_frame(burst, t)
        except L1bsrGeoError as error:
            found.reject(t, str(error))
            continue
        foretold = foretell(burst, t, elevation)
        fit = _find(reference, frame, foretold, doubt, min_overlap)
        if isinstance(fit, str):
            found.reject(t, fit)
            continue
        if fit.uncertainty > max_uncertainty:
            found.reject(t, f"its motion is uncertain by {fit.uncertainty:.2f} px")
            continue
        found.fits[t] = fit
        remainder = _remainder(reference, frame, fit, foretold)
        if remainder is not None:
            remainders[t] = remainder
        if before is not None:
            found.link(before[0], t, before[1], frame)
        before = t, frame
    found.reject_blurred()
    found.reject_inconsistent()
    if len(burst) > 1 and not found.fits:
        t, reason = next(iter(found.rejected.items()))
        raise BadInputError(
            f"none of the other {len(burst) - 1} frames could be aligned with the reference "
            f"{_name(burst, 0)} ({_name(burst, t)}: {reason}); choose another --reference"
        )
    return _flow(burst, found, remainders)


@dataclass(frozen=True, eq=False)
class Foretold:
    """The motion of a frame that geometry foretells.

    Attributes:
        motion: (3, 3) affine: reference pixel p is at ``motion @ (x, y, 1)`` of the frame.
        remainder: what the affine misses (relief), one band; or None where that is little.
    """

    motion: F64
    remainder: FlowField | None = None


def foretell(burst: Burst, index: int, elevation: Elevation | None = None) -> Foretold | None:
    """The motion of a frame that the geometries of it and of the reference foretell.

    Args:
        burst: the frames.
        index: of the frame.
        elevation: the ground; height 0 by default.

    Returns:
        The motion, or None where one of the two has no geometry, or none that reaches the ground.
    """
    reference, grid = burst.grids[0], burst.grids[index]
    if reference.model is None or grid.model is None:
        return None
    y, x = (_nodes(n) for n in reference.shape)
    xx, yy = np.meshgrid(x, y)
    ground = localize_on_terrain(reference, xx, yy, elevation or ConstantElevation())
    seen = np.stack(grid.project(*ground))
    if not np.isfinite(seen).all():
        return None
    places = np.stack([xx, yy, np.ones_like(xx)])
    affine = np.linalg.lstsq(places.reshape(3, -1).T, seen.reshape(2, -1).T, rcond=None)[0].T
    left = (seen - np.tensordot(affine, places, 1)).astype(np.float32)
    remainder = FlowField(left[None], _STEP) if np.abs(left).max() > 0.01 else None
    return Foretold(np.vstack([affine, [0, 0, 1]]), remainder)


def _find(
    reference: Frame, frame: Frame, foretold: Foretold | None, doubt: float, min_overlap: float
) -> Fit | str:
    """The place of a frame, or the reason why it has none."""
    if frame.bright > _BRIGHT:
        return f"{100 * frame.bright:.0f} % of its pixels are saturated"
    if frame.dark > 1 - min_overlap:
        return f"{100 * frame.dark:.0f} % of its pixels hold no data"
    factor = frame.small.factor
    middle = np.array([*reference.small.detail.shape[::-1], 2.0]) / 2
    linear, expected, remainder = np.eye(3), None, None
    if foretold is not None:
        linear, remainder = foretold.motion, foretold.remainder
        dx, dy, _ = scaled(linear, 1 / factor) @ middle - middle
        expected = float(dx), float(dy)
    place = find_place(reference.small, frame.small, min_overlap, expected, doubt / factor)
    if place is None:
        return f"it shares less than {100 * min_overlap:.0f} % with the reference"
    motion = scaled(linear, 1 / factor)
    motion[:2, 2] += middle[:2] + place.shift - (motion @ middle)[:2]
    coarse = refine(reference.small, frame.small, motion) if factor > 1 else None
    motion = scaled(motion if coarse is None else coarse.motion, factor)
    fit = refine(reference.full, frame.full, motion, remainder=remainder)
    if fit is None or correlation_score(fit.correlation, fit.pixels) < CHANCE:
        return "it shows nothing of the reference"
    if place.lead < CHANCE / 4:
        return "it matches the reference at several places"
    return fit


def _remainder(
    reference: Frame, frame: Frame, fit: Fit, foretold: Foretold | None
) -> FlowField | None:
    """The motion beyond the affine: as foretold, corrected where the image says so."""
    known = None if foretold is None else foretold.remainder
    shape = reference.full.detail.shape
    if min(shape) < 3 * _GROUP or not _needs_more(fit):
        return known
    whole = refine(
        reference.full, frame.full, fit.motion, remainder=known, rounds=0, blocks=1 << 20
    )
    if whole is None:
        return known
    rows, columns = (-(-n // CELL) for n in shape)
    info, pull = np.zeros((rows, columns, 3)), np.zeros((rows, columns, 2))
    j, i = (whole.cells.at // CELL).astype(int).T
    info[i, j] = whole.cells.info.reshape(-1, 4)[:, [0, 1, 3]]
    pull[i, j] = whole.cells.pull
    y, x = ((np.arange(n) + 0.5) * CELL for n in (rows, columns))
    measured, _ = fit_field(Measurements(y, x, info, pull), shape)
    nodes = measured.at(*(_nodes(n) for n in shape)).astype(np.float32)[None]
    return FlowField(nodes if known is None else nodes + known.nodes, _STEP)


def _needs_more(fit: Fit) -> bool:
    """Whether the affine leaves a displacement that noise does not explain."""
    group = np.unique(fit.cells.at // _GROUP, axis=0, return_inverse=True)[1].ravel()
    info, pull = np.zeros((group.max() + 1, 2, 2)), np.zeros((group.max() + 1, 2))
    np.add.at(info, group, fit.cells.info)
    np.add.at(pull, group, fit.cells.pull)
    seen = np.linalg.eigvalsh(info)[:, 0] > 1 / _RELIEF**2
    if seen.sum() < 4:
        return False
    left = np.linalg.solve(info[seen], pull[seen][..., None])[..., 0]
    chi2 = np.median((left * pull[seen]).sum(1)) / 1.386
    return bool(chi2 > _MISFIT and np.median(np.hypot(*left.T)) > _RELIEF)


def _flow(burst: Burst, found: Alignment, remainders: dict[int, FlowField]) -> BurstFlow:
    height, width = burst.shape
    middle = np.array([width / 2, height / 2, 1])
    count = len(burst)
    offsets, affine = np.zeros((count, 2), np.int64), np.zeros((count, 2, 3))
    uncertainty = np.zeros(count)
    affine[list(found.rejected)], uncertainty[list(found.rejected)] = np.nan, np.inf
    for t, fit in found.fits.items():
        shift = (fit.motion @ middle - middle)[:2]
        offsets[t] = np.rint(shift)
        affine[t] = np.column_stack([fit.motion[:2, :2] - np.eye(2), shift - offsets[t]])
        uncertainty[t] = fit.uncertainty
    dense = None
    kept = {t: field for t, field in remainders.items() if t in found.fits}
    if kept:
        nodes = np.zeros((count, *next(iter(kept.values())).nodes.shape[1:]), np.float32)
        for t, field in kept.items():
            nodes[t] = field.nodes[0]
        dense = FlowField(nodes, _STEP)
    rejected = dict(sorted(found.rejected.items()))
    return BurstFlow(offsets, affine, (width / 2, height / 2), dense, uncertainty, rejected)


def _check_reference(burst: Burst, reference: Frame) -> None:
    trouble = ""
    if reference.bright > _BRIGHT:
        trouble = f"{100 * reference.bright:.0f} % of its pixels are saturated"
    elif not np.any(reference.full.detail * reference.full.valid):
        trouble = "it shows nothing, all its pixels are equal or hold no data"
    if trouble and len(burst) > 1:
        raise BadInputError(
            f"the reference {_name(burst, 0)} cannot be used: {trouble}; choose another --reference"
        )


def _name(burst: Burst, index: int) -> str:
    names = burst.attrs.get("frames")
    return str(names[index]) if names else f"frame {index}"


def _nodes(length: int) -> F64:
    """Places of nodes along an axis, the last at its end or just beyond [px]."""
    return np.arange(-(-length // _STEP) + 1, dtype=np.float64) * _STEP

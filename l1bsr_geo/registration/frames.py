"""The motion of every frame of a burst to its reference: from geometry, then from the images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1bsr_geo.errors import BadInputError, L1bsrGeoError
from l1bsr_geo.geometry.elevation import ConstantElevation, Elevation, localize_on_terrain
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.bursts import Burst
from l1bsr_geo.images.flow import BurstFlow, FlowField
from l1bsr_geo.registration.frame_checks import CHANCE, Alignment
from l1bsr_geo.registration.frame_levels import Frame, read_frame
from l1bsr_geo.registration.frame_refine import CELL, Cells, Fit, refine, scaled
from l1bsr_geo.registration.frame_relief import common_relief, shows_relief
from l1bsr_geo.registration.frame_search import correlation_score, find_place

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_BRIGHT = 0.5  # share of saturated pixels above which a frame tells too little
_WORTH = 0.01  # [px] a smaller remainder of what is foretold is left out
_RIVAL = 0.6  # of another place, see `Place`; good frames reach 0.25, chance gives 0.5 and more
_ENOUGH = 128  # [px] smaller frames do not show relief


def align_frames(
    burst: Burst,
    *,
    elevation: Elevation | None = None,
    doubt: float = 250.0,
    min_overlap: float = 0.15,
    max_uncertainty: float = 0.1,
) -> BurstFlow:
    """Measure the motion of every frame of a burst to its reference, frame 0.

    Where frames have geometry it foretells the motion. Correlation finds the place of each frame on
    the reference, around there or in the whole range that leaves some overlap; least squares refine
    an affine, with Cauchy weights; where relief leaves more than that, one map of it is found from
    all frames together. Gain and local means do not matter, so exposures may differ; saturated
    pixels are left out.

    A frame is used only where it proves its place: it correlates beyond chance and better than at
    any other place, its expected error is small, it is as sharp as the others, and the way to it
    over the frame before agrees with the direct one. All others come back as rejected, with reason.

    Args:
        burst: the frames.
        elevation: the ground, for the geometry; height 0 by default.
        doubt: farthest from where geometry foretells a frame that it is looked for [px].
        min_overlap: share of the reference that a frame must cover.
        max_uncertainty: expected error beyond which a frame is rejected [px].

    Returns:
        The flow, all frames in order, the reference with zero.

    Raises:
        BadInputError: the reference shows nothing, or no other frame could be aligned.
    """
    reference = read_frame(burst, 0)
    _check_reference(burst, reference)
    foretold = foretell(burst, elevation)
    found, relief = Alignment(), dict[int, Cells]()
    before: tuple[int, Frame] | None = None
    for t in range(1, len(burst)):
        try:
            frame = read_frame(burst, t)
        except L1bsrGeoError as error:
            found.reject(t, str(error))
            continue
        guess = foretold[t]
        fit = _find(reference, frame, guess, doubt, min_overlap)
        if isinstance(fit, str):
            found.reject(t, fit)
            continue
        if fit.uncertainty > max_uncertainty:
            found.reject(t, f"its motion is uncertain by {fit.uncertainty:.2f} px")
            continue
        found.fits[t] = fit
        cells = _everywhere(reference, frame, fit, guess.remainder if guess else None)
        if cells is not None:
            relief[t] = cells
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
    return _flow(burst, found, _remainders(burst, found, foretold, relief))


@dataclass(frozen=True, eq=False)
class Foretold:
    """The motion of a frame that geometry foretells.

    Attributes:
        motion: (3, 3) affine: reference pixel p is at ``motion @ (x, y, 1)`` of the frame.
        remainder: what the affine misses (relief), one band; or None where that is little.
    """

    motion: F64
    remainder: FlowField | None = None


def foretell(burst: Burst, elevation: Elevation | None = None) -> tuple[Foretold | None, ...]:
    """The motion of every frame that its geometry and that of the reference foretell.

    Args:
        burst: the frames.
        elevation: the ground; height 0 by default.

    Returns:
        One for each frame, the reference included; None where one of the two has no geometry, or
        one that misses the ground.
    """
    reference = burst.grids[0]
    if reference.model is None:
        return (None,) * len(burst)
    y, x = (_nodes(n) for n in reference.shape)
    xx, yy = np.meshgrid(x, y)
    ground = localize_on_terrain(reference, xx, yy, elevation or ConstantElevation())
    places = np.stack([xx, yy, np.ones_like(xx)])
    return tuple(_foretold(grid, places, ground) for grid in burst.grids)


def _foretold(grid: GeoGrid, places: F64, ground: tuple[F64, F64, F64]) -> Foretold | None:
    """The motion of one frame from places (x, y, 1) of the reference to where it sees them."""
    if grid.model is None:
        return None
    seen = np.stack(grid.project(*ground))
    if not np.isfinite(seen).all():
        return None
    affine = np.linalg.lstsq(places.reshape(3, -1).T, seen.reshape(2, -1).T, rcond=None)[0].T
    left = (seen - np.tensordot(affine, places, 1)).astype(np.float32)
    known = bool(np.abs(left).max() > _WORTH)
    return Foretold(np.vstack([affine, [0, 0, 1]]), _field(left[None]) if known else None)


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
        beside = f" beside its saturated pixels ({100 * frame.bright:.0f} %)" * (frame.bright > 0.1)
        where = f" within {doubt:g} px of where geometry foretells it" * (expected is not None)
        share = f"{100 * min_overlap:.0f} %"
        return f"it shares less than {share} with the reference{where}{beside}"
    motion = scaled(linear, 1 / factor)
    motion[:2, 2] += middle[:2] + place.shift - (motion @ middle)[:2]
    coarse = refine(reference.small, frame.small, motion) if factor > 1 else None
    motion = scaled(motion if coarse is None else coarse.motion, factor)
    fit = refine(reference.full, frame.full, motion, remainder=remainder)
    if fit is None or correlation_score(fit.correlation, fit.pixels) < CHANCE:
        return "it shows nothing of the reference"
    if place.rival > _RIVAL:
        return "it matches the reference at several places"
    return fit


def _everywhere(reference: Frame, frame: Frame, fit: Fit, known: FlowField | None) -> Cells | None:
    """What the affine leaves over the whole frame, where that is more than noise."""
    if min(reference.full.detail.shape) < _ENOUGH or not shows_relief(fit.cells):
        return None
    whole = refine(
        reference.full, frame.full, fit.motion, remainder=known, rounds=0, blocks=1 << 20
    )
    return None if whole is None else whole.cells


def _remainders(
    burst: Burst,
    found: Alignment,
    foretold: tuple[Foretold | None, ...],
    relief: dict[int, Cells],
) -> dict[int, F32]:
    """The motion beyond the affine: as foretold, corrected where the images say so."""
    out: dict[int, F32] = {}
    measured: dict[int, F32] = {}
    if relief.keys() & found.fits.keys():  # what one frame shows, the others have to some extent
        left = {t: relief.get(t, fit.cells) for t, fit in found.fits.items()}
        measured = common_relief(left, burst.shape)
    for t in found.fits:
        guess = foretold[t]
        known = None if guess is None or guess.remainder is None else guess.remainder.nodes[0]
        parts = [nodes for nodes in (known, measured.get(t)) if nodes is not None]
        if parts:
            out[t] = np.sum(parts, 0)
    return out


def _flow(burst: Burst, found: Alignment, remainders: dict[int, F32]) -> BurstFlow:
    height, width = burst.shape
    middle = np.array([width / 2, height / 2, 1])
    offsets, affine = np.zeros((len(burst), 2), np.int64), np.zeros((len(burst), 2, 3))
    uncertainty = np.zeros(len(burst))
    affine[list(found.rejected)], uncertainty[list(found.rejected)] = np.nan, np.inf
    for t, fit in found.fits.items():
        shift = (fit.motion @ middle - middle)[:2]
        offsets[t] = np.rint(shift)
        affine[t] = np.column_stack([fit.motion[:2, :2] - np.eye(2), shift - offsets[t]])
        uncertainty[t] = fit.uncertainty
    dense = None
    if remainders:
        nodes = np.zeros((len(burst), 2, *(len(_nodes(n)) for n in burst.shape)), np.float32)
        nodes[list(remainders)] = list(remainders.values())
        dense = _field(nodes)
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
    """Places of nodes along an axis, the centres of cells [px]."""
    return (np.arange(-(-length // CELL), dtype=np.float64) + 0.5) * CELL


def _field(nodes: F32) -> FlowField:
    return FlowField(nodes, CELL, (CELL / 2, CELL / 2))

"""Sample windows of an input, and its result read at their pixels: what figures are taken of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.report.correspondence import Correspondence, Look, pixel_centres, undo

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SIDES = (128, 64, 32)  # [px of the input] of windows: the largest of which there are enough
_ENOUGH = 4
_EDGE = 6  # [px of the input] that are left out at the border
_TRIES = 6  # windows looked at for one that is wanted
_MTF = tuple(round(m, 2) for m in np.linspace(1.0, 0.1, 19))


@dataclass(frozen=True, eq=False)
class Patch:
    """A window of the input, and the result there.

    Attributes:
        look: the result about it.
        flow: motion of every band of the input's stack.
        source: (C, h, w) zero-based DN of the input.
        places: (C, 2, h, w) x, y of the reference band that each pixel shows.
        known: (C, h, w) where both have data.
    """

    look: Look
    flow: FlowField
    source: F64
    places: F64
    known: Mask

    @property
    def window(self) -> Window:
        """Of the input."""
        return self.look.window

    def sample(self, mtf: float, bands: Sequence[int] | None = None) -> F64:
        """(C, h, w) the result as the input's pixels would see it.

        Args:
            mtf: of the blur before, at the input's Nyquist frequency.
            bands: which, by place; all where None.
        """
        chosen = range(len(self.source)) if bands is None else bands
        look = self.look
        return np.stack([look.sample(look.smooth(mtf, b), *self.places[b]) for b in chosen])


def choose_patches(pair: Correspondence, count: int, seed: int = 0) -> list[Patch]:
    """Windows that both images fill, drawn at random from all over the common area.

    Args:
        pair: the two images.
        count: how many, at most.
        seed: of the choice.

    Returns:
        Up to ``count``; none where not even the smallest window fits.
    """
    area, best = pair.seen(), list[Patch]()
    if min(area.shape) > 2 * _EDGE + SIDES[-1]:
        area = area.grow(-_EDGE)  # the spline and the blur look at what is around a window
    for side in SIDES:
        found = list[Patch]()
        candidates = _lattice(area, side, count, seed)
        for window in candidates[: _TRIES * count]:
            look = pair.look(window)
            if look.covers() and (patch := _make(pair, look)) is not None:
                found.append(patch)
            if len(found) == count:
                break
        if len(found) * side**2 > sum(p.window.width**2 for p in best):
            best = found
        if len(found) >= min(count, _ENOUGH):
            break
    return best


def _lattice(area: Window, side: int, count: int, seed: int) -> list[Window]:
    """Windows side by side, as many as fit and no more than are needed, in random order."""
    if min(area.shape) < side:
        return []
    fits = [n // side for n in area.shape]
    limit = max(1, int(np.ceil(np.sqrt(16 * count))))
    rows, cols = (
        np.rint(np.linspace(0, n - side, min(fit, limit))).astype(int)
        if min(fit, limit) > 1
        else np.array([(n - side) // 2])
        for n, fit in zip(area.shape, fits, strict=True)
    )
    windows = [
        Window(area.col_off + int(x), area.row_off + int(y), side, side) for y in rows for x in cols
    ]
    order = np.random.default_rng(seed).permutation(len(windows))
    return [windows[i] for i in order]


def _make(pair: Correspondence, look: Look) -> Patch | None:
    """The patch of a window, or None where the input has holes."""
    source, known = pair.read_source(look.window)
    if known.mean() < 0.98:
        return None
    flow = pair.motion(look.window)
    x, y = pixel_centres(look.window)
    places = np.stack([undo(flow, pair.stack.bands.index(b), x, y) for b in pair.bands])
    reach = 2 + look.scale
    there = np.stack([look.has_data(x, y, reach) for x, y in places])
    if there.mean() < 0.9:
        return None
    return Patch(look, flow, source, places, known & there)


def fit_mtf(patches: Sequence[Patch], band: int) -> float:
    """The blur, of those from 1 to 0.1 at the Nyquist frequency, under which they agree best.

    A method states whether its result is what the instrument would see through finer pixels (1: no
    blur is missing) or sharper; a result that is blurred too much already stays at 1.

    Args:
        patches: of all, three are looked at.
        band: the reference, by place.
    """

    @cache
    def error(at: int) -> float:
        total = 0.0
        for patch in patches[:3]:
            apart = (patch.sample(_MTF[at], [band])[0] - patch.source[band])[patch.known[band]]
            total += float(np.square(apart - apart.mean()).sum())
        return total

    low, high = 0, len(_MTF) - 1
    while high > low:  # it has one minimum
        middle = (low + high) // 2
        low, high = (low, middle) if error(middle) <= error(middle + 1) else (middle + 1, high)
    return float(_MTF[low])


def split(image: npt.NDArray[Any], side: int) -> Iterator[npt.NDArray[Any]]:
    """Blocks (..., side, side) side by side."""
    for y in range(0, image.shape[-2] - side + 1, side):
        for x in range(0, image.shape[-1] - side + 1, side):
            yield image[..., y : y + side, x : x + side]

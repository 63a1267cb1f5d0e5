"""Do tiles show? Jumps across the lines where tiles meet, against jumps elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.report.correspondence import Correspondence, pixel_centres

F64 = npt.NDArray[np.float64]

_LONG = 64  # [px of the input] of a segment along a line
_WIDE = 24  # [px of the input] across it
_EDGE = 6  # [px of the input] that are left out at the border


@dataclass(frozen=True)
class Seams:
    """What tile lines look like.

    Attributes:
        index: mean absolute jump on tile lines over that elsewhere; 1 is no seam.
        index_error: standard error of it.
        step: median, over segments, of the mean jump along a segment [DN], less what lines
            elsewhere have; 0 is no seam.
        step_significance: how far tile lines rank above others by it, in standard errors.
        segments: how many were looked at.
    """

    index: float
    index_error: float
    step: float
    step_significance: float
    segments: int


def measure_seams(
    pair: Correspondence,
    core: tuple[int, int],
    scale: int,
    read: Window | None = None,
    *,
    count: int = 24,
    seed: int = 0,
) -> Seams | None:
    """Compare jumps where tiles meet with jumps elsewhere, on the fine grid of the sensor.

    A jump is the difference of two neighbouring pixels less the mean of the differences beside it.
    Elsewhere means parallel lines of the same place in the model's fine pixels, near by.

    Args:
        pair: the two images.
        core: height and width of a tile without its halo [px of the input].
        scale: fine pixels to a pixel, per axis.
        read: the pixels of the input that were tiled; all where None.
        count: segments that are looked at.
        seed: of their choice.

    Returns:
        None where there is but one tile, or no line inside the result.
    """
    read = pair.grid.window if read is None else read
    jumps = []
    for window, vertical in _segments(pair, read, core, count, seed):
        look = pair.look(window)
        if not look.covers(1.0):
            continue
        x, y = pixel_centres(window, scale)
        every = range(len(look.pixels))
        fine = np.stack([look.sample(look.smooth(1.0, b), x, y) for b in every])
        jumps.append(_jumps(fine if vertical else fine.swapaxes(1, 2), scale))
        if len(jumps) == count:
            break
    return _compare(jumps) if jumps else None


def _segments(
    pair: Correspondence, read: Window, core: tuple[int, int], count: int, seed: int
) -> Sequence[tuple[Window, bool]]:
    """Windows about pieces of tile lines in random order; whether the line runs down the image."""
    area = pair.seen().grow(-_EDGE).intersect(read)
    down = range(read.col_off, read.col_off + read.width, core[1])[1:]
    across = range(read.row_off, read.row_off + read.height, core[0])[1:]
    found = []
    for vertical, lines in ((True, down), (False, across)):
        start, length = (area.row_off, area.height) if vertical else (area.col_off, area.width)
        for line in lines:
            for at in range(start, start + length - _LONG + 1, _LONG):
                side = line - _WIDE // 2
                window = (
                    Window(side, at, _WIDE, _LONG) if vertical else Window(at, side, _LONG, _WIDE)
                )
                if window.intersect(area) == window:
                    found.append((window, vertical))
    order = np.random.default_rng(seed).permutation(len(found))[: 4 * count]
    return [found[i] for i in order]


def _jumps(fine: F64, scale: int) -> tuple[F64, F64, F64, F64]:
    """Of each band, of the line in the middle and of others: mean absolute and mean jump."""
    difference = np.diff(fine, axis=2)
    jump = difference[:, :, 1:-1] - (difference[:, :, :-2] + difference[:, :, 2:]) / 2
    line = fine.shape[2] // 2 - 2
    others = [
        line + side * scale * k
        for k in range(2, (fine.shape[2] // 2 - 4) // scale)
        for side in (-1, 1)
    ]
    size, mean = np.abs(jump).mean(1), jump.mean(1)
    return size[:, line], size[:, others].mean(1), mean[:, line], mean[:, others]


def _compare(jumps: Sequence[tuple[F64, F64, F64, F64]]) -> Seams:
    on, off, step, steps = (np.stack([j[i] for j in jumps]) for i in range(4))
    ratio = on.sum(1) / np.maximum(off.sum(1), 1e-12)
    # bands together, each in units of what the other lines of its segment have
    noise = np.maximum(np.sqrt(np.square(steps).mean(2)), 1e-12)
    line = (np.abs(step) / noise).mean(1)
    others = (np.abs(steps) / noise[..., None]).mean(1)
    # by chance a line is anywhere among the others: ranks are uniform, of variance 1 / 12
    rank = (others < line[:, None]).mean(1) + (others == line[:, None]).mean(1) / 2
    excess = np.median(np.abs(step)) ** 2 - np.median(np.abs(steps)) ** 2
    return Seams(
        index=float(on.sum() / np.maximum(off.sum(), 1e-12)),
        index_error=float(ratio.std() / np.sqrt(len(ratio))),
        step=float(np.sqrt(max(0.0, excess))),
        step_significance=float((rank.mean() - 0.5) * np.sqrt(12 * len(rank))),
        segments=len(jumps),
    )

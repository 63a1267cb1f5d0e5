"""Pieces of a result at full resolution, and its input at the same place, as pictures."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.report.correspondence import Correspondence
from l1bsr_geo.report.patches import Patch
from l1bsr_geo.report.quicklook import (
    NATURAL,
    as_masked,
    encode_png,
    find_limits,
    stretch,
)

F64 = npt.NDArray[np.float64]

SIDE = 288  # [px of the result]
_STEP = 8  # [px of the result] between places that are sent over the ground


@dataclass(frozen=True)
class Crop:
    """A place before and after.

    Attributes:
        before: PNG of the input, each pixel as large as it is, as a data URI.
        after: PNG of the result, as a data URI.
        window: of the result.
        middle: ``x, y`` of the input's reference band [px].
        bands: that are shown red, green, blue, or the one in grey.
    """

    before: str
    after: str
    window: Window
    middle: tuple[float, float]
    bands: tuple[str, ...]


def cut_crops(pair: Correspondence, patches: Sequence[Patch], count: int = 4) -> tuple[Crop, ...]:
    """Crops where the input has most detail, all drawn with the same colours.

    Args:
        pair: the two images.
        patches: windows that crops are cut around.
        count: how many, at most.
    """
    bands = _shown(pair.bands)
    order = sorted(patches, key=lambda p: -_detail(p, pair.bands.index(bands[0])))
    chosen: list[Patch] = []
    for patch in order:  # places that overlap by half at most
        apart = all(_distance(patch, c) > SIDE / pair.scale / 2 for c in chosen)
        chosen += [patch] if apart else []
    read = [crop for p in chosen[:count] if (crop := _read(pair, p, bands)) is not None]
    if not read:
        return ()
    every = np.concatenate([b.reshape(len(bands), -1) for b, _, _, _ in read], axis=1)
    if not np.isfinite(every).any(1).all():
        return ()
    limits = find_limits(as_masked(every[:, None]))
    return tuple(
        Crop(
            _as_png(stretch(as_masked(before), limits)),
            _as_png(stretch(as_masked(after), limits)),
            window,
            middle,
            bands,
        )
        for before, after, window, middle in read
    )


def _shown(bands: Sequence[str]) -> tuple[str, ...]:
    if all(b in bands for b in NATURAL):
        return NATURAL
    return tuple(bands[:3]) if len(bands) > 2 else (bands[0],)


def _distance(a: Patch, b: Patch) -> int:
    """The larger of columns and rows between two windows [px of the input]."""
    first, second = a.window, b.window
    return max(abs(first.col_off - second.col_off), abs(first.row_off - second.row_off))


def _detail(patch: Patch, band: int) -> float:
    """Root mean square of the gradient of one band."""
    gy, gx = np.gradient(patch.source[band])
    return float(np.sqrt(np.mean(gx * gx + gy * gy)))


def _read(
    pair: Correspondence, patch: Patch, bands: Sequence[str]
) -> tuple[F64, F64, Window, tuple[float, float]] | None:
    """The input on the result's pixels (nearest), the result, and where."""
    window = patch.window
    x, y = window.col_off + window.width / 2, window.row_off + window.height / 2
    u, v = (float(n) for n in pair.locate(x, y))
    height, width = (min(SIDE, n) for n in pair.result.grid.shape)
    left = int(np.clip(round(u) - width // 2, 0, pair.result.grid.shape[1] - width))
    top = int(np.clip(round(v) - height // 2, 0, pair.result.grid.shape[0] - height))
    there = Window(left, top, width, height)
    sx, sy = _places(pair, there)
    if not (np.isfinite(sx).all() and np.isfinite(sy).all()):
        return None
    col, row = np.floor(sx).astype(int), np.floor(sy).astype(int)
    area = Window(int(col.min()), int(row.min()), int(np.ptp(col)) + 1, int(np.ptp(row)) + 1)
    inside = area.intersect(pair.grid.window)
    if not min(inside.shape):
        return None
    raw, known = pair.read_source(inside)
    held = [pair.bands.index(b) for b in bands]
    raw = np.where(known, raw, np.nan)[held]
    j, i = row - inside.row_off, col - inside.col_off
    seen = (j >= 0) & (j < inside.height) & (i >= 0) & (i < inside.width)
    at = np.clip(j, 0, inside.height - 1), np.clip(i, 0, inside.width - 1)
    before = np.where(seen, raw[:, at[0], at[1]], np.nan)
    after = pair.read_result(there)[held]
    return before, after, there, (x, y)


def _places(pair: Correspondence, window: Window) -> tuple[F64, F64]:
    """``x, y`` in the input of the centres of a window of the result."""
    rows, cols = (-(-n // _STEP) + 1 for n in window.shape)
    u, v = np.meshgrid(np.arange(cols) * _STEP + 0.5, np.arange(rows) * _STEP + 0.5)
    nodes = pair.trace(window.col_off + u, window.row_off + v)
    at = np.indices(window.shape) / _STEP
    x, y = (ndimage.map_coordinates(n, at, order=1, mode="nearest") for n in nodes)
    return x, y


def _as_png(picture: npt.NDArray[np.uint8]) -> str:
    """A data URI of (1 or 3, height, width)."""
    return "data:image/png;base64," + b64encode(encode_png(picture)).decode("ascii")

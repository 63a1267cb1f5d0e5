"""Displacement by phase correlation of gradient orientation, which survives contrast inversion."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy import ndimage

F32 = npt.NDArray[np.float32]
C64 = npt.NDArray[np.complex64]
Mask = npt.NDArray[np.bool_]

_WINDOW = 16  # the correlation surface is looked at this far [px], to know its noise
_LOW_PASS = 0.25  # cycles per pixel; beyond it these under-sampled images are mostly alias


@dataclass(frozen=True)
class Shifts:
    """Displacements of blocks on a grid.

    Attributes:
        y: (rows,) block centres.
        x: (columns,) block centres.
        shift: (rows, columns, 2) (dx, dy) [px]: the block at p is found in the other at p + shift.
        significance: (rows, columns) height of the peak over the surface, in its noise (robust
            standard deviations); pure noise stays below about 5.
    """

    y: npt.NDArray[np.floating[Any]]
    x: npt.NDArray[np.floating[Any]]
    shift: npt.NDArray[np.float64]
    significance: npt.NDArray[np.float64]


def band_pass(pixels: npt.NDArray[np.floating], valid: Mask) -> F32:
    """Log-radiance without its local mean, lightly smoothed; zero where not valid.

    Relative contrast makes bright and dark ground count alike; the low pass removes alias and
    noise, and the high pass the slow differences between bands.

    Args:
        pixels: (height, width) [any unit, zero means no light].
        valid: (height, width).
    """
    if not valid.any():
        return np.zeros(pixels.shape, np.float32)
    floor = max(0.01 * float(np.mean(np.abs(pixels[valid]))), 1e-12)
    log = np.log(np.maximum(np.where(valid, pixels, floor), floor)).astype(np.float32)
    log -= log[valid].mean()
    log[~valid] = 0
    weight = ndimage.uniform_filter(valid.astype(np.float32), 17)
    mean = ndimage.uniform_filter(log, 17) / np.maximum(weight, 1e-3)
    high = np.where(valid, log - mean, 0)
    return np.asarray(ndimage.gaussian_filter(high, 0.7), np.float32)


def orientation(image: F32) -> C64:
    """Doubled-angle gradient of a band-passed image, (height, width), length 0 to 1.

    An edge and its negative give the same value; weak edges below half the local contrast count
    little.
    """
    gy, gx = np.gradient(image)
    energy = gx * gx + gy * gy
    local = ndimage.uniform_filter(energy, 25)
    return np.asarray((gx + 1j * gy) ** 2 / (energy + 0.25 * local + 4e-6), np.complex64)


def block_starts(length: int, block: int, stride: int) -> npt.NDArray[np.intp]:
    """Starts of blocks that cover ``length`` evenly, at most ``stride`` apart."""
    count = max(1, -(-(length - block) // stride) + 1)
    return np.rint(np.linspace(0, length - block, count)).astype(np.intp)


def correlate_blocks(
    reference: C64,
    other: C64,
    guess: npt.NDArray[np.float64],
    y0: npt.NDArray[np.intp],
    x0: npt.NDArray[np.intp],
    block: tuple[int, int],
    search: int,
) -> Shifts:
    """Find every block of ``reference`` in ``other``.

    Neighbouring blocks vote together (their correlation surfaces are averaged, nearest most).

    Args:
        reference: (height, width) features.
        other: (height, width) features.
        guess: (rows, columns, 2) expected shift (dx, dy) of each block [px].
        y0: first row of each row of blocks.
        x0: first column of each column of blocks.
        block: ``(height, width)`` of a block.
        search: largest deviation from the guess [px], at most 16.
    """
    whole = np.rint(guess).astype(np.intp)
    reach = int(np.abs(whole).max(initial=0)) + max(block)
    padded = np.pad(other, reach)
    taper = np.outer(np.hanning(block[0] + 2)[1:-1], np.hanning(block[1] + 2)[1:-1])
    fy, fx = np.fft.fftfreq(block[0])[:, None], np.fft.fftfreq(block[1])
    low = np.exp(-(fx * fx + fy * fy) / _LOW_PASS**2).astype(np.float32)
    half = min(_WINDOW, (min(block) - 1) // 2)
    lags = np.arange(-half, half + 1)
    surfaces = np.empty((len(y0), len(x0), len(lags), len(lags)), np.float32)
    for i, y in enumerate(y0):
        rows = [reference[y : y + block[0], x : x + block[1]] * taper for x in x0]
        found = [
            padded[
                reach + y + dy : reach + y + dy + block[0],
                reach + x + dx : reach + x + dx + block[1],
            ]
            * taper
            for x, (dx, dy) in zip(x0, whole[i], strict=True)
        ]
        cross = scipy.fft.fft2(np.stack(found)) * np.conj(scipy.fft.fft2(np.stack(rows)))
        cross *= low / (np.abs(cross) + 1e-6)
        surface = scipy.fft.ifft2(cross).real
        surfaces[i] = surface[:, lags[:, None], lags]
    surfaces += 2 * ndimage.gaussian_filter(surfaces, (0.8, 0.8, 0, 0), mode="constant")
    peak, significance = _peaks(surfaces, half, min(search, half - 1))
    return Shifts(y0 + block[0] / 2, x0 + block[1] / 2, whole + peak, significance)


def _peaks(
    surfaces: F32, half: int, search: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sub-pixel peaks (dx, dy) of surfaces (rows, columns, lags y, lags x), and their height."""
    rows, cols = surfaces.shape[:2]
    flat = surfaces.reshape(rows, cols, -1)
    middle = np.median(flat, -1)
    spread = 1.4826 * np.median(np.abs(flat - middle[..., None]), -1)
    near = surfaces[:, :, half - search : half + search + 1, half - search : half + search + 1]
    best = near.reshape(rows, cols, -1).argmax(-1)
    j, i = (k + half - search for k in np.unravel_index(best, near.shape[2:]))
    a, b = np.ogrid[:rows, :cols]
    top = surfaces[a, b, j, i].astype(np.float64)
    dx = _parabola(surfaces[a, b, j, i - 1], top, surfaces[a, b, j, i + 1])
    dy = _parabola(surfaces[a, b, j - 1, i], top, surfaces[a, b, j + 1, i])
    significance = np.where(spread > 0, (top - middle) / np.maximum(spread, 1e-20), 0)
    return np.stack([i - half + dx, j - half + dy], -1), significance


def _parabola(before: F32, top: npt.NDArray[np.float64], after: F32) -> npt.NDArray[np.float64]:
    bend = before - 2 * top + after
    return np.clip(0.5 * (before - after) / np.where(bend < 0, bend, -1), -0.5, 0.5)

"""Fine images to simulate bursts from: photographs, and a made-up city."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from l1bsr_geo.geometry.skysat_figures import FULL_SCALE

F32 = npt.NDArray[np.float32]


def scene_from_photograph(grey: npt.NDArray[np.floating] | npt.NDArray[np.uint8]) -> F32:
    """Radiance [DN] from an 8-bit photograph, half its size.

    Halving by a Lanczos kernel removes what compression and colour filters correlated.

    Args:
        grey: (rows, columns), 0 to 255.
    """
    half = grey.astype(np.float32) / 255
    t = (np.arange(12) - 5.5) / 2
    taps = np.sinc(t) * np.sinc(t / 3)
    for axis in (0, 1):
        half = ndimage.correlate1d(half, taps / taps.sum(), axis, mode="mirror", origin=-1)
        half = half[::2] if axis == 0 else half[:, ::2]
    return np.asarray(FULL_SCALE * (0.08 + 0.65 * np.clip(half, 0, 1)), np.float32)


def made_city(shape: tuple[int, int], seed: int = 0, largest: int = 60) -> F32:
    """A made-up scene of overlapping roofs, yards and texture down to the pixel.

    Rectangles whose sizes follow a power law hide one another, which gives the edges and the
    spectrum of photographs ("dead leaves").

    Args:
        shape: ``(rows, columns)`` of fine pixels.
        seed: of everything random.
        largest: side of a rectangle [fine px].

    Returns:
        Radiance [DN].
    """
    rng = np.random.default_rng(seed)
    count = shape[0] * shape[1] // 80
    sides = np.minimum(6 * rng.uniform(1e-3, 1, (count, 2)) ** -0.5, largest).astype(int)
    sides[: count // 20] = largest  # large ones first: they leave no hole
    top, left = (rng.integers(-largest // 2, n, count) for n in shape)
    tone = rng.uniform(0.08, 0.6, count)
    scene = np.full(shape, 0.3, np.float32)
    for (h, w), y, x, grey in zip(sides, top, left, tone, strict=True):
        scene[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = grey
    grain = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), 0.7)
    scene *= 1 + 0.12 * grain
    return np.asarray(FULL_SCALE * np.clip(scene, 0.02, 0.95), np.float32)

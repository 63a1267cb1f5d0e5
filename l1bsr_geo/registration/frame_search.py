"""Where a frame lies on another, to about a pixel, wherever that may be."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy import ndimage

from l1bsr_geo.registration.frame_levels import Level

F32 = npt.NDArray[np.float32]

INDEPENDENT = 0.25  # share of the pixels of a detail image that count: it is blurred
_CANDIDATES = 5  # of each kind
_SAME = 0.98  # no two frames agree better; beyond, correlations tell nothing
_LOW_PASS = 0.25  # [cycles per pixel] most beyond is alias
_FADE = 0.06  # of the width: the frame's edge must not match itself


@dataclass(frozen=True)
class Place:
    """A whole-pixel displacement of a whole frame.

    Attributes:
        shift: (dx, dy) [px of the level]: the reference's p is in the other at p + shift.
        correlation: of the details there, -1 to 1.
        pixels: that were compared.
        rival: likelihood per pixel of the next best place elsewhere, against this one's: near 1
            where the ground repeats itself.
    """

    shift: tuple[int, int]
    correlation: float
    pixels: float
    rival: float = 0.0

    @property
    def score(self) -> float:
        """Log-likelihood against chance; that something is never quite the same caps it."""
        return correlation_score(_SAME * self.correlation, self.pixels)


def find_place(
    reference: Level,
    other: Level,
    min_overlap: float,
    expected: tuple[float, float] | None = None,
    doubt: float = np.inf,
) -> Place | None:
    """The best displacement of all that leave some overlap.

    Phase correlation of the whole frames proposes, plain correlation too, which shows repetitions;
    the normalised correlation of what overlaps decides.

    Args:
        reference: a level.
        other: the same level of another frame.
        min_overlap: share of the reference's area that must be covered.
        expected: (dx, dy) that geometry foretells [px of the level].
        doubt: farthest from ``expected`` that is looked at [px of the level].

    Returns:
        The place, or None where no displacement leaves enough overlap.
    """
    allowed = _allowed(reference.detail.shape, min_overlap, expected, doubt)
    proposals = {
        shift for surface in _correlations(reference, other) for shift in _peaks(surface, allowed)
    }
    judged = [_judge(reference, other, shift, min_overlap) for shift in sorted(proposals)]
    places = sorted((p for p in judged if p is not None), key=lambda p: -p.score)
    if not places:
        return None
    best = places[0]
    elsewhere = [p for p in places if np.abs(np.subtract(p.shift, best.shift)).max() > 2]
    each = max(best.score / best.pixels, 1e-12)
    return replace(best, rival=max((p.score / p.pixels / each for p in elsewhere), default=0.0))


def correlation_score(correlation: float, pixels: float) -> float:
    """Log-likelihood of a correlation of details over so many pixels, against chance."""
    z = np.arctanh(min(max(correlation, 0.0), 1 - 1e-9)) * np.sqrt(INDEPENDENT * pixels)
    return float(z * z / 2)


def _padded(shape: tuple[int, ...]) -> list[int]:
    """Size of transforms that keep a frame and its cyclic copy apart."""
    return [scipy.fft.next_fast_len(2 * n, real=True) for n in shape]


def _correlations(reference: Level, other: Level) -> tuple[F32, F32]:
    """Phase correlation and plain correlation at all displacements, (rows, columns), cyclic."""
    size = _padded(reference.detail.shape)
    a, b = (
        scipy.fft.rfft2(level.detail * level.valid * _window(level.detail.shape), size)
        for level in (reference, other)
    )
    cross = b * np.conj(a)
    strength = np.abs(cross)
    fy, fx = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])
    low = np.exp(-(fx * fx + fy * fy) / _LOW_PASS**2).astype(np.float32)
    white = cross * (low / (strength + np.float32(1e-3) * strength.mean() + np.float32(1e-20)))
    return scipy.fft.irfft2(white, size), scipy.fft.irfft2(cross, size)


def _lags(shape: tuple[int, ...]) -> list[npt.NDArray[np.int_]]:
    """Displacements dy and dx along the axes of a correlation."""
    return [np.rint(np.fft.fftfreq(n) * n).astype(int) for n in _padded(shape)]


def _allowed(
    shape: tuple[int, ...],
    min_overlap: float,
    expected: tuple[float, float] | None,
    doubt: float,
) -> F32:
    """Share of the frame that overlaps at each displacement, zero where none is looked for."""
    dy, dx = _lags(shape)
    area = np.outer(
        *(np.clip(1 - np.abs(d) / n, 0, 1) for d, n in zip((dy, dx), shape, strict=True))
    )
    area[area < min_overlap] = 0
    if expected is not None:
        area[np.hypot(dy[:, None] - expected[1], dx - expected[0]) > doubt] = 0
    return area.astype(np.float32)


def _window(shape: tuple[int, ...]) -> F32:
    sides = []
    for n in shape:
        ramp = np.minimum((np.arange(n) + 0.5) / max(_FADE * n, 4), 1)
        sides.append(np.sin(np.pi / 2 * np.minimum(ramp, ramp[::-1])))
    return np.asarray(np.outer(*sides), np.float32)


def _peaks(surface: F32, allowed: F32) -> list[tuple[int, int]]:
    """The highest separate peaks (dx, dy), heights per overlap."""
    surface = np.asarray(surface / np.maximum(allowed, np.float32(1e-3)), np.float32)
    top = surface == ndimage.maximum_filter(surface, 5, mode="wrap")
    rows, columns = np.nonzero(top & (allowed > 0))
    order = np.argsort(-surface[rows, columns])[:_CANDIDATES]
    signed = [
        np.where(2 * k >= n, k - n, k) for k, n in zip((rows, columns), surface.shape, strict=True)
    ]
    return [(int(signed[1][k]), int(signed[0][k])) for k in order]


def _judge(
    reference: Level, other: Level, shift: tuple[int, int], min_overlap: float
) -> Place | None:
    """The correlation of what overlaps at a displacement."""
    (top, left), (height, width) = shift[::-1], reference.detail.shape
    here = _from(-top, height), _from(-left, width)
    there = _from(top, height), _from(left, width)
    weight = reference.valid[here] * other.valid[there]
    pixels = float(weight.sum())
    if pixels < min_overlap * float(reference.valid.sum()) or pixels < 64:
        return None
    a, b = reference.detail[here], other.detail[there]
    power = float((weight * a * a).sum()) * float((weight * b * b).sum())
    correlation = float((weight * a * b).sum()) / max(power, 1e-30) ** 0.5
    return Place(shift, correlation, pixels)


def _from(start: int, length: int) -> slice:
    """What is left of an axis when it begins at ``start``, or ends at its negative."""
    return slice(max(start, 0), length + min(start, 0))

"""Where a frame lies on another, to about a pixel, wherever that may be."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy import ndimage

from l1bsr_geo.registration.frame_levels import Level

F32 = npt.NDArray[np.float32]

INDEPENDENT = 0.25  # share of the pixels of a detail image that count: it is blurred
_CANDIDATES = 6
_LOW_PASS = 0.25  # [cycles per pixel] most beyond is alias
_FADE = 0.06  # of the width: the frame's edge must not match itself


@dataclass(frozen=True)
class Place:
    """A whole-pixel displacement of a whole frame.

    Attributes:
        shift: (dx, dy) [px of the level]: the reference's p is in the other at p + shift.
        correlation: of the details there, -1 to 1.
        score: its log-likelihood against chance, with what geometry says.
        lead: by how much the score exceeds that of the next best place elsewhere.
    """

    shift: tuple[int, int]
    correlation: float
    score: float
    lead: float = 0.0


def find_place(
    reference: Level,
    other: Level,
    min_overlap: float,
    expected: tuple[float, float] | None = None,
    doubt: float = 100.0,
) -> Place | None:
    """The best displacement of all that leave some overlap.

    Phase correlation of the whole frames proposes; the correlation of what overlaps decides.

    Args:
        reference: a level.
        other: the same level of another frame.
        min_overlap: share of the reference's area that must be covered.
        expected: (dx, dy) that geometry foretells [px of the level].
        doubt: standard deviation of ``expected`` [px of the level].

    Returns:
        The place, or None where no displacement leaves enough overlap.
    """
    surface = _phase_correlation(reference, other)
    places = [
        place
        for shift in _peaks(surface, min_overlap, reference.detail.shape)
        if (place := _judge(reference, other, shift, min_overlap)) is not None
    ]
    if expected is not None:
        places = [
            replace(p, score=p.score - np.square(np.subtract(p.shift, expected) / doubt).sum() / 2)
            for p in places
        ]
    places.sort(key=lambda p: -p.score)
    if not places:
        return None
    best = places[0]
    elsewhere = [p.score for p in places if np.abs(np.subtract(p.shift, best.shift)).max() > 2]
    return replace(best, lead=best.score - max(elsewhere, default=0.0))


def correlation_score(correlation: float, pixels: float) -> float:
    """Log-likelihood of a correlation of details over so many pixels, against chance."""
    z = np.arctanh(min(max(correlation, 0.0), 1 - 1e-9)) * np.sqrt(INDEPENDENT * pixels)
    return float(z * z / 2)


def _phase_correlation(reference: Level, other: Level) -> F32:
    size = [scipy.fft.next_fast_len(2 * n, real=True) for n in reference.detail.shape]
    a, b = (
        scipy.fft.rfft2(level.detail * level.valid * _window(level.detail.shape), size)
        for level in (reference, other)
    )
    cross = b * np.conj(a)
    strength = np.abs(cross)
    fy, fx = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])
    low = np.exp(-(fx * fx + fy * fy) / _LOW_PASS**2).astype(np.float32)
    cross *= low / (strength + np.float32(1e-3) * strength.mean() + np.float32(1e-20))
    return np.asarray(scipy.fft.irfft2(cross, size), np.float32)


def _window(shape: tuple[int, ...]) -> F32:
    sides = []
    for n in shape:
        ramp = np.minimum((np.arange(n) + 0.5) / max(_FADE * n, 4), 1)
        sides.append(np.sin(np.pi / 2 * np.minimum(ramp, ramp[::-1])))
    return np.asarray(np.outer(*sides), np.float32)


def _peaks(surface: F32, min_overlap: float, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """The highest separate peaks (dx, dy) of those that leave some overlap."""
    dy, dx = (np.rint(np.fft.fftfreq(n) * n).astype(int) for n in surface.shape)
    left = [np.clip(1 - np.abs(d) / n, 0, 1) for d, n in zip((dy, dx), shape, strict=True)]
    top = surface == ndimage.maximum_filter(surface, 5, mode="wrap")
    rows, columns = np.nonzero(top & (np.outer(*left) >= min_overlap))
    order = np.argsort(-surface[rows, columns])[:_CANDIDATES]
    return [(int(dx[columns[k]]), int(dy[rows[k]])) for k in order]


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
    return Place(shift, correlation, correlation_score(correlation, pixels))


def _from(start: int, length: int) -> slice:
    """What is left of an axis when it begins at ``start``, or ends at its negative."""
    return slice(max(start, 0), length + min(start, 0))

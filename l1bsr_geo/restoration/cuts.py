"""Where a video is cut: frames on both sides of a cut say nothing of each other.

Frames are made small (block means, which averages noise away), freed of their slow shading, and
compared at every shift at which at least 40 % of them overlap. What moves, however fast, is found
again at some shift; what was cut is not. The correlation that noise leaves is judged against that
of the frames around, so that a noisy or blurred video is not all cuts.

A change of brightness is a matter of judgement. Networks take a scene to keep its brightness, and a
stack across a step of exposure leaves a ghost of it: a step of more than ``STEP`` within the part
that both frames show counts as a cut, and so does a flash, whose frames stand alone. A cut in doubt
costs little (frames beside it are mirrored), a missed one shows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy.ndimage import gaussian_filter

from l1bsr_geo.images.videos import Video

F64 = npt.NDArray[np.float64]

STEP = 1.25
"""Ratio of brightness, of the same ground in two frames, from which both are parted."""

_ACROSS = 64  # blocks along the longer side
_SHADING = 4.0  # [blocks] standard deviation of what is smooth
_OVERLAP = 0.4
_ALIKE = 0.7  # correlation above which nothing is a cut
_UNLIKE = 0.25  # correlation below which two frames have nothing in common
_FALL = 0.5  # of the usual correlation of the frames around
_AROUND = 8  # pairs on each side that say what is usual


@dataclass(frozen=True)
class Likeness:
    """What two frames have in common.

    Attributes:
        correlation: at the best shift, from -1 to 1.
        brightness: ratio of their levels there, at least 1; 1 where levels are not above 0.
    """

    correlation: float
    brightness: float


def find_shots(video: Video) -> list[range]:
    """The stretches between cuts, in order; together they are the whole video.

    Every frame is read once; small copies of two are kept.
    """
    small = (shrink(video.read(t)) for t in range(video.frames))
    return part_shots(compare_neighbours(small), video.frames)


def part_shots(likenesses: Sequence[Likeness], frames: int) -> list[range]:
    """The stretches between those pairs of neighbours that are cuts.

    Args:
        likenesses: of each frame and the next.
        frames: how many there are.
    """
    found = np.array([pair.correlation for pair in likenesses])
    starts = [0]
    for t, pair in enumerate(likenesses):
        around = np.r_[found[max(t - _AROUND, 0) : t], found[t + 1 : t + 1 + _AROUND]]
        usual = float(np.median(around)) if around.size else 1.0
        fallen = pair.correlation < max(_FALL * usual, min(_UNLIKE, usual / 2))
        if (pair.correlation < _ALIKE and fallen) or pair.brightness > STEP:
            starts.append(t + 1)
    return [range(a, b) for a, b in zip(starts, [*starts[1:], frames], strict=True)]


def compare_neighbours(small: Iterable[F64]) -> list[Likeness]:
    """Each frame and the next, as `shrink` gives them."""
    found, before = [], None
    for frame in small:
        if before is not None:
            found.append(compare(before, frame))
        before = frame
    return found


def shrink(frame: npt.NDArray[np.float32]) -> F64:
    """Means of blocks of the bands' mean, at most 64 along a side; NaN where there is no data.

    Args:
        frame: (C, H, W), NaN where there is no data.
    """
    grey = frame.mean(0, dtype=np.float64)
    block = max(-(-max(grey.shape) // _ACROSS), 1)
    rows, columns = (n // block * block for n in grey.shape)
    if min(rows, columns) == 0:
        block, (rows, columns) = 1, grey.shape
    blocks = grey[:rows, :columns].reshape(rows // block, block, columns // block, block)
    known = np.isfinite(blocks)
    count = known.sum((1, 3))
    total = np.where(known, blocks, 0).sum((1, 3))
    means: F64 = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means


def compare(first: F64, second: F64) -> Likeness:
    """The likeness of two small frames at the shift where they are most alike.

    Correlation of what is known in both, at all shifts at once.
    Source: Padfield, Masked object registration in the Fourier domain (IEEE TIP 2012), eq. 12.
    """
    known = [np.isfinite(image).astype(float) for image in (first, second)]
    detail = [
        _remove_shading(image, mask) for image, mask in zip((first, second), known, strict=True)
    ]
    size = [scipy.fft.next_fast_len(2 * n - 1, real=True) for n in first.shape]

    def correlate(a: F64, b: F64) -> F64:
        product = np.conj(scipy.fft.rfft2(a, size)) * scipy.fft.rfft2(b, size)
        found: F64 = scipy.fft.irfft2(product, size)
        return found

    count = np.maximum(correlate(*known), 0)
    enough = count >= max(_OVERLAP * first.size, 1)
    if not enough.any():
        return Likeness(0.0, 1.0)
    safe = np.maximum(count, 1)
    sums = correlate(detail[0], known[1]), correlate(known[0], detail[1])
    squares = correlate(detail[0] ** 2, known[1]), correlate(known[0], detail[1] ** 2)
    spread = [np.maximum(q - s**2 / safe, 0) for q, s in zip(squares, sums, strict=True)]
    common = correlate(*detail) - sums[0] * sums[1] / safe
    least = 1e-9 * max(float(s.max()) for s in spread) + 1e-12
    scores = np.where(enough, common / np.sqrt(np.maximum(spread[0] * spread[1], least**2)), -1)
    at = np.unravel_index(int(scores.argmax()), scores.shape)
    levels = [np.nan_to_num(image) for image in (first, second)]
    one, other = correlate(levels[0], known[1])[at], correlate(known[0], levels[1])[at]
    detailed = max(float(s[at]) for s in spread) * count[at]  # squares of sums, as of levels
    told = min(one, other) > 0 and min(one, other) ** 2 > detailed
    brightness = max(one, other) / min(one, other) if told else 1.0
    flat = all(float(s[at]) <= least for s in spread)  # two frames without any detail
    return Likeness(1.0 if flat else float(scores[at]), float(brightness))


def _remove_shading(image: F64, known: F64) -> F64:
    """What is left of the known blocks without their smooth part; 0 elsewhere."""
    weight = gaussian_filter(known, _SHADING, mode="constant")
    smooth = gaussian_filter(np.nan_to_num(image), _SHADING, mode="constant")
    detail: F64 = known * (np.nan_to_num(image) - smooth / np.maximum(weight, 1e-9))
    return detail

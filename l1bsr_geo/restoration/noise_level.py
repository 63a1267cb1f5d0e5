"""How noisy a video is: (a, b) of var = a x + b, from single frames or from what was taken off.

Photon noise grows with the light (a), that of the electronics does not (b). Both are fitted to the
variances found at several levels of brightness.

`estimate_noise` looks at blocks of 8 x 8 px in which little happens, and at their high frequencies
only, so that it tells white noise. Of noise that is correlated (demosaicked, compressed, resampled)
much is in low frequencies: it is taken for texture, and the estimate is too low; for white noise
averaged over 3 x 3 px it finds about a fifth of the standard deviation. `estimate_from_residuals`
has no such limit, but takes what the denoiser took off wrongly for noise, too.

Source: Colom, Buades and Morel, Nonparametric noise estimation method for raw images (JOSA A 2014),
after Ponomarenko et al. (2007): blocks chosen by low frequencies, measured in high ones.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.optimize

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.images.videos import Video

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_SIDE = 8  # [px] of a block
_BINS = 12  # levels of brightness
_LEAST = 200  # blocks in a level
_FLAT = 0.05  # of the blocks of a level, those with the least texture
_FRAMES = 6  # that are looked at
_MOST = 60_000  # blocks of a frame that are looked at
_PILED = 1e-3  # of the pixels at one end of the range are more than chance
_LEFT = 0.1  # of the blocks
_CUT = 9  # of the frequencies i + j, the first that is high

_ORDER = np.add.outer(np.arange(_SIDE), np.arange(_SIDE))
_HIGH = _ORDER >= _CUT
_LOW = (_ORDER > 0) & ~_HIGH


class Noise(NamedTuple):
    """Noise whose variance is ``a x + b`` [DN^2] at level x [DN].

    Attributes:
        a: variance per DN; 0 of noise that does not know the light.
        b: variance in the dark.
    """

    a: float
    b: float

    def deviation(self, level: npt.ArrayLike) -> F64:
        """Standard deviation [DN] at levels [DN]."""
        found: F64 = np.sqrt(self.a * np.maximum(np.asarray(level, np.float64), 0) + self.b)
        return found

    def scale(self, factor: float) -> "Noise":
        """The same noise where levels are ``factor`` times as large."""
        return Noise(self.a * factor, self.b * factor**2)


@dataclass(frozen=True)
class _Levels:
    """Variances that were found at some levels, and how many blocks tell of each."""

    level: F64
    variance: F64
    weight: F64


def estimate_noise(video: Video, frames: int = _FRAMES, *, mosaic: bool = False) -> Noise:
    """From single frames, spread over the video.

    Args:
        video: noisy.
        frames: how many are looked at.
        mosaic: its frames are raw Bayer mosaics, whose colours are looked at one by one.

    Raises:
        BadInputError: no frame has a block of 8 x 8 px of data.
    """
    chosen = np.unique(np.linspace(0, video.frames - 1, frames).round().astype(int))
    seen = (video.read(int(t)) for t in chosen)
    return estimate_from_frames(map(part_mosaic, seen) if mosaic else seen)


def part_mosaic(frame: F32) -> F32:
    """The four planes of a Bayer mosaic (1, H, W), each of one colour: (4, H // 2, W // 2)."""
    height, width = (n // 2 * 2 for n in frame.shape[1:])
    planes = [frame[0, i:height:2, j:width:2] for i in range(2) for j in range(2)]
    return np.stack(planes)


def estimate_from_frames(frames: Iterable[F32]) -> Noise:
    """From frames (C, H, W) [DN], NaN where there is no data; all bands are taken together.

    Raises:
        BadInputError: no frame has a block of 8 x 8 px of data.
    """
    means, low, high = [], [], []
    for frame in frames:
        for band in frame:
            blocks = _cut_blocks(_drop_clipped(band))
            spectrum = scipy.fft.dctn(blocks, axes=(1, 2), norm="ortho")
            means.append(blocks.mean((1, 2)))
            low.append((spectrum[:, _LOW] ** 2).mean(1))
            high.append(spectrum[:, _HIGH])
    mean, texture, detail = (np.concatenate(v) if v else np.empty(0) for v in (means, low, high))
    if not mean.size:
        raise BadInputError(
            "the noise cannot be estimated: no frame has a block of 8 x 8 px of data; give --noise"
        )
    found = []
    for level in _part_levels(mean):
        count = max(int(_FLAT * len(level)), min(30, len(level)))
        flat = level[np.argpartition(texture[level], count - 1)[:count]]
        variance = np.median((detail[flat] ** 2).mean(0))  # over frequencies, of means over blocks
        found.append((mean[flat].mean(), variance, count))
    return _fit(_Levels(*np.array(found, np.float64).T))


def estimate_from_residuals(pairs: Iterable[tuple[F32, F32]]) -> Noise:
    """From noisy and restored frames (C, H, W) [DN], NaN where there is no data.

    The median over blocks of the mean square of what was taken off, at levels of the restored.

    Raises:
        BadInputError: no frame has a block of 8 x 8 px of data.
    """
    means, squares = [], []
    for noisy, restored in pairs:
        for one, other in zip(noisy, restored, strict=True):
            gaps = ~(np.isfinite(_drop_clipped(one)) & np.isfinite(other))
            residual = _cut_blocks(np.where(gaps, np.nan, one - other))
            means.append(_cut_blocks(np.where(gaps, np.nan, other)).mean((1, 2)))
            squares.append((residual**2).mean((1, 2)))
    mean, square = (np.concatenate(v) if v else np.empty(0) for v in (means, squares))
    if not mean.size:
        raise BadInputError("the noise cannot be estimated: no block of 8 x 8 px has data")
    found = [
        (mean[level].mean(), np.median(square[level]), len(level)) for level in _part_levels(mean)
    ]
    return _fit(_Levels(*np.array(found, np.float64).T))


def _drop_clipped(band: F32) -> F32:
    """NaN at an end of the range on which many pixels lie: their noise was cut off.

    What is so dark, or so small, that nothing else would be left is taken as it is.
    """
    known = np.isfinite(band)
    if not known.any():
        return band
    clipped = np.zeros(band.shape, bool)
    for end in (band[known].min(), band[known].max()):
        there = band == end
        if there.sum() > _PILED * known.sum():
            clipped |= there
    left = np.where(clipped, np.float32(np.nan), band)
    return left if len(_cut_blocks(left)) >= _LEFT * len(_cut_blocks(band)) else band


def _cut_blocks(band: npt.NDArray[np.floating]) -> F64:
    """Blocks (N, 8, 8) that have data everywhere."""
    rows, columns = (n // _SIDE for n in band.shape)
    whole = band[: rows * _SIDE, : columns * _SIDE].astype(np.float64)
    blocks = whole.reshape(rows, _SIDE, columns, _SIDE).swapaxes(1, 2).reshape(-1, _SIDE, _SIDE)
    blocks = blocks[np.isfinite(blocks).all((1, 2))]
    if len(blocks) > _MOST:
        blocks = blocks[:: -(-len(blocks) // _MOST)]
    return blocks


def _part_levels(mean: F64) -> list[npt.NDArray[np.intp]]:
    """Places of blocks in levels of about as many blocks, from dark to bright."""
    bins = int(np.clip(len(mean) // _LEAST, 1, _BINS))
    return [part for part in np.array_split(np.argsort(mean, kind="stable"), bins) if len(part)]


def _fit(found: _Levels) -> Noise:
    """Neither a nor b below 0; levels weigh by how well they are known, relative to the variance.

    Texture only adds to a variance, so what is far above the line counts for less.
    """
    variance = np.maximum(found.variance, 1e-12 * max(float(found.variance.max()), 1e-12))
    expected = variance
    weight = np.sqrt(found.weight)
    a = b = 0.0
    for _ in range(20):
        scaled = weight / expected
        table = np.stack([np.maximum(found.level, 0) * scaled, scaled], 1)
        (a, b), _ = scipy.optimize.nnls(table, variance * scaled)
        expected = np.maximum(a * np.maximum(found.level, 0) + b, 1e-3 * variance)
        excess = variance / expected - 1
        weight = np.sqrt(found.weight) / np.sqrt(1 + (np.maximum(excess, 0) / 0.1) ** 2)
    return Noise(float(a), float(b))

"""A result against a reference raster: PSNR, SSIM, cPSNR, SAM.

Computed block by block, and of scenes of more than 64 blocks of 256 px on 64 that are drawn with a
fixed seed. Only pixels that both images have count.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio.windows
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from scipy import ndimage

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.readers.local_raster import cause_of, open_raster
from l1bsr_geo.report.consistency import spectral_angles
from l1bsr_geo.report.result import Result

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BLOCK = 256  # [px]
MOST = 64  # blocks
LARGEST_SHIFT = 3  # [px] of cPSNR
_TAPS = 5  # [px] the window of SSIM reaches
_SIGMA = 1.5  # [px] of it


@dataclass(frozen=True)
class BandScore:
    """One band against the reference.

    Attributes:
        band: name.
        psnr: [dB].
        ssim: mean over windows that lie in known pixels; NaN where none does.
        cpsnr: [dB], after the best shift and the removal of the bias.
        cpsnr_shift: (dx, dy) [px] of it: the result at p shows what the reference does at p + it.
        bias: mean of result minus reference [DN].
        rmse: [DN].
        peak: that PSNR and SSIM are taken of [DN].
    """

    band: str
    psnr: float
    ssim: float
    cpsnr: float
    cpsnr_shift: tuple[int, int]
    bias: float
    rmse: float
    peak: float


@dataclass(frozen=True)
class Scores:
    """All bands.

    Attributes:
        reference: name of the file.
        sam: mean angle between spectra [degrees]; None of one band.
        bands: of each.
        pixels: that both have, of those looked at.
        blocks: looked at, and that there are.
        resampled: whether the reference was on another grid.
    """

    reference: str
    sam: float | None
    bands: tuple[BandScore, ...]
    pixels: int
    blocks: tuple[int, int]
    resampled: bool


def compare_with_reference(
    result: Result,
    reference: str | os.PathLike[str],
    *,
    peak: float | None = None,
    seed: int = 0,
) -> Scores:
    """Compare a result with a raster of the same ground.

    A reference on another map is resampled onto the result's pixels by cubic convolution; one in
    sensor geometry must have the result's shape. Bands are matched by name, else by place.

    Args:
        result: the raster that is judged.
        reference: the raster that is believed.
        peak: for PSNR and SSIM [DN]; the reference's range, band by band, where None.
        seed: of the blocks.

    Raises:
        MissingInputError: the reference is not there.
        BadInputError: it is no raster, of other ground, or has other bands.
    """
    other = Result.open(reference)
    ours, theirs = _match_bands(result, other)
    blocks, count = _blocks(result.grid.shape, seed)
    sums = [_Sums() for _ in ours]
    angles = pixels = 0.0
    resampled = result.on_map and not _same_grid(result, other)
    with ExitStack() as stack:
        believed = stack.enter_context(_Opened(result, other))
        pairs = []
        for window in blocks:
            image = result.read(window)[ours].astype(np.float64)
            truth = believed.read(window)[theirs]
            known = np.asarray(np.isfinite(image).all(0) & np.isfinite(truth).all(0))
            pairs.append((image, truth, known))
            for total, a, b in zip(sums, image, truth, strict=True):
                total.add(a, b, known)
            if len(ours) > 1 and known.any():
                angles += float(spectral_angles(image[:, known], truth[:, known]).sum())
            pixels += float(known.sum())
    if not pixels:
        raise BadInputError(f"{result.path} and {reference} have no pixel in common")
    names = [result.bands[i] for i in ours]
    ranges = [peak or max(t.high - t.low, 1e-12) for t in sums]
    alike = [
        _mean_ssim([(i[b], t[b], k) for i, t, k in pairs], ranges[b]) for b in range(len(ours))
    ]
    return Scores(
        Path(reference).name,
        angles / pixels if len(ours) > 1 else None,
        tuple(t.score(n, r, s) for t, n, r, s in zip(sums, names, ranges, alike, strict=True)),
        int(pixels),
        (len(blocks), count),
        resampled,
    )


def measure_ssim(image: F64, truth: F64, known: Mask, peak: float) -> F64:
    """SSIM of every window of 11 x 11 px whose pixels are known, one after the other.

    Gaussian weights of sigma 1.5 px, K1 = 0.01, K2 = 0.03, moments of the population.

    Source: Wang et al., Image quality assessment: from error visibility to structural similarity,
    IEEE TIP 13 (2004).

    Args:
        image: (height, width).
        truth: (height, width).
        known: (height, width).
        peak: the range of values.
    """
    if min(image.shape) <= 2 * _TAPS:
        return np.empty(0)
    taps = np.exp(-0.5 * (np.arange(-_TAPS, _TAPS + 1) / _SIGMA) ** 2)
    taps /= taps.sum()

    def mean(plane: F64) -> F64:
        soft = ndimage.correlate1d(ndimage.correlate1d(plane, taps, axis=0), taps, axis=1)
        return np.asarray(soft[_TAPS:-_TAPS, _TAPS:-_TAPS])

    whole = ndimage.minimum_filter(known, 2 * _TAPS + 1)[_TAPS:-_TAPS, _TAPS:-_TAPS]
    x, y = (np.where(known, v, 0.0) for v in (image, truth))
    mx, my = mean(x), mean(y)
    xx, yy, xy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    alike = (2 * mx * my + c1) * (2 * xy + c2) / ((mx * mx + my * my + c1) * (xx + yy + c2))
    return np.asarray(alike[whole])


class _Sums:
    """Sums of one band over blocks, for every shift of cPSNR."""

    def __init__(self) -> None:
        side = 2 * LARGEST_SHIFT + 1
        self.count, self.sum, self.squares = (np.zeros((side, side)) for _ in range(3))
        self.plain = np.zeros(3)  # of all pixels, unshifted: number, sum, squares
        self.low, self.high = np.inf, -np.inf

    def add(self, image: F64, truth: F64, known: Mask) -> None:
        if not known.any():
            return
        apart = (image - truth)[known]
        self.plain += apart.size, apart.sum(), np.square(apart).sum()
        self.low = min(self.low, float(truth[known].min()))
        self.high = max(self.high, float(truth[known].max()))
        border = LARGEST_SHIFT
        height, width = (n - 2 * border for n in image.shape)
        if min(height, width) < 1:
            return
        middle = image[border:-border, border:-border]
        clear = known[border:-border, border:-border]
        for j in range(2 * border + 1):
            for i in range(2 * border + 1):
                there = slice(j, j + height), slice(i, i + width)
                apart = (middle - truth[there])[clear & known[there]]
                self.count[j, i] += apart.size
                self.sum[j, i] += apart.sum()
                self.squares[j, i] += np.square(apart).sum()

    def score(self, band: str, peak: float, ssim: float) -> BandScore:
        count, total, squares = self.plain
        rmse = float(np.sqrt(squares / count))
        number = np.maximum(self.count, 1)
        variance = np.where(
            self.count > 0, self.squares / number - np.square(self.sum / number), np.inf
        )
        j, i = np.unravel_index(int(variance.argmin()), variance.shape)
        return BandScore(
            band,
            _decibel(rmse**2, peak),
            ssim,
            _decibel(float(max(variance[j, i], 0.0)), peak),
            (int(i) - LARGEST_SHIFT, int(j) - LARGEST_SHIFT),
            float(total / count),
            rmse,
            float(peak),
        )


class _Opened:
    """The reference on the result's pixels."""

    def __init__(self, result: Result, other: Result) -> None:
        self._result, self._other = result, other
        self._stack = ExitStack()
        self._alpha = False  # whether the band after the last one tells what is known

    def __enter__(self) -> "_Opened":
        result, other = self._result, self._other
        model, (height, width) = result.grid.model, result.grid.shape
        raster = self._stack.enter_context(open_raster(other.path))
        self._raster, self._bands = raster, list(raster.indexes)
        if isinstance(model, AffineModel) and other.on_map:
            if not _same_grid(result, other):
                self._alpha = raster.nodata is None and ColorInterp.alpha not in raster.colorinterp
                warped = WarpedVRT(
                    raster,
                    crs=model.crs,
                    transform=model.transform,
                    width=width,
                    height=height,
                    resampling=Resampling.cubic,
                    nodata=raster.nodata,
                    add_alpha=self._alpha,
                )
                self._raster = self._stack.enter_context(warped)
        elif result.grid.shape != other.grid.shape:
            self._stack.close()
            raise BadInputError(
                f"{other.path} has {other.grid.shape} pixels and {result.path} "
                f"{result.grid.shape}, and they are not both on a map; give a reference of the "
                "result's shape, or on a map"
            )
        return self

    def __exit__(self, *args: object) -> None:
        self._stack.close()

    def read(self, window: Window) -> F64:
        """(C, height, width), NaN where nothing is known."""
        there = rasterio.windows.Window(*window)
        try:
            pixels = self._raster.read(self._bands, window=there, masked=True)
            pixels = pixels.astype(np.float64).filled(np.nan)
            if self._alpha:
                pixels[:, self._raster.read(len(self._bands) + 1, window=there) == 0] = np.nan
        except RasterioError as error:
            raise BadInputError(
                f"{self._other.path} cannot be decoded ({cause_of(error)})"
            ) from error
        return np.asarray(pixels)


def _same_grid(a: Result, b: Result) -> bool:
    first, second = a.grid.model, b.grid.model
    return (
        isinstance(first, AffineModel)
        and isinstance(second, AffineModel)
        and a.grid.shape == b.grid.shape
        and first.crs == second.crs
        and first.transform.almost_equals(second.transform)
    )


def _match_bands(result: Result, other: Result) -> tuple[list[int], list[int]]:
    """Places of the bands that both have."""
    common = [b for b in result.bands if b in other.bands]
    if common:
        return [result.bands.index(b) for b in common], [other.bands.index(b) for b in common]
    if len(result.bands) == len(other.bands):
        return list(range(len(result.bands))), list(range(len(other.bands)))
    raise BadInputError(
        f"{other.path} has bands {', '.join(other.bands)}, {result.path} "
        f"{', '.join(result.bands)}; give a reference of the same bands"
    )


def _blocks(shape: tuple[int, int], seed: int) -> tuple[list[Window], int]:
    """Blocks that are looked at, in reading order, and how many there are."""
    height, width = shape
    windows = [
        Window(x, y, min(BLOCK, width - x), min(BLOCK, height - y))
        for y in range(0, height, BLOCK)
        for x in range(0, width, BLOCK)
    ]
    if len(windows) <= MOST:
        return windows, len(windows)
    chosen = np.random.default_rng(seed).choice(len(windows), MOST, replace=False)
    return [windows[i] for i in sorted(chosen)], len(windows)


def _mean_ssim(pairs: Sequence[tuple[F64, F64, Mask]], peak: float) -> float:
    values = [measure_ssim(image, truth, known, peak) for image, truth, known in pairs]
    joined = np.concatenate(values)
    return float(joined.mean()) if joined.size else float("nan")


def _decibel(mse: float, peak: float) -> float:
    return float(10 * np.log10(peak**2 / mse)) if mse > 0 else float("inf")

"""Four-band 5 m scenes from photographs of three channels, with the figures of real L1B crops.

A photograph has edges, texture and a true near infrared or a true red, but no radiometry. Its bands
are mixed until they are as much alike as those of a real crop, and take on its histograms and the
spectrum of the ground.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy import ndimage, special

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.simulation.overlaps import blur
from l1bsr_geo.simulation.scenes import MTF, TEN_METRE_BANDS

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Channels: TypeAlias = Literal["colour", "infrared"]

_ORDER = tuple(TEN_METRE_BANDS.index(band) for band in ("B03", "B02", "B04", "B08"))
_LEVELS = np.array([0.0, 0.1, 1, 5, 25, 50, 75, 95, 99, 99.9, 100])  # per cent
SLOPES = {"B02": 1.95, "B03": 1.95, "B04": 1.95, "B08": 1.75}
"""Power falls as the frequency to the minus this. Source: spectra of real L1B crops, whose fall is
that of the ground times the MTF, folded."""
_ROUNDS = 2
_STEP = (0.7, 1.4)  # of the curve in a round
_GREY = 1.0  # standard deviations above the median where colour is half of what it is below
_TABLE = 4096
_LOWEST, _HIGHEST, _RINGS = 0.005, 0.5, 24  # [cycles / fine px] of rings of frequencies
_STRONGEST = np.log(16.0)  # gain of a ring, in power


@dataclass(frozen=True, eq=False)
class CropFigures:
    """What is known of the radiometry of a real crop.

    Attributes:
        percentiles: [DN] of B02, B03, B04, B08 at 0, 0.1, 1, 5, 25, 50, 75, 95, 99, 99.9, 100 %.
        correlations: of the registered bands: B02 with B03, B04, B08; B03 with B04, B08; B04
            with B08.
    """

    percentiles: tuple[tuple[int, ...], ...]
    correlations: tuple[float, ...]

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """(4, 4) correlations."""
        matrix = np.eye(4)
        matrix[np.triu_indices(4, 1)] = self.correlations
        return matrix + np.triu(matrix, 1).T


CROPS = (
    CropFigures(
        (
            (150, 163, 169, 176, 193, 217, 258, 369, 604, 1025, 1657),
            (111, 134, 159, 174, 194, 218, 260, 380, 622, 1089, 1559),
            (64, 75, 84, 95, 126, 168, 228, 368, 607, 1095, 1403),
            (52, 86, 102, 234, 382, 449, 525, 667, 791, 1097, 1449),
        ),
        (0.99, 0.97, 0.20, 0.96, 0.28, 0.12),
    ),
    CropFigures(
        (
            (154, 161, 166, 172, 190, 214, 259, 379, 902, 1140, 1303),
            (117, 124, 151, 169, 190, 214, 261, 401, 952, 1204, 1378),
            (58, 67, 80, 90, 120, 164, 230, 393, 968, 1215, 1390),
            (42, 62, 153, 275, 385, 461, 542, 674, 976, 1208, 1370),
        ),
        (0.98, 0.97, 0.36, 0.96, 0.42, 0.29),
    ),
    CropFigures(
        (
            (152, 161, 166, 172, 189, 219, 269, 400, 894, 1064, 3208),
            (116, 136, 155, 169, 191, 218, 272, 426, 966, 1143, 3532),
            (64, 72, 79, 88, 117, 164, 237, 422, 987, 1159, 3530),
            (59, 80, 156, 272, 389, 464, 543, 692, 995, 1152, 3427),
        ),
        (0.98, 0.97, 0.37, 0.96, 0.44, 0.33),
    ),
    CropFigures(
        (
            (141, 148, 151, 163, 173, 180, 194, 257, 317, 645, 1138),
            (98, 108, 111, 147, 166, 178, 196, 257, 321, 689, 1183),
            (56, 59, 63, 84, 105, 120, 146, 226, 302, 650, 1183),
            (34, 42, 48, 236, 352, 398, 494, 698, 821, 977, 1165),
        ),
        (0.97, 0.97, 0.18, 0.95, 0.38, 0.15),
    ),
    CropFigures(
        (
            (148, 155, 161, 168, 184, 207, 237, 301, 414, 837, 1028),
            (114, 133, 143, 158, 182, 203, 233, 302, 427, 903, 1120),
            (60, 72, 81, 92, 118, 155, 199, 283, 415, 888, 1136),
            (58, 80, 149, 255, 352, 421, 500, 643, 742, 900, 1151),
        ),
        (0.98, 0.97, -0.03, 0.96, 0.12, -0.11),
    ),
)
"""Source: the five L1B crops of the L1BSR repository (Nguyen et al. 2023), measured; the
correlations after taking out the shifts between the bands."""


def bands_from_photograph(
    photograph: npt.NDArray[np.uint8], channels: Channels, reduce: int
) -> F32:
    """Four registered bands, in arbitrary units, of a photograph made smaller.

    A Lanczos kernel removes what compression and colour filters correlated.

    Args:
        photograph: (3, rows, columns), 0 to 255.
        channels: ``"colour"``: red, green, blue; the near infrared is made up: bright where it is
            green. ``"infrared"``: near infrared, green, blue; the red is made up: dark where the
            near infrared outshines the rest.
        reduce: pixels of the photograph to one of the scene, 2 at least.

    Returns:
        (4, rows // reduce, columns // reduce) B02, B03, B04, B08.
    """
    if photograph.ndim != 3 or len(photograph) != 3:
        raise BadInputError(
            f"the photograph has shape {photograph.shape}; (3, rows, columns) was expected"
        )
    first, green, blue = (_reduced(channel, reduce) for channel in photograph)
    if channels == "infrared":
        vegetation = (first - green) / (first + green + 0.1)
        red = (0.5 * green + 0.5 * blue) * np.exp(-1.5 * vegetation)
        return np.stack([blue, green, red, first]).astype(np.float32)
    vegetation = (2 * green - first - blue) / (first + green + blue + 0.1)
    infrared = (0.3 + green) / (1 + np.exp(-12 * (vegetation - 0.05))) + 0.4 * first
    return np.stack([blue, green, first, infrared]).astype(np.float32)


def match_crop(bands: F32, crop: CropFigures) -> F32:
    """The bands with the correlations, spectra and histograms of a real crop, (4, rows, columns).

    What each band has that those before it (B03, B02, B04, B08) have not is mixed with them as the
    crop's correlations ask. The result goes through a monotone curve and an isotropic filter, made
    better a few times, until it has behind the instrument the crop's histogram and a power law for
    its spectrum.

    Args:
        bands: (4, rows, columns) B02, B03, B04, B08, any unit.
        crop: what they shall be like.

    Returns:
        [DN] before the instrument's blur.
    """
    layers = _mixed(bands, crop.matrix)
    for k, (band, slope) in enumerate(SLOPES.items()):
        wanted = np.array(crop.percentiles[k], float)
        curve = wanted.copy()
        for _ in range(_ROUNDS):
            dn = _through(layers[k], _percentiles(layers[k]), curve)
            ratio = wanted / _percentiles(blur(dn, MTF[band]))
            curve = np.maximum.accumulate(curve * np.clip(ratio, *_STEP))
            layers[k] = _with_spectrum(layers[k], dn, slope)
        layers[k] = _through(layers[k], _percentiles(layers[k]), curve)
    return layers


def _mixed(bands: F32, correlations: npt.NDArray[np.float64]) -> F32:
    """Normal bands of these correlations, (4, rows, columns)."""
    order = list(_ORDER)
    own: list[F32] = []  # what each has that those before it have not
    for band in bands[order]:
        rest = _normal(band.ravel())
        for other in own:
            rest = rest - other * np.mean(rest * other)
        rest = _normal(rest)
        if own:  # what is bright is grey
            rest /= 1 + (np.maximum(own[0], 0) / _GREY) ** 2
            rest /= max(float(rest.std()), 1e-6)
        own.append(rest)
    weights = np.linalg.cholesky(correlations[np.ix_(order, order)]).astype(np.float32)
    mixed = np.empty_like(bands)
    mixed[order] = (weights @ np.stack(own)).reshape(bands.shape)
    return mixed


def _normal(values: F32) -> F32:
    """Values through the monotone curve that makes them normal."""
    at = np.linspace(0.001, 0.999, 65)
    return _through(values, np.quantile(values[::4], at), special.ndtri(at))


def _percentiles(layer: npt.NDArray[np.floating]) -> F64:
    """Strictly rising."""
    levels = np.asarray(np.percentile(layer[::2, ::2], _LEVELS), np.float64)
    return np.asarray(levels + np.linspace(0, 1e-5, len(levels)) * (np.ptp(levels) + 1e-6))


def _through(values: F32, x: F64, y: F64) -> F32:
    """Linear interpolation of a curve, constant beyond its ends, by a table of equal steps."""
    step = max(float(x[-1] - x[0]) / _TABLE, 1e-12)
    table = np.interp(x[0] + step * np.arange(_TABLE + 2), x, y).astype(np.float32)
    at = np.clip((values - np.float32(x[0])) / np.float32(step), 0, _TABLE)
    k = at.astype(np.intp)
    first = table[k]
    return np.asarray(first + (at - k).astype(np.float32) * (table[k + 1] - first))


def _with_spectrum(layer: F32, dn: F32, slope: float) -> F32:
    """The layer filtered by what the spectrum of ``dn`` lacks of a power law, isotropically."""
    ring = _rings(dn.shape)
    power = scipy.fft.dctn(dn, norm="ortho").ravel() ** 2
    power[0] = 0  # the mean is not of the spectrum
    index = np.rint(ring).astype(np.intp).ravel()
    mean = np.bincount(index, power, _RINGS) / np.maximum(np.bincount(index, minlength=_RINGS), 1)
    law = slope * np.linspace(np.log(_LOWEST), np.log(_HIGHEST), _RINGS)
    excess = ndimage.gaussian_filter1d(np.log(np.maximum(mean, 1e-12)) + law, 1.0, mode="nearest")
    gain = np.exp(0.5 * np.clip(np.median(excess) - excess, -_STRONGEST, _STRONGEST))
    spectrum = scipy.fft.dctn(layer, norm="ortho") * np.interp(ring, np.arange(_RINGS), gain)
    return np.asarray(scipy.fft.idctn(spectrum, norm="ortho"), np.float32)


@lru_cache(maxsize=1)
def _rings(shape: tuple[int, ...]) -> F64:
    """Where the frequency of each cosine is on a logarithmic scale, 0 to ``_RINGS`` - 1."""
    fy, fx = (np.arange(n) / (2 * n) for n in shape)
    f = np.clip(np.hypot(fy[:, None], fx), _LOWEST, _HIGHEST)
    return np.asarray(np.log(f / _LOWEST) * ((_RINGS - 1) / np.log(_HIGHEST / _LOWEST)))


def _reduced(channel: npt.NDArray[np.uint8], reduce: int) -> F32:
    t = (np.arange(6 * reduce) - 3 * reduce + 0.5) / reduce
    taps = (np.sinc(t) * np.sinc(t / 3)).astype(np.float32)
    taps /= taps.sum()
    out = channel
    for _ in range(2):  # rows, then columns
        n = len(out) // reduce
        padded = np.pad(out, ((5 * reduce // 2, 3 * reduce), (0, 0)), "symmetric")
        small = np.zeros((n, out.shape[1]), np.float32)
        for k, tap in enumerate(taps):
            small += tap * padded[k : k + n * reduce : reduce]
        out = np.ascontiguousarray(small.T)
    return np.clip(out / 255, 0, 1)

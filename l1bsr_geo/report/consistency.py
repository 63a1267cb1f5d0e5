"""Does the result say what the input says? Values, spectra and places at the input's own pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1bsr_geo.report.patches import Patch

F64 = npt.NDArray[np.float64]
C128 = npt.NDArray[np.complex128]
Mask = npt.NDArray[np.bool_]

_FREQUENCIES = 0.2  # [cycles / px] shifts are read below; beyond, sampled images are mostly alias
_ROUNDS = 4  # of a fit


@dataclass(frozen=True)
class BandConsistency:
    """One band of the result, seen at the input's pixels, against the input.

    Attributes:
        band: name.
        mean: of the input [DN, zero means no light].
        bias: mean of result minus input [DN].
        rmse: root of the mean square of it [DN]; of a good result the input's noise.
        correlation: of the two.
        shift: (dx, dy) [px of the input]: what the input shows at p is in the result at p + shift.
        shift_error: standard error of each component [px].
    """

    band: str
    mean: float
    bias: float
    rmse: float
    correlation: float
    shift: tuple[float, float]
    shift_error: tuple[float, float]

    @property
    def bias_percent(self) -> float:
        """Of the mean."""
        return 100 * self.bias / self.mean if self.mean else float("nan")

    @property
    def rmse_percent(self) -> float:
        """Of the mean."""
        return 100 * self.rmse / self.mean if self.mean else float("nan")


@dataclass(frozen=True)
class Consistency:
    """All bands.

    Attributes:
        mtf: what the blur in front of the sampling leaves of the input's Nyquist frequency.
        fitted: whether that was found from the images or told.
        sam: mean angle between spectra of result and input [degrees]; None of one band.
        bands: of each band.
        windows: how many windows of the input were compared.
        side: of a window [px of the input].
    """

    mtf: float
    fitted: bool
    sam: float | None
    bands: tuple[BandConsistency, ...]
    windows: int
    side: int


def measure_consistency(
    patches: Sequence[Patch], bands: Sequence[str], mtf: float, *, fitted: bool
) -> Consistency:
    """Compare a result with its input at the input's pixels.

    Args:
        patches: windows of both; at least one.
        bands: their names.
        mtf: of the blur.
        fitted: whether it was fitted.
    """
    seen = [patch.sample(mtf) for patch in patches]
    found = []
    for b, band in enumerate(bands):
        ours = np.concatenate([s[b][p.known[b]] for s, p in zip(seen, patches, strict=True)])
        theirs = np.concatenate([p.source[b][p.known[b]] for p in patches])
        apart = ours - theirs
        shifts = np.array(
            [
                measure_shift(_fill(p.source[b], p.known[b]), _fill(s[b], p.known[b]))
                for s, p in zip(seen, patches, strict=True)
            ]
        )
        found.append(
            BandConsistency(
                band=band,
                mean=float(theirs.mean()),
                bias=float(apart.mean()),
                rmse=float(np.sqrt(np.square(apart).mean())),
                correlation=_correlate(ours, theirs),
                shift=_pair(np.median(shifts, 0)),
                shift_error=_pair(_error_of_median(shifts)),
            )
        )
    angles = [
        spectral_angles(s, p.source)[p.known.all(0)] for s, p in zip(seen, patches, strict=True)
    ]
    return Consistency(
        mtf,
        fitted,
        float(np.concatenate(angles).mean()) if len(bands) > 1 else None,
        tuple(found),
        len(patches),
        patches[0].window.width,
    )


def spectral_angles(image: F64, other: F64) -> F64:
    """Angle between the spectra of each pixel, (C, ...) to (...) [degrees]."""
    lengths = np.linalg.norm(image, axis=0) * np.linalg.norm(other, axis=0)
    cosine = (image * other).sum(0) / np.maximum(lengths, 1e-12)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def measure_shift(reference: F64, image: F64) -> tuple[float, float]:
    """(dx, dy) [px]: what ``reference`` shows at p is in ``image`` at p + (dx, dy).

    The peak of the phase correlation gives whole pixels, and both are cut to what they then share.
    A plane through zero is laid through the phase of the cross-spectrum of low frequencies,
    weighted by its power; what it tells is taken out before the next round.

    Source: Stone et al., A fast direct Fourier-based algorithm for subpixel registration of images,
    IEEE TGRS 39 (2001).

    Args:
        reference: (height, width), without holes.
        image: the same.
    """
    cross, low, _ = _cross_spectrum(reference, image)
    size = np.maximum(np.abs(cross), 1e-12)
    surface = np.fft.ifft2(np.where(low, cross / size, 0)).real
    peak = np.unravel_index(int(surface.argmax()), surface.shape)
    y, x = (int(p + n // 2) % n - n // 2 for p, n in zip(peak, surface.shape, strict=True))
    if 2 * max(abs(x) / reference.shape[1], abs(y) / reference.shape[0]) > 1:
        y = x = 0  # too little is shared
    rows, columns = (
        (slice(max(0, -d), n - max(0, d)), slice(max(0, d), n + min(0, d)))
        for d, n in zip((y, x), reference.shape, strict=True)
    )
    cut = reference[rows[0], columns[0]], image[rows[1], columns[1]]
    dx, dy = _fit_phase(*_cross_spectrum(*cut))
    return x + dx, y + dy


def _cross_spectrum(reference: F64, image: F64) -> tuple[C128, Mask, F64]:
    """Cross-spectrum, which of it is low, and frequencies (2, ...) x, y [cycles / px]."""
    taper = np.outer(*(np.hanning(n + 2)[1:-1] for n in reference.shape))
    a, b = (np.fft.fft2((v - np.average(v, weights=taper)) * taper) for v in (reference, image))
    fy, fx = np.meshgrid(*map(np.fft.fftfreq, reference.shape), indexing="ij")
    return b * a.conj(), np.asarray(np.hypot(fx, fy) < _FREQUENCIES), np.stack([fx, fy])


def _fit_phase(cross: C128, low: Mask, frequency: F64) -> tuple[float, float]:
    """The shift below a pixel that explains the phase; zero where there is nothing to see."""
    # lines through zero carry the taper's edge
    used = low & (np.abs(frequency).max(0) > 1.5 / min(cross.shape))
    f, weight = 2 * np.pi * frequency[:, used], np.abs(cross[used])
    if not weight.any():
        return 0.0, 0.0
    shift, normal = np.zeros(2), (f * weight) @ f.T
    for _ in range(_ROUNDS):
        left = np.angle(cross[used] * np.exp(1j * (shift @ f)))
        shift -= np.linalg.solve(normal, (f * weight) @ left)
    return float(shift[0]), float(shift[1])


def _fill(image: F64, known: Mask) -> F64:
    """Holes with the mean."""
    return image if known.all() else np.where(known, image, image[known].mean())


def _correlate(a: F64, b: F64) -> float:
    a, b = a - a.mean(), b - b.mean()
    power = float(np.sqrt((a * a).mean() * (b * b).mean()))
    return float((a * b).mean()) / power if power else float("nan")


def _error_of_median(values: F64) -> F64:
    """Standard error, from the spread of the values."""
    spread = 1.4826 * np.median(np.abs(values - np.median(values, 0)), 0)
    return np.asarray(1.2533 * spread / np.sqrt(len(values)))


def _pair(values: F64) -> tuple[float, float]:
    return float(values[0]), float(values[1])

"""The same ground in two Sentinel-2 L1B detectors, with known truth and known motion.

Every band of either detector blurs a 5 m scene with its own MTF and samples it at its own places,
10 m apart, with the aliasing of the real instrument; then noise, whole DN, 12 bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy import ndimage

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.simulation.overlap_motion import BandShifts, OverlapMotion
from l1bsr_geo.simulation.scenes import MTF, TEN_METRE_BANDS

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

NOISE_SLOPE, NOISE_FLOOR = 0.010, 0.096
"""Variance [DN^2] = slope * DN + floor. Source: flat blocks of real L1B crops; at 480 DN it is the
signal-to-noise ratio of 214 that the instrument has there."""
TWELVE_BITS = 4095
REFERENCE = TEN_METRE_BANDS.index("B03")

_BORDER = 10  # [fine px] that blur and interpolation need around what is sampled
_KEPT = 0.85  # of the Nyquist frequency: what ``alias=False`` leaves alone


@dataclass(frozen=True, eq=False)
class SimulatedOverlap:
    """Two views of the same ground and all that is true of them.

    Attributes:
        views: (2, 4, H, W) uint16 [DN]: detector, band.
        motion: of every band of either view; exact, both ways.
        truth: (4, 2H, 2W) float32 [DN]: the blurred scene where B03 of view 0 saw it, on the
            corner-aligned grid: fine sample j lies at the coarse corner coordinate (j + 0.5) / 2.
    """

    views: npt.NDArray[np.uint16]
    motion: OverlapMotion
    truth: F32

    @property
    def flow(self) -> F32:
        """(2, 4, 2, H, W) [px], (dx, dy): pixel p of B03 of view 0 reads view (t, b) at p + it."""
        return self.motion.flow(self.views.shape[-2:])


def noise_sigma(dn: F32, noise: float = 1.0) -> F32:
    """Standard deviation of the noise [DN] at a signal [DN]."""
    return np.asarray(noise * np.sqrt(NOISE_SLOPE * np.maximum(dn, 0) + NOISE_FLOOR), np.float32)


def needed_scene(shape: tuple[int, int], shifts: BandShifts) -> tuple[int, int]:
    """Rows and columns of the smallest scene [fine px] for views of ``shape``."""
    margin = 2 * int(np.ceil(shifts.reach)) + _BORDER
    return 2 * shape[0] + 2 * margin, 2 * shape[1] + 2 * margin


def simulate_overlap(
    scene: F32,
    shape: tuple[int, int],
    *,
    shifts: BandShifts = BandShifts(),  # noqa: B008 - immutable
    noise: float = 1.0,
    alias: bool = True,
    mtf: Mapping[str, float] = MTF,
    seed: int = 0,
) -> SimulatedOverlap:
    """Two detectors' views of a scene.

    Args:
        scene: (4, rows, columns) radiance [DN] of B02, B03, B04, B08 at 5 m, registered;
            `needed_scene` large at least. The views are of its middle.
        shape: ``(H, W)`` of a view.
        shifts: how large the displacements are.
        noise: factor on the standard deviation of the noise.
        alias: without it, frequencies that 10 m cannot show are taken out before sampling; the
            truth keeps them.
        mtf: band to modulation at the Nyquist frequency of 10 m.
        seed: of everything random.

    Raises:
        BadInputError: the scene is too small, or has not four bands.
    """
    needed = needed_scene(shape, shifts)
    if len(scene) != len(TEN_METRE_BANDS) or min(np.subtract(scene.shape[1:], needed)) < 0:
        raise BadInputError(
            f"the scene is {scene.shape}; views of {shape} displaced by up to {shifts.reach:.1f} "
            f"px need four bands of at least {needed[0]} x {needed[1]}"
        )
    rng = np.random.default_rng(seed)
    motion = OverlapMotion.draw(rng, shape, shifts)
    top, left = ((n - 2 * m) // 2 for n, m in zip(scene.shape[1:], shape, strict=True))
    truth = np.empty((len(scene), 2 * shape[0], 2 * shape[1]), np.float32)
    views = np.empty((2, len(scene), *shape), np.float32)
    for b, band in enumerate(TEN_METRE_BANDS):
        blurred = blur(scene[b], mtf[band])
        truth[b] = blurred[top : top + 2 * shape[0], left : left + 2 * shape[1]]
        coefficients = ndimage.spline_filter(blurred if alias else without_alias(blurred), 5)
        for t in range(2):
            x, y = 2 * motion.places(t, b, shape) - 0.5
            views[t, b] = ndimage.map_coordinates(
                coefficients, np.stack([y + top, x + left]), np.float32, 5, prefilter=False
            )
    views += noise_sigma(views, noise) * rng.standard_normal(views.shape, np.float32)
    counts = np.clip(np.rint(views), 0, TWELVE_BITS).astype(np.uint16)
    return SimulatedOverlap(counts, motion, truth)


def blur(band: F32, mtf: float) -> F64:
    """A band at 5 m behind the instrument: Gaussian, ``mtf`` at the Nyquist frequency of 10 m."""
    sigma = 2 * np.sqrt(-2 * np.log(mtf)) / np.pi
    return np.asarray(ndimage.gaussian_filter(band.astype(np.float64), sigma, mode="mirror"))


def without_alias(band: F64) -> F64:
    """A band at 5 m without what 10 m samples cannot show; a smooth end below their Nyquist."""
    spectrum = scipy.fft.dctn(band, norm="ortho")
    for axis, n in enumerate(band.shape):
        f = np.arange(n) / n  # of the Nyquist frequency of 5 m
        rise = np.clip((2 * f - _KEPT) / (1 - _KEPT), 0, 1)
        response = np.cos(rise * np.pi / 2) ** 2
        spectrum *= response[:, None] if axis == 0 else response
    return np.asarray(scipy.fft.idctn(spectrum, norm="ortho"))

"""Bursts of a push-frame camera (SkySat) with known truth and known motion.

Optics and pixel blur a fine image, every frame samples it at its own sub-pixel place with aliasing,
for its own exposure time, with noise and saturation.

Source of the figures: the noise that HDR-DSP (Nguyen et al. 2022) measured on SkySat L1A, 3400 DN
to the full range; with 2.5 times its standard deviation (the default) shift-and-add and ACT reach
what DSA (Nguyen et al. 2021) publishes for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy import ndimage

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.simulation.burst_motion import Motion, made_relief

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]

NOISE_SLOPE, NOISE_FLOOR = 0.1187, 12.05  # variance [DN^2] = slope * DN + floor
OPTICS = 0.15  # [coarse px] standard deviation of the optical blur: MTF 0.64 * 0.90 at Nyquist

_TAPER = 16  # [fine px] around a frame, faded out before a Fourier shift


@dataclass(frozen=True, eq=False)
class SimulatedBurst:
    """A burst and all that is true of it. Frame 0 is the reference.

    Attributes:
        frames: (T, H, W) float32 [DN], not rounded.
        truth: (scale * H, scale * W) float32 [DN at exposure 1]: the scene behind optics and pixel
            on the fine, centre-aligned grid; its sample ``scale * i`` is where reference sample
            ``i`` was taken.
        flow: (T, 2, H, W) float32 [px]: reference pixel p is seen in frame t at p + flow(p).
        exposures: (T,) as the product would tell them.
        true_exposures: (T,) as they were.
        scale: fine pixels to a pixel.
        noise: factor on the standard deviation of the SkySat noise.
        saturated: [DN] nothing is brighter.
    """

    frames: F32
    truth: F32
    flow: F32
    exposures: F32
    true_exposures: F32
    scale: int
    noise: float
    saturated: float = FULL_SCALE

    @property
    def counts(self) -> npt.NDArray[np.uint16]:
        """The frames as a product holds them."""
        return np.clip(np.rint(self.frames), 0, 65535).astype(np.uint16)


def noise_sigma(dn: F32, noise: float = 1.0) -> F32:
    """Standard deviation of the noise [DN] at a signal [DN]."""
    variance = NOISE_SLOPE * np.maximum(dn, 0) + NOISE_FLOOR
    return np.asarray(noise * np.sqrt(variance), np.float32)


def camera_mtf(f_x: Floats, f_y: Floats, optics: float = OPTICS) -> F64:
    """What pixel and optics leave of frequencies [cycles per coarse pixel]; arguments broadcast."""
    blur = np.exp(-2 * np.pi**2 * optics**2 * (f_x * f_x + f_y * f_y))
    return np.asarray(np.sinc(f_x) * np.sinc(f_y) * blur, np.float64)


def simulate_burst(
    scene: F32,
    shape: tuple[int, int],
    frames: int = 15,
    *,
    scale: int = 2,
    noise: float = 2.5,
    offsets: Sequence[tuple[int, int]] | None = None,
    shift: float = 1.0,
    affine: float = 0.0,
    jitter: float = 0.0,
    parallax: float = 0.0,
    defocus: float = 0.0,
    exposures: Sequence[float] = (1.0,),
    exposure_error: float = 0.02,
    seed: int = 0,
) -> SimulatedBurst:
    """A burst of a fine image.

    Args:
        scene: (rows, columns) radiance [DN at exposure 1], ``scale`` times finer than the frames,
            with some margin around them.
        shape: ``(height, width)`` of a frame.
        frames: T, the reference included.
        scale: fine pixels to a pixel: 2 is the optics' cut-off, 3 for studies.
        noise: factor on the standard deviation of the SkySat noise.
        offsets: whole-pixel motion (dx, dy) of each frame against the reference; none by default.
        shift: sub-pixel motion is uniform within this [px].
        affine: standard deviation of the elements of the affine, 2e-4 is realistic.
        jitter: of the rows [px], 0.02 is realistic.
        parallax: of relief [px], 0.1 is realistic.
        defocus: largest extra Gaussian blur of a frame [px], 0.15 is realistic.
        exposures: one for each frame, or some to draw from; HDR bursts: (0.25, 0.5, 1, 2).
        exposure_error: relative, uniform: what the product does not know where there are several.
        seed: of everything random.

    Raises:
        BadInputError: the scene is too small.
    """
    if frames < 1 or scale < 1:
        raise BadOptionError(f"frames is {frames} and scale {scale}; both must be 1 or more")
    rng = np.random.default_rng(seed)
    whole = np.zeros((frames, 2), int) if offsets is None else np.asarray(offsets, int)
    motions = [
        Motion.draw(rng, shape, whole[t], t > 0, shift, affine, jitter, parallax)
        for t in range(frames)
    ]
    if parallax:
        hills = made_relief(rng, shape)
        motions = [m.over(hills) for m in motions]
    told, exposure = _exposures(rng, frames, exposures, exposure_error)
    blurred = _behind_optics(scene, scale)
    row, column = _place_reference(scene.shape, shape, whole, scale)
    out = np.empty((frames, *shape), np.float32)
    for t, motion in enumerate(motions):
        sigma = rng.uniform(0, defocus) if t and defocus else 0.0
        clean = exposure[t] * _expose(blurred, (row, column), shape, motion, scale, sigma)
        noisy = clean + noise_sigma(clean, noise) * rng.standard_normal(shape, np.float32)
        out[t] = np.minimum(noisy, FULL_SCALE)
    truth = blurred[row : row + scale * shape[0], column : column + scale * shape[1]]
    flow = np.stack([m.flow(shape) for m in motions])
    return SimulatedBurst(out, truth.copy(), flow, told, exposure, scale, noise)


def _exposures(
    rng: np.random.Generator, frames: int, steps: Sequence[float], error: float
) -> tuple[F32, F32]:
    """Exposures as told, and as they are."""
    told = np.asarray(steps if len(steps) == frames else rng.choice(steps, frames), np.float32)
    wrong = error if len(set(steps)) > 1 else 0.0
    return told, (told * (1 + rng.uniform(-wrong, wrong, frames))).astype(np.float32)


def _behind_optics(scene: F32, scale: int) -> F32:
    margin = 4 * scale
    padded = np.pad(scene.astype(np.float32), margin, mode="reflect")
    fast = [scipy.fft.next_fast_len(n, real=True) for n in padded.shape]
    padded = np.pad(padded, [(0, f - n) for f, n in zip(fast, padded.shape, strict=True)], "edge")
    f_y, f_x = np.fft.fftfreq(fast[0])[:, None], np.fft.rfftfreq(fast[1])
    mtf = camera_mtf(f_x * scale, f_y * scale).astype(np.float32)
    blurred = scipy.fft.irfft2(scipy.fft.rfft2(padded) * mtf, fast)
    inside = tuple(slice(margin, margin + n) for n in scene.shape)
    return np.ascontiguousarray(blurred[inside], np.float32)


def _place_reference(
    scene: tuple[int, ...],
    shape: tuple[int, int],
    offsets: npt.NDArray[np.int_],
    scale: int,
) -> tuple[int, int]:
    """Fine (row, column) of the reference's first sample, so that every frame is in the scene."""
    place = []
    for axis, name in ((0, "rows"), (1, "columns")):
        moved = -offsets[:, 1 - axis] * scale
        span = int(np.ptp(moved)) + scale * shape[axis]
        room = scene[axis] - span
        if room < 2 * (_TAPER + 2 * scale):
            raise BadInputError(
                f"the scene has {scene[axis]} {name}; {span + 2 * (_TAPER + 2 * scale)} are needed "
                f"for frames of {shape[axis]} at scale {scale} and their offsets"
            )
        place.append(room // 2 - int(moved.min()))
    return place[0], place[1]


def _expose(
    blurred: F32,
    origin: tuple[int, int],
    shape: tuple[int, int],
    motion: Motion,
    scale: int,
    defocus: float,
) -> F32:
    """A frame without noise, at exposure 1."""
    whole = np.rint(motion.affine[:, 2]).astype(int)
    row, column = (origin[i] - scale * whole[1 - i] - _TAPER for i in (0, 1))
    size = [scale * n + 2 * _TAPER for n in shape]
    piece = blurred[row : row + size[0], column : column + size[1]]
    if motion.translation is not None:
        move = scale * (motion.translation - whole)
        fine = _in_fourier(piece, (float(move[0]), float(move[1])), scale * defocus)
        return fine[_TAPER:-_TAPER:scale, _TAPER:-_TAPER:scale]
    if defocus:
        piece = _in_fourier(piece, (0.0, 0.0), scale * defocus)
    x, y = motion.places(shape) + whole[:, None, None] - 0.5
    at = np.stack([y, x]) * scale + _TAPER
    return np.asarray(ndimage.map_coordinates(piece, at, np.float32, 5, "mirror"), np.float32)


def _in_fourier(piece: F32, move: tuple[float, float], sigma: float) -> F32:
    """The piece moved by (dx, dy) and blurred, exactly; its margin is spent."""
    ramp = np.sin((np.arange(_TAPER) + 0.5) / _TAPER * np.pi / 2) ** 2
    mean = float(piece.mean())
    faded = piece - mean
    for axis, n in enumerate(piece.shape):
        window = np.concatenate([ramp, np.ones(n - 2 * _TAPER), ramp[::-1]]).astype(np.float32)
        faded = faded * (window[:, None] if axis == 0 else window)
    f_y, f_x = np.fft.fftfreq(piece.shape[0])[:, None], np.fft.rfftfreq(piece.shape[1])
    turn = np.exp(-2j * np.pi * (f_x * move[0] + f_y * move[1]))
    turn = turn * np.exp(-2 * np.pi**2 * sigma**2 * (f_x * f_x + f_y * f_y))
    return np.asarray(
        scipy.fft.irfft2(scipy.fft.rfft2(faded) * turn, piece.shape) + mean, np.float32
    )

"""Bursts of raw Bayer mosaics of a colour photograph, with known truth and known motion.

Every frame sees the scene through an affine of its own and samples one colour at each pixel, with
noise. What a frame would be with all colours and no noise is its truth.

Source: Ehret, Davy, Arias, Facciolo, Joint demosaicking and denoising by fine-tuning of bursts of
raw images, ICCV 2019, whose bursts are made this way from the Kodak photographs.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.ops.mosaic import Pattern, sample_mosaic

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_MARGIN = 8  # [px] of the scene around what frames see, for the spline


@dataclass(frozen=True, eq=False)
class MosaicBurst:
    """A burst of mosaics and all that is true of it. Frame 0 is the reference.

    Attributes:
        frames: (T, H, W) float32 [DN], neither rounded nor clipped.
        truth: (T, 3, H, W) float32 [DN]: red, green and blue of every frame, without noise.
        motion: (T, 3, 3): reference pixel p is at ``motion[t] @ (x, y, 1)`` of frame t.
        pattern: of every frame.
    """

    frames: F32
    truth: F32
    motion: F64
    pattern: Pattern

    @property
    def flow(self) -> F32:
        """Where frames show what a pixel p of the reference does, against p: (T, 2, H, W) [px]."""
        y, x = np.mgrid[: self.frames.shape[1], : self.frames.shape[2]] + 0.5
        linear = self.motion[:, :2, :2] - np.eye(2)
        flow = np.einsum("tij,jhw->tihw", linear, np.stack([x, y]))
        return np.asarray(flow + self.motion[:, :2, 2, None, None], np.float32)


def simulate_mosaics(
    scene: F32,
    shape: tuple[int, int],
    frames: int = 12,
    *,
    pattern: Pattern = "rggb",
    noise: float = 10.0,
    shift: float = 6.0,
    affine: float = 2e-3,
    seed: int = 0,
) -> MosaicBurst:
    """A burst of a colour photograph.

    Args:
        scene: (3, rows, columns) [DN] red, green, blue; larger than the frames by what they move.
        shape: ``(height, width)`` of a frame.
        frames: T, the reference included.
        pattern: colours of the first two rows, as in `ops.mosaic`.
        noise: standard deviation [DN], white and Gaussian.
        shift: motion of the frame's centre is uniform within this [px].
        affine: standard deviation of the elements of the linear part; 2e-3 is a hand's.
        seed: of everything random.

    Raises:
        BadOptionError: a burst of no frame, or noise below zero.
        BadInputError: the scene has not three colours, or is too small.
    """
    if frames < 1 or noise < 0:
        raise BadOptionError(f"frames is {frames} and noise {noise:g}; 1 and 0 are the least")
    if scene.ndim != 3 or len(scene) != 3:
        raise BadInputError(f"a scene of shape {scene.shape}; (3, rows, columns) was expected")
    rng = np.random.default_rng(seed)
    motion = np.stack([draw_motion(rng, shape, shift, affine, t > 0) for t in range(frames)])
    truth = np.stack([_see(scene, shape, one) for one in motion])
    mosaics = sample_mosaic(torch.from_numpy(truth), pattern)[:, 0].numpy()
    noisy = mosaics + np.float32(noise) * rng.standard_normal(mosaics.shape, np.float32)
    return MosaicBurst(noisy, truth, motion, pattern)


def draw_motion(
    rng: np.random.Generator,
    shape: tuple[int, int],
    shift: float,
    affine: float,
    moves: bool = True,
) -> F64:
    """A random affine about the middle of a frame, (3, 3); the identity where not ``moves``."""
    motion = np.eye(3)
    if moves:
        centre = np.array(shape[::-1]) / 2
        linear = affine * rng.standard_normal((2, 2))
        motion[:2, :2] += linear
        motion[:2, 2] = rng.uniform(-shift, shift, 2) - linear @ centre
    return motion


def _see(scene: F32, shape: tuple[int, int], motion: F64) -> F32:
    """A frame (3, height, width); the reference is the middle of the scene."""
    origin = np.array([n - m for n, m in zip(scene.shape[1:], shape, strict=True)]) // 2
    if (motion == np.eye(3)).all() and min(origin) >= 0:
        return scene[:, origin[0] : origin[0] + shape[0], origin[1] : origin[1] + shape[1]]
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    back = np.linalg.inv(motion)
    at = np.einsum("ij,jhw->ihw", back[:2, :2], np.stack([x, y])) + back[:2, 2, None, None]
    row, column = at[1] - 0.5 + origin[0], at[0] - 0.5 + origin[1]
    first = np.floor([row.min(), column.min()]).astype(int) - _MARGIN
    last = np.ceil([row.max(), column.max()]).astype(int) + _MARGIN + 1
    if (first < 0).any() or (last > scene.shape[1:]).any():
        raise BadInputError(
            f"a scene of {scene.shape[1]} x {scene.shape[2]} px is too small for frames of "
            f"{shape[0]} x {shape[1]} and their motion: rows {first[0]} to {last[0]} and columns "
            f"{first[1]} to {last[1]} are needed"
        )
    piece = scene[:, first[0] : last[0], first[1] : last[1]]
    places = [row - first[0], column - first[1]]
    return np.stack(
        [ndimage.map_coordinates(band, places, np.float32, 5, "mirror") for band in piece]
    )

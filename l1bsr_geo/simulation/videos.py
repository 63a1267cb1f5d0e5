"""Clips of photographs in motion: a ground that moves as a whole, and things that move over it.

A clip has two layers, each a scene seen through an affine motion of its own. The ground fills the
frame; the foreground is a patch with soft edges, which hides ground and uncovers it again. The
motion of both is known exactly.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from l1bsr_geo.errors import BadInputError

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
PEAK = 255.0

_SPLINE = 4  # [px] that a spline wants around what is read


@dataclass(frozen=True, kw_only=True)
class MotionRange:
    """How clips move; each draws its own values, uniform up to these.

    Attributes:
        speed: [px per frame] of the ground.
        turn: [rad per frame] about the middle.
        zoom: relative, per frame.
        jitter: [px] standard deviation of a frame's place.
        magnification: least and most pixels to a scene pixel: above 1 makes soft images.
        foreground: chance that there is one.
        foreground_speed: [px per frame] against the ground.
    """

    speed: float = 4.0
    turn: float = 0.01
    zoom: float = 0.01
    jitter: float = 0.3
    magnification: tuple[float, float] = (1.0, 2.0)
    foreground: float = 0.7
    foreground_speed: float = 6.0


@dataclass(frozen=True, eq=False)
class SimulatedVideo:
    """A clip and all that is known of it.

    Attributes:
        frames: (T, C, H, W), 0 to 255, without noise.
        ground: (T, 2, 3): pixel (x, y) of frame t shows the ground's scene at
            ground[t] @ (x, y, 1); pixel centres are whole.
        foreground: the same of the foreground.
        cover: (T, H, W) from 0 to 1, how much the foreground hides the ground.
    """

    frames: F32
    ground: F64
    foreground: F64
    cover: F32

    def flow(self, first: int, second: int) -> F32:
        """Motion of what is seen: where each pixel of one frame is in another, against its place.

        Returns:
            (2, H, W) [px] (dx, dy).
        """
        shape = self.frames.shape[-2:]
        both = [
            _apply(_invert(layer[second]), _apply(layer[first], _pixels(shape)))
            for layer in (self.ground, self.foreground)
        ]
        seen = np.where(self.cover[first] > 0.5, both[1], both[0])
        return np.asarray(seen - _pixels(shape), np.float32)

    def visible(self, first: int, second: int) -> npt.NDArray[np.bool_]:
        """Whether what a pixel of the first frame shows is seen in the second, (H, W)."""
        height, width = self.frames.shape[-2:]
        x, y = _pixels((height, width)) + self.flow(first, second)
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        there = ndimage.map_coordinates(self.cover[second], [y, x], order=1, mode="nearest")
        return np.asarray(inside & ((there > 0.5) == (self.cover[first] > 0.5)))


def reduce_photograph(pixels: npt.NDArray[np.floating] | npt.NDArray[np.uint8], by: int) -> F32:
    """A photograph reduced by a Lanczos kernel, which removes what JPEG and colour filters left.

    Args:
        pixels: (C, rows, columns), 0 to 255.
        by: pixels to a pixel of the result.
    """
    length = 6 * by + by % 2
    t = (np.arange(length) - (length - 1) / 2) / by
    taps = (np.sinc(t) * np.sinc(t / 3)).astype(np.float32)
    reduced, late = pixels.astype(np.float32), (length + by - 2) // 2
    before = 3 * by + -late % by
    for axis in (1, 2):
        count, first = reduced.shape[axis] // by, (before + late) // by
        around = [(0, 0)] * 3
        around[axis] = (before, 3 * by)
        padded = np.pad(reduced, around, "symmetric")
        filtered = signal.upfirdn(taps / taps.sum(), padded, down=by, axis=axis)
        reduced = np.take(filtered, np.arange(first, first + count), axis)
    return np.clip(reduced, 0, PEAK)


def simulate_video(
    scene: F32,
    other: F32,
    shape: tuple[int, int],
    frames: int,
    rng: np.random.Generator,
    motion: MotionRange = MotionRange(),
) -> SimulatedVideo:
    """A clip of a place drawn from a scene, with a patch of another scene moving over it.

    Args:
        scene: (C, rows, columns), 0 to 255.
        other: the same, of the foreground; may be the scene itself.
        shape: ``(height, width)`` of a frame.
        frames: T.
        rng: of everything random.
        motion: how it moves.

    Raises:
        BadInputError: a scene is too small for the frames and their motion.
    """
    scale = 1 / rng.uniform(*motion.magnification)
    velocity = _draw_velocity(rng, motion.speed)
    ground = _draw_path(rng, frames, velocity, motion, scale)
    against = velocity + _draw_velocity(rng, motion.foreground_speed)
    foreground = _draw_path(rng, frames, against, motion, scale)
    images, ground = _see(scene, shape, ground, rng)
    cover = np.zeros((frames, *shape), np.float32)
    if rng.random() < motion.foreground:
        patch, placed = _see(other, shape, foreground, rng)
        cover = _draw_cover(rng, shape, foreground, scale)
        images += cover[:, None] * (patch - images)
        foreground = placed
    return SimulatedVideo(np.clip(images, 0, PEAK), ground, foreground, cover)


def _draw_velocity(rng: np.random.Generator, speed: float) -> F64:
    angle = rng.uniform(0, 2 * np.pi)
    return rng.uniform(0, speed) * np.array([np.cos(angle), np.sin(angle)])


def _draw_path(
    rng: np.random.Generator, frames: int, velocity: F64, motion: MotionRange, scale: float
) -> F64:
    """Affines (T, 2, 3) from a frame's pixels, counted from its middle, to scene pixels.

    The middle frame lies at 0; the speed changes by up to a half over the clip.
    """
    t = np.arange(frames) - frames // 2
    turn = rng.uniform(-motion.turn, motion.turn) * t
    size = scale * np.exp(rng.uniform(-motion.zoom, motion.zoom) * t)
    faster = rng.uniform(-0.5, 0.5) / max(frames, 2)
    places = np.outer(t + faster * t * t, velocity) + motion.jitter * rng.standard_normal(
        (frames, 2)
    )
    cos, sin = size * np.cos(turn), size * np.sin(turn)
    linear = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1)
    return np.concatenate([linear, -scale * places[:, :, None]], 2)


def _see(
    scene: F32, shape: tuple[int, int], path: F64, rng: np.random.Generator
) -> tuple[F32, F64]:
    """Frames (T, C, H, W) of a place of a scene, and the path from their pixels to the scene."""
    middle = (np.array(shape[::-1]) - 1) / 2
    path = path.copy()
    path[:, :, 2] -= path[:, :, :2] @ middle
    places = np.stack([_apply(affine, _pixels(shape)) for affine in path])  # (T, 2, H, W) x, y
    low = np.floor(places.min((0, 2, 3))).astype(int) - _SPLINE
    size = np.ceil(places.max((0, 2, 3))).astype(int) + _SPLINE + 1 - low
    room = np.array(scene.shape[:0:-1]) - size
    if room.min() < 0:
        raise BadInputError(
            f"a scene of {scene.shape[1]} x {scene.shape[2]} px is too small for clips of "
            f"{shape[0]} x {shape[1]} px: they see {size[1]} x {size[0]} px of it"
        )
    left, top = (int(rng.integers(0, n + 1)) for n in room)
    piece = scene[:, top : top + size[1], left : left + size[0]]
    at = (places - low[:, None, None])[:, ::-1]
    images = np.empty((len(path), len(scene), *shape), np.float32)
    for band, image in enumerate(piece):
        spline = ndimage.spline_filter(image, 3, np.float32, mode="mirror")
        for t, where in enumerate(at):
            ndimage.map_coordinates(spline, where, images[t, band], 3, "mirror", prefilter=False)
    path[:, :, 2] += np.array([left, top]) - low
    return images, path


def _draw_cover(rng: np.random.Generator, shape: tuple[int, int], path: F64, scale: float) -> F32:
    """How much a blob on the foreground covers, (T, H, W): an ellipse with a ragged, soft edge."""
    middle = (np.array(shape[::-1]) - 1) / 2
    axes = rng.uniform(0.1, 0.35, 2) * np.array(shape[::-1])
    place = rng.uniform(-0.3, 0.3, 2) * np.array(shape[::-1])
    phases, soft = rng.uniform(0, 2 * np.pi, 3), rng.uniform(0.5, 1.5)
    cover = np.empty((len(path), *shape), np.float32)
    for t, affine in enumerate(path):
        x, y = _apply(affine, _pixels(shape) - middle[:, None, None]) / scale - place[:, None, None]
        angle = np.arctan2(y / axes[1], x / axes[0])
        ragged = 1 + sum(0.12 * np.sin(k * angle + phases[k - 2]) for k in (2, 3, 4))
        depth = (ragged - np.hypot(x / axes[0], y / axes[1])) * axes.min()  # about px
        cover[t] = np.clip(depth / (2 * soft) + 0.5, 0, 1)
    return cover


def _pixels(shape: tuple[int, int]) -> F64:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    return np.stack([x, y])


def _apply(affine: F64, points: F64) -> F64:
    """Points (2, H, W) through an affine (2, 3)."""
    moved = np.tensordot(affine[:, :2], points, 1) + affine[:, 2, None, None]
    return np.asarray(moved, np.float64)


def _invert(affine: F64) -> F64:
    linear = np.linalg.inv(affine[:, :2])
    return np.column_stack([linear, -linear @ affine[:, 2]])


def vary_look(images: F32, rng: np.random.Generator) -> F32:
    """The same with another light: contrast, brightness, saturation and order of bands.

    Half of them also get a light that changes smoothly over the image.

    Args:
        images: (T, C, H, W), 0 to 255.
        rng: of everything random.

    Returns:
        (T, C, H, W), 0 to 255.
    """
    bands, (height, width) = images.shape[1], images.shape[-2:]
    out = images[:, rng.permutation(bands)]
    grey = out.mean(1, keepdims=True)
    out = grey + np.float32(rng.uniform(0.2, 1.2)) * (out - grey)
    if rng.random() < 0.5:
        corners = rng.normal(0, 0.25, (2, 2))
        across = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
        light = sum(
            corners[i, j] * np.abs(1 - i - across[0]) * np.abs(1 - j - across[1])
            for i in (0, 1)
            for j in (0, 1)
        )
        out = out * np.exp(light).astype(np.float32)
    mean = float(out.mean())
    out = mean + np.float32(rng.uniform(0.4, 1.2)) * (out - mean) + np.float32(rng.normal(0, 25))
    return np.asarray(np.clip(out, 0, PEAK), np.float32)

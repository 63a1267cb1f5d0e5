"""Restoring a video that may be longer and larger than memory: chunks of time, tiles of space.

A chunk is some frames of a shot, read with those around them that the model's stack needs; within a
chunk the model goes over tiles with halos. Nothing is kept but the chunk, so memory does not grow
with the length of the video; where whole frames are too large to wait, tiles read their own part.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.videos import Video, VideoOf
from l1bsr_geo.models.registry import Model
from l1bsr_geo.restoration.noise_level import Noise
from l1bsr_geo.tiling.nodata import fill_nodata
from l1bsr_geo.tiling.plan import TilePlan

F32: TypeAlias = npt.NDArray[np.float32]
Restored: TypeAlias = tuple[int, F32]
"""Number of a frame in the video, and the frame (C, H, W) [DN], NaN where there is no data."""
NoiseMap: TypeAlias = Callable[[F32], F32]
"""A frame (C, H, W) [DN] without gaps to the standard deviation of its noise (1, H, W) [DN]."""

CHUNK = 16
"""Frames that are restored together, at most."""
MEMORY = 512 * 2**20
"""[bytes] of frames that wait to be restored, about."""

_LIGHT = 4.0  # [px] standard deviation: brightness that a map of noise follows


@dataclass(frozen=True, eq=False)
class ScaledVideo(VideoOf):
    """A video whose values are a multiple of another's: 12-bit DN as if white were 255.

    Attributes:
        video: as stored.
        factor: of its values.
    """

    factor: float

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32."""
        return np.dtype(np.float32)

    @property
    def nodata(self) -> None:
        """No value means no data but NaN."""
        return None

    def read(self, t: int, window: Window | None = None) -> F32:
        """A frame, or a window inside it: (C, H, W), NaN where there is no data."""
        return self.video.read(t, window) * np.float32(self.factor)


def map_noise(noise: Noise) -> NoiseMap:
    """What a network is told of known noise: its deviation at the brightness around each pixel."""

    def tell(frame: F32) -> F32:
        if noise.a == 0:
            return np.full((1, *frame.shape[1:]), noise.b**0.5, np.float32)
        light = gaussian_filter(frame.mean(0), _LIGHT, mode="nearest")
        return noise.deviation(light)[None].astype(np.float32)

    return tell


def restore_video(
    model: Model,
    video: Video,
    *,
    shots: Sequence[range] | None = None,
    noise: NoiseMap | None = None,
    tile: int | None = None,
    chunk: int = CHUNK,
    memory: int = MEMORY,
    start: int = 0,
) -> Iterator[Restored]:
    """All frames in order, each with the help of those around it in its shot.

    Args:
        model: of scale 1, of single frames or of stacks in order of time.
        video: noisy.
        shots: what cuts part; the whole video where None.
        noise: what the model is told; what is usual for it where None.
        tile: largest core of a tile [px]; chosen by the model's halo where None.
        chunk: frames that are restored together, at most.
        memory: [bytes] of frames that wait, about; fewer frames go together where it is short.
        start: the first frame that is wanted; none before it is restored.

    Yields:
        Number of the frame and (C, H, W) [DN], NaN where the frame has no data.

    Raises:
        BadInputError: a frame has no data at all; bands that the model does not take.
    """
    plan = TilePlan.for_model(model.spec, video.shape, size=tile)
    half = model.spec.frames[1] // 2
    size = 4 * len(video.bands) * video.shape[0] * video.shape[1]  # [bytes] of a frame
    together = int(np.clip(memory // size - 2 * half, 1, chunk))
    whole = size * (together + 2 * half) <= 2 * memory
    for shot in shots or [range(video.frames)]:
        frames = _Frames(video, shot, plan, whole)
        for first in range(max(shot.start, start), shot.stop, together):
            times = range(first, min(first + together, shot.stop))
            frames.drop_before(first - half)
            restored = _restore_chunk(model, frames, plan, times, half, noise)
            for t, frame in zip(times, restored, strict=True):
                known = frames.known(t)
                if not known.any():
                    raise BadInputError(
                        f"frame {t} has no data at all; leave it out (--frames), or mend it"
                    )
                # where colours were made of one band there are more of them
                yield t, np.where(known, frame, np.float32(np.nan))


def _restore_chunk(
    model: Model,
    frames: "_Frames",
    plan: TilePlan,
    times: range,
    half: int,
    noise: NoiseMap | None,
) -> list[F32]:
    """Frames of a chunk, restored tile by tile."""
    around = range(times.start - half, times.stop + half)
    results: list[F32] = []
    for tile in plan:
        stack = np.stack([frames.read(t, tile.read) for t in around])
        told = None if noise is None else np.stack([noise(frame) for frame in stack])
        restored = model.restore_sequence(stack, told)[half : half + len(times)]
        if not results:
            shape = (restored.shape[1], *plan.shape)
            results = [np.empty(shape, np.float32) for _ in times]
        for result, part in zip(results, restored, strict=True):
            result[:, *tile.core.slices] = part[:, *tile.crop.slices]
    return results


class _Frames:
    """Frames of a shot without gaps, mirrored at its ends; whole ones wait until they are dropped.

    What fills a gap must not depend on the tile: a window with gaps is read so much larger that
    what is nearest is seen, or the frame is filled as a whole.
    """

    def __init__(self, video: Video, shot: range, plan: TilePlan, whole: bool) -> None:
        self._video, self._shot, self._whole = video, shot, whole
        self._margin = ceil(sqrt(2) * (plan.halo + plan.multiple))
        self._kept: dict[int, tuple[F32, npt.NDArray[np.bool_]]] = {}

    def read(self, t: int, window: Window) -> F32:
        """A window of a frame (C, H, W), its gaps filled by what is nearest."""
        t = self._mirror(t)
        if self._whole:
            return self._load(t)[0][:, *window.slices]
        pixels = self._video.read(t, window)
        if np.isfinite(pixels).all():
            return pixels
        wide = window.grow(self._margin).intersect(GeoGrid(self._video.shape).window)
        around = self._video.read(t, wide)
        inside = window.shift(-wide.col_off, -wide.row_off).slices
        filled: F32 = fill_nodata(around[None], np.isfinite(around)[None])[0][:, *inside]
        return filled

    def known(self, t: int) -> npt.NDArray[np.bool_]:
        """Where a frame has data, (C, H, W)."""
        known: npt.NDArray[np.bool_] = (
            self._load(t)[1] if self._whole else np.isfinite(self._video.read(t))
        )
        return known

    def drop_before(self, t: int) -> None:
        """Forget frames that are over."""
        self._kept = {k: frame for k, frame in self._kept.items() if k >= t}

    def _load(self, t: int) -> tuple[F32, npt.NDArray[np.bool_]]:
        if t not in self._kept:
            pixels = self._video.read(t)
            known = np.isfinite(pixels)
            self._kept[t] = fill_nodata(pixels[None], known[None])[0], known
        return self._kept[t]

    def _mirror(self, t: int) -> int:
        """The frame for one beyond the ends of the shot: -1 is 1, as often as needed."""
        period = max(2 * (len(self._shot) - 1), 1)
        place = (t - self._shot.start) % period
        return self._shot[min(place, period - place)]

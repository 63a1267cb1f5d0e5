"""Windows of one's own noisy video to learn from: frames, their motion, and what hides what.

Motion is found in the noisy frames, once for each window, and kept: in half precision, in memory
that is bounded, or on disk. Windows never cross a cut.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.videos import Video
from l1bsr_geo.models.fastdvdnet import mirror
from l1bsr_geo.ops.occlusion import Visibility, find_visible
from l1bsr_geo.ops.tvl1 import estimate_flow
from l1bsr_geo.tiling.nodata import fill_nodata
from l1bsr_geo.training.objective import Batch

F32: TypeAlias = npt.NDArray[np.float32]
F16: TypeAlias = npt.NDArray[np.float16]
NoiseMap: TypeAlias = Callable[[F32], F32]
"""A noisy frame (C, H, W) [DN] to the standard deviation of its noise (1, H, W) [DN]."""

_VISIBLE, _OCCLUDED, _UNKNOWN = 0, 1, 2


@dataclass(frozen=True)
class MotionRules:
    """How the motion between two noisy frames is found, and where it may be trusted.

    Attributes:
        smoothness: see `estimate_flow`.
        finest: scale, see `estimate_flow`.
        photometric: whether what differs too much, and what several pixels move to, counts as
            hidden.
        border: [px] that is not compared.
    """

    smoothness: float = 0.15
    finest: int = 0
    photometric: bool = True
    border: int = 2

    def find(self, first: Tensor, second: Tensor, full_scale: float) -> tuple[Tensor, Visibility]:
        """The flow (1, 2, H, W) from the first frame (1, C, H, W) to the second, and what is seen.

        Args:
            first: [DN], NaN where there are no data.
            second: the same.
            full_scale: [DN] of white.
        """
        grey = [frame.mean(1, keepdim=True) for frame in (first, second)]
        flow = estimate_flow(*grey, smoothness=self.smoothness, finest=self.finest)
        shown = find_visible(
            first,
            second,
            flow,
            full_scale=full_scale if self.photometric else None,
            density=1.6 if self.photometric else None,
            reach="square" if self.photometric else "cross",
            border=self.border,
        )
        return flow, shown


MF2F_RULES = MotionRules()
F2F_RULES = MotionRules(smoothness=0.2, finest=2, photometric=False, border=1)


class OwnVideo:
    """A source of windows of a video, whole or cropped at random places.

    Args:
        video: noisy.
        reach: frames on each side of the reference.
        targets: the K frames that are to be held out, against the reference.
        crop: [px] of the samples; whole frames where None.
        shots: first and last frame but one of what cuts part; the whole video where None.
        truth: without noise, where it is known.
        noise: what the network is to be told of the noise; nothing where None.
        full_scale: [DN] of white: 255, or what 12-bit data come to.
        rules: how motion is found and judged: those of MF2F or of F2F.
        memory: [bytes] for frames that were read, and as much for motion, at most.
        folder: where motion waits on disk, instead of in memory; of this video alone, so that what
            is there already is used.

    Attributes:
        times: references that windows are around.

    Raises:
        BadInputError: no shot is so long as a window.
        BadOptionError: a crop that is larger than a frame.
    """

    def __init__(
        self,
        video: Video,
        *,
        reach: int = 4,
        targets: Sequence[int] = (-1, 1),
        crop: int | None = None,
        shots: Sequence[range] | None = None,
        truth: Video | None = None,
        noise: NoiseMap | None = None,
        full_scale: float = 255.0,
        rules: MotionRules = MF2F_RULES,
        memory: int = 1 << 30,
        folder: Path | None = None,
    ) -> None:
        self.video, self.targets = video, tuple(targets)
        self.reach = max(reach, *map(abs, targets))
        self.shots = list(shots) if shots is not None else [range(video.frames)]
        self.crop, self.noise, self._truth = crop, noise, truth
        self._full_scale, self._rules = full_scale, rules
        self._frames = _Kept(video.read, memory)
        self._filled = _Kept(self._fill, memory)
        self._motions = _Kept(self._find_motion, memory, folder)
        around = self.reach
        self.times = tuple(t for s in self.shots for t in s[around : len(s) - around])
        longest = max(map(len, self.shots), default=0)
        if not self.times:
            raise BadInputError(
                f"the video has {video.frames} frames, {longest} without a cut; learning from it "
                f"needs {2 * around + 1} at least, of which the network sees some and is compared "
                "with another"
            )
        if crop is not None and not 1 <= crop <= min(video.shape):
            raise BadOptionError(
                f"crop: found {crop}, but the frames are {video.shape[0]} x {video.shape[1]} px"
            )

    def at(self, times: Iterable[int]) -> "OwnVideo":
        """The same with fewer references; what is kept is shared."""
        fewer = copy.copy(self)
        fewer.times = tuple(times)
        return fewer

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Windows around references drawn at random, each once before any twice; see `Source`."""
        rounds = -(-count // len(self.times))
        times = np.concatenate([rng.permutation(self.times) for _ in range(rounds)])[:count]
        return join_batches([self.window(int(t), self._place(rng)) for t in times])

    def window(self, t: int, place: Window | None = None) -> Batch:
        """The window around a reference, or a part of it; a batch of one.

        Returns:
            views (1, T, C, H, W) [DN] without gaps; flow (1, K, 1, 2, H, W) [px] from the frames
            that are to be held out to the reference; visible and occluded (1, K, H, W), which are
            both 0 where the motion leaves the frame or there is no data.
        """
        rows, columns = (place or Window(0, 0, *self.video.shape[::-1])).slices
        motion = torch.from_numpy(self._motions[t][..., rows, columns].astype(np.float32))
        return Batch(
            torch.from_numpy(self.stack(t, range(-self.reach, self.reach + 1), place))[None],
            flow=motion[None, :, None, :2],
            truth=self._read_other(self._truth, t, rows, columns),
            noise=self.map_noise(t, place),
            visible=(motion[None, :, 2] == _VISIBLE).float(),
            occluded=(motion[None, :, 2] == _OCCLUDED).float(),
        )

    def stack(self, t: int, offsets: Iterable[int], place: Window | None = None) -> F32:
        """Frames around a reference, (T, C, H, W) [DN], gaps filled by what is nearest.

        Beyond the ends of its shot the video is mirrored. What fills a gap does not depend on the
        place.
        """
        rows, columns = (place or Window(0, 0, *self.video.shape[::-1])).slices
        return np.stack([self._filled[k][:, rows, columns] for k in self._around(t, offsets)])

    def frame(self, t: int) -> F32:
        """A frame, (C, H, W) [DN], NaN where there are no data."""
        return self._frames[t]

    def map_noise(self, t: int, place: Window | None = None) -> Tensor | None:
        """What the network is told of the noise of a frame, or a part of it, (1, 1, H, W) [DN]."""
        if self.noise is None:
            return None
        rows, columns = (place or Window(0, 0, *self.video.shape[::-1])).slices
        level = self.noise(self._filled[t])
        return torch.from_numpy(level[None, :, rows, columns].astype(np.float32))

    def _fill(self, t: int) -> F32:
        frame = self._frames[t]
        known = np.isfinite(frame)
        return frame if known.all() else fill_nodata(frame[None], known[None])[0]

    def _read_other(
        self, video: Video | None, t: int, rows: slice, columns: slice
    ) -> Tensor | None:
        if video is None:
            return None
        return torch.from_numpy(video.read(t)[None, :, rows, columns])

    def _place(self, rng: np.random.Generator) -> Window | None:
        if self.crop is None:
            return None
        top, left = (int(rng.integers(n - self.crop + 1)) for n in self.video.shape)
        return Window(left, top, self.crop, self.crop)

    def _around(self, t: int, offsets: Iterable[int]) -> list[int]:
        """Frames around one; beyond the ends of its shot they come again, backwards."""
        for shot in self.shots:
            if t in shot:
                return [shot[mirror(t + k - shot.start, len(shot))] for k in offsets]
        raise BadOptionError(f"frame {t} is in no shot of the video")

    def _find_motion(self, t: int) -> F16:
        """(K, 3, H, W): motion from each held-out frame to the reference [px], and what is seen."""
        motions = []
        for target in self.targets:
            first, second = (torch.from_numpy(self._frames[k])[None] for k in (t + target, t))
            flow, shown = self._rules.find(first, second, self._full_scale)
            code = torch.full_like(flow[:, :1], _UNKNOWN)
            code[shown.occluded & first.isfinite().all(1, keepdim=True)] = _OCCLUDED
            code[shown.visible] = _VISIBLE
            motions.append(torch.cat([flow, code], 1)[0])
        found: F16 = torch.stack(motions).numpy().astype(np.float16)
        return found


class _Kept:
    """Arrays by number, made once; the oldest go where there are too many.

    Args:
        make: an array.
        memory: [bytes] of them, at most, but for one.
        folder: where they wait on disk, and are looked for; then all are kept.
    """

    def __init__(
        self,
        make: Callable[[int], npt.NDArray[np.floating]],
        memory: int,
        folder: Path | None = None,
    ) -> None:
        self._make, self._memory, self._folder = make, memory, folder
        self._arrays: OrderedDict[int, npt.NDArray[np.floating]] = OrderedDict()

    def __getitem__(self, number: int) -> npt.NDArray[np.floating]:
        if number not in self._arrays:
            make = self._make if self._folder is None else self._keep_on_disk
            self._arrays[number] = make(number)
        self._arrays.move_to_end(number)
        while self._folder is None and len(self._arrays) > 1 and self._size() > self._memory:
            self._arrays.popitem(last=False)
        return self._arrays[number]

    def _keep_on_disk(self, number: int) -> npt.NDArray[np.floating]:
        folder = cast("Path", self._folder)
        path = folder / f"{number:06d}.npy"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with path.with_suffix(".part").open("wb") as file:
                np.save(file, self._make(number))
            Path(file.name).rename(path)  # whole, or not there
        mapped: npt.NDArray[np.floating] = np.load(path, mmap_mode="r")
        return mapped

    def _size(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())


def join_batches(batches: Sequence[Batch]) -> Batch:
    """Batches of the same kind as one."""

    def join(name: str) -> Tensor | None:
        parts = [getattr(batch, name) for batch in batches]
        return None if parts[0] is None else torch.cat(parts)

    joined: dict[str, Any] = {field.name: join(field.name) for field in fields(Batch)}
    return Batch(**joined)

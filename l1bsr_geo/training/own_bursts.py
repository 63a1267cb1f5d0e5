"""Real bursts to learn from, among them the user's own products. Truth is not known.

Motion comes from registration (`l1bsr_geo.registration.frames`), once for each burst. Any frame of
a burst may be the reference of a sample, so that each is held out in its turn.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from l1bsr_geo.errors import BadInputError, BadOptionError, L1bsrGeoWarning
from l1bsr_geo.geometry.elevation import Elevation
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.bursts import Burst, BurstScene
from l1bsr_geo.images.flow import BurstFlow
from l1bsr_geo.readers.skysat import list_bursts, read_burst
from l1bsr_geo.registration.frames import align_frames
from l1bsr_geo.training.crops import augment
from l1bsr_geo.training.objective import Batch

F32 = npt.NDArray[np.float32]

_ATTEMPTS = 64  # to find a crop that enough frames show
_COVERED = 0.5  # share of a crop that a frame must show


@dataclass(frozen=True, eq=False)
class RegisteredBurst:
    """A burst that is opened and registered when it is first asked for; its pixels stay unread.

    Attributes:
        name: for messages.
        length: frames that it has at most.
        read: opens it.
        elevation: of the ground, for its geometry; height 0 by default.
    """

    name: str
    length: int
    read: Callable[[], Burst]
    elevation: Elevation | None = None

    @cached_property
    def scene(self) -> BurstScene | None:
        """The frames that proved their place; None where there are none.

        Warns:
            L1bsrGeoWarning: the burst could not be registered at all.
        """
        burst = self.read()
        try:
            flow = align_frames(burst, elevation=self.elevation)
        except BadInputError as error:  # a calm sea is no reason to end a training
            warnings.warn(f"{self.name} is left out: {error}", L1bsrGeoWarning, stacklevel=2)
            return None
        return BurstScene(burst.select(flow.kept), flow.select(flow.kept))

    def sample(
        self, rng: np.random.Generator, size: int, frames: int
    ) -> tuple[F32, F32, F32] | None:
        """A crop of some frames around a reference, or None where chance found no such place.

        Returns:
            (T, 1, size, size) [DN], NaN where a frame does not reach; flow (T, 1, 2, size, size)
            [px]; exposures (T,) over that of the reference.
        """
        scene = self.scene
        if scene is None or scene.flow is None or len(scene.burst) < frames:
            return None
        rows, columns = scene.grid.shape
        if min(rows, columns) < size:
            return None
        reference = int(rng.integers(len(scene.burst)))
        top, left = (int(rng.integers(n - size + 1)) for n in (rows, columns))
        window = Window(left, top, size, size)
        order = [reference, *(t for t in range(len(scene.burst)) if t != reference)]
        flow = seen_from(scene.flow, order)
        reached = [scene.grid.window.intersect(window.shift(*map(int, o))) for o in flow.offsets]
        shown = [t for t, w in enumerate(reached) if w.width * w.height >= _COVERED * size * size]
        if len(shown) < frames:
            return None
        chosen = [0, *(rng.permutation(shown[1:])[: frames - 1].tolist())]
        views = BurstScene(
            scene.burst.select([order[t] for t in chosen]), flow.select(chosen)
        ).read(window)
        if views.flow is None or views.exposures is None or not views.valid[0].all():
            return None
        pixels = np.where(views.valid, views.pixels, np.float32(np.nan))
        return pixels, views.flow, views.exposures / views.exposures[0]


def seen_from(flow: BurstFlow, frames: Sequence[int]) -> BurstFlow:
    """The motion of some frames to the first of them, which becomes the reference.

    What relief adds to the affine is moved by whole frames only: where it changes by 0.01 px over a
    pixel, that is wrong by as much at most.

    Args:
        flow: to another reference; none of the frames is rejected.
        frames: indices, in the order wanted.
    """
    motion = np.tile(np.eye(3), (len(flow.offsets), 1, 1))
    motion[:, :2] += flow.affine
    motion[:, :2, 2] += flow.offsets
    here = motion[frames[0]]
    moved = motion[list(frames)] @ np.linalg.inv(here)
    offsets = np.rint(moved[:, :2, 2])
    affine = moved[:, :2] - np.eye(2, 3)
    affine[:, :, 2] -= offsets
    affine[0] = 0  # to the last digit
    dense = flow.dense
    if dense is not None:
        nodes = dense.nodes[list(frames)] - dense.nodes[frames[0]]
        x, y = here[:2, 2]
        dense = replace(dense, nodes=nodes, origin=(dense.origin[0] + x, dense.origin[1] + y))
    return BurstFlow(offsets.astype(np.int64), affine, flow.centre, dense)


class BurstSource:
    """What draws samples from registered bursts."""

    size: int
    frames: tuple[int, int]
    turned: bool

    @cached_property
    def bursts(self) -> list[RegisteredBurst]:
        """All bursts there are, unopened."""
        raise NotImplementedError

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Samples: views (B, T, 1, H, W) with flow and exposures; see `Source`.

        T is drawn once for all; where no place shows so many frames it is the most that one does.

        Raises:
            BadInputError: a file is damaged, or no burst has enough frames of the same ground.
        """
        least, most = self.frames
        most = min(most, max(burst.length for burst in self.bursts))
        for frames in range(int(rng.integers(least, most + 1)), least - 1, -1):
            samples = [s for s in self._samples(rng, frames, count) if s is not None]
            if len(samples) == count:
                views, flow, exposures = (
                    torch.from_numpy(np.stack(part)) for part in zip(*samples, strict=True)
                )
                told = None if bool((exposures == 1).all()) else exposures
                batch = Batch(views, flow, told)
                return augment(batch, rng) if self.turned else batch
        raise BadInputError(
            f"{self.bursts[0].name} and {len(self.bursts) - 1} more bursts show no {least} frames "
            f"of the same {self.size} x {self.size} pixels; ask for fewer or smaller frames"
        )

    def _samples(
        self, rng: np.random.Generator, frames: int, count: int
    ) -> Iterator[tuple[F32, F32, F32] | None]:
        """As many as asked for, or some and None."""
        able = [burst for burst in self.bursts if burst.length >= frames]
        for _ in range(count):
            sample = None
            for _ in range(_ATTEMPTS):
                sample = able[rng.integers(len(able))].sample(rng, self.size, frames)
                if sample is not None:
                    break
            yield sample
            if sample is None:
                return

    def _check(self) -> None:
        least, most = self.frames
        if not 1 <= least <= most or self.size < 1:
            raise BadOptionError(
                f"frames are {least} to {most} of {self.size} px; 1 or more, in this order, needed"
            )
        longest = max(self.bursts, key=lambda burst: burst.length)
        if longest.length < least:
            raise BadInputError(
                f"{longest.name} has {longest.length} frames, the most of {len(self.bursts)} "
                f"bursts; at least {least} were asked for"
            )


@dataclass(frozen=True)
class OwnBursts(BurstSource):
    """SkySat collects and videos, or any frames of the same ground, as `read_burst` reads them.

    Runs of frames are cut into bursts of ``frames[1]`` consecutive ones. Frames that cannot be
    registered are left out; a frame that shows half a crop or more is used.

    Attributes:
        source: a path as for `read_burst`, or several.
        size: [px] of the crops.
        frames: least and most frames drawn, the reference included.
        turned: whether samples are turned and mirrored by chance.
        elevation: of the ground, for the geometry of the frames; height 0 by default.
    """

    source: str | Path | Sequence[str | Path]
    size: int = 64
    frames: tuple[int, int] = (4, 15)
    turned: bool = True
    elevation: Elevation | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        self._check()

    @cached_property
    def bursts(self) -> list[RegisteredBurst]:
        """All bursts, unopened.

        Raises:
            MissingInputError: nothing is there, or no frames.
            BadInputError: a stack that cannot be opened.
        """
        sources = [self.source] if isinstance(self.source, str | Path) else self.source
        found = [burst for source in sources for burst in self._index(Path(source))]
        if not found:
            raise BadOptionError("there is no source of bursts; give one path at least")
        return found

    def _index(self, path: Path) -> Iterator[RegisteredBurst]:
        for run in list_bursts(path):
            length = min(self.frames[1], len(run.frames))
            starts = {*range(0, len(run.frames) - length, length), len(run.frames) - length}
            for start in sorted(starts):
                first = run.frames[start]
                opened = partial(read_burst, path, run.camera or None, first, length)
                yield RegisteredBurst(f"{path} from {first}", length, opened, self.elevation)

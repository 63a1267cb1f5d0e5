"""One scene of the user's own to fine-tune on: what is trained on, and what is held back from it.

Of a burst whole frames are held back: they see the same ground again, with noise of their own. Of
overlaps of two detectors, which see it only twice, blocks of lines are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.bursts import BurstScene
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.training.crops import augment
from l1bsr_geo.training.finetune import HeldBack, Place
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.own_bursts import seen_from
from l1bsr_geo.training.own_overlaps import Overlap, Stacks

T = TypeVar("T")

LEAST_FRAMES = 4
"""Of a burst: one is held back, one is the target, two are fused."""

_HELD_FRAMES = 5  # one in so many is held back
_HELD_LINES = 4  # one block in so many is held back
_COVERED = 0.5  # share of a crop that a frame must show
_SMALLEST, _SMALLEST_BLOCK = 24, 32  # [px] crops of bursts, of overlaps, whose border is wider
_PLACES = 16  # that a scene should have; crops are made smaller for it
_ENOUGH = 4  # places to decide by, at least
_OBSERVATIONS = 96  # that are held back, or so
_ATTEMPTS = 64  # to find a crop that enough frames show


@dataclass(frozen=True, eq=False)
class BurstCrops:
    """Crops of a registered burst, each against a frame drawn by chance; a `Source`.

    Attributes:
        scene: with flow; no frame is rejected.
        chosen: the frames that are used.
        area: of the reference, that crops are taken from.
        size: [px] of the crops.
        frames: least and most frames drawn.
    """

    scene: BurstScene
    chosen: tuple[int, ...]
    area: Window
    size: int
    frames: tuple[int, int]

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Samples: views (B, T, 1, H, W), NaN where a frame does not reach; see `Source`.

        T is drawn once for all; where no place shows so many frames it is the most that one does.

        Raises:
            BadInputError: a file is damaged, or nowhere are enough frames of the same ground.
        """
        least, most = self.frames
        for frames in range(int(rng.integers(least, most + 1)), least - 1, -1):
            samples = [self._sample(rng, frames) for _ in range(count)]
            found = [sample for sample in samples if sample is not None]
            if len(found) == count:
                return augment(_join(found), rng)
        raise BadInputError(
            f"nowhere do {least} frames show the same {self.size} x {self.size} pixels, so there "
            "is nothing to learn from; give more frames or a larger area"
        )

    def _sample(self, rng: np.random.Generator, frames: int) -> Batch | None:
        for _ in range(_ATTEMPTS):
            window = Window(
                self.area.col_off + int(rng.integers(self.area.width - self.size + 1)),
                self.area.row_off + int(rng.integers(self.area.height - self.size + 1)),
                self.size,
                self.size,
            )
            order = rng.permutation(self.chosen).tolist()
            crop = read_crop(self.scene, order, window, frames)
            if crop is not None:
                return crop
        return None


def read_crop(
    scene: BurstScene, order: Sequence[int], window: Window, frames: int | None = None
) -> Batch | None:
    """One place of a burst as some of its frames show it.

    Args:
        scene: registered.
        order: the frames that may be used; the first is the reference.
        window: on the grid of the scene's reference, not of this one.
        frames: how many to read; all that show half of it, and 2 at least, where None.

    Returns:
        One sample, or None where the reference does not show the whole window, or too few do.
    """
    if scene.flow is None:
        return None
    flow = seen_from(scene.flow, order)
    moved = window.shift(*map(int, scene.flow.offsets[order[0]]))
    reached = [scene.grid.window.intersect(moved.shift(*map(int, o))) for o in flow.offsets]
    share = np.array([w.width * w.height for w in reached]) / (window.width * window.height)
    shown = np.flatnonzero(share >= _COVERED)
    if share[0] < 1 or len(shown) < (frames or 2):
        return None
    chosen = shown[:frames].tolist()
    part = scene.burst.select([order[t] for t in chosen])
    views = BurstScene(part, flow.select(chosen)).read(moved)
    if views.flow is None or views.exposures is None or not views.valid[0].all():
        return None
    pixels = np.where(views.valid, views.pixels, np.float32(np.nan))
    exposures = views.exposures / views.exposures[0]
    return Batch(*(torch.from_numpy(v)[None] for v in (pixels, views.flow, exposures)))


def part_burst(scene: BurstScene, area: Window, size: int = 48) -> tuple[BurstCrops, HeldBack]:
    """What to train on, and what is held back: one frame in five, everywhere.

    Args:
        scene: registered, without frames that are rejected.
        area: of the reference, that counts.
        size: [px] of the crops; smaller where the area is small.

    Raises:
        BadInputError: too few frames, or too small an area.
    """
    count = len(scene.burst)
    if count < LEAST_FRAMES:
        raise BadInputError(
            f"{count} frames can be used; {LEAST_FRAMES} are needed, since some are held back to "
            "judge by; give a longer burst"
        )
    size = _crop_size(area, size)
    held = np.rint(np.linspace(0, count - 1, max(count // _HELD_FRAMES, 1) + 2)[1:-1]).astype(int)
    kept = tuple(t for t in range(count) if t not in held)
    windows = _thin(_tiles(area, size), _OBSERVATIONS)
    each = min(-(-_OBSERVATIONS // len(windows)), len(held))
    places = []
    for k, window in enumerate(windows):
        orders = [[int(held[(k + i) % len(held)]), *kept] for i in range(each)]
        crops = [read_crop(scene, order, window) for order in orders]
        places.append([_without_equal_exposures(crop) for crop in crops if crop is not None])
    most = len(kept)
    source = BurstCrops(scene, kept, area, size, (max(min(3, most), 2 * most // 3), most))
    return source, _part_places(places)


@dataclass(frozen=True, eq=False)
class OverlapCrops:
    """Crops of registered overlaps of detectors; a `Source`.

    Attributes:
        overlaps: their pixels, their flow, and the corners (n, 2) of crops, (top, left).
        size: [px] of the crops.
    """

    overlaps: Sequence[tuple[Overlap, FlowField, npt.NDArray[np.intp]]]
    size: int

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Samples: views (B, 2, 4, H, W), NaN without data, and their flow; see `Source`."""
        chances = np.array([len(corners) for _, _, corners in self.overlaps], np.float64)
        samples = []
        for k in rng.choice(len(self.overlaps), count, p=chances / chances.sum()):
            overlap, flow, corners = self.overlaps[k]
            top, left = corners[rng.integers(len(corners))]
            samples.append(_read_overlap(overlap, flow, int(top), int(left), self.size))
        return augment(_join(samples), rng, aligned="corner")


def part_overlaps(
    overlaps: Sequence[tuple[Stacks, FlowField]], size: int = 64
) -> tuple[OverlapCrops, HeldBack]:
    """What to train on, and what is held back: one block of lines in four.

    Args:
        overlaps: registered.
        size: [px] of the crops, and lines of a block; smaller where there are few lines.

    Raises:
        BadInputError: too few lines without gaps.
    """
    size = _block_size([first.shape for (first, _), _ in overlaps], size)
    parts, held = [], []
    for stacks, flow in overlaps:
        overlap = Overlap.load(stacks, size)
        corners = np.stack(np.divmod(overlap.places, overlap.columns), 1)
        phase = corners[:, 0] % (_HELD_LINES * size)
        trained = (phase <= size) | (phase >= 3 * size)  # of each four blocks the third is not
        parts.append((overlap, flow, corners[trained]))
        there = corners[(phase == 2 * size) & (corners[:, 1] % size == 0)].tolist()
        held += [(overlap, flow, top, left, size) for top, left in there]
    places = [[_read_overlap(*place)] for place in _thin(held, _OBSERVATIONS)]
    if not any(len(corners) for _, _, corners in parts):
        places = []
    return OverlapCrops(parts, size), _part_places(places)


def _read_overlap(overlap: Overlap, flow: FlowField, top: int, left: int, size: int) -> Batch:
    window = Window(left, top, size, size)
    read = [view.read(window) for view in overlap.views]
    pixels = np.stack([np.where(r.valid, r.pixels, np.float32(np.nan))[0] for r in read])
    motion = flow.read(window).reshape(*pixels.shape[:2], 2, size, size)
    return Batch(torch.from_numpy(pixels)[None], torch.from_numpy(motion)[None])


def _part_places(places: Sequence[Place]) -> HeldBack:
    """One in three tells when to stop; they lie between the others.

    Raises:
        BadInputError: there are too few to decide.
    """
    found = [place for place in places if place]
    held_back = HeldBack(found[1::3], [place for k, place in enumerate(found) if k % 3 != 1])
    if len(held_back.decide) < _ENOUGH:
        raise BadInputError(
            f"only {len(found)} places without gaps can be held back, too few to judge by what is "
            "learnt; give a larger area, more lines or more frames of the same ground"
        )
    return held_back


def _thin(things: Sequence[T], most: int) -> list[T]:
    """Some of many things, evenly."""
    if len(things) <= most:
        return list(things)
    return [things[k] for k in np.linspace(0, len(things) - 1, most).round().astype(int)]


def _tiles(area: Window, size: int) -> list[Window]:
    """Squares side by side in the middle of an area."""
    rows, columns = area.height // size, area.width // size
    top = area.row_off + (area.height - rows * size) // 2
    left = area.col_off + (area.width - columns * size) // 2
    return [
        Window(left + size * x, top + size * y, size, size)
        for y in range(rows)
        for x in range(columns)
    ]


def _crop_size(area: Window, size: int) -> int:
    """The size wanted, or a smaller one (a multiple of 4), so that there are places enough."""
    for smaller in range(size, _SMALLEST - 1, -4):
        if len(_tiles(area, smaller)) >= _PLACES:
            return smaller
    raise BadInputError(
        f"an area of {area.height} x {area.width} pixels is too small to learn from; 96 x 96 or "
        "so are needed"
    )


def _join(samples: Sequence[Batch]) -> Batch:
    """One batch of single samples."""
    views = torch.cat([sample.views for sample in samples])
    flow = torch.cat([sample.flow for sample in samples if sample.flow is not None])
    told = [sample.exposures for sample in samples if sample.exposures is not None]
    return _without_equal_exposures(Batch(views, flow, torch.cat(told) if told else None))


def _without_equal_exposures(batch: Batch) -> Batch:
    if batch.exposures is None or not bool((batch.exposures == 1).all()):
        return batch
    return Batch(batch.views, batch.flow)


def _block_size(shapes: Sequence[tuple[int, int]], size: int) -> int:
    """The size wanted, or a smaller one, so that there are places enough in blocks held back."""
    for smaller in range(size, _SMALLEST_BLOCK, -4):
        blocks = ((n // smaller + 1) // _HELD_LINES * (m // smaller) for n, m in shapes)
        if sum(blocks) >= _PLACES:
            return smaller
    return _SMALLEST_BLOCK

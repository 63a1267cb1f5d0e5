"""Registered overlaps of detectors to fine-tune on: blocks of lines are held back.

Two detectors see the same ground only twice, so that there is no third view to be foretold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.training.crops import augment
from l1bsr_geo.training.finetune import FEW_PLACES, MOST_PLACES, HeldBack, thin
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.own_overlaps import Overlap, Stacks

_PERIOD = 4  # one block of lines in so many is held back
_SMALLEST = 32  # [px]


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
        phase = corners[:, 0] % (_PERIOD * size)
        trained = (phase <= size) | (phase >= 3 * size)  # of each four blocks the third is not
        parts.append((overlap, flow, corners[trained]))
        there = corners[(phase == 2 * size) & (corners[:, 1] % size == 0)].tolist()
        held += [(overlap, flow, top, left, size) for top, left in there]
    places = [_read_overlap(*place) for place in thin(held, MOST_PLACES)]
    if not any(len(corners) for _, _, corners in parts):
        places = []
    return OverlapCrops(parts, size), HeldBack.of(places)


def _join(samples: Sequence[Batch]) -> Batch:
    flows = [sample.flow for sample in samples if sample.flow is not None]
    return Batch(torch.cat([sample.views for sample in samples]), torch.cat(flows))


def _read_overlap(overlap: Overlap, flow: FlowField, top: int, left: int, size: int) -> Batch:
    window = Window(left, top, size, size)
    read = [view.read(window) for view in overlap.views]
    pixels = np.stack([np.where(r.valid, r.pixels, np.float32(np.nan))[0] for r in read])
    motion = flow.read(window).reshape(*pixels.shape[:2], 2, size, size)
    return Batch(torch.from_numpy(pixels)[None], torch.from_numpy(motion)[None])


def _block_size(shapes: Sequence[tuple[int, int]], size: int) -> int:
    """The size wanted, or a smaller one, so that there are places enough in blocks held back."""
    for smaller in range(size, _SMALLEST, -4):
        blocks = ((n // smaller + 1) // _PERIOD * (m // smaller) for n, m in shapes)
        if sum(blocks) >= FEW_PLACES:
            return smaller
    return _SMALLEST

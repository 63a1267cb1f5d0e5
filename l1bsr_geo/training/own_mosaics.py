"""Bursts of one's own raw mosaics to learn from; their motion is measured on the mosaics."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from l1bsr_geo.errors import BadInputError, BadOptionError, L1bsrGeoWarning
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.flow import BurstFlow
from l1bsr_geo.readers.videos import read_video
from l1bsr_geo.registration.mosaics import PERIOD, align_mosaics, in_periods
from l1bsr_geo.training.finetune import FEW_PLACES, MOST_PLACES, HeldBack, thin
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.own_bursts import seen_from

F32 = npt.NDArray[np.float32]

_ATTEMPTS = 64  # to find a crop that enough frames show
_COVERED = 0.5  # share of a crop that one other frame must show
_LARGEST, _SMALLEST = 48, 16  # [px] sides of a place that is held back
_AROUND = 24  # [px] that the network sees around it


@dataclass(frozen=True, eq=False)
class MosaicCrops:
    """Crops of a burst of mosaics: what one frame shows, and how others sampled it.

    Attributes:
        mosaics: T frames (height, width) [DN], NaN where they have no data.
        flow: their motion; none of them is rejected.
        held_out: frames that are compared; all where None. The network sees all of them by turns.
        size: [px] of the crops; smaller where frames are.
        compared: most frames that a sample is compared with.
    """

    mosaics: Sequence[F32]
    flow: BurstFlow
    held_out: Sequence[int] | None = None
    size: int = 96
    compared: int = 4

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Samples: views (B, 1 + K, 1, H, W), NaN where a frame does not reach, and flow.

        Raises:
            BadInputError: nowhere do two frames show the same crop without gaps.
        """
        return _join([self._draw_one(rng) for _ in range(count)])

    def crop(self, order: Sequence[int], window: Window) -> Batch:
        """One sample: the first of some frames, and how the others sampled what it shows.

        Args:
            order: frames, the one that the network sees first; none of them twice.
            window: of that frame; begins at whole Bayer periods.
        """
        flow = in_periods(seen_from(self.flow, order))
        views = np.full((len(order), *window.shape), np.nan, np.float32)
        inside = Window(0, 0, *self.mosaics[0].shape[::-1])
        for view, t, offset in zip(views, order, flow.offsets, strict=True):
            wanted = window.shift(*map(int, offset))
            there = wanted.intersect(inside)
            if there.width and there.height:
                place = there.shift(-wanted.col_off, -wanted.row_off)
                view[place.slices] = self.mosaics[t][there.slices]
        motion = flow.residual(window)
        return Batch(*(torch.from_numpy(v)[None, :, None] for v in (views, motion)))

    def _draw_one(self, rng: np.random.Generator) -> Batch:
        there = range(len(self.mosaics))
        targets = there if self.held_out is None else self.held_out
        number = min(self.compared, len(targets) - 1)
        size = min(self.size, *self.mosaics[0].shape) // PERIOD * PERIOD
        for _ in range(_ATTEMPTS):
            seen = int(rng.integers(len(there)))
            others = rng.permutation([t for t in targets if t != seen])[:number].tolist()
            top, left = (
                PERIOD * int(rng.integers((n - size) // PERIOD + 1)) for n in self.mosaics[0].shape
            )
            batch = self.crop([seen, *others], Window(left, top, size, size))
            known = torch.isfinite(batch.views[0, :, 0]).float().mean((1, 2))
            if known[0] == 1 and known[1:].max() >= _COVERED:
                return batch
        raise BadInputError(
            f"nowhere do two of {len(there)} mosaics show the same {size} x {size} pixels without "
            "gaps, so there is nothing to learn from"
        )


@dataclass(frozen=True, eq=False)
class OwnMosaics:
    """Videos or bursts of raw mosaics on disk, as `read_video` reads them; kept in memory.

    Attributes:
        source: a path, or several, each a video of one band.
        size: [px] of the crops; smaller where frames are.
        burst: frames that are registered to each other; longer videos are parted.
        compared: most frames that a sample is compared with.
    """

    source: str | Path | Sequence[str | Path]
    size: int = 96
    burst: int = 15
    compared: int = 4

    def __post_init__(self) -> None:
        if self.burst < 2 or self.size < PERIOD or self.compared < 1:
            raise BadOptionError(
                f"found bursts of {self.burst} frames, crops of {self.size} px and {self.compared} "
                f"frames compared; 2, {PERIOD} and 1 are the least"
            )

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Samples of one burst, see `MosaicCrops.draw`."""
        return self._bursts[rng.integers(len(self._bursts))].draw(rng, count)

    @cached_property
    def _bursts(self) -> list[MosaicCrops]:
        sources = [self.source] if isinstance(self.source, str | Path) else self.source
        found = []
        for source in sources:
            video = read_video(source)
            if len(video.bands) != 1:
                raise BadInputError(f"{source}: {len(video.bands)} bands; raw mosaics have one")
            for frames in part_frames(video.frames, self.burst):
                mosaics = [video.read(t)[0] for t in frames]
                try:
                    flow = align_mosaics(mosaics)
                except BadInputError as error:  # a calm sea is no reason to end a training
                    warnings.warn(
                        f"{source}, frames {frames[0]} to {frames[-1]}, is left out: {error}",
                        L1bsrGeoWarning,
                        stacklevel=2,
                    )
                    continue
                kept = [mosaics[t] for t in flow.kept]
                crops = MosaicCrops(
                    kept, flow.select(flow.kept), size=self.size, compared=self.compared
                )
                found.append(crops)
        if not found:
            raise BadInputError(f"{self.source}: no burst of mosaics that could be registered")
        return found


def part_frames(frames: int, most: int) -> list[range]:
    """Bursts of nearly as many frames, ``most`` at most, so that none is too short."""
    edges = np.linspace(0, frames, -(-frames // most) + 1).round().astype(int).tolist()
    return [range(first, last) for first, last in pairwise(edges)]


def hold_back(crops: MosaicCrops, frame: int) -> HeldBack:
    """Places where one frame, whose noise was never learnt from, tells how well it is foretold.

    Each place is seen by another frame; what lies around it is shown, but not compared.

    Args:
        crops: of all frames.
        frame: that is compared.

    Raises:
        BadInputError: there are too few places to judge by.
    """
    height, width = crops.mosaics[0].shape
    side = int(np.sqrt(height * width / FEW_PLACES)) // PERIOD * PERIOD
    side = min(max(side, _SMALLEST), _LARGEST)
    others = [t for t in range(len(crops.mosaics)) if t != frame]
    inside = Window(0, 0, width - width % PERIOD, height - height % PERIOD)
    places: list[Batch] = []
    for top in range(0, height - side + 1, side):
        for left in range(0, width - side + 1, side):
            core = Window(left, top, side, side)
            window = core.grow(_AROUND).intersect(inside)
            batch = crops.crop([others[len(places) % len(others)], frame], window)
            compared = torch.zeros(window.shape, dtype=torch.bool)
            compared[core.shift(-window.col_off, -window.row_off).slices] = True
            batch.views[:, 1:, :, ~compared] = torch.nan
            known = torch.isfinite(batch.views[0, :, 0])
            if known[0].all() and known[1].sum() >= _COVERED * side * side:
                places.append(batch)
    return HeldBack.of(thin(places, MOST_PLACES))


def _join(samples: Sequence[Batch]) -> Batch:
    views, flow = (
        torch.cat([cast("Tensor", getattr(sample, name)) for sample in samples])
        for name in ("views", "flow")
    )
    return Batch(views, flow)

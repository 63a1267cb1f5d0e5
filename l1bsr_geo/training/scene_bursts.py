"""A registered burst to fine-tune on: at every place a frame is held back, and foretold.

A method learns from a reference that is left out. The network is used otherwise: the reference is
among the frames, and its samples lie on the fine grid. What helps the one can harm the other, and
how well a network restores the phases of a fine grid depends on where just these frames have
samples. So what is held back is foretold as the burst will be restored, on the grid of its own
reference and from all other frames; and since a frame has its samples at one phase, it is another
frame from place to place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.images.bursts import BurstScene
from l1bsr_geo.models.base import BurstRestorer
from l1bsr_geo.models.burst_network import BurstNetwork
from l1bsr_geo.ops.flow import invert_flow
from l1bsr_geo.ops.sampling import double
from l1bsr_geo.training.burst_loss import restore, sample_reference
from l1bsr_geo.training.crops import augment
from l1bsr_geo.training.finetune import FEW_PLACES, MOST_PLACES, HeldBack, thin
from l1bsr_geo.training.hdr_dsp import Compare, blur_restored
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.own_bursts import seen_from

LEAST_FRAMES = 4
"""Of a burst: one is held back, one is left out, two are fused."""

_COVERED = 0.5  # share of a crop that a frame must show
_LARGEST, _SMALLEST = 48, 24  # [px] sides of a place
_MARGIN = 16  # [px] around a place, which what lies beyond the edge of a crop spoils
_NEAR = 4  # [px] by which motion may exceed whole offsets
_ATTEMPTS = 64  # to find a crop that enough frames show
_FAR = 5.0  # median differences: beyond, something moved, or shines


@dataclass(frozen=True, eq=False)
class BurstCrops:
    """Crops of a registered burst, each against a frame drawn by chance; a `Source`.

    Attributes:
        scene: with flow; no frame is rejected.
        held: windows of the reference, and the frame that is never shown of each.
        area: of the reference, that crops are taken from.
        size: [px] of the crops.
        frames: least and most frames drawn.
    """

    scene: BurstScene
    held: Sequence[tuple[Window, int]]
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
            window = _draw_window(self.area, self.size, rng)
            shuffled = rng.permutation(_free(self.scene, self.held, window)).tolist()
            order = _showing(self.scene, shuffled, window)
            partly = [t for t in order if t not in _showing(self.scene, order, window, 1.0)]
            order = [t for t in order if t not in partly[self._most_partly :]][:frames]
            if len(order) < frames or not (crop := read_crop(self.scene, order, window)):
                continue
            if crop.views.isnan().flatten(2).any(2).sum() <= self._most_partly:
                return crop
        return None

    @property
    def _most_partly(self) -> int:
        """Frames with gaps in a sample: whatever is left out, one without must be fused."""
        return self.frames[0] // 2


@dataclass(frozen=True)
class ForetellsFrame:
    """What scores a network on a frame that is held back: the last view of a `Batch`.

    Attributes:
        sharpening: of the network's result, which is blurred by as much before it is compared; see
            ``HDRDSPObjective``.
        compare: ``"detail"`` where only the network's own part is sharpened, not its base.
        saturated: [DN] pixels from here on are not compared, nor is NaN.
    """

    sharpening: float = 0.0
    compare: Compare = "whole"
    saturated: float = FULL_SCALE

    def loss(
        self, network: nn.Module, batch: Batch, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """Mean square [(DN / 3400)^2] of what frames differ by; far beyond the median linear.

        Where exposures differ, what they may be wrong by is taken out as a factor.
        """
        told, flow, target = batch.exposures, cast("Tensor", batch.flow), batch.views[:, -1]
        fused = Batch(batch.views[:, :-1], flow[:, :-1], None if told is None else told[:, :-1])
        places = invert_flow(flow[:, -1].flatten(0, 1)).view(flow[:, -1].shape)
        scale = cast("BurstRestorer", network).spec.scale
        fine = double(self._restore(network, fused))
        seen = sample_reference(fine, 2 * scale, places, "spline")
        known = target < self.saturated  # NaN is not
        seen, target = (torch.where(known, image, 0) for image in (seen, target))
        if told is not None:
            sums = (image.sum((1, 2, 3), keepdim=True) for image in (seen, target))
            target = target * torch.div(*sums)
        errors = (seen - target)[known].abs() / FULL_SCALE
        far = _FAR * errors.median()
        return torch.where(errors < far, errors.square(), far * (2 * errors - far)).mean(), {}

    def _restore(self, network: nn.Module, batch: Batch) -> Tensor:
        """As blurred as the frames are, [DN at exposure 1]."""
        if not self.sharpening:
            return restore(network, batch)
        base, detail = cast("BurstNetwork", network).restore_parts(
            batch.views / FULL_SCALE, batch.flow, exposures=batch.exposures
        )
        if self.compare == "whole":
            base, detail = torch.zeros_like(base), base + detail
        fine: Tensor = FULL_SCALE * (base + blur_restored(detail, self.sharpening))
        return fine


def read_crop(scene: BurstScene, order: Sequence[int], window: Window) -> Batch | None:
    """One place of a burst as some of its frames show it.

    Args:
        scene: registered.
        order: the frames; the first is the reference.
        window: on the grid of the scene's reference, not of this one.

    Returns:
        One sample; None where the reference does not show the whole window.
    """
    if scene.flow is None:
        return None
    moved = window.shift(*map(int, scene.flow.offsets[order[0]]))
    if moved.intersect(scene.grid.window) != moved:
        return None
    part = BurstScene(scene.burst.select(order), seen_from(scene.flow, order))
    views = part.read(moved)
    if views.flow is None or views.exposures is None or not views.valid[0].all():
        return None
    pixels = np.where(views.valid, views.pixels, np.float32(np.nan))
    exposures = views.exposures / views.exposures[0]
    return Batch(*(torch.from_numpy(v)[None] for v in (pixels, views.flow, exposures)))


def part_burst(scene: BurstScene, area: Window, size: int = 48) -> tuple[BurstCrops, HeldBack]:
    """What to train on, and what is held back.

    Args:
        scene: registered, without frames that are rejected.
        area: of the reference, that counts.
        size: [px] of the crops; smaller where the area is.

    Returns:
        A source, and places as `ForetellsFrame` wants them; of each the source never shows the
        frame that is foretold.

    Raises:
        BadInputError: too few frames, or too small an area.
    """
    count = len(scene.burst)
    if count < LEAST_FRAMES:
        raise BadInputError(
            f"{count} frames can be used; {LEAST_FRAMES} are needed, since some are held back to "
            "judge by; give a longer burst"
        )
    held = _hold_back(scene, area)
    places = [place for window, t in held if (place := _read_place(scene, t, window)) is not None]
    size = min(size, *area.shape)
    rng = np.random.default_rng(0)
    windows = [_draw_window(area, size, rng) for _ in range(_ATTEMPTS)]
    most = int(np.median([len(_free(scene, held, window)) for window in windows]))
    frames = max(min(3, most), 3 * most // 4), most
    return BurstCrops(scene, held, area, size, frames), HeldBack.of(places)


def _hold_back(scene: BurstScene, area: Window) -> list[tuple[Window, int]]:
    """Places, and a frame of each; so few different ones beside each other as frames allow."""
    count = len(scene.burst)
    windows = _tiles(area, _tile_size(area))
    together = len(windows)
    if count >= 8:
        together = sum(window.row_off == windows[0].row_off for window in windows)
    if count >= 12:
        together = 2
    held = []
    for k, window in enumerate(thin(windows, MOST_PLACES)):
        turned = np.roll(np.arange(1, count), -(k // together)).tolist()
        held += [(window, t) for t in _showing(scene, turned, window)[:1]]
    return held


def _read_place(scene: BurstScene, held: int, window: Window) -> Batch | None:
    """A window as all frames show it with a margin; the last is the one held back, without."""
    around = window.grow(_MARGIN).intersect(scene.grid.window)
    fused = [t for t in _showing(scene, range(len(scene.burst)), around) if t != held]
    crop = read_crop(scene, [*fused, held], around) if len(fused) > 1 else None
    if crop is None:
        return None
    inside = window.shift(-around.col_off, -around.row_off).slices
    target = crop.views[:, -1, :, *inside].clone()
    if float((target < FULL_SCALE).float().mean()) < _COVERED:
        return None
    crop.views[:, -1] = torch.nan
    crop.views[:, -1, :, *inside] = target
    return _join([crop])


def _free(scene: BurstScene, held: Sequence[tuple[Window, int]], window: Window) -> list[int]:
    """The frames of which nothing in a window is held back."""
    near = window.grow(_NEAR)
    taken = {t for place, t in held if min(place.intersect(near).shape) > 0}
    return [t for t in range(len(scene.burst)) if t not in taken]


def _draw_window(area: Window, size: int, rng: np.random.Generator) -> Window:
    left, top = (int(rng.integers(n - size + 1)) for n in (area.width, area.height))
    return Window(area.col_off + left, area.row_off + top, size, size)


def _showing(
    scene: BurstScene, frames: Sequence[int], window: Window, share: float = _COVERED
) -> list[int]:
    """Those frames that show so much of a window of the scene's reference, in their order."""
    if scene.flow is None:
        return []
    moved = {t: window.shift(*map(int, scene.flow.offsets[t])) for t in frames}
    reached = {t: scene.grid.window.intersect(w) for t, w in moved.items()}
    least = share * window.width * window.height
    return [t for t, w in reached.items() if w.width * w.height >= least]


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


def _tile_size(area: Window) -> int:
    """Such that there are places enough."""
    for size in range(_LARGEST, _SMALLEST - 1, -4):
        if len(_tiles(area, size)) >= FEW_PLACES:
            return size
    raise BadInputError(
        f"an area of {area.height} x {area.width} pixels is too small to learn from; 96 x 96 or "
        "so are needed"
    )


def _join(samples: Sequence[Batch]) -> Batch:
    """One batch of samples; without exposures where all are alike."""
    parts = zip(*((sample.views, sample.flow, sample.exposures) for sample in samples), strict=True)
    views, flow, exposures = (torch.cat(cast("list[Tensor]", list(part))) for part in parts)
    return Batch(views, flow, None if bool((exposures == 1).all()) else exposures)

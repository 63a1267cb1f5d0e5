"""Tiles restored together, one by one or in parts: as many pixels at once as fit into memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from l1bsr_geo.errors import NotEnoughMemoryError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.pixels import Scene, Views
from l1bsr_geo.models.devices import (
    Pixels,
    find_room,
    measure_peak,
    ran_out_of_memory,
    release_memory,
)
from l1bsr_geo.tiling.nodata import check_reach
from l1bsr_geo.tiling.plan import Tile, TilePlan
from l1bsr_geo.tiling.statistics import SAMPLE_SIZE, take_statistics

if TYPE_CHECKING:
    from l1bsr_geo.models.registry import Model

log = logging.getLogger(__name__)

_SMALLEST = 32  # [px] side of a core that is not halved any more
_SHARE = 0.8  # of the room there is, for what is restored at once


@dataclass(frozen=True)
class Piece:
    """A tile, or a part of one, that is ready to be restored.

    Attributes:
        tile: where it is.
        views: all of ``tile.read``, without holes.
    """

    tile: Tile
    views: Views

    @property
    def pixels(self) -> int:
        """How many are read [px]."""
        return self.tile.read.width * self.tile.read.height

    def halve(self, plan: TilePlan) -> tuple[Piece, Piece] | None:
        """Its two halves, each with the context that the whole has; None where it is too small."""
        x, y, width, height = self.tile.core
        wide = width >= height
        first = -(-max(width, height) // (2 * plan.multiple)) * plan.multiple
        if max(width, height) <= max(_SMALLEST, first):
            return None
        if wide:
            cores = Window(x, y, first, height), Window(x + first, y, width - first, height)
        else:
            cores = Window(x, y, width, first), Window(x, y + first, width, height - first)
        one, two = (self._part(Tile(core, plan.read_window(core))) for core in cores)
        return one, two

    def _part(self, tile: Tile) -> Piece:
        read = self.tile.read
        rows, cols = tile.read.shift(-read.col_off, -read.row_off).slices
        flow = self.views.flow
        cut = Views(
            self.views.pixels[..., rows, cols],
            self.views.valid[..., rows, cols],
            None if flow is None else flow[..., rows, cols],
            self.views.exposures,
        )
        return Piece(tile, cut)


class Limits:
    """What fits into the memory of this process's devices, as it turned out."""

    def __init__(self) -> None:
        self._fails: dict[Hashable, int] = {}
        self._cost: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    def allows(self, key: Hashable, pixels: int) -> bool:
        """Whether so many pixels at once may be tried: fewer than ever failed."""
        return pixels < self._fails.get(key, pixels + 1)

    def note_failure(self, key: Hashable, pixels: int) -> bool:
        """Remember that so many did not fit; False where that was known."""
        with self._lock:
            if not self.allows(key, pixels):
                return False
            self._fails[key] = pixels
            return True

    def cost(self, key: Hashable) -> float | None:
        """What a pixel takes [bytes], where it was measured."""
        return self._cost.get(key)

    def note_cost(self, key: Hashable, cost: float) -> None:
        """Remember what a pixel takes [bytes]."""
        self._cost[key] = cost


LIMITS = Limits()


@dataclass
class Restoration:
    """Restores pieces of one scene.

    Attributes:
        model: what restores.
        scene: what is restored.
        plan: its tiles.
        statistics: of the scene, where the model pools and there are several tiles.
        limits: what is known of memory.
    """

    model: Model
    scene: Scene
    plan: TilePlan
    statistics: Any = None
    limits: Limits = field(default_factory=lambda: LIMITS)

    def restore(self, pieces: Sequence[Piece]) -> list[Pixels]:
        """The cores of pieces of one shape, (C, scale * height, scale * width) [DN] each.

        Together where memory has room; where it runs out, half of them at a time, then each in
        halves, and so from then on.

        Raises:
            NotEnoughMemoryError: not even the smallest part fits.
            BadInputError: as ``Model.restore``.
        """
        most = self._most_together(pieces)
        if most is None:  # the first one tells
            first = self._restore(pieces[:1])
            return first + (self.restore(pieces[1:]) if len(pieces) > 1 else [])
        groups = [pieces[i : i + most] for i in range(0, len(pieces), most)]
        return [core for group in groups for core in self._restore(group)]

    def _most_together(self, pieces: Sequence[Piece]) -> int | None:
        """How many pieces the device's memory has room for; None where it must be measured."""
        room = find_room(self.model.torch_device)
        if room is None:  # the host's: what fits is not known before
            return len(pieces)
        cost = self.limits.cost(self._key(pieces))
        if cost is None:
            return None
        return max(1, int(_SHARE * room / max(1.0, cost * pieces[0].pixels)))

    def _restore(self, pieces: Sequence[Piece]) -> list[Pixels]:
        key, pixels = self._key(pieces), sum(piece.pixels for piece in pieces)
        if self.limits.allows(key, pixels):
            try:
                return self._run(pieces)
            except (RuntimeError, MemoryError) as error:
                if not ran_out_of_memory(error):
                    raise
            # here the error is gone, and with it all that its traceback held
            release_memory(self.model.torch_device)
            if self.limits.note_failure(key, pixels):
                self._warn(pieces)
        if len(pieces) > 1:
            half = len(pieces) // 2
            return self._restore(pieces[:half]) + self._restore(pieces[half:])
        return [self._restore_in_halves(pieces[0])]

    def _restore_in_halves(self, piece: Piece) -> Pixels:
        halves = piece.halve(self.plan)
        read = piece.tile.read
        if halves is None:
            raise NotEnoughMemoryError(
                f"{self.model.spec.name}: {read.height} x {read.width} px do not fit into the "
                f"memory of {self.model.torch_device}, and smaller parts make no sense; free "
                "memory, or use another device or model"
            )
        if self.statistics is None and self.model.spec.scene_statistics:
            # a single tile pools over itself; its parts must not each over themselves
            small = replace(self.plan, size=SAMPLE_SIZE)
            self.statistics = take_statistics(self.model, self.scene, small)
        for half in halves:
            if self.model.spec.flow and half.views.flow is not None:
                check_reach(half.views.flow[0], half.tile, self.plan)
        restored = [self._restore([half])[0] for half in halves]
        one, two = (half.tile.core for half in halves)
        return np.concatenate(restored, -1 if one.row_off == two.row_off else -2)

    def _run(self, pieces: Sequence[Piece]) -> list[Pixels]:
        flow = _stack([piece.views.flow for piece in pieces]) if self.model.spec.flow else None
        exposures = _stack([piece.views.exposures for piece in pieces])
        views = _stack([piece.views.pixels for piece in pieces])
        assert views is not None
        device, key = self.model.torch_device, self._key(pieces)
        with measure_peak(device) as peak:
            fine = self.model.restore(views, flow, statistics=self.statistics, exposures=exposures)
        if peak.bytes:
            known = self.limits.cost(key) or 0.0
            self.limits.note_cost(key, max(known, peak.bytes / sum(p.pixels for p in pieces)))
        slices = [piece.tile.crop.scale(self.plan.scale).slices for piece in pieces]
        return [part[:, rows, cols] for part, (rows, cols) in zip(fine, slices, strict=True)]

    def _key(self, pieces: Sequence[Piece]) -> Hashable:
        """What memory depends on, beside the pixels."""
        model, shape = self.model, pieces[0].views.pixels.shape
        return model.identity, model.torch_device, model.precision, shape[:2]

    def _warn(self, pieces: Sequence[Piece]) -> None:
        read, count = pieces[0].tile.read, len(pieces)
        one = f"tile of {read.height} x {read.width} px"
        what = f"a {one}" if count == 1 else f"{count} tiles, each a {one}"
        log.warning(
            "%s on %s: the memory was not enough for %s; going on with %s",
            self.model.spec.name,
            self.model.torch_device,
            what,
            "halves of it" if count == 1 else f"{count // 2} at once",
        )


def _stack(arrays: Sequence[npt.NDArray[np.float32] | None]) -> Pixels | None:
    """One array of several; of one without a copy. None where there are none."""
    there = [array for array in arrays if array is not None]
    if not there:
        return None
    return there[0][None] if len(there) == 1 else np.stack(there)

"""Frames of the same ground, and how tiling reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

import numpy as np

from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.flow import BurstFlow
from l1bsr_geo.images.pixels import PixelSource, Views, is_data


@dataclass(frozen=True)
class Burst:
    """Frames of the same ground, taken one after the other, unread.

    Frame 0 is the reference; the others follow in order of time.

    Attributes:
        sources: one frame each, all of one shape and type.
        grids: one geometry each; a frame without one has a grid whose model is None.
        exposures: exposure times [ms], or relative to each other where the unit is not known.
        times: UTC, one for each frame; empty where the files do not tell.
        band: what results are named.
        nodata: the value on disk that means no data, or None.
        saturated: from this value on a pixel may have received more light than it tells, or None.
            Such pixels are data all the same: they are not masked.
        attrs: product facts. ``frames``: the frames' names in the order of ``sources``.
            ``order``: which frame in time each of them is. ``dropped``: name to reason.
    """

    sources: tuple[PixelSource, ...]
    grids: tuple[GeoGrid, ...]
    exposures: tuple[float, ...]
    times: tuple[datetime, ...] = ()
    band: str = "PAN"
    nodata: float | None = None
    saturated: float | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of every frame."""
        return self.grids[0].shape

    def select(self, frames: Sequence[int]) -> Self:
        """The burst of some of its frames, in the order given; the first is the reference."""
        listed = {
            key: tuple(self.attrs[key][i] for i in frames)
            for key in ("frames", "order")
            if key in self.attrs
        }
        return replace(
            self,
            sources=tuple(self.sources[i] for i in frames),
            grids=tuple(self.grids[i] for i in frames),
            exposures=tuple(self.exposures[i] for i in frames),
            times=tuple(self.times[i] for i in frames) if self.times else (),
            attrs={**self.attrs, **listed},
        )


@dataclass(frozen=True)
class BurstScene:
    """A Burst as tiling reads it: every frame at the place of the reference, to a pixel or so.

    Attributes:
        burst: the frames.
        flow: motion of every frame to the reference, or None where they are registered already.
    """

    burst: Burst
    flow: BurstFlow | None = None

    @property
    def grid(self) -> GeoGrid:
        """The reference frame's grid."""
        return self.burst.grids[0]

    @property
    def bands(self) -> tuple[str, ...]:
        """The one band."""
        return (self.burst.band,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type on disk."""
        return self.burst.sources[0].dtype

    @property
    def add_offset(self) -> tuple[float, ...]:
        """Zero: DN of no light are zero already."""
        return (0.0,)

    @property
    def nodata(self) -> float | None:
        """The value on disk that means no data."""
        return self.burst.nodata

    def read(self, window: Window) -> Views:
        """The frames of a window, each moved by its whole-pixel offset, with the rest as flow.

        A pixel that its frame does not reach is not valid, nor is a saturated one of a frame that
        is not the reference; nothing of a rejected frame is.
        """
        shape = (len(self.burst), *window.shape)
        pixels, valid = np.zeros(shape, np.float32), np.zeros(shape, bool)
        kept = range(len(self.burst)) if self.flow is None else self.flow.kept
        for t in kept:
            dx, dy = (0, 0) if self.flow is None else map(int, self.flow.offsets[t])
            wanted = window.shift(dx, dy)
            there = wanted.intersect(self.grid.window)
            if there.width and there.height:
                inside = there.shift(-wanted.col_off, -wanted.row_off).slices
                raw = self.burst.sources[t].read(there)
                known = is_data(raw, self.nodata)
                if t and self.burst.saturated is not None:  # the reference stays whole
                    known &= raw < self.burst.saturated
                pixels[t][inside], valid[t][inside] = raw, known
        flow = None if self.flow is None else self.flow.residual(window)[:, None]
        exposures = np.asarray(self.burst.exposures, np.float32)
        return Views(pixels[:, None], valid[:, None], flow, exposures)

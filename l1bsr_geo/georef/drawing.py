"""One block of a map, drawn from the chunks of an image that it shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import geometry_mask

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.georef.kernels import BoolArray, Taps, resample
from l1bsr_geo.georef.lookup import Lookup
from l1bsr_geo.tiling.encoding import Encoding

Place = tuple[int, int]  # (row, column) of a block
Chunk = Sequence[Any]  # (C, height, width) pixels, (height, width) validity or None


@dataclass(frozen=True)
class Blocks:
    """An image cut into blocks.

    Attributes:
        heights: of the rows of blocks [px].
        widths: of the columns of blocks [px].
    """

    heights: tuple[int, ...]
    widths: tuple[int, ...]

    @classmethod
    def cut(cls, shape: tuple[int, int], size: int) -> "Blocks":
        """Square blocks, smaller ones at the end."""
        heights, widths = (
            tuple(min(size, length - start) for start in range(0, length, size)) for length in shape
        )
        return cls(heights, widths)

    def window(self, place: Place) -> Window:
        """The pixels of a block."""
        (top, left), (i, j) = (self._edges[k][at] for k, at in enumerate(place)), place
        return Window(int(left), int(top), self.widths[j], self.heights[i])

    def touching(self, window: Window) -> list[Place]:
        """The blocks that hold pixels of a window, row by row."""
        if 0 in window.shape:
            return []
        rows, cols = (
            range(
                int(np.searchsorted(edges, part.start, "right")) - 1,
                int(np.searchsorted(edges, part.stop, "left")),
            )
            for edges, part in zip(self._edges, window.slices, strict=True)
        )
        return [(i, j) for i in rows for j in cols]

    @cached_property
    def _edges(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First row and first column of every block, and the end."""
        rows, cols = (np.cumsum((0, *lengths)) for lengths in (self.heights, self.widths))
        return rows, cols


@dataclass(frozen=True)
class Drawing:
    """Everything that the blocks of one map share.

    Attributes:
        lookup: where its pixels come from.
        blocks: of the map.
        chunks: of the image.
        count: bands.
        taps: the kernel.
        encoding: how values are stored.
        area: in map coordinates, or None: outside of it nothing is valid.
        transform: pixels of the map to map coordinates.
    """

    lookup: Lookup
    blocks: Blocks
    chunks: Blocks
    count: int
    taps: Taps
    encoding: Encoding
    area: shapely.Geometry | None
    transform: Affine

    def sources(self, place: Place) -> list[Place]:
        """The chunks of the image that a block of the map can need."""
        window, image = self.blocks.window(place), self.lookup.source.window
        if self.area is not None and not shapely.intersects(self.area, self._outline(window)):
            return []
        bounds = np.array(self.lookup.reach(window))
        beyond = self.taps.reach + 2  # numbers that are not finite do not cast
        x0, y0, x1, y1 = np.clip(bounds, -beyond, max(image.shape) + beyond)
        needed = _pixels_within(x0, y0, x1, y1).grow(self.taps.reach)
        return self.chunks.touching(needed.intersect(image))

    def draw(
        self, place: Place, given: Mapping[Place, Chunk]
    ) -> tuple[npt.NDArray[Any], BoolArray]:
        """One block.

        Args:
            place: of the block.
            given: the chunks that ``sources`` named; where a validity is None, all is valid.

        Returns:
            (C, height, width) as stored, (height, width) validity.
        """
        window = self.blocks.window(place)
        shown = np.zeros(window.shape, bool)
        if given:
            x, y = self.lookup.locate(window)
            height, width = self.lookup.source.shape
            shown = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)  # False where NaN
            if self.area is not None:
                shown &= self._within_area(window)
        if not shown.any():
            hole = self.encoding.encode(np.zeros((self.count, 1, 1), np.float32), shown[:1, :1])
            return np.broadcast_to(hole, (self.count, *window.shape)), shown
        x, y = x[shown], y[shown]
        read = _pixels_within(x.min(), y.min(), x.max(), y.max()).grow(self.taps.reach + 1)
        pixels, valid = self._collect(read, given)
        values, good = resample(pixels, valid, x - read.col_off, y - read.row_off, self.taps)
        drawn = np.zeros((self.count, *window.shape), values.dtype)
        drawn[:, shown] = values.T
        shown[shown] = good
        return self.encoding.encode(drawn, shown), shown

    def _collect(
        self, read: Window, given: Mapping[Place, Chunk]
    ) -> tuple[npt.NDArray[Any], BoolArray]:
        """Floating pixels (height, width, C) and validity of a window; zero where not valid."""
        dtype = np.result_type(self.encoding.dtype, np.float32)
        pixels, valid = np.zeros((*read.shape, self.count), dtype), np.zeros(read.shape, bool)
        for place, (values, known) in given.items():
            chunk = self.chunks.window(place)
            part = chunk.intersect(read)
            rows, cols = part.shift(-chunk.col_off, -chunk.row_off).slices
            to = part.shift(-read.col_off, -read.row_off).slices
            values = values[:, rows, cols]
            good = np.isfinite(values).all(0)
            if known is not None:
                good &= known[rows, cols]
            np.copyto(pixels[to], np.moveaxis(values, 0, -1), where=good[..., None])
            valid[to] = good
        return pixels, valid

    def _outline(self, window: Window) -> shapely.Polygon:
        left, top = self.transform @ (window.col_off, window.row_off)
        right, bottom = self.transform @ (
            window.col_off + window.width,
            window.row_off + window.height,
        )
        return shapely.box(left, bottom, right, top)

    def _within_area(self, window: Window) -> BoolArray:
        """Which pixel centres of a window lie in the area."""
        transform = self.transform @ Affine.translation(window.col_off, window.row_off)
        return np.asarray(
            geometry_mask([self.area], out_shape=window.shape, transform=transform, invert=True)
        )


def _pixels_within(left: float, top: float, right: float, bottom: float) -> Window:
    """The pixels that hold all places of a box."""
    x0, y0, x1, y1 = (int(np.floor(v)) for v in (left, top, right, bottom))
    return Window(x0, y0, x1 + 1 - x0, y1 + 1 - y0)

"""Which tiles an image is restored in: Tile and TilePlan. Arithmetic only, nothing is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.geometry.model import Aligned

if TYPE_CHECKING:
    from l1bsr_geo.models.base import ModelSpec

DEFAULT_SIZE = 256
"""Core of a tile [px], per axis, unless asked otherwise or the model's halo is large."""


def choose_size(halo: int) -> int:
    """The core [px] at which a halo costs at most 15 %, from 256 to 1024 px.

    A tile costs (1 + 2 halo / size)^2 times its core, 1.15 at 28 halos. Its memory grows with the
    area: REC needs 3.1 kB per input pixel (measured, float32), 2.7 GB for its 896 px and their halo
    of 32 px, 1.0 GB for 512 px, where the halo would cost 27 %.
    """
    return min(max(DEFAULT_SIZE, 28 * halo), 1024)


class Tile(NamedTuple):
    """A piece of work, in input pixels.

    Attributes:
        core: the pixels that this tile answers for; the cores of a plan tile the image.
        read: the pixels that it looks at: the core and its halo, clipped at the image's border.
    """

    core: Window
    read: Window

    @property
    def crop(self) -> Window:
        """The core, counted from the first pixel of ``read``."""
        return self.core.shift(-self.read.col_off, -self.read.row_off)


@dataclass(frozen=True)
class TilePlan:
    """The tiles of an image, row by row.

    All tiles have the same core but those of the last row and column, which may be a few pixels
    smaller (the regular chunks that Zarr asks for); sizes are evened out first, so that 513 px
    become 257 + 256 and not 512 + 1. Reads begin at multiples of ``multiple``, as the whole image
    does, and end at one or at the image's border, where the model pads.

    Attributes:
        shape: ``(height, width)`` of the image [px].
        size: largest core [px] per axis; rounded up to ``multiple``.
        halo: context on every side of a core [px].
        scale: fine pixels to a pixel, per axis.
        aligned: which fine pixel sits where (``GeoGrid.zoom``).
        multiple: what read heights and widths are multiples of.

    Raises:
        BadInputError: the image has no pixels.
        BadOptionError: a size, halo, scale or multiple that cannot be.
    """

    shape: tuple[int, int]
    size: int = DEFAULT_SIZE
    halo: int = 0
    scale: int = 1
    aligned: Aligned = "corner"
    multiple: int = 1

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            height, width = self.shape
            raise BadInputError(
                f"the image has {height} rows and {width} columns; at least one of each is needed"
            )
        least = {"size": 1, "halo": 0, "scale": 1, "multiple": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise BadOptionError(
                    f"tile {name} is {getattr(self, name)}; it must be at least {bound}"
                )

    @classmethod
    def for_model(
        cls,
        spec: ModelSpec,
        shape: tuple[int, int],
        size: int | None = None,
        halo: int | None = None,
    ) -> TilePlan:
        """The plan that a model asks for.

        Args:
            spec: the model's.
            shape: ``(height, width)`` of the image [px].
            size: largest core [px]; ``choose_size`` of the halo where None.
            halo: context [px]; the model's where None.

        Raises:
            BadOptionError: the halo is smaller than the model's.
        """
        halo = spec.halo if halo is None else halo
        size = choose_size(halo) if size is None else size
        plan = cls(shape, size, halo, spec.scale, spec.aligned, spec.multiple)
        plan.check(spec, shape)
        return plan

    def check(self, spec: ModelSpec, shape: tuple[int, int]) -> None:
        """Refuse a plan that is not made for this model and image.

        Raises:
            BadOptionError: with what the plan has and what is needed.
        """
        if self.halo < spec.halo:
            raise BadOptionError(
                f"the tile halo is {self.halo} px, but {spec.name} depends on {spec.halo} px "
                f"around a tile; use a halo of at least {spec.halo}"
            )
        needed = {
            "shape": shape,
            "scale": spec.scale,
            "aligned": spec.aligned,
            "multiple": spec.multiple,
        }
        for name, value in needed.items():
            if getattr(self, name) != value:
                raise BadOptionError(
                    f"the tile plan has {name} {getattr(self, name)}, but {spec.name} on this "
                    f"image needs {value}; TilePlan.for_model makes one that fits"
                )

    @cached_property
    def cores(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Core heights from top to bottom and core widths from left to right [px]."""
        height, width = self.shape
        return self._split(height), self._split(width)

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The same on the fine grid: the chunks of the result."""
        rows, cols = self.cores
        return tuple(n * self.scale for n in rows), tuple(n * self.scale for n in cols)

    @property
    def tile_counts(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        rows, cols = self.cores
        return len(rows), len(cols)

    def __len__(self) -> int:
        rows, cols = self.tile_counts
        return rows * cols

    def __iter__(self) -> Iterator[Tile]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Tile:
        if not 0 <= index < len(self):
            raise IndexError(f"tile {index} of {len(self)}")
        rows, cols = self.cores
        row, col = divmod(index, len(cols))
        core = Window(col * cols[0], row * rows[0], cols[col], rows[row])
        return Tile(core, self.read_window(core))

    def _split(self, length: int) -> tuple[int, ...]:
        largest = _round_up(self.size, self.multiple)
        core = _round_up(-(-length // -(-length // largest)), self.multiple)
        starts = range(0, length, core)
        return tuple(min(core, length - start) for start in starts)

    def read_window(self, core: Window) -> Window:
        """What is looked at for a core, or a part of one that begins at whole multiples."""
        grown = core.grow(self.halo)
        left, top = (v // self.multiple * self.multiple for v in (grown.col_off, grown.row_off))
        right = _round_up(grown.col_off + grown.width, self.multiple)
        bottom = _round_up(grown.row_off + grown.height, self.multiple)
        height, width = self.shape
        return Window(left, top, right - left, bottom - top).intersect(Window(0, 0, width, height))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple

"""Tiles of an image and of its overviews, encoded one by one and then put into one file.

A spool is a folder with one small TIFF per tile. GDAL encodes and decodes them, so any task (of any
thread or worker that sees the folder) can add a tile; what has no valid pixel is not stored. The
final file is made by moving tiles out of the spool, so the disk holds every tile once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import dask.array as da
import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from rasterio.io import MemoryFile

from l1bsr_geo.georef import tiff
from l1bsr_geo.tiling.encoding import Encoding

BoolArray = npt.NDArray[np.bool_]
SizeArray = npt.NDArray[np.int64]

_CLASSIC_LIMIT = 2**32 - 2**20
_ANYWHERE = Affine.translation(1, 0)  # rasterio warns of files without any transform


@dataclass(frozen=True)
class TileFormat:
    """How every tile of a file is stored.

    Attributes:
        count: bands.
        dtype: of the pixels.
        nodata: what a pixel that is not valid holds, or None (then 0).
        size: side of a tile [px], a multiple of 16.
    """

    count: int
    dtype: np.dtype[Any]
    nodata: float | None
    size: int

    @property
    def profile(self) -> dict[str, Any]:
        """What rasterio is told."""
        return {
            "driver": "GTiff",
            "width": self.size,
            "height": self.size,
            "count": self.count,
            "dtype": self.dtype.name,
            "nodata": self.nodata,
            "tiled": True,
            "blockxsize": self.size,
            "blockysize": self.size,
            "interleave": "pixel",
            "compress": "deflate",
            "predictor": 3 if self.dtype.kind == "f" else 2,
            "photometric": "minisblack",  # four bands of bytes are not a photograph with alpha
            "alpha": "unspecified",
            "bigtiff": "no",
            "endianness": "little",
        }

    @property
    def encoding(self) -> Encoding:
        """How computed values become stored ones."""
        return Encoding(self.dtype, self.nodata, (0.0,))

    def encode(self, pixels: npt.NDArray[Any], valid: BoolArray) -> bytes | None:
        """One tile as a TIFF of its own.

        Args:
            pixels: (count, height, width), at most ``size`` wide and high.
            valid: (height, width).

        Returns:
            The file, or None where nothing is valid.
        """
        if self.dtype.kind == "f":
            valid = valid & np.isfinite(pixels).all(0)
        if not valid.any():
            return None
        height, width = valid.shape
        tile = np.full((self.count, self.size, self.size), self.nodata or 0, self.dtype)
        np.copyto(tile[:, :height, :width], pixels, where=valid)
        mask = np.zeros((self.size, self.size), np.uint8)
        mask[:height, :width] = valid * np.uint8(255)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
            with memory.open(**self.profile, transform=_ANYWHERE) as file:
                file.write(tile)
                file.write_mask(mask)
            return bytes(memory.read())


@dataclass(frozen=True)
class Spool:
    """Encoded tiles of every level of a pyramid, in a folder."""

    folder: Path
    format: TileFormat

    def path(self, level: int, row: int, col: int) -> Path:
        """Where a tile is, if it is stored."""
        return self.folder / f"{level}-{row}-{col}.tif"

    def add(
        self, level: int, row: int, col: int, pixels: npt.NDArray[Any], valid: BoolArray
    ) -> tuple[int, int]:
        """Store a tile; the bytes of its pixels and of its mask, 0 where nothing is valid."""
        data = self.format.encode(pixels, valid)
        if data is None:
            return 0, 0
        self.path(level, row, col).write_bytes(data)
        encoded, mask = tiff.tile_bytes(data)
        return len(encoded), len(mask)

    def add_average(self, level: int, row: int, col: int) -> tuple[int, int]:
        """Store a tile of an overview, averaged from the four under it."""
        size = self.format.size
        pixels = np.zeros((self.format.count, 2 * size, 2 * size), self.format.dtype)
        valid = np.zeros(pixels.shape[1:], bool)
        for i, j in np.ndindex(2, 2):
            path = self.path(level - 1, 2 * row + i, 2 * col + j)
            if path.exists():
                at = np.s_[i * size : (i + 1) * size, j * size : (j + 1) * size]
                with rasterio.open(path) as file:
                    pixels[:, *at], valid[at] = file.read(), file.read_masks(1) > 0
        mean, mean_valid = average(pixels, valid)
        return self.add(level, row, col, self.format.encoding.encode(mean, mean_valid), mean_valid)

    def take(self, level: int, row: int, col: int) -> bytes:
        """A tile's pixels and mask as they stand in the final file; it leaves the spool."""
        path = self.path(level, row, col)
        data = path.read_bytes()
        path.unlink()
        return b"".join(tiff.frame(part) for part in tiff.tile_bytes(data))


def average(pixels: npt.NDArray[Any], valid: BoolArray) -> tuple[npt.NDArray[Any], BoolArray]:
    """Mean of the valid pixels of every 2 x 2; valid where one of them is.

    Args:
        pixels: (C, 2 h, 2 w).
        valid: (2 h, 2 w).

    Returns:
        (C, h, w) floating and (h, w) bool.
    """
    known = np.where(valid, pixels, 0).astype(np.result_type(pixels.dtype, np.float32))

    def add_up(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
        rows = a[..., 0::2, :] + a[..., 1::2, :]
        return np.asarray(rows[..., 0::2] + rows[..., 1::2])

    count = add_up(valid.astype(known.dtype))
    return add_up(known) / np.maximum(count, 1), count > 0


def spool_image(spool: Spool, pixels: da.Array, valid: da.Array, name: str) -> Delayed:
    """The work of storing every tile of the full resolution.

    The results are handed on from tile to tile, across the shorter side of the image. Dask orders
    its work by the longest chain, so it follows that path and needs few sources at a time; with
    nothing but independent tiles it holds half of the sources of a turned image.

    Args:
        spool: where to.
        pixels: (band, y, x).
        valid: (y, x).
        name: of the tasks that store: keys are ``(name, row, column)``.

    Returns:
        (rows, columns, 2) bytes of every tile's pixels and mask.
    """
    size = spool.format.size
    pixels, valid = pixels.rechunk((-1, size, size)), valid.rechunk((size, size))
    rows, cols = tiles = valid.numblocks
    layer: dict[Any, Any] = {f"{name}-spool": spool}
    for i, j in np.ndindex(tiles):
        source = (pixels.name, 0, i, j), (valid.name, i, j)
        layer[name, i, j] = (_store, f"{name}-spool", i, j, *source)
    path = sorted(layer[name, i, j][2:4] for i, j in np.ndindex(tiles))
    if rows < cols:
        path = sorted(path, key=lambda place: place[::-1])
    before: Any = None
    for step, place in enumerate(path):
        layer[f"{name}-path", step] = (_follow, before, (name, *place))
        before = f"{name}-path", step
    return _tabulate_lazily(layer, before, tiles, name, [pixels, valid])


def spool_overview(spool: Spool, level: int, tiles: tuple[int, int], name: str) -> Delayed:
    """The work of storing every tile of an overview, once the level below it is stored."""
    layer = {(name, i, j): (spool.add_average, level, i, j) for i, j in np.ndindex(tiles)}
    return _tabulate_lazily(layer, None, tiles, name, [])


def _tabulate_lazily(
    layer: dict[Any, Any], last: Any, tiles: tuple[int, int], name: str, inputs: list[Any]
) -> Delayed:
    rows, cols = tiles
    table = f"{name}-table"
    layer[table] = (_tabulate, last, [[(name, i, j) for j in range(cols)] for i in range(rows)])
    return Delayed(table, HighLevelGraph.from_collections(table, layer, dependencies=inputs))


def _store(
    spool: Spool, row: int, col: int, pixels: npt.NDArray[Any], valid: BoolArray
) -> tuple[int, int]:
    return spool.add(0, row, col, pixels, valid)


def _follow(before: None, stored: tuple[int, int]) -> None:
    """Nothing; its place in the graph is all."""


def _tabulate(last: None, sizes: list[list[tuple[int, int]]]) -> SizeArray:
    return np.array(sizes, np.int64)


def level_shapes(shape: tuple[int, int], size: int) -> list[tuple[int, int]]:
    """(height, width) of the image and of its overviews, down to one tile."""
    shapes = [shape]
    while max(shapes[-1]) > size:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes


def assemble(
    spool: Spool,
    template: bytes,
    shapes: list[tuple[int, int]],
    sizes: list[SizeArray],
    out: BinaryIO,
    *,
    bigtiff: bool | None = None,
) -> None:
    """Move all tiles into one file: directories, then the smallest overview to the full image.

    Args:
        spool: all tiles; empty afterwards.
        template: a TIFF of one tile whose tags and mask the file gets.
        shapes: of every level, see ``level_shapes``.
        sizes: (rows, columns, 2) of every level, see ``spool_image``.
        out: the file, empty.
        bigtiff: None takes BigTIFF when the file needs it.
    """
    total = sum(int(_framed(size).sum()) + 40 * size.size for size in sizes)
    big = total > _CLASSIC_LIMIT if bigtiff is None else bigtiff
    pixel_tags, mask_tags = tiff.read_directories(template)

    def header(start: int) -> bytes:
        directories = []
        for level, (shape, size) in enumerate(zip(shapes, sizes, strict=True)):
            following = sizes[level + 1 :]
            begin = start + sum(int(_framed(s).sum()) for s in following)
            for is_mask, tags in enumerate((pixel_tags, mask_tags)):
                offsets = _offsets(size, begin, is_mask=bool(is_mask))
                directories.append(
                    tiff.describe_level(
                        tags,
                        shape,
                        offsets,
                        size[..., is_mask],
                        is_overview=level > 0,
                        is_mask=bool(is_mask),
                        big=big,
                    )
                )
        return tiff.write_header(directories, big=big)

    out.write(header(len(header(0))))
    for level in reversed(range(len(shapes))):
        for row, col in np.argwhere(sizes[level][..., 0]):
            out.write(spool.take(level, row, col))


def _framed(size: SizeArray) -> SizeArray:
    """Bytes of every tile in the file: pixels and mask, each with leader and trailer."""
    return np.where(size[..., 0] > 0, size.sum(-1) + 4 * tiff.FRAME, 0)


def _offsets(size: SizeArray, begin: int, *, is_mask: bool) -> SizeArray:
    """Where the encoded pixels (or masks) of a level's tiles begin; 0 where not stored."""
    framed = _framed(size)
    at = begin + np.cumsum(framed).reshape(framed.shape) - framed + tiff.FRAME
    if is_mask:
        at = at + size[..., 0] + 2 * tiff.FRAME
    return np.where(framed > 0, at, 0)

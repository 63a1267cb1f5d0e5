"""Tiles of an image and of its overviews, encoded one by one and then put into one file.

GDAL encodes and decodes them, each a small TIFF of its own, in any thread or worker; the process
that writes keeps them as `Parts`. What has no valid pixel is not stored. The final file is made by
moving the parts into it, so the disk holds every tile once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import dask.array as da
import numpy as np
import numpy.typing as npt
import rasterio
from dask.highlevelgraph import HighLevelGraph
from rasterio.io import MemoryFile

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.georef import tiff
from l1bsr_geo.georef.drawing import Blocks
from l1bsr_geo.georef.parts import ANYWHERE, Parts, SizeArray
from l1bsr_geo.tiling.encoding import Encoding

BoolArray = npt.NDArray[np.bool_]

_CLASSIC_LIMIT = 2**32 - 2**20


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
            with memory.open(**self.profile, transform=ANYWHERE) as file:
                file.write(tile)
                file.write_mask(mask)
            return bytes(memory.read())


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


def encode_lazily(
    form: TileFormat, pixels: da.Array, valid: da.Array, missing: Iterable[tuple[int, int]]
) -> tuple[dict[Any, Any], dict[Any, tuple[int, int]]]:
    """The work of encoding tiles of the full resolution.

    Args:
        form: of the tiles.
        pixels: (band, y, x).
        valid: (y, x).
        missing: (row, column) of those that are wanted.

    Returns:
        A dask graph, and the wanted keys of it with their places, across the shorter side of the
        image: in that order few sources are needed at a time.
    """
    pixels = pixels.rechunk({0: -1})
    valid = valid.rechunk(pixels.chunks[1:])
    chunks, blocks = Blocks(*pixels.chunks[1:]), Blocks.cut(valid.shape, form.size)
    turned = len(blocks.heights) < len(blocks.widths)
    path = sorted(missing, key=lambda place: place[::-1] if turned else place)
    name = f"encode-{uuid4().hex}"
    graph = dict(HighLevelGraph.merge(pixels.dask, valid.dask))
    places = {(name, *place): place for place in path}
    for key, place in places.items():
        block = blocks.window(place)
        sources = chunks.touching(block)
        graph[key] = (
            _encode_block,
            form,
            block,
            [chunks.window(source) for source in sources],
            [(pixels.name, 0, *source) for source in sources],
            [(valid.name, *source) for source in sources],
        )
    return graph, places


def _encode_block(
    form: TileFormat,
    block: Window,
    windows: list[Window],
    pixels: list[npt.NDArray[Any]],
    valid: list[BoolArray],
) -> bytes | None:
    """A tile from the chunks that it shows parts of."""
    if windows == [block]:
        return form.encode(pixels[0], valid[0])
    whole, known = np.empty((form.count, *block.shape), form.dtype), np.empty(block.shape, bool)
    for chunk, values, good in zip(windows, pixels, valid, strict=True):
        part = chunk.intersect(block)
        to, of = (part.shift(-w.col_off, -w.row_off).slices for w in (block, chunk))
        whole[:, *to], known[to] = values[:, *of], good[of]
    return form.encode(whole, known)


def average_tile(form: TileFormat, parts: Parts, level: int, row: int, col: int) -> bytes | None:
    """A tile of an overview, averaged from the four under it."""
    size = form.size
    pixels = np.zeros((form.count, 2 * size, 2 * size), form.dtype)
    valid = np.zeros(pixels.shape[1:], bool)
    for i, j in np.ndindex(2, 2):
        path = parts.path(level - 1, 2 * row + i, 2 * col + j)
        if path.exists() and path.stat().st_size:
            at = np.s_[i * size : (i + 1) * size, j * size : (j + 1) * size]
            with rasterio.open(path) as file:
                pixels[:, *at], valid[at] = file.read(), file.read_masks(1) > 0
    mean, mean_valid = average(pixels, valid)
    return form.encode(form.encoding.encode(mean, mean_valid), mean_valid)


def level_shapes(shape: tuple[int, int], size: int) -> list[tuple[int, int]]:
    """(height, width) of the image and of its overviews, down to one tile."""
    shapes = [shape]
    while max(shapes[-1]) > size:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes


def assemble(
    parts: Parts,
    template: bytes,
    shapes: list[tuple[int, int]],
    sizes: list[SizeArray],
    *,
    bigtiff: bool | None = None,
) -> None:
    """Move all tiles into one file: directories, then the smallest overview to the full image.

    Every tile has its place, so that a move that was cut short can go on.

    Args:
        parts: all tiles; they are gone afterwards.
        template: a TIFF of one tile whose tags and mask the file gets.
        shapes: of every level, see ``level_shapes``.
        sizes: (rows, columns, 2) bytes of every level's pixels and masks.
        bigtiff: None takes BigTIFF when the file needs it.
    """
    total = sum(int(_framed(size).sum()) + 40 * size.size for size in sizes)
    big = total > _CLASSIC_LIMIT if bigtiff is None else bigtiff
    pixel_tags, mask_tags = tiff.read_directories(template)

    def header(start: int) -> bytes:
        directories = []
        for level, (shape, size) in enumerate(zip(shapes, sizes, strict=True)):
            for is_mask, tags in enumerate((pixel_tags, mask_tags)):
                offsets = _offsets(size, _begin(sizes, level, start), is_mask=bool(is_mask))
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

    start = len(header(0))
    with parts.whole.open("r+b" if parts.whole.exists() else "wb") as out:
        out.write(header(start))
        for level in reversed(range(len(shapes))):
            at = _offsets(sizes[level], _begin(sizes, level, start), is_mask=False) - tiff.FRAME
            for row, col in np.argwhere(sizes[level][..., 0]):
                data = parts.read(level, row, col)
                if data is not None:
                    out.seek(at[row, col])
                    out.write(data)
                    out.flush()  # before its part goes
                    parts.drop(level, row, col)


def _framed(size: SizeArray) -> SizeArray:
    """Bytes of every tile in the file: pixels and mask, each with leader and trailer."""
    return np.where(size[..., 0] > 0, size.sum(-1) + 4 * tiff.FRAME, 0)


def _begin(sizes: list[SizeArray], level: int, start: int) -> int:
    """Where a level begins: after all smaller ones."""
    return start + sum(int(_framed(size).sum()) for size in sizes[level + 1 :])


def _offsets(size: SizeArray, begin: int, *, is_mask: bool) -> SizeArray:
    """Where the encoded pixels (or masks) of a level's tiles begin; 0 where not stored."""
    framed = _framed(size)
    at = begin + np.cumsum(framed).reshape(framed.shape) - framed + tiff.FRAME
    if is_mask:
        at = at + size[..., 0] + 2 * tiff.FRAME
    return np.where(framed > 0, at, 0)

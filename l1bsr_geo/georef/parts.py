"""Encoded tiles that wait beside the output: what a run that was killed leaves for the next.

The folder holds one small TIFF per tile (empty where nothing is valid), what the run is made of,
and a lock. Files are written under another name first, so that what is there is whole.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from shutil import rmtree
from threading import Lock
from time import sleep
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from filelock import FileLock, Timeout
from rasterio.io import MemoryFile

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.georef import tiff

SizeArray = npt.NDArray[np.int64]

ANYWHERE = Affine.translation(1, 0)
"""Of parts: rasterio warns of files without any transform."""

RECENT = 128 * 2**20
"""Bytes of restored tiles that are also in memory: two rows of those of a Sentinel-2 detector."""

_LOCK, _RUN, _TEMPLATE, _SIZES = "lock", "run.json", "template.tif", "sizes.npz"


@dataclass(frozen=True)
class Parts:
    """Encoded tiles of every level of a pyramid, in a folder."""

    folder: Path

    @property
    def whole(self) -> Path:
        """The final file, while it grows."""
        return self.folder / "whole.tif"

    def path(self, level: int, row: int, col: int) -> Path:
        """Where a tile is, if it is stored."""
        return self.folder / f"{level}-{row}-{col}.tif"

    def add(self, level: int, row: int, col: int, data: bytes | None) -> tuple[int, int]:
        """Store a tile (None where nothing is valid); the bytes of its pixels and of its mask."""
        _write_whole(self.path(level, row, col), data or b"")
        return _measure(data)

    def measure(self, level: int, row: int, col: int) -> tuple[int, int] | None:
        """The bytes of a stored tile's pixels and of its mask; None where it is not stored."""
        path = self.path(level, row, col)
        return _measure(path.read_bytes()) if path.exists() else None

    def read(self, level: int, row: int, col: int) -> bytes | None:
        """A tile's pixels and mask as they stand in the final file; None where it is not stored."""
        path = self.path(level, row, col)
        if not path.exists():
            return None
        return b"".join(tiff.frame(part) for part in tiff.tile_bytes(path.read_bytes()))

    def drop(self, level: int, row: int, col: int) -> None:
        """A tile is in the final file."""
        self.path(level, row, col).unlink(missing_ok=True)

    def keep_template(self, template: bytes) -> bytes:
        """The file of one tile that a run began with: its tags are those of the final file."""
        path = self.folder / _TEMPLATE
        if not path.exists():
            _write_whole(path, template)
        return path.read_bytes()

    def keep_sizes(self, sizes: Sequence[SizeArray]) -> None:
        """Note the bytes of all tiles: from now on they move into the final file."""
        path = self.folder / _SIZES
        with path.with_suffix(".tmp").open("wb") as file:
            np.savez(file, *sizes)
        os.replace(path.with_suffix(".tmp"), path)

    def read_sizes(self) -> list[SizeArray] | None:
        """The bytes of all tiles, if they are all there, or were and moved."""
        path = self.folder / _SIZES
        if not path.exists():
            return None
        with np.load(path) as file:
            return [file[name] for name in file.files]


Tile: TypeAlias = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # pixels (C, H, W), validity (H, W)


class TileShelf:
    """Restored tiles, in the folder of the parts that are drawn from them.

    Compressed as the parts are, so that the disk never holds much more than the final file; those
    used last are in memory, too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, Lock()
        self._recent: OrderedDict[str, list[Tile]] = OrderedDict()

    def has(self, name: str) -> bool:
        """Whether tiles are there under this name."""
        return self._path(name, 0).exists()

    def load(self, name: str) -> list[Tile]:
        """The tiles that were restored at once."""
        with self._lock:
            tiles = self._recent.get(name)
            if tiles is not None:
                self._recent.move_to_end(name)
                return tiles
        paths = takewhile(Path.exists, (self._path(name, place) for place in count()))
        tiles = [_read_tile(path) for path in paths]
        self._remember(name, tiles)
        return tiles

    def keep(self, name: str, tiles: list[Tile]) -> None:
        """Keep them."""
        for place, tile in reversed(list(enumerate(tiles))):  # the first says that all are there
            _write_whole(self._path(name, place), _encode_tile(*tile))
        self._remember(name, tiles)

    def drop(self, name: str) -> None:
        """All that they show is stored."""
        with self._lock:
            self._recent.pop(name, None)
        for path in takewhile(Path.exists, (self._path(name, place) for place in count())):
            path.unlink()

    def _remember(self, name: str, tiles: list[Tile]) -> None:
        with self._lock:
            self._recent[name] = tiles
            while len(self._recent) > 1 and sum(map(_count_bytes, self._recent.values())) > RECENT:
                self._recent.popitem(last=False)

    def _path(self, name: str, place: int) -> Path:
        return self._folder / f"restored-{name}-{place}.tif"


def _count_bytes(tiles: list[Tile]) -> int:
    return sum(pixels.nbytes + valid.nbytes for pixels, valid in tiles)


def _encode_tile(pixels: npt.NDArray[Any], valid: npt.NDArray[Any]) -> bytes:
    height, width = valid.shape
    profile = {
        "driver": "GTiff",
        "count": len(pixels),
        "height": height,
        "width": width,
        "dtype": pixels.dtype.name,
        "compress": "deflate",
        "zlevel": 1,
        "predictor": 3 if pixels.dtype.kind == "f" else 2,
        "transform": ANYWHERE,
    }
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
        with memory.open(**profile) as file:
            file.write(pixels)
            file.write_mask(valid)
        return bytes(memory.read())


def _read_tile(path: Path) -> Tile:
    with rasterio.open(path) as file:
        return file.read(), file.read_masks(1) > 0


@contextmanager
def open_parts(path: Path, made_of: Mapping[str, str], *, resume: bool) -> Iterator[Parts]:
    """The folder of parts of a file, which is gone afterwards.

    It stays only when the process is killed, or fails while it may be resumed.

    Args:
        path: the file.
        made_of: what its pixels depend on, by name.
        resume: use what an earlier run left, and leave what this one makes if it fails.

    Raises:
        BadOptionError: the earlier run was of something else; another run is at work here.
    """
    folder = path.with_name(f".{path.name}.parts")
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadOptionError(
            f"{path}: another run is writing it; wait for its end, or write to another file"
        ) from None
    keep = resume
    try:
        _begin(path, folder, made_of, resume=resume)
        yield Parts(folder)
        keep = False
    finally:
        lock.release()
        if not keep:
            _remove(folder)


def _begin(path: Path, folder: Path, made_of: Mapping[str, str], *, resume: bool) -> None:
    """Use what is there if it is of the same, else begin with nothing."""
    record = folder / _RUN
    if resume and record.exists():
        before: dict[str, str] = json.loads(record.read_text())
        changed = [
            f"{name} was {before.get(name, 'not given')} and is {made_of.get(name, 'not given')}"
            for name in sorted({*before, *made_of})
            if before.get(name) != made_of.get(name)
        ]
        if changed:
            raise BadOptionError(
                f"{path}: cannot be resumed, {'; '.join(changed)}; resume with what it was begun "
                "with, or start anew without --resume"
            )
        return
    for old in folder.iterdir():
        if old.is_dir():
            rmtree(old)
        elif old.name != _LOCK:
            old.unlink()
    _write_whole(record, json.dumps(dict(made_of), indent=1).encode())


def _remove(folder: Path) -> None:
    for _ in range(100):  # after a failure other threads may still be storing their tile
        rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
        sleep(0.05)


def _write_whole(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.tmp")
    part.write_bytes(data)
    os.replace(part, path)


def _measure(data: bytes | None) -> tuple[int, int]:
    if not data:
        return 0, 0
    pixels, mask = tiff.tile_bytes(data)
    return len(pixels), len(mask)

"""Pixels between xarray and tiling: sources as a lazy array, an array as sources."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.pixels import PixelSource

CHUNK = 1024
"""[px] Side of the chunks that are read well."""

_LINES = 1024  # read at a time where some of them are skipped


class LayerArray(BackendArray):
    """Sources of one shape and type as one array (layer, y, x), read where it is indexed.

    Picklable, and safe to read from several threads, as its sources are.

    Args:
        sources: one for each layer.
    """

    def __init__(self, sources: Sequence[PixelSource]) -> None:
        self.sources = tuple(sources)
        first = self.sources[0]
        self.shape = (len(self.sources), *first.shape)
        self.dtype = first.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """What a key chooses; no more is read than it spans."""
        support = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        layers, rows, columns = (_places(k, n) for k, n in zip(key, self.shape, strict=True))
        pixels = np.empty((len(layers), len(rows), len(columns)), self.dtype)
        for at, layer in enumerate(layers):
            if rows and columns:
                _read_layer(self.sources[layer], rows, columns, pixels[at])
        return pixels[tuple(slice(None) if isinstance(k, slice) else 0 for k in key)]


def _places(key: Any, count: int) -> range:
    if isinstance(key, slice):
        return range(count)[key]
    at = range(count)[int(key)]
    return range(at, at + 1)


def _read_layer(source: PixelSource, rows: range, columns: range, out: npt.NDArray[Any]) -> None:
    """A layer's pixels at these rows and columns, a strip at a time where lines are skipped."""
    left, right = min(columns), max(columns) + 1
    across = np.asarray(columns) - left
    lines = len(rows) if abs(rows.step) == 1 else max(1, _LINES // abs(rows.step))
    for start in range(0, len(rows), lines):
        part = rows[start : start + lines]
        top, bottom = min(part), max(part) + 1
        block = source.read(Window(left, top, right - left, bottom - top))
        out[start : start + lines] = block[:: part.step if len(part) > 1 else 1][:, across]


@dataclass(frozen=True, eq=False)
class ArraySource:
    """One layer of an array as a source. Picklable, if the array is.

    Attributes:
        pixels: (..., y, x): in memory, read where it is indexed, or dask-backed.
        layer: index of the axes before y and x.
    """

    pixels: xr.Variable
    layer: tuple[int, ...] = ()
    _on_cluster: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Note whether a cluster holds the pixels."""
        object.__setattr__(self, "_on_cluster", _holds_futures(self.pixels))

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        height, width = self.pixels.shape[-2:]
        return height, width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        dtype: np.dtype[Any] = self.pixels.dtype
        return dtype

    def read(self, window: Window) -> npt.NDArray[Any]:
        """The pixels of a window inside the array."""
        part = self.pixels[(*self.layer, *window.slices)]
        if part.chunks is None:
            return np.array(part.values)  # a copy: what is in memory stays as it is
        if self._on_cluster:
            return _compute_there(part.data)
        # this thread is one of many that do so already
        return np.asarray(part.data.compute(scheduler="synchronous"))


def _holds_futures(pixels: xr.Variable) -> bool:
    """Whether pixels were persisted on a dask cluster."""
    if pixels.chunks is None or "distributed" not in sys.modules:
        return False
    from distributed import futures_of

    return bool(futures_of(pixels.data))  # type: ignore[no-untyped-call]


def _compute_there(part: Any) -> npt.NDArray[Any]:
    """What a cluster holds, asked for from one of its tasks or from a client."""
    from distributed import get_worker, worker_client

    try:
        get_worker()
    except ValueError:
        return np.asarray(part.compute())
    with worker_client() as client:  # its place is free for others meanwhile
        return np.asarray(client.compute(part).result())

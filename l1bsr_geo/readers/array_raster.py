"""An array of bands, opened by rioxarray or made by a program, as a BandStack."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import rioxarray  # noqa: F401 (the CRS of arrays)
import xarray as xr
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags
from rioxarray.exceptions import RioXarrayError

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.images.pixels import PixelSource
from l1bsr_geo.readers.array_pixels import ArraySource
from l1bsr_geo.readers.array_place import grid_of_array, name_of
from l1bsr_geo.readers.geotiff import read_opened
from l1bsr_geo.readers.sentinel2_metadata import BANDS
from l1bsr_geo.readers.sources import MaskedSource

VALID = "valid"
"""Coordinate (y, x) of arrays where no value says that there is no data."""


def order_axes(array: xr.DataArray) -> xr.DataArray:
    """The array as (layer, y, x), whatever its axes are called: bands or times before y and x.

    Raises:
        BadInputError: other axes, no pixels, or no real numbers.
    """
    try:
        names = {array.rio.y_dim: "y", array.rio.x_dim: "x"}
    except RioXarrayError as error:
        raise _bad_axes(array) from error
    array = array.rename({old: new for old, new in names.items() if old != new})
    if array.ndim == 2:
        array = array.expand_dims("band")
    layers = [name for name in array.dims if name not in ("y", "x")]
    if len(layers) != 1:
        raise _bad_axes(array)
    if 0 in array.shape or array.dtype.kind not in "uif":
        raise BadInputError(
            f"an array of {array.dtype} and shape {array.shape}; real numbers were expected, and "
            "at least one of them"
        )
    return array.transpose(layers[0], "y", "x")


def nodata_of(array: xr.DataArray) -> float | None:
    """The value in the array that means no data; NaN does anyway."""
    for name in ("_FillValue", "missing_value", "nodata"):
        value = array.attrs.get(name)
        if value is not None:
            return float(value)
    return None


def read_band_array(array: xr.DataArray, bands: Sequence[str] | None) -> BandStack:
    """The bands of an array that tells all of itself: names, CRS, scales; read where it is asked.

    Bands are found as `read_raster` finds them: by the names of the coordinate ``band``, or of
    ``long_name``, where rioxarray keeps the descriptions of a file.

    Args:
        array: (band, y, x), as `order_axes` gives it.
        bands: which, by name, or the names of all.

    Raises:
        BadInputError: its bands cannot be told apart, its coordinates are not those of an image.
    """
    layers = sources_of(array)
    grid = grid_of_array(array)
    facade = _ArrayRaster(array)
    named = facade.descriptions
    if bands is None and all(named) and not set(named) & set(BANDS):  # of another sensor
        sources = {str(name): layer for name, layer in zip(named, layers, strict=True)}
        first = str(named[0])
        return BandStack(sources, dict.fromkeys(sources, grid), first, nodata=facade.nodata)
    stack = read_opened(facade, facade.name, bands, dict(enumerate(layers, 1)))
    told = {name: value for name, value in stack.attrs.items() if name not in ("rpcs", "gcps")}
    return replace(stack, grids=dict.fromkeys(stack.bands, grid), attrs=told)


def sources_of(array: xr.DataArray) -> list[PixelSource]:
    """Every layer of an array (layer, y, x), with no data where its coordinate ``valid`` says."""
    layers: list[PixelSource] = [
        ArraySource(array.variable, (i,)) for i in range(array.sizes[array.dims[0]])
    ]
    if VALID not in array.coords:
        return layers
    valid = ArraySource(array.coords[VALID].transpose("y", "x").astype(np.uint8).variable)
    spare = float(np.iinfo(array.dtype).min) if array.dtype.kind in "iu" else float("nan")
    return [MaskedSource(layer, valid, spare, True) for layer in layers]


def nodata_of_sources(array: xr.DataArray) -> float | None:
    """The value of no data of `sources_of`."""
    if VALID in array.coords and array.dtype.kind in "iu":
        return float(np.iinfo(array.dtype).min)
    return nodata_of(array)


class _ArrayRaster:
    """An array that answers the questions that `read_opened` asks of a rasterio dataset."""

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array
        count, *shape = array.shape
        self.shape = tuple(shape)
        self.height, self.width = self.shape
        self.indexes = list(range(1, count + 1))
        self.name = name_of(array)
        self.dtypes = [str(array.dtype)] * count
        self.nodata = nodata_of_sources(array)
        self.scales = _each(array, ("scale_factor", "scales"), 1.0)
        self.offsets = _each(array, ("add_offset", "offsets"), 0.0)
        self.descriptions = _descriptions(array)
        # what says that there is no data is a value here
        self.mask_flag_enums = [[MaskFlags.all_valid]] * count
        self.colorinterp = [ColorInterp.undefined] * count
        self.transform, self.crs = Affine.identity(), None  # the grid is the array's own
        self.rpcs = None
        self.gcps: tuple[list[Any], None] = [], None

    def tags(self, index: int = 0) -> dict[str, str]:
        """Words among the attributes; of a band there are none."""
        attrs = self._array.attrs.items()
        return {} if index else {k: v for k, v in attrs if isinstance(k, str) if type(v) is str}

    def read(self, indexes: Sequence[int], out_shape: Sequence[int], masked: bool) -> Any:
        """A sample of bands."""
        height, width = self.shape
        rows = np.linspace(0, height, out_shape[1], endpoint=False).astype(int)
        columns = np.linspace(0, width, out_shape[2], endpoint=False).astype(int)
        chosen = self._array.variable[[i - 1 for i in indexes], rows, columns]
        values = np.asarray(chosen.values)
        known = self.nodata is None or not masked
        return np.ma.masked_array(values, False if known else values == self.nodata)


def _descriptions(array: xr.DataArray) -> list[str | None]:
    count = array.shape[0]
    names = array.coords.get(array.dims[0])
    if names is not None and names.dtype.kind in "UOT":
        return [str(name) for name in names.values]
    told = array.attrs.get("long_name")
    if isinstance(told, str):
        return [told] if count == 1 else [None] * count
    if told is None:
        return [None] * count
    # some of the bands of a file may have been chosen by their number
    at = range(count) if names is None else [int(n) - 1 for n in np.atleast_1d(names.values)]
    return [str(told[i]) if 0 <= i < len(told) else None for i in at]


def _each(array: xr.DataArray, names: Sequence[str], usual: float) -> list[float]:
    count = array.shape[0]
    for name in names:
        value = array.attrs.get(name)
        if value is not None:
            values = np.broadcast_to(np.asarray(value, np.float64), count)
            return [float(v) for v in values]
    return [usual] * count


def _bad_axes(array: xr.DataArray) -> BadInputError:
    return BadInputError(
        f"an array of dimensions {', '.join(map(str, array.dims))}; (band, y, x), (time, y, x) or "
        "(y, x) was expected: choose one of the others with isel"
    )

"""Results as arrays, and arrays as what `write_cog` takes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401 (the CRS of arrays)
import xarray as xr

from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.images.pixels import GeoImage
from l1bsr_geo.pipelines.stages import LazyResult
from l1bsr_geo.readers.array_pixels import CHUNK
from l1bsr_geo.readers.array_place import Origin, put_in_frame, put_on_map
from l1bsr_geo.readers.array_raster import VALID, nodata_of
from l1bsr_geo.readers.datasets import OFFSET, SCALE, WAVELENGTH, band_coordinates
from l1bsr_geo.readers.rpc import rpcs_of

_OURS = ("nodata", "rpcs", "gsd", "scale_factor", "add_offset", "units", "wavelengths")
_CF = ("_FillValue", "missing_value", "long_name", "standard_name", "grid_mapping", "valid_range")


def as_array(result: LazyResult, *, name: str, origin: Origin | None = None) -> xr.DataArray:
    """A result as an array (band, y, x) that knows where it is, unread.

    Its attributes are the tags of the file that the command line writes. Where no value says that
    there is no data, a coordinate ``valid`` does.

    Args:
        result: of a pipeline.
        name: of the array.
        origin: the product, for a result in sensor geometry that has no plain RPC.
    """
    image = result.image
    told = image.pixels.attrs
    array = xr.DataArray(
        image.pixels.data,
        dims=("band", "y", "x"),
        coords={"band": list(image.bands)} | band_coordinates(image.bands, told),
        attrs=_describe(told, result.facts, image.pixels.dtype),
        name=name,
    )
    if image.valid is not None and told.get("nodata") is None and array.dtype.kind in "iu":
        array = array.assign_coords({VALID: (("y", "x"), image.valid.data)})
    if isinstance(image.grid.model, AffineModel):
        return put_on_map(array, image.grid)
    return put_in_frame(array, origin, rpcs_of(image.grid))


def _describe(
    told: Mapping[str, Any], facts: Mapping[str, str], dtype: np.dtype[Any]
) -> dict[str, Any]:
    attrs: dict[str, Any] = dict(facts)
    attrs["long_name"] = "digital number"
    if told.get("nodata") is not None:
        attrs["_FillValue"] = dtype.type(told["nodata"])
    for key, usual in (("scale_factor", 1.0), ("add_offset", 0.0)):
        values = told.get(key, usual)
        alike = set(values.values()) if isinstance(values, Mapping) else {values}
        if not told.get("units") and alike != {usual} and len(alike) == 1:
            attrs[key] = float(alike.pop())  # as rioxarray keeps those of a file
    return attrs


def follow(origin: Origin, stack: BandStack, base: GeoGrid, grid: GeoGrid) -> Origin:
    """Where a result in sensor geometry is from; the geometry stays the one that was found.

    Args:
        origin: of the array that it was made of.
        stack: its bands.
        base: the grid of the product's reference band.
        grid: of the result.
    """
    options = {**origin.options, "geometry": stack.attrs.get("geometry", "auto")}
    to_source = ~base.to_model @ grid.to_model
    return replace(
        origin, options=options, reference=stack.reference, to_source=tuple(to_source[:6])
    )


def image_of(array: xr.DataArray, grid: GeoGrid) -> GeoImage:
    """An array (layer, y, x) as an image to write, unread."""
    if array.chunks is None:
        array = array.chunk({"y": CHUNK, "x": CHUNK})
    layers = array.coords.get(array.dims[0])
    names = [f"{i + 1}" for i in range(array.shape[0])] if layers is None else layers.values
    if "frame" in array.coords and array.coords["frame"].dims == array.dims[:1]:
        names = array.coords["frame"].values
    attrs = {"nodata": nodata_of(array), "rpcs": rpcs_of(grid)}
    attrs |= {key: array.attrs[key] for key in ("scale_factor", "add_offset") if key in array.attrs}
    bands = [str(name) for name in names]
    for coordinate, key in ((SCALE, "scale_factor"), (OFFSET, "add_offset")):
        if coordinate in array.coords:
            attrs[key] = [float(v) for v in array.coords[coordinate].values]
            attrs["units"] = array.coords[coordinate].attrs.get("units")
    if WAVELENGTH in array.coords:
        values = np.atleast_1d(array.coords[WAVELENGTH].values)
        attrs["wavelengths"] = dict(zip(bands, map(float, values), strict=True))
    pixels = xr.DataArray(array.data, dims=("band", "y", "x"), coords={"band": bands}, attrs=attrs)
    return GeoImage(pixels, grid, _valid_of(array))


def _valid_of(array: xr.DataArray) -> xr.DataArray | None:
    if VALID in array.coords:
        return xr.DataArray(da.asarray(array.coords[VALID].data), dims=("y", "x"))
    nodata, pixels = nodata_of(array), array.data
    valid = None
    if array.dtype.kind == "f":
        valid = da.isfinite(pixels).all(axis=0)
    if nodata is not None and not np.isnan(nodata):
        there = (pixels != nodata).all(axis=0)
        valid = there if valid is None else valid & there
    return None if valid is None else xr.DataArray(valid, dims=("y", "x"))


def tags_of(array: xr.DataArray) -> dict[str, str]:
    """Attributes that are words or numbers, as tags of a file."""
    return {
        str(key): str(value)
        for key, value in array.attrs.items()
        if key not in (*_CF, *_OURS) and isinstance(value, str | int | float)
    }

"""Products as xarray datasets that read nothing but what is indexed."""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from l1bsr_geo.images.bands import BandStack, describe_values
from l1bsr_geo.images.pixels import PixelSource
from l1bsr_geo.readers.array_pixels import CHUNK, LayerArray
from l1bsr_geo.readers.array_place import Origin, put_in_frame
from l1bsr_geo.readers.inputs import read_input
from l1bsr_geo.readers.rpc import rpcs_of
from l1bsr_geo.readers.skysat import read_burst

NAME = "dn"
"""The variable of a dataset."""

SCALE, OFFSET, WAVELENGTH = "radiance_scale", "radiance_offset", "wavelength"
"""Coordinates along ``band``; radiance = DN * scale + offset."""

_FACTS = ("product", "platform", "level", "detector", "datastrip", "processing_baseline", "camera")


def open_detector(
    path: str | os.PathLike[str],
    *,
    detector: int | None = None,
    bands: str | Sequence[str] | None = None,
    geometry: Any = "auto",
    gipp: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """One detector of a Sentinel-2 L1B product as ``dn`` (band, y, x).

    ``x`` and ``y`` count pixels of the detector's image from its first line in the product, 0.5 at
    the first pixel's centre; ``time`` is that of each line, in the reference band.

    Args:
        path: the product.
        detector: 1 to 12; not needed where there is only one.
        bands: names, or "B02,B03", of one resolution; B02 B03 B04 B08 by default.
        geometry: as of `Job`.
        gipp: folder of GIPP files.

    Raises:
        L1bsrGeoError: as `read_input`.
    """
    if isinstance(bands, str):
        bands = [name.strip() for name in bands.split(",")]
    stack = read_input(path, "s2-l1b", detector=detector, bands=bands, geometry=geometry, gipp=gipp)
    stack.check_one_shape()
    options = {"detector": stack.attrs["detector"], "geometry": geometry}
    options["gipp"] = None if gipp is None else os.path.abspath(gipp)
    array = _lazy_array("band", list(stack.sources.values()), stack.nodata, stack.attrs)
    array = array.assign_coords({"band": list(stack.bands)})
    array = array.assign_coords(band_coordinates(stack.bands, describe_values(stack)))
    origin = Origin(source=os.path.abspath(path), sensor="s2-l1b", options=options)
    array = put_in_frame(array, origin)
    return _as_dataset(array.assign_coords(_line_times(stack)))


def open_burst(
    path: str | os.PathLike[str],
    *,
    camera: str | int | None = None,
    start: int | str | None = None,
    frames: int = 15,
    reference: str | int = "middle",
) -> xr.Dataset:
    """Frames of a SkySat burst as ``dn`` (time, y, x), in order of time.

    Every frame has its own geometry: the RPC that ``spatial_ref`` holds is that of the reference.

    Args:
        path: folder of frames, a frame, a table of frames, a stack.
        camera: such as "c2".
        start: first frame, by running number or name.
        frames: how many, at most.
        reference: "middle", "first" or a frame's place in time, from 0.

    Raises:
        L1bsrGeoError: as `read_burst`.
    """
    burst = read_burst(path, camera, start, frames, reference)
    order = np.argsort(burst.attrs["order"])
    array = _lazy_array("time", [burst.sources[t] for t in order], burst.nodata, burst.attrs)
    names = [str(burst.attrs["frames"][t]) for t in order]
    exposures = [burst.exposures[t] for t in order]
    attrs = {"long_name": "exposure time", "units": "ms"}
    if burst.attrs["exposures"] != "integration_time_ms":
        attrs = {"long_name": f"exposure time, {burst.attrs['exposures']}"}
    array = array.assign_coords(frame=("time", names), exposure=("time", exposures, attrs))
    if burst.times:
        times = [_moment(burst.times[t]) for t in order]
        array = array.assign_coords(time=("time", times, {"standard_name": "time"}))
    array.attrs["reference_frame"] = str(burst.attrs["frames"][0])
    options = {"camera": camera, "start": start, "frames": frames, "reference": reference}
    origin = Origin(source=os.path.abspath(path), sensor="skysat", options=options)
    return _as_dataset(put_in_frame(array, origin, rpcs_of(burst.grids[0])))


def band_coordinates(bands: tuple[str, ...], told: Mapping[str, Any]) -> dict[str, xr.Variable]:
    """What is known of each band as coordinates: wavelength, and radiance for L1B."""
    coords = {}
    waves = told.get("wavelengths") or {}
    if all(b in waves for b in bands):
        attrs = {"long_name": "centre wavelength", "units": "nm"}
        attrs |= {"standard_name": "radiation_wavelength"}
        coords[WAVELENGTH] = xr.Variable(("band",), [float(waves[b]) for b in bands], attrs)
    for name, key in ((SCALE, "scale_factor"), (OFFSET, "add_offset")):
        values = told.get(key)
        if told.get("units") and isinstance(values, Mapping) and all(b in values for b in bands):
            attrs = {"long_name": "radiance = DN * radiance_scale + radiance_offset"}
            attrs |= {"units": str(told["units"])}
            coords[name] = xr.Variable(("band",), [float(values[b]) for b in bands], attrs)
    return coords


def _lazy_array(
    layer: str, sources: Sequence[PixelSource], nodata: float | None, facts: Mapping[str, Any]
) -> xr.DataArray:
    """Sources as an unread array (layer, y, x), that knows which chunks are read well."""
    pixels = LayerArray(sources)
    attrs = {"long_name": "digital number"}
    attrs |= {key: facts[key] for key in _FACTS if facts.get(key) not in (None, "")}
    if nodata is not None:
        attrs["_FillValue"] = pixels.dtype.type(nodata)
    lazily = indexing.LazilyIndexedArray(pixels)
    return xr.DataArray(xr.Variable((layer, "y", "x"), lazily, attrs), name=NAME)


def _as_dataset(array: xr.DataArray) -> xr.Dataset:
    known = (*_FACTS, "reference_frame")
    facts = {key: array.attrs.pop(key) for key in known if key in array.attrs}
    dataset = array.to_dataset(name=NAME).assign_attrs(facts | {"Conventions": "CF-1.11"})
    layer, height, width = array.dims[0], *array.shape[1:]
    chunks = {layer: 1, "y": min(CHUNK, height), "x": min(CHUNK, width)}
    dataset[NAME].encoding["preferred_chunks"] = chunks
    return dataset


def _line_times(stack: BandStack) -> dict[str, xr.Variable]:
    """When each line was taken; the moment of the first one alone, where the period is unknown."""
    begin = stack.attrs.get("time")
    if not begin:
        return {}
    attrs = {"standard_name": "time", "long_name": f"time of {stack.reference}, UTC"}
    first = _moment(datetime.fromisoformat(begin.replace("Z", "+00:00")))
    period = stack.attrs.get("line_period")
    if period is None:
        return {"time": xr.Variable((), first, attrs)}
    ratio = stack.attrs["resolution"][stack.reference] / 10
    seconds = np.arange(stack.shape[0]) * period * ratio
    return {"time": xr.Variable(("y",), first + (seconds * 1e9).astype("timedelta64[ns]"), attrs)}


def _moment(time: datetime) -> np.datetime64:
    """UTC, as numpy has it: without a zone."""
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None), "ns")

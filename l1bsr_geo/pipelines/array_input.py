"""Arrays as what pipelines take. Values are the array's own; its product is asked for the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.images.bursts import Burst
from l1bsr_geo.pipelines.bands import read_stack
from l1bsr_geo.pipelines.job import Job
from l1bsr_geo.readers.array_place import (
    Origin,
    frame_of,
    grid_of_array,
    name_of,
    place_grid,
    whole_window,
)
from l1bsr_geo.readers.array_raster import (
    nodata_of_sources,
    order_axes,
    read_band_array,
    sources_of,
)
from l1bsr_geo.readers.inputs import Sensor
from l1bsr_geo.readers.skysat import read_burst
from l1bsr_geo.readers.skysat_runs import parse_reference

_DRAWING = ("bands", "aoi", "crs", "resolution", "dem", "geoid", "height", "refine")
_ALLOWED = (*_DRAWING, "ortho", "dtype")


def make_job(array: xr.DataArray, options: Mapping[str, Any]) -> Job:
    """What is made of an array, as a job that reads and writes no file of pixels.

    Args:
        array: may know its product.
        options: of `Job`, those that do not say what is read or written.

    Raises:
        BadOptionError: other options, or impossible ones.
    """
    known = {field.name for field in fields(Job)}
    for name in options:
        if name not in _ALLOWED:
            why = "it is of files" if name in known else "there is no such option"
            raise BadOptionError(f"{name}: {why}; an array takes {', '.join(_ALLOWED)}")
    origin = Origin.of(array)
    if origin is None:
        return Job(source=name_of(array), output="", sensor="raster", **options)
    sensor: Sensor = "skysat" if origin.sensor == "skysat" else "s2-l1b"
    return Job(source=origin.source, output="", sensor=sensor, **origin.options | dict(options))


def is_burst_array(array: xr.DataArray) -> bool:
    """Whether the layers of an array are frames rather than bands."""
    return "time" in array.dims


def read_bands(array: xr.DataArray, job: Job, bands: Sequence[str] | None) -> BandStack:
    """Bands of an array, at the place that its coordinates tell.

    Args:
        array: (band, y, x) or (y, x), any part of what was opened.
        job: of `make_job`.
        bands: which; all where None.

    Raises:
        MissingInputError: its product is not where it was.
        BadInputError: frames; an array that is no image.
        BadOptionError: bands that it does not have.
    """
    if is_burst_array(array):
        raise BadInputError(
            "the array has frames (time), which have no bands to register or orthorectify; "
            "super-resolve it, or choose one frame with isel(time=...)"
        )
    origin = Origin.of(array)
    if origin is not None and origin.sensor == "skysat":
        return _read_frame(array, job)
    array = order_axes(array)
    if origin is None:
        return read_band_array(array, bands)
    names = [str(name) for name in np.atleast_1d(array.coords["band"].values)]
    wanted = names if bands is None else list(bands)
    if missing := [band for band in wanted if band not in names]:
        raise BadOptionError(
            f"the array has the bands {', '.join(names)}, and {', '.join(missing)} were asked for; "
            "open the product with them (bands=...)"
        )
    there = wanted if origin.reference is None else list(dict.fromkeys([*wanted, origin.reference]))
    base = read_stack(job, there)
    layers = sources_of(array)
    placed = _place_stack(array, base, origin, wanted)
    nodata = nodata_of_sources(array)
    lost = nodata is None and array.dtype == base.sources[wanted[0]].dtype
    return replace(
        placed,
        sources={band: layers[names.index(band)] for band in wanted},
        nodata=base.nodata if lost and origin.reference is None else nodata,
    )


def _place_stack(
    array: xr.DataArray, base: BandStack, origin: Origin, wanted: Sequence[str]
) -> BandStack:
    """The facts of a product's bands, with the geometry of the array."""
    to_source = Affine(*origin.to_source)
    to_base = to_source @ frame_of(array)
    steps = abs(to_base.e)
    resolution = {b: v * steps for b, v in base.attrs.get("resolution", {}).items()}
    attrs = {**base.attrs, "resolution": resolution}
    if origin.reference is not None:
        grid = place_grid(array, base.grids[origin.reference], to_source)
        return BandStack(
            sources={band: base.sources[band] for band in wanted},
            grids=dict.fromkeys(wanted, grid),
            reference=origin.reference if origin.reference in wanted else wanted[0],
            add_offset={b: v for b, v in base.add_offset.items() if b in wanted},
            attrs=attrs,
        )
    window = whole_window(to_base, (array.shape[-2], array.shape[-1]))
    if window is None:
        grids = {b: place_grid(array, grid, to_source) for b, grid in base.grids.items()}
        return replace(base, grids=grids, attrs=attrs)
    if window.intersect(base.grids[base.reference].window) != window:
        raise BadInputError(
            f"the array's rows and columns reach beyond {origin.source}, which has "
            f"{base.shape[0]} x {base.shape[1]} px: it was opened from another one; open it again"
        )
    return base.crop(window)


def read_frames(array: xr.DataArray, job: Job, *, reference: str | int | None) -> Burst:
    """Frames of an array, at the place that its coordinates tell, the reference first.

    Args:
        array: (time, y, x), any part of what was opened.
        job: of `make_job`.
        reference: "middle", "first", or the place in time among the frames of the array, from 0;
            where None that of the burst, or the middle.

    Raises:
        MissingInputError: its burst is not where it was.
        BadInputError: an array that is no burst, or frames that the burst does not have.
    """
    array = order_axes(array).transpose("time", "y", "x")
    count = array.sizes["time"]
    origin = Origin.of(array)
    layers = sources_of(array)
    exposures = exposures_of(array)
    names = [str(n) for n in array.coords["frame"].values] if "frame" in array.coords else None
    at = parse_reference(reference if reference is not None else "middle", count)
    if origin is None or names is None:
        grid = grid_of_array(array)
        order = [at, *(t for t in range(count) if t != at)]
        return Burst(
            sources=tuple(layers[t] for t in order),
            grids=(grid,) * count,
            exposures=tuple(exposures[t] for t in order),
            times=_times(array, order),
            nodata=nodata_of_sources(array),
            attrs={
                "frames": tuple(names[t] if names else f"frame {t}" for t in order),
                "order": tuple(order),
            },
        )
    base = _read_burst(job)
    if reference is None and base.attrs["frames"][0] in names:
        at = names.index(base.attrs["frames"][0])
    order = [at, *(t for t in range(count) if t != at)]
    known = {name: i for i, name in enumerate(base.attrs["frames"])}
    if strangers := [name for name in names if name not in known]:
        raise BadInputError(
            f"{origin.source} has no frame {strangers[0]} that can be used; open the burst again"
        )
    burst = base.select([known[names[t]] for t in order])
    to_source = Affine(*origin.to_source)
    return replace(
        burst,
        sources=tuple(layers[t] for t in order),
        grids=tuple(place_grid(array, grid, to_source) for grid in burst.grids),
        exposures=tuple(exposures[t] for t in order),
        nodata=nodata_of_sources(array),
    )


def exposures_of(array: xr.DataArray) -> list[float]:
    """Exposure times of the frames of an array (time, y, x); alike where it does not tell."""
    told = array.coords.get("exposure", xr.Variable((), 1.0)).values
    return [float(v) for v in np.broadcast_to(told, array.sizes["time"])]


def _read_frame(array: xr.DataArray, job: Job) -> BandStack:
    """One frame of a burst, (y, x), as a stack of one band."""
    if array.ndim != 2 or "frame" not in array.coords:
        raise BadInputError(
            f"an array of dimensions {', '.join(map(str, array.dims))}; a frame (y, x) of a burst "
            "was expected: choose one with isel(time=...)"
        )
    name = str(array.coords["frame"].values)
    frames = array.drop_vars(["frame", "time"], errors="ignore").expand_dims("time")
    burst = read_frames(frames.assign_coords(frame=("time", [name])), job, reference=0)
    return BandStack(
        {burst.band: burst.sources[0]},
        {burst.band: burst.grids[0]},
        burst.band,
        nodata=burst.nodata,
        attrs=burst.attrs,
    )


def _read_burst(job: Job) -> Burst:
    origin = {name: getattr(job, name) for name in ("camera", "start", "frames", "reference")}
    return read_burst(job.source, **origin)


def _times(array: xr.DataArray, order: Sequence[int]) -> tuple[datetime, ...]:
    times = array.coords.get("time")
    if times is None or times.dtype.kind != "M":
        return ()
    seconds = times.values.astype("datetime64[us]").astype(np.int64) / 1e6
    return tuple(datetime.fromtimestamp(float(seconds[t]), UTC) for t in order)


def grid_of(array: xr.DataArray, job: Job) -> GeoGrid:
    """The geometry of an array (layer, y, x): of its reference band or frame, if it has several."""
    origin = Origin.of(array)
    if origin is None:
        return grid_of_array(array)
    to_source = Affine(*origin.to_source)
    if origin.sensor == "skysat":
        base = _read_burst(job)
        names = list(base.attrs["frames"])
        shown = [str(n) for n in np.atleast_1d(array.coords["frame"].values)]
        frame = names[0] if names[0] in shown else shown[0]
        return place_grid(array, base.grids[names.index(frame)], to_source)
    names = [str(name) for name in np.atleast_1d(array.coords["band"].values)]
    stack = read_stack(job, names if origin.reference is None else (origin.reference,))
    return place_grid(array, stack.grids[stack.reference], to_source)

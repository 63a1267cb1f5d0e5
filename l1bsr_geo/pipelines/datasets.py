"""Images as datasets of variables on x and y: what programs take that know rasters, not sensors."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import pyproj
import xarray as xr

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.georef.orthorectify import orthorectify
from l1bsr_geo.images.bursts import Burst
from l1bsr_geo.images.pixels import GeoImage, LazyPixels
from l1bsr_geo.pipelines.job import Job
from l1bsr_geo.pipelines.stages import read_terrain

PIXELS = pyproj.CRS.from_wkt(
    'ENGCRS["image pixels",EDATUM["outer corner of the first pixel"],CS[Cartesian,2],'
    'AXIS["column (x)",unspecified],AXIS["row (y)",unspecified],SCALEUNIT["pixel",1]]'
)
"""The CRS of an image in its own pixels: an engineering one, which leads nowhere else."""

_CHUNK = 1024  # [px]


def frames_of(burst: Burst) -> xr.DataArray:
    """The frames of a burst in their own pixels, (band, time or frame, y, x), in order of time."""
    return _in_order([_frame_image(burst, t).pixels for t in range(len(burst))], burst)


def frames_on_map(job: Job, burst: Burst) -> xr.DataArray:
    """Each frame by its own geometry on the map grid of the first, as `frames_of` orders them.

    float32, NaN where a frame does not reach. No pixel is read before it is computed.

    Args:
        job: may ask for a CRS, a resolution, an area and terrain.
        burst: the frames.

    Raises:
        BadInputError: they have no geometry.
    """
    if burst.grids[0].model is None:
        raise BadInputError(f"{job.source} has no geometry, so it cannot be put on a map")
    terrain = read_terrain(job, burst.grids[0])
    images = [_frame_image(burst, t) for t in range(len(burst))]
    images = [replace(i, pixels=i.pixels.astype("float32")) for i in images]
    first = orthorectify(
        images[0], crs=job.crs, resolution=job.resolution, aoi=job.aoi, elevation=terrain
    )
    others = [orthorectify(i, onto=first.grid, elevation=terrain) for i in images[1:]]
    return _in_order([i.pixels.where(i.valid) for i in (first, *others)], burst)


def _frame_image(burst: Burst, t: int) -> GeoImage:
    lazy = da.from_array(LazyPixels(burst.sources[t]), chunks=_CHUNK, asarray=False)
    attrs = {} if burst.nodata is None else {"nodata": burst.nodata}
    pixels = xr.DataArray(lazy[None], {"band": [t]}, ("band", "y", "x"), attrs=attrs)
    return GeoImage(pixels, burst.grids[t])


def _in_order(frames: list[xr.DataArray], burst: Burst) -> xr.DataArray:
    stacked = xr.concat(frames, "band", join="override").isel(band=np.argsort(burst.attrs["order"]))
    if not burst.times:
        return stacked.rename(band="frame").expand_dims(band=[burst.band])
    times = sorted(time.replace(tzinfo=None) for time in burst.times)
    stacked = stacked.rename(band="time")
    stacked = stacked.assign_coords(time=np.array(times, "datetime64[ns]"))
    return stacked.expand_dims(band=[burst.band])


def as_dataset(pixels: xr.DataArray, nodata: float | None, facts: Mapping[str, Any]) -> xr.Dataset:
    """Bands as variables, on a map, or in their own pixels with the CRS ``PIXELS``.

    Args:
        pixels: (band, ..., y, x); on a map where it has a ``spatial_ref``.
        nodata: the value that means no data.
        facts: of the product; texts and numbers become attributes.
    """
    if "spatial_ref" not in pixels.coords:
        place = xr.Variable((), 0, {"crs_wkt": PIXELS.to_wkt(), "spatial_ref": PIXELS.to_wkt()})
        rows, columns = (np.arange(n) + 0.5 for n in pixels.shape[-2:])
        pixels = pixels.assign_coords(y=rows, x=columns, spatial_ref=place)
    data = pixels.to_dataset("band")
    waves = facts.get("wavelengths", {})
    for name, variable in data.data_vars.items():
        told = {"grid_mapping": "spatial_ref", "long_name": f"{name} [DN]"}
        told |= {"wavelength_nm": waves[name]} if name in waves else {}
        variable.attrs = told | ({} if nodata is None else {"_FillValue": nodata})
    data.attrs = {k: v for k, v in facts.items() if isinstance(v, str | int | float)}
    return data

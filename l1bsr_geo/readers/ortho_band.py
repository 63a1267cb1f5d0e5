"""One band of an ortho image, for what compares places and not values."""

import os
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.readers.geotiff import apply_mask, geometry_of, name_of
from l1bsr_geo.readers.local_raster import cause_of, open_raster
from l1bsr_geo.readers.sources import RasterSource, check_complete


def read_ortho_band(path: str | os.PathLike[str], band: str) -> BandStack:
    """The band of an ortho image that is most like one, its values as they are, pixels unread.

    The band of that name, or else B03, B04, B02, B08, the green one, the first.

    Args:
        path: what GDAL opens, with a map transform.
        band: a Sentinel-2 band, or any other name.

    Raises:
        MissingInputError: the file is not there.
        BadInputError: not a raster, or not on a map.
    """
    name = os.fspath(path)
    check_complete(name, name)
    try:
        with open_raster(name) as raster:
            index = _most_like(raster, band)
            model = geometry_of(raster)
            if not isinstance(model, AffineModel):
                raise BadInputError(f"{name} is on no map (CRS and transform); an ortho image is")
            source = RasterSource(name, index, raster.shape, np.dtype(raster.dtypes[index - 1]))
            sources, nodata = apply_mask(raster, name, {band: index}, {band: source})
            return BandStack(sources, {band: GeoGrid(raster.shape, model)}, band, nodata=nodata)
    except RasterioError as error:
        raise BadInputError(
            f"{name} cannot be opened as a raster ({cause_of(error)}); give a GeoTIFF or another "
            "format that GDAL reads"
        ) from error


def _most_like(raster: Any, band: str) -> int:
    """1-based index of a band."""
    named: dict[str | None, int] = {name_of(raster, i): i for i in reversed(raster.indexes)}
    for wanted in (band, "B03", "B04", "B02", "B08"):
        if wanted in named:
            return named[wanted]
    green = [i for i in raster.indexes if raster.colorinterp[i - 1] == ColorInterp.green]
    return int(green[0]) if green else 1

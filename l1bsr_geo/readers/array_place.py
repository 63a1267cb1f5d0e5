"""Where the pixels of an array are: what ``spatial_ref`` and the coordinates tell of it.

``x`` and ``y`` are pixel centres: map coordinates where there is a CRS, else positions in the
image that was opened, whose first pixel has its centre at 0.5. A part of an array therefore knows
which part it is.
"""

import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import rioxarray  # noqa: F401 (the CRS of arrays)
import xarray as xr
from affine import Affine
from rasterio.errors import RasterioError
from rasterio.rpc import RPC

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.model import GeometryModel
from l1bsr_geo.readers.local_raster import open_raster
from l1bsr_geo.readers.rpc import from_rasterio

PLACE = "spatial_ref"
_ORIGIN, _RPCS = "l1bsr_origin", "rpcs"
_UNEVEN = 1e-3  # [px] what coordinates may be beside even steps


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The product that an array was opened from: it knows the geometry.

    Attributes:
        source: the product.
        sensor: "s2-l1b" or "skysat".
        options: of opening it.
        reference: the band that all are aligned to; None where each has its own geometry.
        to_source: pixels of the array's frame to pixels of the product's reference, as opened.
    """

    source: str
    sensor: str
    options: dict[str, Any] = field(default_factory=dict)
    reference: str | None = None
    to_source: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

    @classmethod
    def of(cls, array: xr.DataArray) -> Self | None:
        """What ``spatial_ref`` says; None where it says nothing."""
        text = _told(array).get(_ORIGIN)
        return None if text is None else cls(**json.loads(text))

    def say(self) -> dict[str, str]:
        """As an attribute of ``spatial_ref``."""
        return {_ORIGIN: json.dumps(asdict(self))}


def put_in_frame(
    array: xr.DataArray, origin: Origin | None = None, rpcs: RPC | None = None
) -> xr.DataArray:
    """The array (..., y, x) with coordinates of its own pixels, and what tells where they are.

    The RPC stands where rioxarray >= 0.21 looks for it. Older versions keep it, but do not know
    it: they are told no CRS, which they would take for that of the coordinates.

    Args:
        array: in sensor geometry.
        origin: the product.
        rpcs: of exactly these pixels.
    """
    height, width = array.shape[-2:]
    axes = {
        name: ((name,), np.arange(size) + 0.5, {"long_name": f"{what}, of pixel centres"})
        for name, size, what in (("y", height, "row"), ("x", width, "column"))
    }
    array = array.drop_vars(PLACE, errors="ignore").assign_coords(axes)
    array = array.rio.write_transform(Affine.identity())
    attrs = dict(array.coords[PLACE].attrs) | ({} if origin is None else origin.say())
    array = array.assign_coords({PLACE: xr.Variable((), 0, attrs)})
    if rpcs is None:
        return array
    if hasattr(array.rio, "write_rpcs"):
        located: xr.DataArray = array.rio.write_rpcs(rpcs)
        return located
    attrs[_RPCS] = json.dumps(rpcs.to_dict())
    return array.assign_coords({PLACE: xr.Variable((), 0, attrs)})


def put_on_map(array: xr.DataArray, grid: GeoGrid) -> xr.DataArray:
    """The array (..., y, x) with the coordinates, CRS and transform of a map grid."""
    model = grid.model
    assert isinstance(model, AffineModel), "a map grid was meant"
    transform = model.transform @ grid.to_model
    array = array.drop_vars([PLACE, "x", "y"], errors="ignore")
    if transform.is_rectilinear:
        height, width = grid.shape
        x = transform.c + (np.arange(width) + 0.5) * transform.a
        y = transform.f + (np.arange(height) + 0.5) * transform.e
        array = array.assign_coords(y=y, x=x)
    located: xr.DataArray = array.rio.write_crs(model.crs).rio.write_transform(transform)
    return located.rio.write_coordinate_system() if "x" in array.coords else located


def geometry_of_array(array: xr.DataArray) -> GeometryModel | None:
    """The model whose pixels are the array's coordinates, or its map; None where it has neither.

    Raises:
        BadInputError: an RPC that cannot be used.
    """
    told = _told(array)
    if _RPCS in told:
        return from_rasterio(RPC(**json.loads(told[_RPCS])), name_of(array))
    crs = None if "gcps" in told else array.rio.crs  # which is that of the control points
    if crs is not None:
        return AffineModel(frame_of(array), crs.to_wkt())
    rpcs = _rpcs_of_file(array)
    return None if rpcs is None else from_rasterio(rpcs, name_of(array))


def grid_of_array(array: xr.DataArray) -> GeoGrid:
    """The geometry of an array (..., y, x) that tells it itself, without a product."""
    shape = array.shape[-2], array.shape[-1]
    model = geometry_of_array(array)
    return GeoGrid(shape, model, Affine.identity() if _on_map(model) else frame_of(array))


def place_grid(array: xr.DataArray, base: GeoGrid, to_source: Affine) -> GeoGrid:
    """The grid of an array (..., y, x) that shows a part of another grid, or shows it finer."""
    shape = array.shape[-2], array.shape[-1]
    to_base = to_source @ frame_of(array)
    window = whole_window(to_base, shape)
    if window is not None:
        return base.crop(window)
    return GeoGrid(shape, base.model, base.to_model @ to_base)


def whole_window(to_base: Affine, shape: tuple[int, int]) -> Window | None:
    """The window that pixels are of another grid, if they are whole pixels of it."""
    if not to_base.almost_equals(Affine.translation(round(to_base.c), round(to_base.f)), 1e-9):
        return None
    return Window(round(to_base.c), round(to_base.f), shape[1], shape[0])


def frame_of(array: xr.DataArray) -> Affine:
    """From the array's pixels to its coordinates, outer corners of pixels.

    Raises:
        BadInputError: coordinates that are not evenly spaced, or none in a part of an image.
    """
    told = _read_transform(array)
    if "x" not in array.coords or "y" not in array.coords:
        _check_whole(array)
        return told
    steps = Affine(told.a, 0, told.c, 0, told.e, told.f)
    (left, column), (top, row) = _axis(array, "x", steps.a), _axis(array, "y", steps.e)
    inside = ~steps @ Affine(column, 0, left - column / 2, 0, row, top - row / 2)
    # what was written by rows and columns is read by rows and columns
    return steps @ Affine(
        round(inside.a, 9), 0, round(inside.c, 6), 0, round(inside.e, 9), round(inside.f, 6)
    )


def _check_whole(array: xr.DataArray) -> None:
    """Refuse a part of an image that does not say which part it is."""
    shape = tuple(array.shape[-2:])
    source = array.encoding.get("source")
    whole: tuple[int, ...] | None = None
    if isinstance(source, str):
        with suppress(RasterioError, OSError), open_raster(source) as raster:
            whole = raster.shape
    if _ORIGIN in _told(array) or whole not in (None, shape):
        raise BadInputError(
            f"{name_of(array)}: {shape[0]} x {shape[1]} px without the coordinates x and y, which "
            "say which part of the image they are; keep the coordinates that it was opened with"
        )


def _axis(array: xr.DataArray, name: str, usual: float) -> tuple[float, float]:
    """First coordinate of an axis, and its step."""
    values = np.asarray(array.coords[name].values, np.float64)
    if values.size == 1:
        return float(values[0]), usual
    step = float(values[-1] - values[0]) / (values.size - 1)
    uneven = np.abs(np.diff(values) - step).max()
    if not (step and uneven <= _UNEVEN * abs(step)):  # NaN is not even
        raise BadInputError(
            f"{name_of(array)}: its {name} are not evenly spaced ({values[0]:g} to {values[-1]:g}, "
            f"steps of {step:g} but for {uneven:g}), so it is no image; choose rows and columns "
            "that stand beside each other"
        )
    return float(values[0]), step


def _read_transform(array: xr.DataArray) -> Affine:
    numbers = str(_told(array).get("GeoTransform", "")).split()
    if len(numbers) != 6:
        return Affine.identity()
    transform = Affine.from_gdal(*map(float, numbers))
    usable = all(map(math.isfinite, transform[:6])) and transform.determinant
    return transform if usable else Affine.identity()


def _rpcs_of_file(array: xr.DataArray) -> RPC | None:
    """The RPC of the file that an array was opened from: rioxarray < 0.21 leaves it there."""
    name = array.encoding.get("source")
    if not isinstance(name, str):
        return None
    try:
        with open_raster(name) as raster:
            return raster.rpcs
    except (RasterioError, OSError):  # no raster: it has no RPC to tell
        return None


def _told(array: xr.DataArray) -> dict[str, Any]:
    """The attributes of the grid mapping."""
    name = array.rio.grid_mapping
    return dict(array.coords[name].attrs) if name in array.coords else {}


def _on_map(model: GeometryModel | None) -> bool:
    return isinstance(model, AffineModel)


def name_of(array: xr.DataArray) -> str:
    """What messages call an array: its file, or its name."""
    named = [array.encoding.get("source"), array.name]
    return next((str(name) for name in named if name is not None), "the array")

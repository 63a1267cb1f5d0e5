"""orthorectify: from sensor geometry (or another map) to a map, lazily."""

from collections.abc import Sequence
from operator import getitem
from typing import Any, get_args
from uuid import uuid4

import dask.array as da
import numpy as np
import numpy.typing as npt
import pyproj
import shapely
import xarray as xr
from dask.highlevelgraph import HighLevelGraph

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.geometry.elevation import ConstantElevation, Elevation
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.georef.drawing import Blocks, Drawing
from l1bsr_geo.georef.kernels import BoolArray, Kernel, tabulate
from l1bsr_geo.georef.lookup import Lookup
from l1bsr_geo.georef.map_grid import (
    AreaOfInterest,
    area_on_map,
    choose_map_grid,
    is_metric,
    measure_pixel,
    read_map,
)
from l1bsr_geo.images.pixels import GeoImage
from l1bsr_geo.tiling.encoding import Encoding

_COARSEST = 256  # beyond it kernels reach over the whole image; most likely a wrong unit
_COARSER = 1.25  # from here on a result is coarser than its source, and kernels are widened


def orthorectify(
    image: GeoImage,
    *,
    crs: str | int | pyproj.CRS | None = None,
    resolution: float | None = None,
    aoi: AreaOfInterest | None = None,
    onto: GeoGrid | None = None,
    elevation: Elevation | None = None,
    block: int = 512,
    kernel: Kernel = "cubic",
) -> GeoImage:
    """Draw an image on a north-up map grid whose corners are multiples of the resolution.

    No pixel is computed before the result is. One task draws one block, from the source chunks that
    it touches; every source chunk is computed once per graph. Pixels and ``valid`` come from the
    same tasks: compute them together (``write_cog`` does).

    A pixel is valid where every source pixel that carries weight in its kernel is valid and inside
    the image: a hole grows by up to two source pixels with ``"cubic"``, one with ``"bilinear"``.
    Values of whole-number types are rounded and clipped; a valid pixel never holds the nodata value
    (it is moved by one). Positions are within 0.02 source px of what ``image.grid.project`` says;
    the terrain is asked at every pixel.

    Args:
        image: (band, y, x), on a grid with any model.
        crs: anything pyproj understands; None takes the UTM zone of the image's centre.
        resolution: pixel size [units of the CRS]; None takes ``attrs["gsd"]`` [m] where it fits,
            else the pixel measured at the centre, see ``choose_map_grid``.
        aoi: ``lon, lat``: a shapely geometry, to whose bounds on the map the result is cut and
            outside of which nothing is valid; or ``(west, south, east, north)``, which only cuts.
            No result reaches beyond the image.
        onto: the map grid to draw on, north up, instead of choosing one; ``crs`` and ``resolution``
            must then be None, and ``aoi`` cuts nothing.
        elevation: terrain; height 0 if None.
        block: side of the result's chunks [px].
        kernel: ``"cubic"``, ``"bilinear"`` or ``"nearest"``. The first two are widened where the
            result is coarser than the source by a quarter or more, so that it does not alias.

    Returns:
        The image on an ``AffineModel`` grid, dask-backed, with coordinates ``x``, ``y`` of the
        pixel centres, and ``attrs["gsd"]`` where the CRS is in metres.

    Raises:
        BadInputError: the image has no geometry.
        BadOptionError: an option has an impossible value, or the area does not touch the image.
    """
    _check_options(block, kernel)
    if onto is not None and not (crs is None and resolution is None):
        raise BadOptionError("a CRS or resolution was given beside the grid to draw on; give one")
    elevation = elevation or ConstantElevation()
    attrs = dict(image.pixels.attrs)
    gsd = attrs.pop("gsd", None)
    grid = onto or choose_map_grid(
        image.grid, crs=crs, resolution=resolution, gsd=gsd, aoi=aoi, elevation=elevation
    )
    crs, transform = read_map(grid)
    ratio = transform.a / measure_pixel(image.grid, crs, elevation)
    if ratio > _COARSEST:
        raise BadOptionError(
            f"pixels of {transform.a:g} units of the CRS are {ratio:.0f} times those of the image; "
            f"at most {_COARSEST} times was expected: the resolution counts in units of the CRS"
        )
    pixels, valid = _as_dask(image, block)
    drawing = Drawing(
        lookup=Lookup(grid, image.grid, elevation),
        blocks=Blocks.cut(grid.shape, block),
        chunks=Blocks(*pixels.chunks[1:]),
        count=pixels.shape[0],
        taps=tabulate(kernel, ratio if ratio > _COARSER else 1.0),
        encoding=Encoding(pixels.dtype, attrs.get("nodata"), (0.0,)),
        area=area_on_map(aoi, crs) if isinstance(aoi, shapely.Geometry) else None,
        transform=transform,
    )
    drawn, drawn_valid = _draw_lazily(drawing, pixels, valid)
    attrs.pop("rpcs", None)  # they are of the source's pixels
    if is_metric(crs):
        attrs["gsd"] = transform.a
    height, width = grid.shape
    x = transform.c + (np.arange(width) + 0.5) * transform.a
    y = transform.f + (np.arange(height) + 0.5) * transform.e
    # how CF and rioxarray keep a CRS with an array
    wkt = pyproj.CRS.from_user_input(crs).to_wkt()
    place = xr.Variable((), 0, {"crs_wkt": wkt, "spatial_ref": wkt})
    coords = {"band": list(image.bands), "y": y, "x": x, "spatial_ref": place}
    attrs["grid_mapping"] = "spatial_ref"
    return GeoImage(
        xr.DataArray(drawn, dims=("band", "y", "x"), coords=coords, attrs=attrs),
        grid,
        xr.DataArray(drawn_valid, dims=("y", "x"), coords={"y": y, "x": x}),
    )


def _check_options(block: int, kernel: str) -> None:
    if kernel not in get_args(Kernel):
        raise BadOptionError(
            f"the kernel is {kernel!r}; it must be one of {', '.join(get_args(Kernel))}"
        )
    if block < 1:
        raise BadOptionError(f"the block size is {block}; it must be at least 1")


def _as_dask(image: GeoImage, size: int) -> tuple[da.Array, da.Array | None]:
    """Pixels in one chunk of bands, and validity in the same chunks."""
    pixels = image.pixels.data
    if not isinstance(pixels, da.Array):
        pixels = da.from_array(pixels, chunks=(-1, size, size), name=False)
    pixels = pixels.rechunk({0: -1})
    if image.valid is None:
        return pixels, None
    return pixels, da.asarray(image.valid.data).astype(bool).rechunk(pixels.chunks[1:])


def _draw_lazily(
    drawing: Drawing, pixels: da.Array, valid: da.Array | None
) -> tuple[da.Array, da.Array]:
    """The graph: the drawing once, a task per block of the map, two items of each."""
    token = uuid4().hex
    shared, drawn = f"drawing-{token}", f"draw-{token}"
    rows, cols = drawing.blocks.heights, drawing.blocks.widths
    layer: dict[Any, Any] = {shared: drawing}
    for i, j in np.ndindex(len(rows), len(cols)):
        sources = drawing.sources((i, j))
        layer[drawn, i, j] = (
            _draw_block,
            shared,
            i,
            j,
            [list(source) for source in sources],
            [(pixels.name, 0, *source) for source in sources],
            [] if valid is None else [(valid.name, *source) for source in sources],
        )
    inputs: list[Any] = [pixels] if valid is None else [pixels, valid]
    graph = HighLevelGraph.from_collections(drawn, layer, dependencies=inputs)
    both: Any = da.Array(graph, drawn, (rows, cols), dtype=object)

    def take(item: int, name: str, chunks: tuple[Any, ...], dtype: Any) -> da.Array:
        leading = (0,) * (len(chunks) - 2)
        layer: dict[Any, Any] = {
            (name, *leading, i, j): (getitem, (drawn, i, j), item)
            for i, j in np.ndindex(len(rows), len(cols))
        }
        graph = HighLevelGraph.from_collections(name, layer, dependencies=[both])
        return da.Array(graph, name, chunks, dtype=dtype)

    return (
        take(0, f"pixels-{token}", ((drawing.count,), rows, cols), pixels.dtype),
        take(1, f"valid-{token}", (rows, cols), bool),
    )


def _draw_block(
    drawing: Drawing,
    i: int,
    j: int,
    places: list[list[int]],
    pixels: Sequence[npt.NDArray[Any]],
    valid: Sequence[BoolArray],
) -> tuple[npt.NDArray[Any], BoolArray]:
    """The work of one block; ``places`` are those of the chunks, as lists (tuples are keys)."""
    known: Sequence[BoolArray | None] = valid or [None] * len(pixels)
    chunks = {(r, c): chunk for (r, c), *chunk in zip(places, pixels, known, strict=True)}
    return drawing.draw((i, j), chunks)

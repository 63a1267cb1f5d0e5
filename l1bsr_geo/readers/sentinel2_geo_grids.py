"""Sen2VM location grids (``GEO_DATA``) of Sentinel-2 L1B products, read.

A granule's file holds lon, lat and usually the altitude at regular nodes. Node (k, l) is the
CENTRE of pixel (k * step, l * step), counted from the first line of the detector strip, so that
the grids of a strip continue each other; a granule's first row of nodes is
``floor((p0 + step / 2) / step)`` with p0 its first line (FORMATS A2). Source: sen2vm-core.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from rasterio.errors import RasterioError

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.geometry.location_grid import LocationGrid
from l1bsr_geo.geometry.model import FloatArray
from l1bsr_geo.readers.local_raster import open_raster
from l1bsr_geo.readers.sentinel2_facts import MAX_SIZE, granule_size
from l1bsr_geo.readers.sentinel2_metadata import RESOLUTION, number
from l1bsr_geo.readers.sentinel2_product import Granule, Product


@dataclass(frozen=True)
class GranuleGrid:
    """One file: nodes (2, rows, columns) = lon, lat [degrees] and what its tags say."""

    name: str
    first_line: float
    nodes: FloatArray
    tags: dict[str, str]


def read_geo_grids(product: Product, granules: Sequence[Granule], band: str) -> LocationGrid:
    """The location grids of a detector and band as one, over the pixels of the strip.

    They hold the terrain that Sen2VM was given, so heights are ignored.

    Raises:
        BadInputError: a grid is damaged, or the grids do not continue each other.
    """
    ratio = RESOLUTION[band] / 10
    grids = [
        _read_grid(product.gdal_path(g.geo_grids[band]), (g.position - 1) / ratio) for g in granules
    ]
    step = _step(product, granules[0], band, grids)
    starts = [first_node(g.first_line, step) for g in grids]
    rows = max(s + g.nodes.shape[1] for s, g in zip(starts, grids, strict=True)) - starts[0]
    nodes = np.full((2, rows, grids[0].nodes.shape[2]), np.nan)
    for start, grid in zip(starts, grids, strict=True):
        at = start - starts[0]
        if grid.nodes.shape[2] != nodes.shape[2]:
            raise BadInputError(
                f"{grid.name} has {grid.nodes.shape[2]} columns, its neighbours {nodes.shape[2]}; "
                "make the grids anew: l1bsr-geo geolocate"
            )
        nodes[:, at : at + grid.nodes.shape[1]] = grid.nodes
    nodes = _fill_rows(nodes)
    lon = np.degrees(np.unwrap(np.unwrap(np.radians(nodes[0]), axis=0), axis=1))
    return LocationGrid(
        lon=lon[None],
        lat=nodes[1][None],
        step=(step, step),
        origin=(0.5, starts[0] * step + 0.5),
    )


def first_node(first_line: float, step: float) -> int:
    """The first row of nodes of a granule whose first line is ``first_line`` (0-based)."""
    return int(np.floor((first_line + step / 2) / step))


def _read_grid(path: str, first_line: float) -> GranuleGrid:
    try:
        with open_raster(path) as raster:
            if raster.count < 2:
                raise BadInputError(f"{path} has {raster.count} band, lon and lat were expected")
            nodes = raster.read((1, 2)).astype(np.float64)
            tags: dict[str, str] = raster.tags()
    except RasterioError as error:
        raise BadInputError(
            f"{path} cannot be read as a location grid ({error}); make it anew: l1bsr-geo "
            "geolocate, or use --geometry model"
        ) from error
    inside = np.isfinite(nodes).all() and np.abs(nodes[1]).max() <= 90
    if min(nodes.shape[1:]) < 2 or not inside or np.abs(nodes[0]).max() > 360:
        raise BadInputError(
            f"{path} is no location grid: at least 2 x 2 nodes of longitude and latitude in "
            f"degrees were expected, found {nodes.shape[1]} x {nodes.shape[2]} from "
            f"{np.nanmin(nodes):g} to {np.nanmax(nodes):g}"
        )
    return GranuleGrid(path, first_line, nodes, tags)


def _fill_rows(nodes: FloatArray) -> FloatArray:
    """Rows of nodes of missing granules, from their neighbours."""
    have = np.isfinite(nodes[0, :, 0])
    if have.all():
        return nodes
    rows = np.arange(len(have))
    k = np.clip(np.searchsorted(rows[have], rows, side="right") - 1, 0, have.sum() - 2)
    known = rows[have]
    weight = ((rows - known[k]) / (known[k + 1] - known[k]))[None, :, None]
    return np.asarray(nodes[:, known[k]] * (1 - weight) + nodes[:, known[k + 1]] * weight)


def _step(product: Product, granule: Granule, band: str, grids: Sequence[GranuleGrid]) -> float:
    """Node spacing [px of the band]: from the file, the datastrip's .vrt, or the sizes."""
    for tags in (grids[0].tags, _vrt_tags(product, granule, band)):
        if "LINE_STEP" in tags:
            step = number(tags["LINE_STEP"], f"{grids[0].name}: LINE_STEP", 0, MAX_SIZE)
            if step > 0 and tags.get("PIXEL_STEP", tags["LINE_STEP"]) == tags["LINE_STEP"]:
                return step
    return infer_step(product, granule, band, grids)


def _vrt_tags(product: Product, granule: Granule, band: str) -> dict[str, str]:
    """What the .vrt of a detector says; as xml, since GDAL would follow whatever it names."""
    if product.datastrip_path is None:
        return {}
    folder = PurePosixPath(product.datastrip_path).parent
    name = vrt_name(folder.name, granule.detector, band)
    try:
        root = product.read_xml(f"{folder}/GEO_DATA/{name}")
    except MissingInputError:
        return {}
    return {e.get("key", ""): e.text or "" for e in root.iterfind("Metadata/MDI")}


def vrt_name(datastrip_folder: str, detector: int, band: str) -> str:
    """The .vrt of a detector and band in a datastrip's GEO_DATA."""
    name = re.sub(r"_N\d\d\.\d\d$", "", datastrip_folder)
    return f"{name.replace('_MSI_', '_GEO_')}_D{detector:02d}_{band}.vrt"


def grid_name(granule_folder: str, band: str) -> str:
    """The location grid of a band in a granule's GEO_DATA."""
    name = PurePosixPath(granule_folder).name
    name = re.sub(r"_N\d\d\.\d\d$", "", name)
    return f"{name.replace('_MSI_', '_GEO_')}_{band}.tif"


def infer_step(
    product: Product, granule: Granule, band: str, grids: Sequence[GranuleGrid]
) -> float:
    """The roundest spacing in metres that gives every grid the nodes that it has.

    Sen2VM is told its steps in metres, as round numbers, and old grids do not name them.

    Raises:
        BadInputError: no such number.
    """
    resolution = RESOLUTION[band]
    height, width = granule_size(product, granule, resolution)
    columns = grids[0].nodes.shape[2]
    least, most = width / (columns - 0.5) * resolution, width / (columns - 1.5) * resolution
    for digits in range(-4, 4):
        unit = 10.0**-digits
        for count in range(math.ceil(least / unit), math.floor(most / unit) + 1):
            step = count * unit / resolution
            if all(_rows(g, height, step) == g.nodes.shape[1] for g in grids):
                return step
    raise BadInputError(
        f"{grids[0].name}: no round node spacing gives {columns} columns over {width} pixels, and "
        "no tag names it; make the grids anew: l1bsr-geo geolocate"
    )


def _rows(grid: GranuleGrid, height: int, step: float) -> int:
    return first_node(grid.first_line + height, step) - first_node(grid.first_line, step) + 1

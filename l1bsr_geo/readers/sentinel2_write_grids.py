"""Sen2VM-compatible location grids written into a Sentinel-2 L1B product.

GDAL >= 3.12 lists them as ``SENTINEL2_L1B_WITH_GEOLOC`` subdatasets of the product, one band of one
detector each, and warps by them. Layout and conventions: ``sentinel2_geo_grids`` and FORMATS A2.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import rasterio

from l1bsr_geo.errors import BadOptionError, MissingInputError, OutputExistsError
from l1bsr_geo.geometry.elevation import ConstantElevation, Elevation, localize_on_terrain
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.geometry.model import FloatArray, GeometryModel
from l1bsr_geo.readers.sentinel2_facts import granule_size
from l1bsr_geo.readers.sentinel2_geo_grids import first_node, grid_name, vrt_name
from l1bsr_geo.readers.sentinel2_instrument import read_instrument_model
from l1bsr_geo.readers.sentinel2_metadata import BANDS, RESOLUTION, band_name
from l1bsr_geo.readers.sentinel2_product import Granule, Product, open_product

DEFAULT_STEP = 120.0
"""Node spacing [m]: 12, 6 and 2 pixels; bilinear between nodes errs by about 0.1 m."""


def write_geo_grids(
    product: str | os.PathLike[str] | Product,
    out_folder: str | os.PathLike[str] | None = None,
    *,
    detectors: Sequence[int] | None = None,
    bands: Sequence[str] = BANDS,
    step: float = DEFAULT_STEP,
    elevation: Elevation | None = None,
    gipp: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Locate every pixel of a product by the instrument model, as grids of nodes.

    Per granule and band a GeoTIFF (float64 lon, lat [degrees], height [m above the ellipsoid]) in
    the granule's GEO_DATA; per detector and band a .vrt in the datastrip's.

    Args:
        product: a SAFE folder, or a .zip of one with ``out_folder``.
        out_folder: where GRANULE and DATASTRIP are made; by default the product itself, which is
            where GDAL looks.
        detectors: all by default.
        bands: all by default; a band without images in a detector is left out.
        step: node spacing [m].
        elevation: the terrain, 0 by default.
        gipp: folder of GIPP files for the instrument model.
        overwrite: whether grids that are there may be replaced.
        progress: called with how many of how many detector bands are written.

    Returns:
        The .vrt files.

    Raises:
        MissingInputError: no datastrip, or a detector that is not there.
        OutputExistsError: grids are there, and ``overwrite`` is not set.
        BadOptionError: a .zip without ``out_folder``, or a step that is no spacing.
    """
    product = open_product(product)
    if product.datastrip_path is None:
        raise MissingInputError(
            f"{product.path} has no datastrip metadata (DATASTRIP/*/*_MTD_L1B_DS_*.xml), which the "
            "grids are made from; fetch the product again"
        )
    if out_folder is None and product.zipped:
        raise BadOptionError(f"{product.path} is a .zip and stays as it is; name an output folder")
    if not 1 <= step / 10 <= 1000:
        raise BadOptionError(f"a node spacing of {step:g} m; 10 to 10000 m were expected")
    folder = Path(out_folder) if out_folder is not None else product.path
    chosen = [
        (d, b)
        for d in detectors or product.detectors
        for b in (band_name(b) for b in bands)
        if any(b in g.images for g in product.granules_of(d))
    ]
    if not chosen:
        raise MissingInputError(f"{product.path} has no images of {', '.join(bands)}")
    strip = PurePosixPath(product.datastrip_path).parent
    vrts = {key: folder / strip / "GEO_DATA" / vrt_name(strip.name, *key) for key in chosen}
    there = [v for v in vrts.values() if v.exists()]
    if there and not overwrite:
        raise OutputExistsError(f"{there[0]} is there already; --overwrite replaces the grids")
    for count, ((detector, band), vrt) in enumerate(vrts.items()):
        model = read_instrument_model(product, detector, band, gipp)
        granules = product.granules_of(detector)
        _write_strip(
            product, folder, granules, band, model, step, elevation or ConstantElevation(), vrt
        )
        if progress is not None:
            progress(count + 1, len(vrts))
    return list(vrts.values())


def _write_strip(
    product: Product,
    folder: Path,
    granules: Sequence[Granule],
    band: str,
    model: GeometryModel,
    step_metres: float,
    elevation: Elevation,
    vrt: Path,
) -> None:
    """The grids of one band of one detector and their .vrt, named when all are complete."""
    step = step_metres / RESOLUTION[band]
    pieces: list[tuple[str, int, tuple[int, int]]] = []
    finished: list[tuple[Path, Path]] = []
    try:
        for granule in granules:
            height, width = granule_size(product, granule, RESOLUTION[band])
            first_line = (granule.position - 1) * 10 / RESOLUTION[band]
            start = first_node(first_line, step)
            rows = first_node(first_line + height, step) - start + 1
            nodes = _locate(model, start, (rows, first_node(width, step) + 1), step, elevation)
            name = f"{granule.folder}/GEO_DATA/{grid_name(granule.folder, band)}"
            finished.append((_beside(folder / name), folder / name))
            _write_tiff(finished[-1][0], nodes, start, step)
            pieces.append((name, start, nodes.shape[1:]))
        finished.append((_beside(vrt), vrt))
        finished[-1][0].write_text(_vrt(pieces, step), encoding="utf-8")
        for unfinished, path in finished:
            unfinished.replace(path)
    finally:
        for unfinished, _ in finished:
            unfinished.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """The name a file has until it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + ".part")


def _locate(
    model: GeometryModel, start: int, shape: tuple[int, int], step: float, elevation: Elevation
) -> FloatArray:
    """Nodes (3, rows, columns) = lon, lat, h; node (k, l) is the centre of pixel (k, l) * step."""
    y = (start + np.arange(shape[0])) * step + 0.5
    x = np.arange(shape[1]) * step + 0.5
    grid = GeoGrid(shape, model)
    x, y = np.meshgrid(x, y)
    return np.stack(localize_on_terrain(grid, x, y, elevation))


def _write_tiff(path: Path, nodes: FloatArray, start: int, step: float) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=nodes.shape[2],
        height=nodes.shape[1],
        count=3,
        dtype="float64",
        compress="deflate",
        predictor=3,
        # as Sen2VM does: where the nodes lie in the strip, line numbers growing downwards
        transform=rasterio.Affine(step, 0, 0, 0, step, start * step),
    ) as out:
        out.write(nodes)
        out.update_tags(**_geolocation(start, step))


def _geolocation(start: int, step: float) -> dict[str, str]:
    """GDAL's geolocation items: node (0, 0) is the centre of pixel (0, start * step)."""
    return {
        "X_BAND": "1",
        "Y_BAND": "2",
        "Z_BAND": "3",
        "PIXEL_OFFSET": "0.5",
        "PIXEL_STEP": f"{step:.12g}",
        "LINE_OFFSET": f"{start * step + 0.5:.12g}",
        "LINE_STEP": f"{step:.12g}",
        "SRS": "EPSG:4326",
        "GEOREFERENCING_CONVENTION": "TOP_LEFT_CORNER",
    }


def _vrt(pieces: Sequence[tuple[str, int, tuple[int, int]]], step: float) -> str:
    """The granules' grids as one; neighbours share a row of nodes."""
    first = pieces[0][1]
    columns = pieces[0][2][1]
    rows = max(start + shape[0] for _, start, shape in pieces) - first
    items = "".join(
        f"    <MDI key={quoteattr(k)}>{escape(v)}</MDI>\n"
        for k, v in _geolocation(first, step).items()
    )
    bands = ""
    for band in (1, 2, 3):
        sources = "".join(
            "    <SimpleSource>\n"
            f'      <SourceFilename relativeToVRT="1">../../../{escape(name)}</SourceFilename>\n'
            f"      <SourceBand>{band}</SourceBand>\n"
            f'      <SourceProperties RasterXSize="{shape[1]}" RasterYSize="{shape[0]}" '
            'DataType="Float64"/>\n'
            f'      <SrcRect xOff="0" yOff="0" xSize="{shape[1]}" ySize="{shape[0]}"/>\n'
            f'      <DstRect xOff="0" yOff="{start - first}" xSize="{shape[1]}" '
            f'ySize="{shape[0]}"/>\n'
            "    </SimpleSource>\n"
            for name, start, shape in pieces
        )
        bands += f'  <VRTRasterBand dataType="Float64" band="{band}">\n{sources}'
        bands += "  </VRTRasterBand>\n"
    return (
        f'<VRTDataset rasterXSize="{columns}" rasterYSize="{rows}">\n'
        f"  <GeoTransform>0, {step:.12g}, 0, {first * step:.12g}, 0, {step:.12g}</GeoTransform>\n"
        f"  <Metadata>\n{items}  </Metadata>\n{bands}</VRTDataset>\n"
    )

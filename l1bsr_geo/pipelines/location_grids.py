"""Location grids of a product, for everybody who reads Sen2VM's."""

from collections.abc import Sequence
from pathlib import Path

import shapely

from l1bsr_geo.geometry.elevation import AnyElevation, ConstantElevation
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.pipelines.job import PathLike, Progress
from l1bsr_geo.pipelines.stages import warn_of_height
from l1bsr_geo.readers.dem import read_elevation
from l1bsr_geo.readers.sentinel2_facts import granule_size
from l1bsr_geo.readers.sentinel2_instrument import read_instrument_model
from l1bsr_geo.readers.sentinel2_metadata import BANDS
from l1bsr_geo.readers.sentinel2_product import Product, open_product
from l1bsr_geo.readers.sentinel2_write_grids import write_geo_grids


def write_location_grids(
    product: PathLike,
    output: PathLike | None = None,
    *,
    detector: int | None = None,
    bands: Sequence[str] | None = None,
    gipp: PathLike | None = None,
    dem: PathLike | None = None,
    geoid: PathLike | None = None,
    height: float = 0.0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write Sen2VM-compatible location grids of a product (GEO_DATA), terrain included.

    Args:
        product: L1B product with its datastrip.
        output: folder for GRANULE and DATASTRIP; the product itself where None.
        detector: one of them; all where None.
        bands: some of them; all where None.
        gipp: folder of GIPP files.
        dem: as in `Job`.
        geoid: as in `Job`.
        height: as in `Job`.
        overwrite: replace existing grids.
        progress: called with grids done and grids in all.

    Returns:
        The files written.

    Raises:
        L1bsrGeoError: what a user can cause and mend.
    """
    opened = open_product(product)
    detectors = opened.detectors if detector is None else (detector,)
    terrain: AnyElevation = ConstantElevation(height)
    strips = [_strip(opened, d, gipp) for d in detectors]
    if dem is None:
        warn_of_height(height, strips[0])
    else:
        outline = shapely.union_all([strip.footprint() for strip in strips])
        terrain = read_elevation(dem, outline.buffer(0.1).bounds, geoid=geoid)
    return write_geo_grids(
        opened,
        output,
        detectors=detectors,
        bands=bands or BANDS,
        elevation=terrain,
        gipp=gipp,
        overwrite=overwrite,
        progress=progress,
    )


def _strip(product: Product, detector: int, gipp: PathLike | None) -> GeoGrid:
    """The pixels of a detector's granules."""
    granules = product.granules_of(detector)
    height, width = granule_size(product, granules[-1], 10)
    first, last = granules[0].position - 1, granules[-1].position - 1 + height
    model = read_instrument_model(product, detector, "B04", gipp=gipp)
    return GeoGrid((last, width), model).crop(Window(0, first, width, last - first))

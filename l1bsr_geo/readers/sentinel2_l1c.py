"""Sentinel-2 L1C and L2A SAFE products: map-projected reflectance bands."""

import os
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.readers.geotiff import geometry_of
from l1bsr_geo.readers.local_raster import open_raster
from l1bsr_geo.readers.sentinel2_metadata import (
    RESOLUTION,
    band_name,
    find_number,
    number,
    numbers_by_band,
    platform_of,
)
from l1bsr_geo.readers.sentinel2_product import Product, list_product
from l1bsr_geo.readers.sources import open_source

_IMAGE = re.compile(r"_(B\d\d|B8A)(?:_(\d\d)m)?\.jp2$", re.IGNORECASE)
_ROOT = re.compile(
    r"(?:MTD_MSIL(1C|2A)|S2\w_(?:OPER|USER)_MTD_SAFL(1C|2A)_.*)\.xml$", re.IGNORECASE
)


def level_of(names: Sequence[str]) -> str | None:
    """``"L1C"`` or ``"L2A"`` where a product's files have that root metadata, else None."""
    for name in names:
        if match := _ROOT.match(name):
            return "L" + (match[1] or match[2]).upper()
    return None


def read_reflectance_product(
    path: str | os.PathLike[str], bands: Sequence[str] = ("B02", "B03", "B04", "B08")
) -> BandStack:
    """Bands of an L1C or L2A product, each at its own resolution, pixels unread.

    ``add_offset`` is the product's own (-1000 since baseline 04.00, 0 before); reflectance is
    ``(DN + add_offset) * attrs["scale_factor"]``.

    Args:
        path: SAFE folder, .zip of it, or an xml inside it; one tile.
        bands: names, in the order wanted.

    Raises:
        MissingInputError: a band's image is not there.
        BadInputError: neither L1C nor L2A, several tiles, or a damaged file.
    """
    product, names = list_product(path)
    level = level_of(names)
    if level is None:
        raise BadInputError(f"{product.path} has no MTD_MSIL1C.xml or MTD_MSIL2A.xml at its root")
    root_path = next(n for n in names if _ROOT.match(n))
    root = product.read_xml(root_path)
    images = _find_images(product, names)
    wanted = [band_name(b) for b in bands]
    missing = [b for b in wanted if b not in images]
    if missing:
        raise MissingInputError(
            f"{product.path} has no image of {', '.join(missing)} (GRANULE/*/IMG_DATA), it has "
            f"{', '.join(sorted(images)) or 'none'}; choose other --bands or fetch it again"
        )
    sources, grids = {}, {}
    for band in wanted:
        gdal_path = product.gdal_path(images[band])
        sources[band] = open_source(gdal_path, name=product.describe(images[band]))
        with open_raster(gdal_path) as raster:
            grids[band] = GeoGrid(sources[band].shape, geometry_of(raster))
    tag = "RADIO_ADD_OFFSET" if level == "L1C" else "BOA_ADD_OFFSET"
    offsets = numbers_by_band([root], tag, ".", -65535, 65535)
    quantity = "QUANTIFICATION_VALUE" if level == "L1C" else "BOA_QUANTIFICATION_VALUE"
    where = f".//{quantity}" if root.find(f".//{quantity}") is not None else ".//*[@unit='none']"
    scale = 1 / find_number(root, where, product.describe(root_path), 1, 1e6)
    spacecraft = root.findtext(".//SPACECRAFT_NAME") or ""
    return BandStack(
        sources=sources,
        grids=grids,
        reference="B03" if "B03" in wanted else wanted[0],
        add_offset={b: offsets.get(b, 0.0) for b in wanted},
        nodata=_special(root, "NODATA", 0.0),
        saturated=_special(root, "SATURATED", 65535.0),
        attrs={
            "product": product.name,
            "platform": platform_of(spacecraft) or spacecraft,
            "level": level,
            "processing_baseline": root.findtext(".//PROCESSING_BASELINE") or "",
            "time": root.findtext(".//DATATAKE_SENSING_START")
            or root.findtext(".//PRODUCT_START_TIME")
            or "",
            "scale_factor": scale,
            "add_offset": {b: offsets.get(b, 0.0) * scale for b in wanted},
            "resolution": {b: RESOLUTION[b] for b in wanted},
        },
    )


def _find_images(product: Product, names: Sequence[str]) -> dict[str, str]:
    """Band to its image at the band's own resolution; L2A holds coarser copies too."""
    images: dict[str, str] = {}
    tiles = set()
    for name in names:
        path = PurePosixPath(name)
        match = _IMAGE.search(path.name)
        if match is None or "IMG_DATA" not in path.parts or "MSK_" in path.name:
            continue
        band = match[1].upper()
        if match[2] is None or int(match[2]) == RESOLUTION.get(band):
            images[band] = name
            tiles.add(path.parts[1])
    if len(tiles) > 1:
        raise BadInputError(
            f"{product.path} holds {len(tiles)} tiles; give a product of one tile, or one of its "
            "images"
        )
    return images


def _special(root: Element, which: str, default: float) -> float:
    for element in root.iter("Special_Values"):
        if (element.findtext("SPECIAL_VALUE_TEXT") or "").strip() == which:
            return number(element.findtext("SPECIAL_VALUE_INDEX") or str(default), which, 0, 65535)
    return default

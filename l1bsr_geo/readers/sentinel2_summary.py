"""What is in a Sentinel-2 L1B product, said in plain values."""

import os
from typing import Any

from l1bsr_geo.readers.sentinel2_facts import granule_size, read_angles, read_radiometry
from l1bsr_geo.readers.sentinel2_metadata import BANDS
from l1bsr_geo.readers.sentinel2_product import Granule, Product, open_product
from l1bsr_geo.readers.sentinel2_zarr import eopf_detectors, is_eopf, read_eopf_detector

# mean error on the ground by source of geometry; measured on one S2A datastrip (docs/concepts)
EXPECTED_ERROR = {
    "grids": "that of the grids (Sen2VM), interpolated",
    "model": "0.1 m from Sen2VM; some 5 m from the ground, 3 to 8 m where not refined",
    "footprint": "25 to 160 m",
}


def summarize_product(path: str | os.PathLike[str] | Product) -> dict[str, Any]:
    """Facts of a product, ready for JSON.

    Args:
        path: as in `open_product`.

    Returns:
        product, platform, level, processing_baseline, datastrip, geometry (the best source there
        is, and what error to expect of it), bands, detectors with granules, lines, bands and
        angles; radiometry by band.

    Raises:
        L1bsrGeoError: as `open_product`.
    """
    if not isinstance(path, Product) and is_eopf(path):
        return _summarize_eopf(path)
    product = open_product(path)
    datastrip = None if product.datastrip_path is None else product.read_xml(product.datastrip_path)
    radiometry = read_radiometry(product, datastrip)
    kind = _best_geometry(product)
    return {
        "product": product.name,
        "path": str(product.path),
        "level": "L1B",
        "platform": product.platform,
        "processing_baseline": radiometry.baseline,
        "datastrip": product.datastrip_path,
        "geometry": {"source": kind, "expected_error": EXPECTED_ERROR[kind]},
        "bands": [b for b in BANDS if any(b in g.images for g in product.granules)],
        "detectors": {
            f"{d:02d}": _summarize_detector(product, product.granules_of(d))
            for d in product.detectors
        },
        "radiometry": {
            "add_offset": radiometry.add_offset,
            "physical_gains": radiometry.physical_gains,
            "nodata": radiometry.nodata,
            "saturated": radiometry.saturated,
        },
    }


def _summarize_eopf(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The same of an EOPF Zarr, as far as its layout tells."""
    crops = {d: read_eopf_detector(path, d, ("B03",)) for d in eopf_detectors(path)}
    first = next(iter(crops.values()))
    return {
        "product": first.attrs["product"],
        "path": str(path),
        "level": "L1B",
        "platform": first.attrs.get("platform"),
        "geometry": {"source": "footprint", "expected_error": EXPECTED_ERROR["footprint"]},
        "detectors": {
            f"{d:02d}": {
                "lines": [crop.first_line, crop.first_line + crop.shape[0]],
                "columns": crop.shape[1],
            }
            for d, crop in crops.items()
        },
    }


def _summarize_detector(product: Product, granules: tuple[Granule, ...]) -> dict[str, Any]:
    height, width = granule_size(product, granules[-1], 10)
    return {
        "granules": len(granules),
        "lines": [granules[0].position - 1, granules[-1].position - 1 + height],
        "columns": width,
        "bands": [b for b in BANDS if all(b in g.images for g in granules)],
        **{name: round(angle, 2) for name, angle in read_angles(product, granules).items()},
    }


def _best_geometry(product: Product) -> str:
    if product.granules and all(g.geo_grids for g in product.granules):
        return "grids"
    return "footprint" if product.datastrip_path is None else "model"

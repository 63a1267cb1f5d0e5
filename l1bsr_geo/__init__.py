"""Super-resolution of satellite images in sensor geometry.

The names below are looked up when they are first used, so that importing the package is instant and
does not load torch (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "GeoGrid": "geometry.grid",
    "GeoImage": "images.pixels",
    "Model": "models.registry",
    "Window": "geometry.grid",
    "denoise": "pipelines.denoising",
    "evaluate": "pipelines.evaluating",
    "map_tiles": "tiling.execute",
    "orthorectify": "georef.orthorectify",
    "orthorectify_bands": "pipelines.bands",
    "read_detector_crop": "readers.sentinel2_l1b",
    "read_detector_overlap": "readers.sentinel2_l1b",
    "read_instrument_model": "readers.sentinel2_instrument",
    "read_raster": "readers.geotiff",
    "register_bands": "registration.bands",
    "super_resolve": "pipelines.super_resolution",
    "write_cog": "georef.cog",
}

if TYPE_CHECKING:
    from l1bsr_geo.geometry.grid import GeoGrid, Window
    from l1bsr_geo.georef.cog import write_cog
    from l1bsr_geo.georef.orthorectify import orthorectify
    from l1bsr_geo.images.pixels import GeoImage
    from l1bsr_geo.models.registry import Model
    from l1bsr_geo.pipelines.bands import orthorectify_bands
    from l1bsr_geo.pipelines.denoising import denoise
    from l1bsr_geo.pipelines.evaluating import evaluate
    from l1bsr_geo.pipelines.super_resolution import super_resolve
    from l1bsr_geo.readers.geotiff import read_raster
    from l1bsr_geo.readers.sentinel2_instrument import read_instrument_model
    from l1bsr_geo.readers.sentinel2_l1b import read_detector_crop, read_detector_overlap
    from l1bsr_geo.registration.bands import register_bands
    from l1bsr_geo.tiling.execute import map_tiles

__all__ = [
    "GeoGrid",
    "GeoImage",
    "Model",
    "Window",
    "__version__",
    "denoise",
    "evaluate",
    "map_tiles",
    "orthorectify",
    "orthorectify_bands",
    "read_detector_crop",
    "read_detector_overlap",
    "read_instrument_model",
    "read_raster",
    "register_bands",
    "super_resolve",
    "write_cog",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__

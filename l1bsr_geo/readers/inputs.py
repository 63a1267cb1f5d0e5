"""What an input is, and the reader for it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from l1bsr_geo.errors import BadOptionError, MissingInputError
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.readers.geotiff import read_raster
from l1bsr_geo.readers.sentinel2_geometry import Geometry
from l1bsr_geo.readers.sentinel2_l1b import DEFAULT_BANDS, read_detector_crop
from l1bsr_geo.readers.sentinel2_l1c import level_of, read_reflectance_product
from l1bsr_geo.readers.sentinel2_product import list_product, open_product
from l1bsr_geo.readers.sentinel2_zarr import eopf_detectors, is_eopf
from l1bsr_geo.readers.skysat import is_burst

Sensor: TypeAlias = Literal["auto", "s2-l1b", "skysat", "raster"]


def recognise_sensor(path: str | os.PathLike[str], sensor: Sensor = "auto") -> Sensor:
    """The sensor asked for; of ``"auto"``, ``"skysat"`` where `read_burst` is the reader."""
    path = Path(path)
    burst = sensor == "auto" and (path.suffix.lower() == ".npy" or is_burst(path))
    return "skysat" if burst else sensor


def read_input(
    path: str | os.PathLike[str],
    sensor: Sensor = "auto",
    *,
    detector: int | None = None,
    bands: Sequence[str] | None = None,
    geometry: Geometry = "auto",
    gipp: str | os.PathLike[str] | None = None,
    lines: tuple[int, int] | None = None,
) -> BandStack:
    """Read whatever is there: Sentinel-2 L1B, L1C or L2A, or any raster; pixels unread.

    Bursts are not bands of one acquisition: `recognise_sensor` finds them, `read_burst` reads them.

    Args:
        path: the input.
        sensor: ``"s2-l1b"`` insists on L1B, ``"raster"`` on a map product or raster; ``"auto"``
            looks.
        detector: of an L1B product with several.
        bands: names; B02 B03 B04 B08 by default.
        geometry: of an L1B product.
        gipp: of an L1B product.
        lines: of an L1B product.

    Raises:
        MissingInputError: nothing is there.
        BadInputError: it cannot be used.
        BadOptionError: an L1B product of several detectors, and none was chosen; a burst.
    """
    if sensor not in get_args(Sensor):
        raise BadOptionError(f"--sensor {sensor} is not {', '.join(get_args(Sensor))}")
    path = Path(path)
    if not path.exists():
        raise MissingInputError(f"{path} is not there; a product or a raster was expected")
    if recognise_sensor(path, sensor) == "skysat":
        raise BadOptionError(
            f"{path} is read as a SkySat burst, whose frames have no bands to register or "
            "orthorectify; super-resolve it (sr --sensor skysat)"
        )
    if sensor != "s2-l1b" and not is_product(path):
        return read_raster(path, bands)
    if sensor == "raster" or (sensor == "auto" and _is_reflectance(path)):
        return read_reflectance_product(path, bands or DEFAULT_BANDS)
    detectors = eopf_detectors(path) if is_eopf(path) else open_product(path).detectors
    if detector is None:
        if len(detectors) != 1:
            there = ", ".join(str(d) for d in detectors)
            raise BadOptionError(f"{path} holds detectors {there}; choose one with --detector")
        detector = detectors[0]
    return read_detector_crop(
        path, detector, bands or DEFAULT_BANDS, geometry=geometry, gipp=gipp, lines=lines
    )


def is_product(path: Path) -> bool:
    """Whether a path is a product rather than one raster file."""
    return path.is_dir() or is_eopf(path) or path.suffix.lower() in (".zip", ".xml")


def _is_reflectance(path: Path) -> bool:
    """Whether a product is L1C or L2A."""
    return not is_eopf(path) and level_of(list_product(path)[1]) is not None

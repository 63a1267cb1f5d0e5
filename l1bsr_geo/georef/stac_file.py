"""What a written raster says of itself, in the words of STAC: bands, projection, file."""

import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from rasterio.errors import RasterioError

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.georef.footprint import Footprint, find_footprint
from l1bsr_geo.models.stored import hash_file
from l1bsr_geo.readers.local_raster import cause_of, open_raster

COMMON_NAMES: Mapping[str, str] = {
    "B01": "coastal",
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge071",
    "B06": "rededge075",
    "B07": "rededge078",
    "B08": "nir",
    "B8A": "nir08",
    "B09": "nir09",
    "B10": "cirrus",
    "B11": "swir16",
    "B12": "swir22",
    "PAN": "pan",
    "red": "red",
    "green": "green",
    "blue": "blue",
}
"""Bands to what the eo extension calls them."""

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_GEOTIFF = "image/tiff; application=geotiff"
_TYPES = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
_TYPES += ["float32", "float64"]
_OURS = re.compile(r"l1bsr_geo (\S+)")


@dataclass(frozen=True)
class FileFacts:
    """What a file says of itself.

    Attributes:
        path: of the file.
        media: its type, as the web names it.
        tags: of a raster.
        bands: of a raster, as STAC has them.
        projection: fields of the projection extension; no code in sensor geometry.
        sampling: "area" or "point".
        footprint: of the valid pixels; None where they have no place on the ground.
    """

    path: Path
    media: str
    tags: Mapping[str, str]
    bands: tuple[dict[str, Any], ...] = ()
    projection: Mapping[str, Any] = field(default_factory=dict)
    sampling: str = "area"
    footprint: Footprint | None = None

    @property
    def version(self) -> str | None:
        """Of this package, where it wrote the file."""
        said = _OURS.match(self.tags.get("software") or self.tags.get("denoised_by") or "")
        return said[1] if said else None


def multihash(sha256: str) -> str:
    """A sha256 that says what it is: function 0x12, 0x20 bytes, the digest."""
    return f"1220{sha256}"


def describe_file(path: Path) -> FileFacts:
    """What a raster or a page says of itself.

    Raises:
        MissingInputError: it is not there.
        BadInputError: it is neither, or its geometry leads nowhere.
    """
    if path.suffix.lower() in (".html", ".htm") and path.is_file():
        return FileFacts(path, "text/html", {})
    return describe_raster(path)


def describe_raster(path: Path) -> FileFacts:
    """What a raster says of itself.

    Raises:
        MissingInputError: it is not there.
        BadInputError: it is no raster, or its geometry leads nowhere.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: there is no such file")
    media = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    try:
        with open_raster(path) as raster:
            tags = raster.tags()
            if raster.driver == "GTiff":
                layout = raster.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")
                media = _COG if layout == "COG" else _GEOTIFF
            return FileFacts(
                path,
                media,
                tags,
                tuple(_describe_band(raster, index) for index in raster.indexes),
                _describe_projection(raster),
                "point" if tags.get("AREA_OR_POINT") == "Point" else "area",
                find_footprint(raster, _ground_height(tags)),
            )
    except RasterioError as error:
        raise BadInputError(
            f"{path} cannot be opened as a raster ({cause_of(error)}); a GeoTIFF was expected"
        ) from error


def _ground_height(tags: Mapping[str, str]) -> float | None:
    said = re.fullmatch(r"constant (\S+) m", tags.get("terrain", ""))
    return float(said[1]) if said else None


def _describe_band(raster: Any, index: int) -> dict[str, Any]:
    tags, nodata = raster.tags(index), raster.nodatavals[index - 1]
    name = raster.descriptions[index - 1] or str(index)
    kind = raster.dtypes[index - 1]
    band: dict[str, Any] = {"name": name, "data_type": kind if kind in _TYPES else "other"}
    if name in COMMON_NAMES:
        band["eo:common_name"] = COMMON_NAMES[name]
    if tags.get("wavelength_unit") == "nm" and (length := _positive(tags.get("wavelength"))):
        band["eo:center_wavelength"] = round(length / 1000, 6)  # [um]
    if nodata is not None:
        whole = np.isfinite(nodata) and float(nodata).is_integer()
        band["nodata"] = int(nodata) if whole else nodata if np.isfinite(nodata) else str(nodata)
    if raster.units[index - 1]:
        band["unit"] = raster.units[index - 1]
    scale, offset = raster.scales[index - 1], raster.offsets[index - 1]
    if (scale, offset) != (1.0, 0.0):
        band |= {"raster:scale": scale, "raster:offset": offset}
    return band


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def _describe_projection(raster: Any) -> dict[str, Any]:
    """Code, shape, transform; a raster in sensor geometry has no code."""
    said: dict[str, Any] = {"proj:code": None, "proj:shape": list(raster.shape)}
    if raster.crs is None or raster.transform.is_identity:
        return said
    authority = raster.crs.to_authority()
    if authority is None:
        said["proj:wkt2"] = pyproj.CRS.from_user_input(raster.crs).to_wkt("WKT2_2019")
    else:
        said["proj:code"] = ":".join(authority)
    corners = [raster.transform @ (x, y) for x in (0, raster.width) for y in (0, raster.height)]
    (west, south), (east, north) = np.min(corners, axis=0), np.max(corners, axis=0)
    return said | {
        "proj:transform": [float(v) for v in raster.transform[:6]],
        "proj:bbox": [float(v) for v in (west, south, east, north)],
    }


def say_asset(told: FileFacts) -> dict[str, Any]:
    """A file as an asset of an item that lies beside it."""
    asset: dict[str, Any] = {
        "href": f"./{told.path.name}",
        "type": told.media,
        "file:size": told.path.stat().st_size,
        "file:checksum": multihash(hash_file(told.path)),
    }
    if not told.bands:
        return asset
    asset |= {"bands": list(told.bands), "raster:sampling": told.sampling} | dict(told.projection)
    if told.footprint is not None:
        asset["raster:spatial_resolution"] = told.footprint.pixel
    return asset

"""Sentinel-2 L1B in ESA's EOPF Zarr layout (product type S02MSIL1B).

``/measurements/dXX/bYY/img`` (along track, across track) holds a whole detector strip. Source of
the layout: eopf 2.8.1, eopf/product/models/S02MSIL1B.json. Needs the ``zarr`` extra.
"""

import json
import math
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from l1bsr_geo.errors import (
    BadInputError,
    BadOptionError,
    GeometryWarning,
    L1bsrGeoError,
    MissingInputError,
)
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.location_grid import LocationGrid
from l1bsr_geo.images.bands import DetectorCrop
from l1bsr_geo.images.pixels import PixelSource, SourceWindow
from l1bsr_geo.readers.ground import check_ground
from l1bsr_geo.readers.sentinel2_metadata import RESOLUTION, number, platform_of
from l1bsr_geo.readers.sentinel2_product import MAX_LINES
from l1bsr_geo.readers.sources import ScaledSource

_MAX_CHUNK = 1 << 28  # values
_DAMAGE = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, MemoryError),  # RecursionError is a RuntimeError
)


@dataclass(frozen=True)
class ZarrSource:
    """One array of a Zarr product.

    Attributes:
        path: the store's folder or .zip.
        key: the array inside it.
        shape: ``(height, width)``.
        dtype: the type on disk.
    """

    path: str
    key: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def read(self, window: Window) -> npt.NDArray[Any]:
        """The pixels of a window inside the array.

        Raises:
            BadInputError: a chunk cannot be decoded.
        """
        with _reading(f"{self.path}/{self.key}"):
            return np.asarray(_open_array(self.path, self.key)[window.slices])


def is_eopf(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a Zarr store, by its name or its marker files."""
    path = Path(path)
    if re.search(r"\.zarr(\.zip)?$", path.name, re.IGNORECASE):
        return True
    return path.is_dir() and any((path / m).is_file() for m in ("zarr.json", ".zgroup"))


def read_eopf_detector(
    path: str | os.PathLike[str],
    detector: int,
    bands: Sequence[str],
    *,
    geometry: str = "auto",
    lines: tuple[int, int] | None = None,
) -> DetectorCrop:
    """One detector of an EOPF Zarr product; see ``read_detector_crop``.

    The geometry is that of the product's footprint sides, with a warning: the layout has no
    datastrip xml. Float arrays are taken as radiance when the product tells the physical gains.

    Raises:
        MissingInputError: no such store, detector or band; or the zarr extra is not installed.
        BadInputError: not an S02MSIL1B product.
        BadOptionError: a geometry that the layout does not have, or lines outside the strip.
    """
    with _reading(str(path)):
        return _read_detector(str(path), detector, bands, geometry, lines)


def _read_detector(
    name: str,
    detector: int,
    bands: Sequence[str],
    geometry: str,
    lines: tuple[int, int] | None,
) -> DetectorCrop:
    if geometry not in ("auto", "footprint"):
        raise BadOptionError(f"{name} is a Zarr product, which has only --geometry footprint")
    root = _open_store(name)
    if "measurements" not in root:
        raise BadInputError(f"{name} is a Zarr store without /measurements; S02MSIL1B was expected")
    folder = f"measurements/d{detector:02d}"
    if folder not in root:
        there = ", ".join(sorted(root["measurements"].group_keys()))
        raise MissingInputError(f"{name} has no detector {detector}, only {there}; choose of those")
    sources = {b: _source(root, name, folder, b) for b in bands}
    first, last = _choose_lines(name, sources, lines)
    _warn(name)
    other = dict(root.attrs).get("other_metadata", {})
    cropped: dict[str, PixelSource] = {}
    grids = {}
    for band, source in sources.items():
        ratio = RESOLUTION[band] // 10
        window = Window(0, first // ratio, source.shape[1], (last - first) // ratio)
        model = _footprint(root, name, detector, source.shape, ratio)
        grids[band] = GeoGrid(window.shape, model, Affine.translation(0, window.row_off))
        cropped[band] = SourceWindow(_to_counts(source, other, band), window)
    stac = _discovery(root)
    return DetectorCrop(
        sources=cropped,
        grids=grids,
        reference="B03" if "B03" in bands else bands[0],
        add_offset={
            b: 0.0 if s.dtype.kind == "f" else _fact(other, b, "RADIO_ADD_OFFSET") or 0.0
            for b, s in sources.items()
        },
        nodata=0.0,
        saturated=65535.0,
        detector=detector,
        first_line=first,
        attrs={
            "product": re.sub(r"(\.zarr)?(\.zip)?$", "", Path(name).name),
            "platform": platform_of(str(stac.get("platform", ""))) or stac.get("platform", ""),
            "level": "L1B",
            "detector": detector,
            "time": stac.get("start_datetime") or stac.get("datetime") or "",
            "geometry": "footprint",
            **_angles(root, detector),
            "resolution": {b: RESOLUTION[b] for b in bands},
            "wavelengths": _facts(other, bands, "CENTRAL"),
            "physical_gains": _facts(other, bands, "PHYSICAL_GAINS"),
            "noise_model": {},
        },
    )


@lru_cache(maxsize=16)
def _open_store(path: str) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise MissingInputError(
            f"{path} is a Zarr product, and the zarr package is not installed; "
            "pip install l1bsr-geo[zarr]"
        ) from error
    if not Path(path).exists():
        raise MissingInputError(f"{path} is not there; an EOPF Zarr product was expected")
    with _reading(path):
        zipped = Path(path).is_file()
        store = zarr.storage.ZipStore(path, mode="r") if zipped else path
        return zarr.open_group(store, mode="r")


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Say in one line that a store is damaged: zarr tells of it by errors of many kinds."""
    try:
        yield
    except L1bsrGeoError:
        raise
    except _DAMAGE as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise BadInputError(
            f"{name} cannot be read as a Zarr product ({reason}); it is damaged: fetch it again"
        ) from error


def _open_array(path: str, key: str) -> Any:
    """An array of plain numbers, of sane size, that is unpacked without running code."""
    array = _open_store(path)[key]
    packed = json.dumps(array.metadata.to_dict(), default=str)
    if "pickle" in packed or np.dtype(array.dtype).kind not in "uif":
        raise BadInputError(
            f"{path}/{key} holds {array.dtype} or pickles; plain numbers were expected"
        )
    if array.ndim != 2 or max(array.shape) > MAX_LINES or math.prod(array.chunks) > _MAX_CHUNK:
        raise BadInputError(
            f"{path}/{key} has shape {array.shape} in chunks of {array.chunks}; an image was "
            "expected"
        )
    return array


def _source(root: Any, name: str, folder: str, band: str) -> ZarrSource:
    key = f"{folder}/{band.lower()}/img"
    if key not in root:
        there = ", ".join(sorted(root[folder].group_keys()))
        raise MissingInputError(f"{name} has no {key}, only {there}; choose other --bands")
    array = _open_array(name, key)
    return ZarrSource(name, key, (array.shape[0], array.shape[1]), np.dtype(array.dtype))


def _to_counts(source: ZarrSource, other: Any, band: str) -> PixelSource:
    """Float arrays are radiance; the physical gains bring them to zero-based DN."""
    gain = _fact(other, band, "PHYSICAL_GAINS")
    if source.dtype.kind != "f" or gain is None:
        return source
    return ScaledSource(source, gain)


def _choose_lines(
    name: str, sources: Mapping[str, ZarrSource], lines: tuple[int, int] | None
) -> tuple[int, int]:
    ratios = [RESOLUTION[b] // 10 for b in sources]
    end = min(s.shape[0] * r for s, r in zip(sources.values(), ratios, strict=True))
    unit = int(np.lcm.reduce(ratios))
    first, last = lines or (0, end)
    first, last = max(0, first // unit * unit), min(end, -(-last // unit) * unit) // unit * unit
    if last <= first:
        raise BadOptionError(f"lines {lines} choose nothing of {name}, whose lines are 0 to {end}")
    return first, last


def _footprint(
    root: Any, name: str, detector: int, shape: tuple[int, int], ratio: int
) -> LocationGrid:
    """Location grid of the strip's sides, (along track, 2) centres of 10 m pixels."""
    folder = f"conditions/d{detector:02d}/footprint"
    try:
        lon, lat = (
            np.asarray(_open_array(name, f"{folder}/{k}")[:], float)
            for k in ("longitude", "latitude")
        )
    except KeyError as error:
        raise MissingInputError(f"{name} has no {folder}, and no other geometry") from error
    if lon.shape != lat.shape or lon.ndim != 2 or min(lon.shape) < 2 or lon.shape[1] != 2:
        raise BadInputError(f"{name}: {folder} has shape {lon.shape}, (n, 2) was expected")
    edge = 1 / ratio  # a 10 m pixel, in pixels of the band
    step = (shape[1] - edge, (shape[0] - edge) / (len(lon) - 1))
    lon = np.degrees(np.unwrap(np.unwrap(np.radians(lon), axis=0), axis=1))
    grid = LocationGrid(lon[None], lat[None], step, origin=(edge / 2, edge / 2))
    size = 10.0 * ratio
    window, what = Window(0, 0, shape[1], shape[0]), f"{name}: the geometry of {folder}"
    check_ground(grid, window, what, (size / 4, size * 4))
    return grid


def _warn(name: str) -> None:
    warnings.warn(
        GeometryWarning(
            f"{name}: located by the sides of the detector's footprint alone, at height 0: B03 and "
            "B04 are wrong by some 20 to 100 m, other bands by up to 400 m, and all by 20 to 210 m "
            "more per 1000 m of terrain height; the SAFE product of the same data is good to a few "
            "metres"
        ),
        stacklevel=4,
    )


def _angles(root: Any, detector: int) -> dict[str, float]:
    """Mean sun and view angles; the arrays are (along track, 2 = zenith azimuth)."""
    angles = {}
    for key, array in (("sun", "sun_angles"), ("view", "viewing_incidence_angles")):
        path = f"conditions/d{detector:02d}/geometry/{array}"
        if path in root:
            zenith, azimuth = np.radians(np.asarray(root[path][:], float).reshape(-1, 2).T)
            x = (np.sin(zenith) * np.sin(azimuth)).mean()
            y = (np.sin(zenith) * np.cos(azimuth)).mean()
            angles[f"{key}_zenith"] = float(np.degrees(np.arcsin(np.hypot(x, y))))
            angles[f"{key}_azimuth"] = float(np.degrees(np.arctan2(x, y)) % 360)
    return angles


def _discovery(root: Any) -> Mapping[str, Any]:
    stac = dict(root.attrs).get("stac_discovery", {})
    properties: Mapping[str, Any] = stac.get("properties", {})
    return properties


def _facts(other: Any, bands: Sequence[str], key: str) -> dict[str, float]:
    found = {b: _fact(other, b, key) for b in bands}
    return {b: v for b, v in found.items() if v is not None}


def _fact(other: Any, band: str, key: str) -> float | None:
    """A number in the nested metadata, under the band's name and ending in ``key``."""
    for path, value in _leaves(other, ()):
        if path[-1].upper() == key and band.lower() in path:
            return number(str(value), f"{key} of {band}")
    return None


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, (*path, str(key).lower()))
    else:
        yield path, node


def eopf_detectors(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """The detectors of an EOPF Zarr product."""
    root = _open_store(str(path))
    with _reading(str(path)):
        if "measurements" not in root:
            raise BadInputError(
                f"{path} is a Zarr store without /measurements; S02MSIL1B was expected"
            )
        keys = root["measurements"].group_keys()
        return tuple(sorted(int(k[1:]) for k in keys if k[1:].isdecimal()))

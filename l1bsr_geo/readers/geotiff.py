"""Any raster with Sentinel-2-like bands as a BandStack."""

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from l1bsr_geo.errors import BadInputError, L1bsrGeoWarning
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.geometry.model import GeometryModel
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.images.pixels import PixelSource
from l1bsr_geo.readers.ground import check_ground
from l1bsr_geo.readers.local_raster import cause_of, open_raster
from l1bsr_geo.readers.rpc import from_rasterio
from l1bsr_geo.readers.sentinel2_metadata import BANDS, band_name
from l1bsr_geo.readers.sources import (
    MaskedSource,
    RasterSource,
    ScaledSource,
    check_complete,
)

DEFAULT_BANDS = ("B02", "B03", "B04", "B08")
REFLECTANCE_GAIN = 10_000.0
"""DN per unit of reflectance, as in Sentinel-2 products."""

_COLOURS = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "near infrared": "B08"}
_NO_MASK_BAND = {MaskFlags.all_valid, MaskFlags.nodata, MaskFlags.alpha}
_LARGEST_MAP = 1e9  # coordinates of a corner [units of the CRS]
_LARGEST_REFLECTANCE = 4.0  # snow, clouds and glint exceed 1; DN do not stay below this


def read_raster(path: str | os.PathLike[str], bands: Sequence[str] | None = None) -> BandStack:
    """A raster of Sentinel-2-like bands, its pixels unread.

    Bands are found by name: descriptions, BANDNAME tags or colours such as ``B2``, ``B02``,
    ``B4, central wavelength 665 nm``, ``blue``, ``nir``. Four bands without names are taken as B02,
    B03, B04, B08, with a warning. Scale and offset of every band become ``attrs["scale_factor"]``
    (value per DN) and ``attrs["add_offset"]`` (value of DN 0), by band name; ``add_offset`` of the
    stack is the latter in DN. A float raster whose values look like reflectance (none above 4) is
    read as DN = 10000 x value, with a warning and scales of 1/10000.

    Where a mask or an alpha band (one that is not a band of the image) is 0, pixels are read as no
    data: the value that the file declares, else NaN or the least value of a whole-number type. A
    masked file's valid pixels of that least value are read as 1 DN more, to stay valid.

    The geometry is the map transform where there is a CRS, else the RPC, else none.

    Args:
        path: what GDAL opens.
        bands: which bands, by name, of a raster that names its bands; the names of all bands, in
            order, of one that does not. By default B02 B03 B04 B08 where they are there, else all.

    Raises:
        MissingInputError: the file is not there.
        BadInputError: not a raster, or its bands cannot be told apart.
    """
    name = os.fspath(path)
    check_complete(name, name)
    if Path(name).is_dir():
        raise BadInputError(f"{name} is a folder without a Sentinel-2 product; give a raster file")
    try:
        with open_raster(name) as raster:
            return read_opened(raster, name, bands)
    except RasterioError as error:
        raise BadInputError(
            f"{name} cannot be opened as a raster ({cause_of(error)}); give a GeoTIFF, a JPEG 2000 "
            "or another format that GDAL reads"
        ) from error


def read_opened(
    raster: Any,
    name: str,
    wanted: Sequence[str] | None,
    sources: Mapping[int, PixelSource] | None = None,
) -> BandStack:
    """`read_raster` of what is open already.

    Args:
        raster: a rasterio dataset, or what answers the same questions.
        name: what messages call it, or the file's path.
        wanted: bands, as of `read_raster`.
        sources: pixels by number of the band, where they are not those of the file ``name``.
    """
    chosen = _choose_bands(raster, name, wanted)
    dtypes = {raster.dtypes[i - 1] for i in chosen.values()}
    if len(dtypes) > 1 or np.dtype(next(iter(dtypes))).kind not in "uif":
        raise BadInputError(f"{name}: bands of {', '.join(dtypes)}; one real number type expected")
    nodata = raster.nodata
    bands: dict[str, PixelSource] = {
        b: sources[i]
        if sources is not None
        else RasterSource(name, i, raster.shape, np.dtype(raster.dtypes[i - 1]))
        for b, i in chosen.items()
    }
    scales = {b: float(raster.scales[i - 1]) or 1.0 for b, i in chosen.items()}
    offsets = {b: float(raster.offsets[i - 1]) for b, i in chosen.items()}
    if set(scales.values()) == {1.0} and _is_reflectance(raster, list(chosen.values())):
        warnings.warn(
            L1bsrGeoWarning(
                f"{name} holds float values of at most {_LARGEST_REFLECTANCE:g}, taken as "
                f"reflectance: read as DN = {REFLECTANCE_GAIN:g} x value (scale 0.0001)"
            ),
            stacklevel=4,
        )
        scales = dict.fromkeys(bands, 1 / REFLECTANCE_GAIN)
        bands = {b: ScaledSource(s, REFLECTANCE_GAIN, nodata) for b, s in bands.items()}
    bands, nodata = apply_mask(raster, name, chosen, bands)
    grid = GeoGrid(raster.shape, geometry_of(raster))
    return BandStack(
        sources=bands,
        grids=dict.fromkeys(bands, grid),
        reference="B03" if "B03" in bands else next(iter(bands)),
        add_offset={b: offsets[b] / scales[b] for b in bands},
        nodata=nodata,
        attrs={
            "product": Path(name).stem,
            "level": "raster",
            "scale_factor": scales,
            "add_offset": offsets,
            "rpcs": raster.rpcs is not None,
            "gcps": len(raster.gcps[0]),
            "tags": dict(raster.tags()),
        },
    )


def apply_mask(
    raster: Any, name: str, chosen: Mapping[str, int], sources: Mapping[str, PixelSource]
) -> tuple[dict[str, PixelSource], float | None]:
    """The sources with no data where a mask or alpha band is 0, and the value of no data.

    As in GDAL, a mask overrules the no data value that a file declares, and an alpha does not (it
    is often opaque everywhere): then either means no data.
    """
    masks: dict[str, PixelSource] = {
        b: RasterSource(name, i, raster.shape, np.dtype(np.uint8), mask=True)
        for b, i in chosen.items()
        if not _NO_MASK_BAND & set(raster.mask_flag_enums[i - 1])
    }
    dtype = next(iter(sources.values())).dtype
    declared = _holds(dtype, raster.nodata)
    alone = bool(masks) or not declared
    alphas = [i for i in raster.indexes if i not in chosen.values() and _is_alpha(raster, i)]
    if not masks and alphas:
        kind = np.dtype(raster.dtypes[alphas[0] - 1])
        masks = dict.fromkeys(chosen, RasterSource(name, alphas[0], raster.shape, kind))
    if not masks:
        return dict(sources), raster.nodata
    nodata = raster.nodata if declared else _spare_value(dtype)
    return {
        b: MaskedSource(s, masks[b], nodata, alone) if b in masks else s for b, s in sources.items()
    }, nodata


def _holds(dtype: np.dtype[Any], nodata: float | None) -> bool:
    if nodata is None or dtype.kind == "f":
        return nodata is not None
    limits = np.iinfo(dtype)
    return limits.min <= nodata <= limits.max and float(nodata).is_integer()


def _spare_value(dtype: np.dtype[Any]) -> float:
    """What means no data where the file declares nothing."""
    return float("nan") if dtype.kind == "f" else float(np.iinfo(dtype).min)


def _is_alpha(raster: Any, index: int) -> bool:
    is_alpha: bool = raster.colorinterp[index - 1] == ColorInterp.alpha
    return is_alpha and name_of(raster, index) is None


def _choose_bands(raster: Any, name: str, wanted: Sequence[str] | None) -> dict[str, int]:
    """Band names to 1-based indices."""
    indices = list(raster.indexes)
    if len(indices) > len(DEFAULT_BANDS):  # GDAL calls the fourth of four unnamed bands alpha
        indices = [i for i in indices if not _is_alpha(raster, i)]
    named: dict[str, int] = {}
    for i in indices:
        if (band := name_of(raster, i)) is not None:
            named.setdefault(band, i)
    if wanted is None:
        return _default_bands(name, indices, named)
    names = [band_name(b) for b in wanted]
    if len(set(names)) < len(names):
        raise BadInputError(f"--bands {','.join(wanted)} names a band twice")
    if set(names) <= set(named):
        return {b: named[b] for b in names}
    if len(named) < len(indices) and len(names) == len(indices):
        return dict(zip(names, indices, strict=True))
    have = f"bands {', '.join(named)}" if named else f"{len(indices)} bands without names"
    raise BadInputError(
        f"{name} has {have}, {', '.join(names)} were asked for; --bands chooses by name, or names "
        "every band of a raster that does not name its own"
    )


def _default_bands(name: str, indices: list[int], named: dict[str, int]) -> dict[str, int]:
    if set(DEFAULT_BANDS) <= set(named):
        return {b: named[b] for b in DEFAULT_BANDS}
    if named and len(named) == len(indices):
        return named
    if len(indices) == len(DEFAULT_BANDS):
        chosen = dict(zip(DEFAULT_BANDS, indices, strict=True))
        if named and any(chosen.get(b) != i for b, i in named.items()):
            raise BadInputError(
                f"{name} names only some of its bands ({', '.join(named)}); give --bands with the "
                "names of all four, in order"
            )
        warnings.warn(
            L1bsrGeoWarning(
                f"{name}: four bands without names, taken as {', '.join(DEFAULT_BANDS)}; give "
                "--bands if they are others"
            ),
            stacklevel=5,
        )
        return chosen
    raise BadInputError(
        f"{name} has {len(indices)} bands, of which {len(named)} have a known name; four were "
        "expected, or --bands with the name of each, in order, such as B02,B03,B04,B08"
    )


def name_of(raster: Any, index: int) -> str | None:
    """The Sentinel-2 band that a raster's band says it is."""
    tags = raster.tags(index)
    for text in (raster.descriptions[index - 1], tags.get("BANDNAME"), tags.get("name")):
        words = (text or "").strip().lower()
        if match := re.match(r"b(?:and)?[ _]?(\d{1,2}a?)\b", words):
            name = "B" + match[1].upper().rjust(2, "0")
            # "Band 1" to "Band 4" is how software numbers bands, not a Sentinel-2 name
            if name in BANDS and not re.match(r"band[ _]?\d", words):
                return name
        if words in _COLOURS:
            return _COLOURS[words]
    return None


def _is_reflectance(raster: Any, indices: list[int]) -> bool:
    """Whether a float raster's values, on a sample of it, are reflectances rather than DN."""
    if np.dtype(raster.dtypes[indices[0] - 1]).kind != "f":
        return False
    shape = (len(indices), min(raster.height, 256), min(raster.width, 256))
    sample = raster.read(indices, out_shape=shape, masked=True).filled(np.nan)
    values = sample[np.isfinite(sample)]
    return bool(values.size and 0 < values.max() <= _LARGEST_REFLECTANCE)


def geometry_of(raster: Any) -> GeometryModel | None:
    """The map transform, else the RPC, else nothing.

    Raises:
        BadInputError: there is one that leads nowhere.
    """
    transform, (height, width) = raster.transform, raster.shape
    if raster.crs is not None and not transform.is_identity:
        corners = np.array([transform @ (x, y) for x in (0, width) for y in (0, height)])
        # NaN is not below anything
        if not (np.abs(corners) < _LARGEST_MAP).all() or transform.is_degenerate:
            raise BadInputError(
                f"{raster.name}: its map transform {tuple(transform[:6])} leads nowhere; set the "
                "right one (gdal_edit.py), or fetch it again"
            )
        return AffineModel(transform, raster.crs.to_wkt())
    if raster.rpcs is None:
        return None
    model = from_rasterio(raster.rpcs, raster.name)
    check_ground(model, Window(0, 0, width, height), f"{raster.name}: its RPC")
    return model

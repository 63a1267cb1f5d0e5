"""RPC files of all vendors to RPCModel, and RPCModel to what rasterio writes."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import defusedxml.ElementTree
import numpy as np
from defusedxml.common import DefusedXmlException
from rasterio.errors import RasterioError
from rasterio.rpc import RPC

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.geometry.grid import GeoGrid
from l1bsr_geo.geometry.pinhole import PinholeModel
from l1bsr_geo.geometry.rpc import RPCModel
from l1bsr_geo.readers.local_raster import open_raster

_AXES = ("LINE", "SAMP", "LAT", "LONG", "HEIGHT")
_CURVES = ("LINE_NUM", "LINE_DEN", "SAMP_NUM", "SAMP_DEN")
_SIDECARS = (".rpc_adj", "_RPC.TXT", "_RPC.txt", "_rpc.txt", ".RPB", ".rpb", ".rpc")
_FILES = (".txt", ".rpb", ".rpc", ".rpc_adj", ".xml")
_MOST_BYTES = 1 << 20

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LINE = re.compile(rf"^\s*(\w+)\s*[:=]\s*({_NUMBER})", re.MULTILINE)
_LIST = re.compile(r"(\w+)\s*=\s*\(([^)]*)\)")
_RPB_AXES = {"line": "LINE", "samp": "SAMP", "lat": "LAT", "long": "LONG", "height": "HEIGHT"}


def read_rpc(path: str | os.PathLike[str]) -> RPCModel:
    """The RPC of a file, pixel centres of the vendor at whole numbers.

    Reads ``KEY: value`` text (``_RPC.TXT``, Ikonos style, with units or without), ``.RPB``, the
    DIMAP xml of Pleiades and SPOT (which counts from 1), and images: the file beside an image
    (bundle-adjusted ``.rpc_adj`` first, ``_RPC.TXT``, ``.RPB``, ``.rpc``), else its tags.

    Raises:
        MissingInputError: nothing is there, or the image has no RPC.
        BadInputError: the file is no RPC, or an incomplete one.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(
            f"{path} is not there; an RPC file, or an image with an RPC, was expected"
        )
    if path.suffix.lower() in _FILES:
        return _read_file(path)
    model = find_rpc(path)
    if model is None:
        raise MissingInputError(
            f"{path} has no RPC: neither tags nor {path.stem}_RPC.TXT, .RPB or .rpc beside it"
        )
    return model


def find_rpc(image: Path) -> RPCModel | None:
    """The RPC of an image, from a file beside it or from its tags; None where it has none.

    Raises:
        BadInputError: there is one, but it cannot be used.
    """
    for ending in _SIDECARS:
        beside = image.with_name(image.stem + ending)
        if beside.is_file():
            return _read_file(beside)
    try:
        with open_raster(image) as raster:
            rpcs = raster.rpcs
    except RasterioError as error:
        raise BadInputError(f"{image} cannot be opened as an image ({error})") from error
    return None if rpcs is None else from_rasterio(rpcs, os.fspath(image))


def from_rasterio(rpcs: RPC, name: str = "the RPC") -> RPCModel:
    """GDAL's RPC, which keeps the vendor's whole numbers at pixel centres.

    Raises:
        BadInputError: it cannot be used; ``name`` says of what.
    """
    model = RPCModel(
        line_num=np.asarray(rpcs.line_num_coeff, np.float64),
        line_den=np.asarray(rpcs.line_den_coeff, np.float64),
        samp_num=np.asarray(rpcs.samp_num_coeff, np.float64),
        samp_den=np.asarray(rpcs.samp_den_coeff, np.float64),
        offset={k: float(getattr(rpcs, f"{k.lower()}_off")) for k in _AXES},
        scale={k: float(getattr(rpcs, f"{k.lower()}_scale")) for k in _AXES},
    )
    return _checked(model, name)


def to_rasterio(model: RPCModel) -> RPC:
    """What rasterio writes into a file (``dst.rpcs``, ``attrs["rpcs"]`` of an image)."""
    return RPC(
        **{f"{k.lower()}_off": model.offset[k] for k in _AXES},
        **{f"{k.lower()}_scale": model.scale[k] for k in _AXES},
        line_num_coeff=[float(c) for c in model.line_num],
        line_den_coeff=[float(c) for c in model.line_den],
        samp_num_coeff=[float(c) for c in model.samp_num],
        samp_den_coeff=[float(c) for c in model.samp_den],
    )


def rpcs_of(grid: GeoGrid) -> RPC | None:
    """The RPC of exactly the pixels of a grid, crop and zoom included, for writing.

    A pinhole camera is said by an RPC, to 1e-6 px. None where the geometry is none of the two.
    """
    if isinstance(grid.model, RPCModel):
        model = grid.model.seen_through(grid.to_model)
        return None if model is None else to_rasterio(model)
    if isinstance(grid.model, PinholeModel):
        return to_rasterio(RPCModel.fit(grid, grid.shape))
    return None


def _read_file(path: Path) -> RPCModel:
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise BadInputError(f"{path} has {size} bytes; an RPC file has a few thousand")
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix.lower() == ".xml" or text.lstrip().startswith("<"):
        return _read_dimap(text, path)
    values = {key.upper(): float(value) for key, value in _LINE.findall(text)}
    if "LINEOFFSET" in values:
        values = _translate_rpb(text, values)
    return _build(values, path)


def _translate_rpb(text: str, values: Mapping[str, float]) -> dict[str, float]:
    """RPB's lineOffset, lineNumCoef = (...) under the names of the text format."""
    translated = {}
    for rpb, axis in _RPB_AXES.items():
        for word, ending in (("OFFSET", "OFF"), ("SCALE", "SCALE")):
            if (key := rpb.upper() + word) in values:
                translated[f"{axis}_{ending}"] = values[key]
    for key, listed in _LIST.findall(text):
        if match := re.fullmatch(r"(line|samp)(Num|Den)Coef", key):
            for i, number in enumerate(re.findall(_NUMBER, listed), 1):
                translated[f"{match[1]}_{match[2]}_COEFF_{i}".upper()] = float(number)
    return translated


def _read_dimap(text: str, path: Path) -> RPCModel:
    """The model from ground to image of a DIMAP document; its pixels count from 1."""
    try:
        root = defusedxml.ElementTree.fromstring(text.encode())
    except (defusedxml.ElementTree.ParseError, DefusedXmlException, ValueError) as error:
        raise BadInputError(f"{path} is no valid xml ({error}); an RPC was expected") from error
    values = {}
    for branch in ("Inverse_Model", "RFM_Validity"):
        for element in root.iterfind(f".//{branch}/*"):
            if re.fullmatch(_NUMBER, (element.text or "").strip()):
                values[element.tag.upper()] = float(element.text.strip())
    for key in ("LINE_OFF", "SAMP_OFF"):
        if key in values:
            values[key] -= 1
    return _build(values, path)


def _build(values: Mapping[str, float], path: Path) -> RPCModel:
    wanted = [f"{axis}_{kind}" for axis in _AXES for kind in ("OFF", "SCALE")]
    wanted += [f"{curve}_COEFF_{i}" for curve in _CURVES for i in range(1, 21)]
    missing = [key for key in wanted if key not in values]
    if missing:
        what = "it is no RPC" if len(missing) == len(wanted) else f"first {missing[0]}"
        raise BadInputError(
            f"{path} lacks {len(missing)} of the {len(wanted)} values of an RPC ({what}); fetch it "
            "again"
        )
    curves = {
        c.lower(): np.array([values[f"{c}_COEFF_{i}"] for i in range(1, 21)]) for c in _CURVES
    }
    model = RPCModel(
        **curves,
        offset={axis: values[f"{axis}_OFF"] for axis in _AXES},
        scale={axis: values[f"{axis}_SCALE"] for axis in _AXES},
    )
    return _checked(model, os.fspath(path))


def _checked(model: RPCModel, name: str) -> RPCModel:
    """A model of finite values, that divides by none that is 0."""
    zero = [f"{axis}_SCALE" for axis in _AXES if model.scale[axis] == 0]
    if zero:
        raise BadInputError(f"{name}: {', '.join(zero)} is 0; a scale cannot be")
    for curve in ("line_num", "line_den", "samp_num", "samp_den"):
        coefficients = getattr(model, curve)
        if coefficients.shape != (20,) or not coefficients.any():
            raise BadInputError(f"{name}: all coefficients of {curve.upper()} are 0, or not 20")
        if not np.isfinite(coefficients).all():
            raise BadInputError(f"{name}: coefficients of {curve.upper()} are not finite")
    if not np.isfinite([*model.offset.values(), *model.scale.values()]).all():
        raise BadInputError(f"{name}: offsets or scales are not finite")
    return model

"""Rasters as GDAL opens them: of files that are here, of sane size, running and fetching nothing.

GDAL follows what a file says. A .vrt names other files, servers or Python code, and a dozen further
text formats, known by their content whatever the ending is, name servers and folders for a cache.
Of these only .vrt are read here, and only over files on this machine that point no further.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import rasterio
from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException
from rasterio.errors import NotGeoreferencedWarning

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.readers.archive import read_head

_CONFINED = {
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "{none}",  # of all /vsicurl, /vsis3 ...
    "GDAL_HTTP_PROXY": "none://none",  # no such kind of proxy: a request fails before it starts
    "GDAL_HTTPS_PROXY": "none://none",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "VRT_NUM_THREADS": "1",  # these settings are of one thread
}
_POINTERS = (b"<VRTDataset", b"<GDAL_WMS", b"<MRF_META", b"<WCS_GDAL", b"<GDALTileIndexDataset")
_HEAD = 4096  # bytes in which GDAL looks for such a word
_DEPTH = 4  # a .vrt of a .vrt of ...
_MAX_VRT = 1 << 26  # bytes: some 100 000 files
_MAX_PIXELS = 1 << 38  # 524 288 x 524 288: 5000 km at 10 m
_MAX_BLOCK = 1 << 28  # pixels that are decoded at once


@contextmanager
def confined() -> Iterator[None]:
    """In this thread, GDAL neither reaches the network nor runs Python code of a file."""
    with rasterio.Env(**_CONFINED):
        yield


@contextmanager
def open_raster(path: str | PathLike[str]) -> Iterator[Any]:
    """An open rasterio dataset, confined; that sensor geometry has no map transform is no warning.

    Raises:
        RasterioError: GDAL cannot open it.
        MissingInputError: a file that it points to is not there.
        BadInputError: it points to something else than files, or says an impossible size.
    """
    with confined(), open_confined(fspath(path)) as raster:
        yield raster


def open_confined(path: str) -> Any:
    """`open_raster` for one who closes the dataset himself and reads it `confined`."""
    is_vrt = _check_pointers(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        raster = rasterio.open(path)
    try:
        if raster.driver == "VRT" and not is_vrt:
            raise BadInputError(f"{path} is a .vrt in disguise; an image was expected")
        _check_size(raster, path)
    except BadInputError:
        raster.close()
        raise
    return raster


def cause_of(error: BaseException) -> str:
    """The innermost reason of a rasterio error, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200]


def _check_size(raster: Any, path: str) -> None:
    height, width = raster.shape
    if height * width > _MAX_PIXELS:
        raise BadInputError(
            f"{path} says that it has {height} x {width} pixels, {_MAX_PIXELS:.1e} at most were "
            "expected; cut it (gdal_translate -srcwin), or it is damaged: fetch it again"
        )
    for rows, columns in set(raster.block_shapes):
        if rows * columns > _MAX_BLOCK:
            raise BadInputError(
                f"{path} is stored in blocks of {rows} x {columns} pixels, too large to decode; "
                "store it in tiles (gdal_translate -co TILED=YES), or fetch it again"
            )


def _check_pointers(path: str, depth: int = 0) -> bool:
    """Whether a path is a .vrt, over local files only; other formats that point are refused."""
    head = _head(path)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] not in (b"<", b"{") and not any(word in head for word in _POINTERS):
        return False
    if b"<VRTDataset" not in head or path.startswith("/vsi"):
        raise BadInputError(
            f"{path} is a text ({text[:24].decode('ascii', 'replace')!r} ...), an image was "
            "expected; texts that point to other places are not followed"
        )
    if depth == _DEPTH:
        raise BadInputError(f"{path}: more than {_DEPTH} .vrt point to each other")
    for name in _names_in_vrt(Path(path)):
        if not name.is_file():
            raise MissingInputError(
                f"{path} points to {name}, which is no file here; fetch it, or make one GeoTIFF of "
                "all (gdal_translate)"
            )
        _check_pointers(fspath(name), depth + 1)
    return True


def _names_in_vrt(vrt: Path) -> set[Path]:
    """The files that a .vrt says it is made of."""
    if vrt.stat().st_size > _MAX_VRT:
        raise BadInputError(f"{vrt} has {vrt.stat().st_size} bytes, too many for a .vrt")
    try:
        root = ElementTree.fromstring(vrt.read_bytes(), forbid_dtd=True)
    except (ElementTree.ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise BadInputError(f"{vrt} is no valid .vrt ({error}); make it again") from error
    names = set()
    for element in root.iter():
        # GDAL takes tags and attributes in any case
        if not re.fullmatch(r"SourceFilename|SourceDataset|CutlineDS", str(element.tag), re.I):
            continue
        said = {key.lower(): value for key, value in element.attrib.items()}
        name = Path((element.text or "").strip())
        names.add(vrt.parent / name if said.get("relativetovrt") == "1" else name)
    return names


def _head(path: str) -> bytes:
    """The first bytes of a file, of a member of a .zip, or of the file that has a page."""
    if path.startswith("/vsizip/{"):
        archive, _, member = path.removeprefix("/vsizip/{").partition("}/")
        return read_head(Path(archive), member, _HEAD)
    name = Path(re.sub(r"^GTIFF_DIR:\d+:", "", path))
    if not name.is_file():
        raise MissingInputError(f"{name} is not there, or no file; a raster file was expected")
    with name.open("rb") as file:
        return file.read(_HEAD)

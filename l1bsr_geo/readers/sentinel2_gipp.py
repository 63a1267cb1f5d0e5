"""Which parameter files a Sentinel-2 product was made with, and what they say.

They are taken from a folder of GIPP files where the user gives one, and from the shipped figures
for what it lacks; in the version that the product names, else in the newest, with a warning that
says by how many metres versions differ.
"""

import gzip
import warnings
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from l1bsr_geo.errors import BadInputError, GeometryWarning, MissingInputError
from l1bsr_geo.geometry.model import FloatArray
from l1bsr_geo.geometry.msi_figures import (
    SpacecraftModel,
    ViewingDirectionsFile,
    choose_version,
    creation,
    directions_apart,
    frames_apart,
    spacecraft_models,
    viewing_directions,
)
from l1bsr_geo.geometry.sentinel2 import ViewingDirections
from l1bsr_geo.readers.sentinel2_metadata import (
    MAX_XML,
    find_element,
    find_number,
    find_text,
    numbers,
    parse_xml,
)

_DETECTORS = frozenset(f"{d:02d}" for d in range(1, 13))
_MAX_COLUMNS = 10_000  # viewing directions of a detector; there are 2592


@dataclass(frozen=True)
class MadeWith:
    """What a product says of its parameter files.

    Attributes:
        name: file that says so.
        platform: "S2A" ...
        tdi: band to TDI configuration.
        files: names of the GIPP files.
    """

    name: str
    platform: str
    tdi: Mapping[str, str]
    files: frozenset[str]


def choose_directions(
    made_with: MadeWith, detector: int, band: str, gipp: Path | None
) -> ViewingDirections:
    """The viewing directions of a band and detector.

    Args:
        made_with: what the product says of its parameter files.
        detector: 1 to 12.
        band: "B02" ...
        gipp: folder of GIPP files to look in first.

    Warns:
        GeometryWarning: it is another version than the product's.
    """
    tdi = made_with.tdi.get(band)
    named = made_with.files
    if gipp is not None and (files := _gipp_files(gipp, made_with.platform, "VIEDIR", band)):
        path = _choose_path(files, named)
        version = _read_viewing_directions(path)
        if version.file not in named:
            shipped, _ = choose_version(viewing_directions(made_with.platform, band), named)
            apart = _apart(version, shipped, detector, tdi)
            _warn_version(made_with.name, "viewing directions", version.file, shipped.file, apart)
        return version.directions(detector, tdi)
    versions = viewing_directions(made_with.platform, band)
    version, found = choose_version(versions, named)
    if not found:
        others = [v for v in versions if v is not version]
        spreads = (_apart(version, v, detector, tdi) for v in others)
        apart = max((spread for spread in spreads if spread), default=None)
        _warn_version(made_with.name, "viewing directions", version.file, None, apart)
    return version.directions(detector, tdi)


def choose_spacecraft(made_with: MadeWith, gipp: Path | None) -> SpacecraftModel:
    """The frames of the spacecraft; see `choose_directions`."""
    named = made_with.files
    if gipp is not None and (files := _gipp_files(gipp, made_with.platform, "SPAMOD", "B00")):
        version = _read_spacecraft_model(_choose_path(files, named))
        if version.file not in named:
            shipped, _ = choose_version(spacecraft_models(made_with.platform), named)
            apart = (frames_apart(version, shipped),) * 2
            _warn_version(made_with.name, "spacecraft model", version.file, shipped.file, apart)
        return version
    versions = spacecraft_models(made_with.platform)
    version, found = choose_version(versions, named)
    if not found:
        spread = max((frames_apart(version, v) for v in versions), default=0.0)
        _warn_version(made_with.name, "spacecraft model", version.file, None, (spread, spread))
    return version


def _apart(
    a: ViewingDirectionsFile, b: ViewingDirectionsFile, detector: int, tdi: str | None
) -> tuple[float, float] | None:
    one, two = a.directions(detector, tdi), b.directions(detector, tdi)
    return directions_apart(one, two) if len(one.tan_x) == len(two.tan_x) else None


def _warn_version(
    name: str, what: str, used: str, than: str | None, apart: tuple[float, float] | None
) -> None:
    # of one version alone the spread is unknown: the figure is that of the satellites with several
    mean, most = apart if apart and apart[1] > 0 else (2.0, 6.0)
    other = f"from {than}" if than else "between versions"
    warnings.warn(
        f"{name}: the {what} file that the product was made with is not at hand; {used} is used "
        f"instead, which differs {other} by {mean:.1f} m on average and {most:.1f} m at most on "
        "the ground; give the right file with --gipp FOLDER",
        GeometryWarning,
        stacklevel=5,
    )


def _gipp_files(folder: Path, platform: str, kind: str, band: str) -> list[Path]:
    if not folder.is_dir():
        raise MissingInputError(
            f"{folder}: no such folder; --gipp expects a folder of Sentinel-2 GIPP files"
        )
    pattern = f"{platform}_OPER_GIP_{kind}_*_{band}*"
    return sorted(p for p in folder.rglob(pattern) if p.is_file())


def _choose_path(files: Sequence[Path], named: Collection[str]) -> Path:
    for path in files:
        if _stem(path) in named:
            return path
    return max(files, key=lambda p: creation(_stem(p)))


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _read_gipp(path: Path) -> Element:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_XML + 1)  # one more is too many
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInputError(f"{path}: truncated gzip ({error}); download it again") from None
    return parse_xml(content, str(path))


@lru_cache(maxsize=32)
def _read_viewing_directions(path: Path) -> ViewingDirectionsFile:
    root, name = _read_gipp(path), str(path)

    def tangents(e: Element, axis: str) -> FloatArray:
        tag = f"TAN_PSI_{axis}_LIST"
        return np.array(numbers(find_text(e, tag, name), f"{name}: {tag}", 2, _MAX_COLUMNS))

    lists: dict[str, dict[str, ViewingDirections]] = {}
    for e in root.iterfind(".//VIEWING_DIRECTIONS_LIST"):
        lists[e.attrib.get("tdi_config", "NO_TDI")] = {
            d.get("detector_id", ""): ViewingDirections(*(tangents(d, axis) for axis in "XY"))
            for d in e.iterfind("VIEWING_DIRECTIONS")
        }
    if not lists or any(_DETECTORS - listed.keys() for listed in lists.values()):
        raise BadInputError(
            f"{path}: found {len(lists)} VIEWING_DIRECTIONS_LIST of 12 detectors at most, expected "
            "a GIPP VIEDIR file with all of them; take it out of the GIPP folder or download it "
            "again"
        )
    return ViewingDirectionsFile(_stem(path), lists)


@lru_cache(maxsize=8)
def _read_spacecraft_model(path: Path) -> SpacecraftModel:
    root, name = _read_gipp(path), str(path)

    def angles(tag: str) -> FloatArray:
        e = find_element(root, f".//{tag}", name)
        return np.array([find_number(e, r, name, -1e4, 1e4) for r in ("R1", "R2", "R3")]) * 1e-3

    return SpacecraftModel(
        _stem(path),
        angles("PILOTING_TO_MSI_FRAME"),
        {plane: angles(f"MSI_TO_{plane}") for plane in ("VNIR", "SWIR")},
    )

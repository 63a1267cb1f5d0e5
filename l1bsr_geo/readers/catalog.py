"""A data catalog in the grammar of HydroMT v1: what lies where, with options of our own.

    meta: {roots: [data]}
    madeira:
      data_type: RasterDataset
      uri: S2A_MSIL1B_20200816.SAFE
      driver: {name: rasterio}
      metadata:
        l1bsr_geo: {detector: 5, model: l1bsr}

``placeholders`` and ``variants`` make several sources of one, and so does a wildcard in ``uri``.
Source: HydroMT 1.4, ``hydromt.data_catalog`` (roots, denormalisation of sources).
"""

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.readers.catalog_grammar import check_source, driver_of, expand_source, find_root

_RASTER_DRIVERS = ("rasterio", "raster", "s2_l1b", "skysat_l1a")  # of v1, of v0, ours
_OWN = "l1bsr_geo"


@dataclass(frozen=True)
class CatalogSource:
    """One thing to read.

    Attributes:
        name: unique in its catalog; of placeholders, variants and wildcards it has the values.
        path: where it is.
        options: what ``metadata.l1bsr_geo`` says; None where it says nothing.
        driver: name.
    """

    name: str
    path: Path
    options: Mapping[str, Any] | None
    driver: str


def list_sources(document: Mapping[str, Any], path: Path) -> list[CatalogSource]:
    """The sources of a catalog that are for this package.

    Those are the sources that have ``metadata.l1bsr_geo``; where none has it, all rasters.

    Args:
        document: as YAML gives it.
        path: its file; roots start in its folder.

    Raises:
        BadInputError: it is not as HydroMT wants it, or holds nothing for us.
        MissingInputError: a wildcard that nothing matches.
    """
    root = find_root(document.get("meta"), path)
    told = {str(name): source for name, source in document.items() if name != "meta"}
    expanded = [
        (name, source)
        for written, source in told.items()
        for name, source in expand_source(written, check_source(source, f"{path.name}: {written}"))
    ]
    ours = [one for one in expanded if _own_options(*one, path) is not None]
    ours = ours or [one for one in expanded if driver_of(one[1]) in _RASTER_DRIVERS]
    if not ours:
        raise BadInputError(
            f"{path.name}: no source is a raster or has metadata.{_OWN}; add it to those that are "
            f"meant, such as metadata: {{{_OWN}: {{detector: 5}}}}"
        )
    return [made for name, source in ours for made in _find(name, source, root, path)]


def _own_options(name: str, source: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    metadata = source.get("metadata") or {}
    if _OWN not in metadata:
        return None
    options = metadata[_OWN] or {}
    if not isinstance(options, dict):
        raise BadInputError(
            f"{path.name}: {name}.metadata.{_OWN}: found {options!r}, expected options with values"
        )
    return options


def _find(name: str, source: Mapping[str, Any], root: Path, path: Path) -> Iterator[CatalogSource]:
    """What is at a source's uri: one path, or all that a wildcard matches."""
    where, uri = f"{path.name}: {name}", source["uri"]
    if not uri or "://" in uri or "{" in uri:
        raise BadInputError(
            f"{where}.uri: found {uri!r}, expected a path; give its placeholders values, and "
            "download what is elsewhere"
        )
    options, driver = _own_options(name, source, path), driver_of(source)
    if not glob.has_magic(uri):
        yield CatalogSource(name, root / uri, options, driver)
        return
    found = sorted(Path(match) for match in glob.glob(str(root / uri), recursive=True))
    if not found:
        raise MissingInputError(f"{where}.uri: nothing matches {root / uri}")
    for match in found:
        yield CatalogSource(f"{name}_{match.stem}", match, options, driver)

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
from itertools import product
from pathlib import Path
from typing import Any

from l1bsr_geo.errors import BadInputError, MissingInputError

_RASTER_DRIVERS = ("rasterio", "raster")  # of v1, of v0
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


def is_catalog(document: object) -> bool:
    """Whether a YAML document has sources with a ``uri``."""
    return isinstance(document, dict) and any(
        isinstance(source, dict) and "uri" in source for source in document.values()
    )


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
    root = _find_root(document.get("meta"), path)
    told = {str(name): source for name, source in document.items() if name != "meta"}
    expanded = [
        (name, source)
        for written, source in told.items()
        for name, source in _expand(written, _check_source(source, f"{path.name}: {written}"))
    ]
    ours = [one for one in expanded if _own_options(*one, path) is not None]
    ours = ours or [one for one in expanded if _driver(one[1]) in _RASTER_DRIVERS]
    if not ours:
        raise BadInputError(
            f"{path.name}: no source is a raster or has metadata.{_OWN}; add it to those that are "
            f"meant, such as metadata: {{{_OWN}: {{detector: 5}}}}"
        )
    return [made for name, source in ours for made in _find(name, source, root, path)]


def _find_root(meta: Any, path: Path) -> Path:
    """The first root that is there; beside the catalog without one."""
    meta = meta or {}
    if not isinstance(meta, dict) or not isinstance(meta.get("roots", []), list):
        raise BadInputError(f"{path.name}: meta: found {meta!r}, expected names, roots a list")
    roots = [path.parent / str(r) for r in [*meta.get("roots", []), meta.get("root")] if r]
    return next((root for root in roots if root.is_dir()), roots[0] if roots else path.parent)


def _check_source(source: Any, where: str) -> dict[str, Any]:
    """A source of the right types, as far as they are used."""
    if not isinstance(source, dict):
        raise BadInputError(f"{where}: found {source!r}, expected uri, driver and others")
    kinds = {"uri": str, "metadata": dict, "placeholders": dict, "variants": list}
    names = {str: "a text", dict: "names with values", list: "a list"}
    for key, kind in kinds.items():
        if key in source and not isinstance(source[key], kind):
            raise BadInputError(f"{where}.{key}: found {source[key]!r}, expected {names[kind]}")
    for holder, values in source.get("placeholders", {}).items():
        if not isinstance(values, list):
            raise BadInputError(f"{where}.placeholders.{holder}: found {values!r}, expected a list")
    for variant in source.get("variants", []):
        if not isinstance(variant, dict):
            raise BadInputError(f"{where}.variants: found {variant!r}, expected names with values")
    return source


def _expand(name: str, source: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each variant, each combination of placeholders, with a name of its own."""
    rest = {k: v for k, v in source.items() if k not in ("variants", "placeholders")}
    holders = source.get("placeholders", {})
    if source.get("variants"):
        for variant in source["variants"]:
            told = [str(variant[key]) for key in ("provider", "version") if key in variant]
            one = _merge(rest | ({"placeholders": holders} if holders else {}), variant)
            yield from _expand("_".join([name, *told]), one)
        return
    for values in product(*holders.values()):
        made, uri = name, str(rest.get("uri", ""))
        for holder, value in zip(holders, map(str, values), strict=True):
            place = f"{{{holder}}}"
            made = made.replace(place, value) if place in made else f"{made}_{value}"
            uri = uri.replace(place, value)
        yield made, rest | {"uri": uri}


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _driver(source: Mapping[str, Any]) -> str:
    driver = source.get("driver", "")
    return str(driver.get("name", "")) if isinstance(driver, dict) else str(driver)


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
    options, driver = _own_options(name, source, path), _driver(source)
    if not glob.has_magic(uri):
        yield CatalogSource(name, root / uri, options, driver)
        return
    found = sorted(Path(match) for match in glob.glob(str(root / uri), recursive=True))
    if not found:
        raise MissingInputError(f"{where}.uri: nothing matches {root / uri}")
    for match in found:
        yield CatalogSource(f"{name}_{match.stem}", match, options, driver)

"""The grammar of a HydroMT v1 data catalog: roots, placeholders, variants.

Source: HydroMT 1.4, ``hydromt.data_catalog`` (roots, denormalisation of sources).
"""

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from l1bsr_geo.errors import BadInputError

_BY_VALUE = ("sha256", "git_blob", "md5")  # may have an entry for each value of a placeholder


def is_catalog(document: object) -> bool:
    """Whether a YAML document has sources with a ``uri``."""
    return isinstance(document, dict) and any(
        isinstance(source, dict) and "uri" in source for source in document.values()
    )


def find_root(meta: Any, path: Path) -> Path:
    """The first root that is there; the catalog's own folder without one.

    Args:
        meta: what the catalog says of itself.
        path: of the catalog; roots start in its folder.

    Raises:
        BadInputError: meta is not as HydroMT wants it.
    """
    meta = meta or {}
    if not isinstance(meta, dict) or not isinstance(meta.get("roots", []), list):
        raise BadInputError(f"{path.name}: meta: found {meta!r}, expected names, roots a list")
    roots = [path.parent / str(r) for r in [*meta.get("roots", []), meta.get("root")] if r]
    return next((root for root in roots if root.is_dir()), roots[0] if roots else path.parent)


def check_source(source: Any, where: str) -> dict[str, Any]:
    """A source of the right types, as far as they are used.

    Raises:
        BadInputError: it is not.
    """
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


def expand_source(name: str, source: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each variant, each combination of placeholders, with a name of its own.

    Placeholders count in ``uri``, as in HydroMT, and in ``metadata.fetch``, which is ours.
    """
    rest = {k: v for k, v in source.items() if k not in ("variants", "placeholders")}
    holders = source.get("placeholders", {})
    if source.get("variants"):
        for variant in source["variants"]:
            told = [str(variant[key]) for key in ("provider", "version") if key in variant]
            one = _merge(rest | ({"placeholders": holders} if holders else {}), variant)
            yield from expand_source("_".join([name, *told]), one)
        return
    for values in product(*holders.values()):
        chosen = dict(zip(holders, map(str, values), strict=True))
        made = name
        for holder, value in chosen.items():
            place = f"{{{holder}}}"
            made = made.replace(place, value) if place in made else f"{made}_{value}"
        one = rest | {"uri": fill_in(str(rest.get("uri", "")), chosen)}
        if "fetch" in rest.get("metadata", {}):
            fetch = fill_in(rest["metadata"]["fetch"], chosen)
            one["metadata"] = rest["metadata"] | {"fetch": fetch}
        yield made, one


def fill_in(told: Any, chosen: Mapping[str, str]) -> Any:
    """Something of a catalog with placeholders replaced by their values.

    A hash may be given as a mapping of values to hashes; None is what it lacks.
    """
    if isinstance(told, str):
        for holder, value in chosen.items():
            told = told.replace(f"{{{holder}}}", value)
        return told
    if isinstance(told, list):
        return [fill_in(one, chosen) for one in told]
    if isinstance(told, dict):
        return {
            key: _of_value(value, chosen)
            if key in _BY_VALUE and isinstance(value, dict)
            else fill_in(value, chosen)
            for key, value in told.items()
        }
    return told


def _of_value(told: Mapping[Any, Any], chosen: Mapping[str, str]) -> Any:
    by_text = {str(key): value for key, value in told.items()}
    return next((by_text[value] for value in chosen.values() if value in by_text), None)


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def driver_of(source: Mapping[str, Any]) -> str:
    """The name of a source's driver; empty where it says none."""
    driver = source.get("driver", "")
    return str(driver.get("name", "")) if isinstance(driver, dict) else str(driver)

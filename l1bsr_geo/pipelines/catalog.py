"""Data by name: what there is, and adding one's own."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from l1bsr_geo.errors import BadOptionError, MissingInputError
from l1bsr_geo.models.stored import data_folder
from l1bsr_geo.pipelines.catalog_fetch import check_place, find_local, find_place
from l1bsr_geo.readers.catalog_writing import put_source
from l1bsr_geo.readers.data_catalog import (
    CatalogEntry,
    read_entries,
    shipped_catalog,
    user_catalog,
)

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Listed:
    """An entry as a person sees it.

    Attributes:
        name: for `fetch_source` and others.
        category: what it is.
        licence: what it comes under.
        state: "here", "to fetch" or "to get" (by hand: ``how`` tells).
        known_by: where the hash of its content is from.
        path: its file or folder, there or not.
        whose: "ours" of an entry that ships, "yours" of the user's catalog.
        how: where to get it, or its page.
    """

    name: str
    category: str
    licence: str
    state: str
    known_by: str
    path: str
    whose: str
    how: str


def list_catalog(catalog: PathLike | None = None) -> list[Listed]:
    """All that can be had by name; looks on the disk only.

    Args:
        catalog: a file, in place of the user's and the shipped one.

    Raises:
        MissingInputError: there is no such file.
        BadInputError: it is no catalog.
    """
    return [_list(entry) for entry in read_entries(catalog).values()]


def _list(entry: CatalogEntry) -> Listed:
    away = "to get" if entry.fetch is None else "to fetch"
    how = entry.metadata.get("access") or entry.metadata.get("source_url") or ""
    return Listed(
        name=entry.name,
        category=str(entry.metadata.get("category", "")),
        licence=entry.licence,
        state="here" if find_local(entry) else away,
        known_by=entry.known_by,
        path=str(find_place(entry)),
        whose="ours" if entry.catalog == shipped_catalog() else "yours",
        how=str(how),
    )


def add_source(
    name: str,
    where: PathLike,
    *,
    driver: str | None = None,
    licence: str = "none stated",
    notes: str | None = None,
    sha256: str | None = None,
    unpack_it: bool = False,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> CatalogEntry:
    """Add data of one's own to the user's catalog; nothing is copied or fetched.

    Args:
        name: new.
        where: a file, a product, a burst, a wildcard, or an address to fetch from.
        driver: of HydroMT; by default ours where it is for what is there, else ``rasterio``.
        licence: what it comes under.
        notes: for people.
        sha256: what its content is known by.
        unpack_it: whether the address is of an archive.
        options: of ``sr`` and others for it in a batch, such as ``{"detector": 5}``.
        overwrite: replace the entry of the name.

    Raises:
        MissingInputError: nothing is there.
        BadOptionError: a name that is taken or that is no name of a file.
    """
    if not name or name in (".", "..") or "/" in name or any(c in name for c in "{}*?[]:\\\n"):
        raise BadOptionError(f"{name!r} is no name; give one of letters, digits, - and _")
    own = user_catalog()
    if not overwrite and own.is_file() and name in read_entries(own):
        raise BadOptionError(f"{own} has {name} already; give another name, or --overwrite")
    told = str(where)
    is_url = told.startswith(("http://", "https://"))
    if not is_url and (sha256 is not None or unpack_it):
        raise BadOptionError("--sha256 and --unpack are of what is fetched; give an address")
    metadata: dict[str, Any] = {"source_license": licence}
    if notes is not None:
        metadata["notes"] = notes
    if options:
        metadata["l1bsr_geo"] = dict(options)
    if is_url:
        metadata |= {"source_url": told, "fetch": _say_fetch(told, sha256, unpack_it)}
        uri = name if unpack_it else f"{name}/{PurePosixPath(told.split('?')[0]).name}"
    else:
        uri = _say_path(Path(told).expanduser())
    source = {
        "data_type": "RasterDataset",
        "uri": uri,
        "driver": {"name": driver or ("rasterio" if is_url else recognise_driver(Path(told)))},
        "metadata": metadata,
    }
    entry = CatalogEntry(name, source, data_folder(), own)
    if entry.fetch is not None:
        check_place(entry)
    elif not entry.find():
        raise MissingInputError(f"{told}: nothing is there; a file, folder or address was expected")
    put_source(own, name, source)
    return entry


def _say_fetch(url: str, sha256: str | None, unpack_it: bool) -> dict[str, Any]:
    fetch: dict[str, Any] = {"url": url}
    if sha256 is not None:
        fetch["sha256"] = sha256.lower()
    return fetch | ({"unpack": True} if unpack_it else {})


def _say_path(path: Path) -> str:
    """A path for the user's catalog: what lies beside it moves with it."""
    path = Path(os.path.abspath(path))
    inside = path.is_relative_to(data_folder())
    return path.relative_to(data_folder()).as_posix() if inside else path.as_posix()


def recognise_driver(path: Path) -> str:
    """The HydroMT driver for what lies at a path."""
    from l1bsr_geo.readers.inputs import is_product, recognise_sensor  # loads rasterio

    if recognise_sensor(path) == "skysat":
        return "skysat_l1a"
    return "s2_l1b" if is_product(path) else "rasterio"

"""The catalogs of data: the one that ships, and the user's own beside the data."""

import difflib
import glob
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError
from l1bsr_geo.models.stored import HASHES, data_folder
from l1bsr_geo.readers.catalog_grammar import check_source, driver_of, expand_source, find_root
from l1bsr_geo.readers.yaml_file import read_yaml

CATALOG = "data_catalog.yaml"
"""What a catalog is called, both the shipped and the user's."""

_LENGTHS = {"sha256": 64, "git_blob": 40, "md5": 32}
_FETCH = ("url", "files", "zenodo", "model", "unpack", *HASHES)


@dataclass(frozen=True)
class RemoteFile:
    """A file elsewhere.

    Attributes:
        url: where.
        path: where it goes, relative to the folder of its entry.
        known: what its content is known by, such as ``{"sha256": ...}``; empty where nothing is.
    """

    url: str
    path: PurePosixPath
    known: Mapping[str, str]


@dataclass(frozen=True)
class Fetch:
    """How an entry is fetched.

    Attributes:
        files: what, unless ``zenodo`` tells.
        zenodo: address of a Zenodo record (API), whose files and hashes the server tells.
        unpack: whether archives are unpacked and thrown away.
        model: whose weights they are; they are converted on arrival.
    """

    files: tuple[RemoteFile, ...] = ()
    zenodo: str | None = None
    unpack: bool = False
    model: str | None = None


@dataclass(frozen=True)
class CatalogEntry:
    """One source of a catalog, its placeholders filled in.

    Attributes:
        name: unique in its catalog.
        source: as HydroMT takes it.
        root: where its uri starts.
        catalog: the file that it stands in.
    """

    name: str
    source: Mapping[str, Any]
    root: Path
    catalog: Path

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What is told about it."""
        return self.source.get("metadata") or {}

    @property
    def driver(self) -> str:
        """The name of its HydroMT driver."""
        return driver_of(self.source)

    @property
    def licence(self) -> str:
        """What it comes under, as its catalog tells."""
        return str(self.metadata.get("source_license") or "none stated")

    @property
    def place(self) -> Path:
        """Its file, or its folder where its uri has wildcards: the part before them."""
        parts = PurePosixPath(self.source["uri"]).parts
        plain = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
        return self.root.joinpath(*parts[:plain])

    def find(self) -> list[Path]:
        """What is there of it, sorted."""
        uri = str(self.root / self.source["uri"])
        if not glob.has_magic(self.source["uri"]):
            return [Path(uri)] if os.path.exists(uri) else []
        return sorted(Path(match) for match in glob.glob(uri, recursive=True))

    @property
    def recorded(self) -> Mapping[str, str]:
        """The sha256 of the files that came when it was first fetched, by their paths."""
        fetched = self.metadata.get("fetched")
        told = fetched.get("sha256") if isinstance(fetched, dict) else None
        return told if isinstance(told, dict) else {}

    @property
    def fetch(self) -> Fetch | None:
        """How it is fetched; None where it cannot be.

        Raises:
            BadInputError: ``metadata.fetch`` is not understood.
        """
        told = self.metadata.get("fetch")
        return None if told is None else _read_fetch(told, self)

    @property
    def known_by(self) -> str:
        """Where the hash of its content is from.

        "pinned" by its catalog, told by the "server", "recorded" when it first came, or "none";
        empty of what is not fetched.
        """
        fetch = self.fetch
        if fetch is None:
            return ""
        if fetch.zenodo:
            return "server"
        if not all(file.known for file in fetch.files):
            return "none"
        return "recorded" if "fetched" in self.metadata else "pinned"


def shipped_catalog() -> Path:
    """The file of the catalog that comes with the package."""
    package = Path(str(resources.files("l1bsr_geo")))
    inside = package / CATALOG
    return inside if inside.is_file() else package.parent / CATALOG  # a checkout


def user_catalog() -> Path:
    """The file of the user's catalog, there or not."""
    return data_folder() / CATALOG


def read_entries(catalog: str | os.PathLike[str] | None = None) -> dict[str, CatalogEntry]:
    """The entries of a catalog by name; by default the user's, then those that ship.

    An entry of the user hides the shipped one of its name.

    Args:
        catalog: one file, in place of these.

    Raises:
        MissingInputError: there is no such file.
        BadInputError: a catalog is not as HydroMT wants it, or its ``fetch`` is not understood.
    """
    if catalog is not None:
        return _read(Path(catalog).absolute())
    mine = _read(user_catalog()) if user_catalog().is_file() else {}
    shipped = _read(shipped_catalog(), data_folder())
    return mine | {name: entry for name, entry in shipped.items() if name not in mine}


def find_entry(name: str, catalog: str | os.PathLike[str] | None = None) -> CatalogEntry:
    """The entry of a name.

    Raises:
        BadOptionError: there is none.
    """
    entries = read_entries(catalog)
    if name not in entries:
        near = difflib.get_close_matches(name, entries, 5, 0.5)
        hint = f"; near it are {', '.join(near)}" if near else ""
        raise BadOptionError(f"the catalog has no {name!r}{hint}; `l1bsr-geo catalog list` has all")
    return entries[name]


def _read(path: Path, root: Path | None = None) -> dict[str, CatalogEntry]:
    document = read_yaml(path, "data catalog")
    if document is None:
        return {}
    if not isinstance(document, dict):
        found = repr(document)[:60]
        raise BadInputError(f"{path}: found {found}, expected sources with uri, by name")
    root = root or find_root(document.get("meta"), path)
    entries: dict[str, CatalogEntry] = {}
    for written, source in document.items():
        if written == "meta":
            continue
        where = f"{path.name}: {written}"
        if "uri" not in check_source(source, where):
            raise BadInputError(f"{where}: has no uri; every source has one")
        for name, one in expand_source(str(written), source):
            entries[name] = CatalogEntry(name, one, root, path)  # the later one counts
    return entries


def _read_fetch(told: Any, entry: CatalogEntry) -> Fetch:
    where = f"{entry.catalog.name}: {entry.name}.metadata.fetch"
    if not isinstance(told, dict):
        raise BadInputError(f"{where}: found {told!r}, expected url and others")
    strange = [key for key in told if key not in _FETCH]
    if strange or not ("url" in told) ^ ("zenodo" in told):
        found = ", ".join(map(str, told))
        raise BadInputError(
            f"{where}: found {found}; expected url or zenodo, and of {', '.join(_FETCH)}"
        )
    fetch = Fetch(
        files=() if "zenodo" in told else tuple(_read_files(told, entry, where)),
        zenodo=told.get("zenodo"),
        unpack=bool(told.get("unpack", False)),
        model=told.get("model"),
    )
    for url in (fetch.zenodo, *(file.url for file in fetch.files)):
        if url is not None and not re.match(r"https?://[^\s{}]+$", str(url)):
            raise BadInputError(f"{where}: found {url!r}, expected an address, http or https")
    return fetch


def _read_files(told: Mapping[str, Any], entry: CatalogEntry, where: str) -> list[RemoteFile]:
    url = str(told["url"])
    listed = told.get("files")
    if listed is None:
        name = PurePosixPath(url.split("?")[0]).name
        alone = PurePosixPath(name if told.get("unpack") else entry.place.name)
        return [RemoteFile(url, _checked_path(alone, where), _known(told, alone, entry, where))]
    if not isinstance(listed, list) or not all(isinstance(f, dict) and "path" in f for f in listed):
        raise BadInputError(f"{where}.files: expected a list of path with a hash")
    files = []
    for one in listed:
        filled = url
        for key, value in one.items():
            filled = filled.replace(f"{{{key}}}", str(value))
        path = _checked_path(PurePosixPath(str(one["path"])), where)
        files.append(RemoteFile(filled, path, _known(one, path, entry, where)))
    return files


def _checked_path(path: PurePosixPath, where: str) -> PurePosixPath:
    """A path that stays in its folder."""
    if path.is_absolute() or ".." in path.parts or "\\" in str(path) or not path.parts:
        raise BadInputError(f"{where}: found path {str(path)!r}, expected one inside its folder")
    return path


def _known(
    told: Mapping[str, Any], path: PurePosixPath, entry: CatalogEntry, where: str
) -> dict[str, str]:
    """The hashes of a file: those that its catalog tells, and what first came."""
    recorded = entry.recorded.get(str(path))
    known = {} if recorded is None else {"sha256": recorded}
    known |= {kind: told[kind] for kind in HASHES if told.get(kind) is not None}
    for kind, value in known.items():
        if not re.fullmatch(f"[0-9a-f]{{{_LENGTHS[kind]}}}", str(value)):
            raise BadInputError(
                f"{where}.{kind}: found {value!r}, expected {_LENGTHS[kind]} hexadecimal digits, "
                "in quotes"
            )
    return known


def missing_data(entry: CatalogEntry) -> MissingInputError:
    """What to say where an entry is wanted and not there."""
    how = f"`l1bsr-geo catalog fetch {entry.name}` brings it"
    if entry.fetch is None:
        how = str(entry.metadata.get("access", "put it there"))
    where = entry.root / entry.source["uri"]
    return MissingInputError(f"{entry.name}: nothing is at {where}; {how}")

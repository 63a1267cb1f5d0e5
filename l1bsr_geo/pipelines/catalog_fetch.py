"""Fetching data by name: resumed, checked, in its place when it is whole."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from l1bsr_geo.errors import BadInputError, BadOptionError, DownloadError
from l1bsr_geo.models.download import Progress, download, read_url
from l1bsr_geo.models.stored import HASHES, find_cached, hash_file
from l1bsr_geo.readers.catalog_writing import put_source
from l1bsr_geo.readers.data_catalog import (
    CatalogEntry,
    RemoteFile,
    find_entry,
    shipped_catalog,
    user_catalog,
)
from l1bsr_geo.readers.unpacking import is_archive, unpack

PathLike = str | os.PathLike[str]


def fetch_source(
    name: str,
    *,
    catalog: PathLike | None = None,
    accept_licence: bool | Callable[[str], bool] = False,
    progress: Progress | None = None,
) -> Path:
    """Bring an entry into the data folder, checked; what is there already is checked again.

    What was begun goes on where it was cut, in this run and the next. A file appears when it is
    whole and right, a folder when all is in it (or, of listed files, one after the other). What
    came is written into the catalog in the data folder with its sha256, which it must have from
    then on.

    Args:
        name: of the entry.
        catalog: a file, in place of the user's and the shipped one; things go to its root.
        accept_licence: of weights: whether the user accepts it, or a function that asks.
        progress: is told (bytes there, bytes in all or None) of one file after the other.

    Returns:
        The file or folder.

    Raises:
        BadOptionError: there is no such entry, it cannot be fetched, or a licence is not accepted.
        BadInputError: a catalog or an archive is bad, or what is there is not what it should be.
        DownloadError: it cannot be had, or is not what its hash says.
    """
    entry = find_entry(name, catalog)
    fetch = entry.fetch
    if fetch is None:
        if find_local(entry):
            return entry.place
        why = entry.metadata.get("access", "its catalog has no address of it")
        raise BadOptionError(f"{name} cannot be fetched: {why}")
    if fetch.model is not None:
        from l1bsr_geo.models.published import fetch as fetch_weights  # loads torch

        return fetch_weights(fetch.model, accept_licence, progress=progress)
    check_place(entry)
    if fetch.unpack or fetch.zenodo:
        return _fetch_folder(entry, fetch.unpack, progress)
    folder = entry.place if _is_folder(entry) else entry.place.parent
    hashes = {str(f.path): _fetch_file(f, folder, progress) for f in fetch.files}
    _record(entry, hashes)
    return entry.place


def _is_folder(entry: CatalogEntry) -> bool:
    """Whether files are listed that go into a folder."""
    return "files" in entry.metadata["fetch"]


def check_place(entry: CatalogEntry) -> None:
    """A catalog may be a stranger's: it chooses no place outside of its root.

    Raises:
        BadInputError: it does.
    """
    place, root = entry.place.resolve(), entry.root.resolve()
    if place == root or not place.is_relative_to(root):
        raise BadInputError(
            f"{entry.catalog.name}: {entry.name}.uri: {entry.source['uri']} is not below {root}; "
            "what is fetched stays there"
        )


def _fetch_file(file: RemoteFile, folder: Path, progress: Progress | None) -> str:
    """The sha256 of a file, fetched if it was not there."""
    path = folder / file.path
    if path.exists():
        for kind, expected in file.known.items():
            found = HASHES[kind](path)
            if found != expected:
                raise BadInputError(
                    f"{path}: its {kind.replace('_', ' ')} is {found}, expected {expected}; it was "
                    "changed or damaged: remove it and fetch it again"
                )
        return hash_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    by_hand = f"download {file.url} where there is a network and put it to {path}"
    download(file.url, path, file.known, progress, by_hand)
    return hash_file(path)


def _fetch_folder(entry: CatalogEntry, unpack_it: bool, progress: Progress | None) -> Path:
    """A folder of what archives or a record hold; appears when all is in it."""
    waiting = entry.place.with_name(f".{entry.place.name}.fetching")
    if not entry.place.exists():
        files = list(_list_files(entry))
        waiting.mkdir(parents=True, exist_ok=True)
        hashes = {str(f.path): _fetch_file(f, waiting, progress) for f in files}
        whole = waiting / ".whole"
        there = [waiting / f.path for f in files]
        told = entry.fetch is not None and entry.fetch.zenodo is None  # to be archives
        archives = [file for file in there if unpack_it and (told or is_archive(file))]
        _gather(there, archives, whole)
        _record(entry, hashes)
        whole.rename(entry.place)
    shutil.rmtree(waiting, ignore_errors=True)
    return entry.place


def _gather(files: Sequence[Path], archives: Sequence[Path], whole: Path) -> None:
    """What goes into the folder: an only archive's members, else files and a folder to each."""
    if archives and len(files) == 1:
        _unpack(archives[0], whole)
        return
    whole.mkdir(exist_ok=True)
    for archive in archives:
        _unpack(archive, whole / archive.name.split(".")[0])
    for file in files:
        if file not in archives:
            file.rename(whole / file.name)


def _unpack(archive: Path, folder: Path) -> None:
    """Into a folder, once; a bad archive is thrown away, so that it can be fetched again."""
    if folder.exists():
        return
    try:
        unpack(archive, folder)
    except BadInputError:
        archive.unlink()
        raise


def _list_files(entry: CatalogEntry) -> Iterator[RemoteFile]:
    """The files of an entry; those of a Zenodo record with the md5 that the server tells."""
    fetch = entry.fetch
    if fetch is None or fetch.zenodo is None:
        yield from fetch.files if fetch is not None else ()
        return
    page = entry.metadata.get("source_url", fetch.zenodo)
    by_hand = f"download the files of {page} and put them into {entry.place}"
    answer = read_url(fetch.zenodo, by_hand)
    try:
        record = json.loads(answer)
    except ValueError:
        record = None
    listed = record.get("files") if isinstance(record, dict) else None
    if not isinstance(listed, list) or not listed:
        raise DownloadError(f"{fetch.zenodo}: the answer lists no files; {by_hand}")
    for told in listed:
        try:
            name, url = str(told["key"]), str(told["links"]["self"])
            kind, _, digest = str(told["checksum"]).partition(":")
        except (KeyError, TypeError):
            raise DownloadError(
                f"{fetch.zenodo}: found {str(told)[:200]}, expected key, links.self and checksum; "
                f"{by_hand}"
            ) from None
        path = PurePosixPath(name)
        if not name or path.name != name or name.startswith(".") or kind != "md5":
            raise DownloadError(f"{fetch.zenodo}: a file {name!r} by {kind} is refused; {by_hand}")
        known = {"md5": digest}
        if name in entry.recorded:
            known["sha256"] = entry.recorded[name]
        yield RemoteFile(url, path, known)


def _record(entry: CatalogEntry, hashes: Mapping[str, str]) -> None:
    """Write what came into the catalog in the data folder; once."""
    if entry.recorded == hashes:
        return
    into = user_catalog() if entry.catalog == shipped_catalog() else entry.catalog
    fetched = {"date": datetime.now(UTC).date().isoformat(), "sha256": dict(hashes)}
    metadata = {**entry.metadata, "fetched": fetched}
    put_source(into, entry.name, {**entry.source, "metadata": metadata})


def find_local(entry: CatalogEntry) -> list[Path]:
    """What is on the disk of an entry."""
    if entry.fetch is not None and entry.fetch.model is not None:
        return [path for path in (find_cached(entry.fetch.model),) if path.is_file()]
    return entry.find()


def find_place(entry: CatalogEntry) -> Path:
    """The file or the folder of an entry."""
    if entry.fetch is not None and entry.fetch.model is not None:
        return find_cached(entry.fetch.model)
    return entry.place

"""Where what was fetched is kept, and by what a file is known."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pooch

_CHUNK = 1 << 20


def data_folder() -> Path:
    """The folder of data, weights and the user's catalog, there or not.

    ``$L1BSR_GEO_DATA``, or else the platform's cache folder. A folder that was filled where there
    is a network serves a machine without one.
    """
    folder = os.environ.get("L1BSR_GEO_DATA") or pooch.os_cache("l1bsr_geo")
    return Path(folder).expanduser().absolute()


def file_stem(name: str, scale: int | None = None) -> str:
    """What a model's weights file is called, without its ending.

    Args:
        name: of the model.
        scale: where it is not the model's usual one.
    """
    return name if scale is None else f"{name}-x{scale}"


def find_cached(name: str, cache: str | Path | None = None, scale: int | None = None) -> Path:
    """Where the converted weights of a model are kept, there or not.

    Args:
        name: of the model.
        cache: folder; ``$L1BSR_GEO_CACHE``, or else the ``data_folder``, where None.
        scale: where it is not the model's usual one.
    """
    folder = cache or os.environ.get("L1BSR_GEO_CACHE") or data_folder()
    return Path(folder).expanduser() / f"{file_stem(name, scale)}.safetensors"


def hash_file(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    return _digest(path, hashlib.sha256())


def hash_md5(path: Path) -> str:
    """The md5 of a file, in hexadecimal: archives such as Zenodo tell no other."""
    return _digest(path, hashlib.md5(usedforsecurity=False))


def hash_git_blob(path: Path) -> str:
    """The id that git gives a file's content: the sha1 of ``blob <length>``, a zero byte, content.

    It is what a commit pins, so a file can be checked against the authors' repository.
    """
    # git's own identifiers, nothing of ours is protected by it
    start = b"blob %d\0" % path.stat().st_size
    return _digest(path, hashlib.sha1(start, usedforsecurity=False))


HASHES = {"sha256": hash_file, "git_blob": hash_git_blob, "md5": hash_md5}
"""What a content may be known by: name to the function that finds it."""


def _digest(path: Path, digest: Any) -> str:
    for chunk in _chunks(path):
        digest.update(chunk)
    return str(digest.hexdigest())


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk

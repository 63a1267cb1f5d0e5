"""An archive unpacked into a folder of its own: all of it, or nothing."""

import errno
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from l1bsr_geo.errors import BadInputError, L1bsrGeoError
from l1bsr_geo.readers.archive import is_inside

_CHUNK = 1 << 20
_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    EOFError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class _Member:
    """A file in an archive: where it goes, how long it says to be, its bytes."""

    name: str
    size: int
    content: IO[bytes]


def is_archive(path: Path) -> bool:
    """Whether a name ends as those of archives do."""
    return path.name.lower().endswith(_ENDINGS)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .zip or .tar, compressed or not, into a folder that is not there yet.

    Args:
        archive: from anywhere: it is not trusted.
        folder: appears when all is in it; its parent exists.

    Raises:
        BadInputError: a member would land outside of the folder, is a link or a device, or is
            longer than it says; the archive is damaged.
        L1bsrGeoError: the disk has no room for it.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as made:
        inside = Path(made) / "inside"
        inside.mkdir()
        try:
            for member in _members(archive):
                _write(member, inside, archive)
        except L1bsrGeoError:
            raise
        except (*_DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _disk_is_full(archive) from error
            raise BadInputError(
                f"{archive.name} cannot be unpacked ({error}); nothing of it was kept: fetch it "
                "again"
            ) from error
        inside.rename(folder)


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for told in packed.infolist():
                kind = stat.S_IFMT(told.external_attr >> 16)
                _check(archive, told.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
                if not told.is_dir():
                    with packed.open(told) as content:
                        yield _Member(told.filename, told.file_size, content)
        return
    with tarfile.open(archive) as tape:
        for entry in tape:
            _check(archive, entry.name, entry.isreg() or entry.isdir())
            if entry.isreg():
                member = tape.extractfile(entry)
                if member is not None:
                    yield _Member(entry.name, entry.size, member)


def _disk_is_full(archive: Path) -> L1bsrGeoError:
    return L1bsrGeoError(
        f"{archive}: the disk has no room to unpack it; nothing of it was kept: free some space, "
        "and run again"
    )


def _check(archive: Path, name: str, plain: bool) -> None:
    if not is_inside(name):
        raise BadInputError(
            f"{archive.name}: its member {name!r} would land outside of its folder; nothing was "
            "unpacked: it is damaged, or made to do harm"
        )
    if not plain:
        raise BadInputError(
            f"{archive.name}: its member {name!r} is neither a file nor a folder; nothing was "
            "unpacked: links and devices are not followed"
        )


def _write(member: _Member, folder: Path, archive: Path) -> None:
    path = folder / member.name
    if member.size > shutil.disk_usage(folder).free:
        raise _disk_is_full(archive)
    path.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with path.open("xb") as file:
        while chunk := member.content.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise BadInputError(
                    f"{archive.name}: {member.name} is longer than it says; it is damaged, or made "
                    "to do harm"
                )
            file.write(chunk)
    if left:
        raise BadInputError(
            f"{archive.name}: {member.name} ends {left} bytes too early; fetch it again"
        )

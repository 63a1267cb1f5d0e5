"""A .zip looked into and read, whatever is wrong with it."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from l1bsr_geo.errors import BadInputError, MissingInputError

_CHUNK = 1 << 20
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)
"""What zipfile raises of damaged or encrypted archives, and of unknown ways of packing."""


def list_members(archive: Path) -> list[str]:
    """The names of the files in a .zip, sorted; those that lead out of it are left out.

    Raises:
        BadInputError: it cannot be read as a .zip.
    """
    with _opened(archive, f"{archive}") as opened:
        names = opened.namelist()
    return sorted({n for n in names if not n.endswith("/") and is_inside(n)})


def read_member(archive: Path, name: str, most: int) -> bytes:
    """A file in a .zip, whole.

    Raises:
        MissingInputError: it is not there.
        BadInputError: it cannot be read, or has more than ``most`` bytes.
    """
    with _opened(archive, f"{archive}/{name}") as opened, opened.open(name) as file:
        content = file.read(most + 1)  # whatever length the archive declares
        if len(content) > most:
            raise BadInputError(f"{archive}/{name} has more than {most} bytes, which are too many")
        return content


def read_head(archive: Path, name: str, count: int) -> bytes:
    """The first ``count`` bytes of a file in a .zip.

    Raises:
        MissingInputError: it is not there.
        BadInputError: it cannot be read.
    """
    with _opened(archive, f"{archive}/{name}") as opened, opened.open(name) as file:
        return file.read(count)


def check_member(archive: Path, name: str) -> None:
    """Read a file in a .zip through, and see that it is what was packed, by its checksum.

    Raises:
        MissingInputError: it is not there.
        BadInputError: it is damaged.
    """
    with _opened(archive, f"{archive}/{name}") as opened, opened.open(name) as file:
        while file.read(_CHUNK):
            pass


@contextmanager
def _opened(archive: Path, what: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except KeyError as error:
        raise MissingInputError(f"{what} is not there; fetch the product again") from error
    except (BadInputError, MissingInputError):
        raise
    except _DAMAGE as error:
        raise BadInputError(
            f"{what} cannot be read as a .zip ({error}); fetch the product again"
        ) from error


def is_inside(name: str) -> bool:
    """Whether a name in an archive stays inside it."""
    return not (name.startswith("/") or "\\" in name or ".." in name.split("/"))

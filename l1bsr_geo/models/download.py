"""One file from the network: resumed where it was cut, checked before it is believed."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from l1bsr_geo import __version__
from l1bsr_geo.errors import BadOptionError, WeightsError
from l1bsr_geo.models.checkpoint import hash_git_blob

Progress = Callable[[int, int | None], None]
"""Told the bytes that are there and, where the server says it, how many there will be."""

_ATTEMPTS = 3
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 18


def download(url: str, path: Path, git_blob: str, progress: Progress | None = None) -> None:
    """Fetch a file whose content is known by its git blob id.

    What has come is kept in ``<path>.part`` while the connection fails, also between runs, and the
    rest is asked for. ``path`` appears only when it is whole and right.

    Args:
        url: http or https.
        path: where it goes; its folder exists.
        git_blob: what git calls the content.
        progress: is told how far it is.

    Raises:
        BadOptionError: the address is neither http nor https.
        WeightsError: it cannot be had, or is something else; in that case nothing is kept.
    """
    if not url.startswith(("http://", "https://")):
        raise BadOptionError(f"{url}: weights are fetched over https or http only")
    part = path.with_name(path.name + ".part")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _fetch_rest(url, part, progress)
            break
        except urllib.error.HTTPError as error:
            error.close()
            raise WeightsError(
                f"{url}: the server answered {error.code} {error.reason}; {_by_hand(url)}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == _ATTEMPTS:
                reason = getattr(error, "reason", error)
                raise WeightsError(
                    f"{url}: cannot be reached, or broke off ({reason}); run again to go on where "
                    f"it stopped, or {_by_hand(url)}"
                ) from error
    found = hash_git_blob(part)
    if found != git_blob:
        part.unlink()
        raise WeightsError(
            f"{url}: its content is git blob {found}, but {git_blob} was pinned; it was thrown "
            "away: try again, and if it stays so the file is not the authors'"
        )
    part.replace(path)


def _fetch_rest(url: str, part: Path, progress: Progress | None) -> None:
    """Append what is missing of a file; raises OSError where the connection breaks off."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": f"l1bsr-geo/{__version__}"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        answer = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
        )
    except urllib.error.HTTPError as error:
        if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            error.close()
            return  # all of it is there; the hash says whether it is right
        raise
    with answer:
        resumed = answer.status == http.client.PARTIAL_CONTENT
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if resumed else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                if progress is not None:
                    progress(have, total)
    # read() ends quietly where the connection does
    if total is not None and have < total:
        raise ConnectionError(f"{have} of {total} bytes came")


def _by_hand(url: str) -> str:
    return (
        f"download {url} where there is a network and give the file with --weights, or to "
        "`l1bsr-geo models import`"
    )

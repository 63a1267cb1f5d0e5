"""One file from the network: resumed where it was cut, checked before it is believed."""

import http.client
import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from filelock import FileLock, Timeout

from l1bsr_geo import __version__
from l1bsr_geo.errors import BadOptionError, DownloadError
from l1bsr_geo.models.stored import HASHES

Progress = Callable[[int, int | None], None]
"""Told the bytes that are there and, where the server says it, how many there will be."""

log = logging.getLogger(__name__)
_T = TypeVar("_T")

_ATTEMPTS = 3
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 18
_BUSY = (429, 503)  # answers that may name a time to wait
_PASSING = (500, 502, 504)
_LONGEST_WAIT = 60.0  # [s] that a server may ask for
_PAUSE = 0.25  # [s] before the second attempt where the server names none; then twice that
_SMALL = 1 << 24  # bytes of what is read at once


def download(
    url: str,
    path: Path,
    known: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    by_hand: str = "download it where there is a network and put it there",
) -> None:
    """Fetch a file; ``path`` appears only when it is whole and right.

    What has come is kept in ``<path>.part`` while the connection fails, also between runs, and the
    rest is asked for. Without a hash the rest is only asked for of a server that says what it
    serves (ETag or Last-Modified), so that two versions are never joined.

    Args:
        url: http or https.
        path: where it goes; its folder exists.
        known: what its content is known by, such as ``{"sha256": ...}``; see ``stored.HASHES``.
        progress: is told how far it is.
        by_hand: what a person can do instead; ends the message where it cannot be had.

    Raises:
        BadOptionError: the address is neither http nor https, or another run is fetching it.
        DownloadError: it cannot be had, or is something else; in that case nothing is kept.
    """
    _check_address(url)
    part = path.with_name(path.name + ".part")
    with _alone(path):
        _try_again(url, lambda: _fetch_rest(url, part, progress, bool(known)), by_hand)
        _check_content(url, part, known or {})
        part.replace(path)
        _tag_of(part).unlink(missing_ok=True)


def read_url(url: str, by_hand: str) -> bytes:
    """A small answer, such as a listing, whole.

    Raises:
        BadOptionError: the address is neither http nor https.
        DownloadError: it cannot be had, or is not small.
    """
    _check_address(url)
    content = _try_again(url, lambda: _read_small(url), by_hand)
    if len(content) > _SMALL:
        raise DownloadError(f"{url}: the answer has more than {_SMALL} bytes; a listing was wanted")
    return content


def _read_small(url: str) -> bytes:
    with _open(url, {}) as answer:
        content: bytes = answer.read(_SMALL + 1)
    return content


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One run at a time fetches a file."""
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadOptionError(f"{path}: another run is fetching it; wait for it to end") from None
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _try_again(url: str, fetch: Callable[[], _T], by_hand: str) -> _T:
    """What ``fetch`` gives, after some attempts where the network or the server fails."""
    for attempt in range(1, _ATTEMPTS + 1):
        pause = _PAUSE * 2 ** (attempt - 1)
        try:
            return fetch()
        except DownloadError:
            raise
        except urllib.error.HTTPError as error:
            error.close()
            said = f"{url}: the server answered {error.code} {error.reason}"
            if error.code not in (*_BUSY, *_PASSING):
                raise DownloadError(f"{said}; {by_hand}") from error
            asked = error.headers.get("Retry-After") if error.code in _BUSY else None
            pause = float(asked) if asked is not None and asked.isdecimal() else pause
            if attempt == _ATTEMPTS or pause > _LONGEST_WAIT:
                wait = "" if asked is None else f" and asks to wait (Retry-After: {asked})"
                raise DownloadError(
                    f"{said}{wait}; run again later to go on, or {by_hand}"
                ) from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == _ATTEMPTS:
                reason = getattr(error, "reason", error)
                raise DownloadError(
                    f"{url}: cannot be reached, or broke off ({reason}); run again to go on where "
                    f"it stopped, or {by_hand}"
                ) from error
        log.info("%s: attempt %d failed, waiting %g s", url, attempt, pause)
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _fetch_rest(url: str, part: Path, progress: Progress | None, whole_is_known: bool) -> None:
    """Append what is missing of a file; raises OSError where the connection breaks off."""
    have = part.stat().st_size if part.is_file() else 0
    tag = _tag_of(part).read_text() if have and _tag_of(part).is_file() else None
    if tag is None and not whole_is_known:
        have = 0
    headers = {}
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag is not None:
            headers["If-Range"] = tag
    try:
        answer = _open(url, headers)
    except urllib.error.HTTPError as error:
        if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            error.close()
            if whole_is_known:
                return  # all of it is there; the hash says whether it is right
            part.unlink()
            raise ConnectionError("what was there is not a part of it any more") from error
        raise
    with answer:
        resumed = _is_rest(answer, have)
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdecimal() else None
        if not resumed:
            _keep_tag(part, answer)
        have = _append(answer, part, "ab" if resumed else "wb", have, total, progress)
    # read() ends quietly where the connection does
    if total is not None and have < total:
        raise ConnectionError(f"{have} of {total} bytes came")


def _is_rest(answer: Any, have: int) -> bool:
    """Whether an answer is what comes after the first ``have`` bytes, and not the whole."""
    if answer.status != http.client.PARTIAL_CONTENT:
        return False
    told = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range") or "")
    if told is not None and int(told[1]) != have:
        raise ConnectionError(f"bytes from {told[1]} on came, from {have} on were asked for")
    return True


def _append(
    answer: IO[bytes],
    part: Path,
    mode: str,
    have: int,
    total: int | None,
    progress: Progress | None,
) -> int:
    with part.open(mode) as file:
        while chunk := answer.read(_CHUNK):
            try:
                file.write(chunk)
            except OSError as error:
                raise DownloadError(
                    f"{part}: cannot be written ({error.strerror}) after {have} of "
                    f"{total or 'some'} bytes; free some space, and run again to go on"
                ) from error
            have += len(chunk)
            if progress is not None:
                progress(have, total)
    return have


def _tag_of(part: Path) -> Path:
    return part.with_name(part.name + "-of")


def _keep_tag(part: Path, answer: Any) -> None:
    """What the server calls this version of the file, for the next run."""
    tag = answer.headers.get("ETag")
    if tag is None or tag.startswith("W/"):  # a weak one does not promise equal bytes
        tag = answer.headers.get("Last-Modified")
    if tag is None:
        _tag_of(part).unlink(missing_ok=True)
    else:
        _tag_of(part).write_text(tag)


def _check_content(url: str, part: Path, known: Mapping[str, str]) -> None:
    for kind, pinned in known.items():
        found = HASHES[kind](part)
        if found != pinned:
            part.unlink()
            _tag_of(part).unlink(missing_ok=True)
            raise DownloadError(
                f"{url}: its content is {kind.replace('_', ' ')} {found}, but {pinned} was pinned; "
                "it was thrown away: try again, and if it stays so the file is not the authors'"
            )


def _check_address(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise BadOptionError(f"{url}: what is fetched comes over https or http only")


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Redirections that stay on https where the address was."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://" if req.type == "https" else ("http://", "https://")):
            raise DownloadError(f"{req.full_url}: leads to {newurl}, which is not safe to follow")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: Mapping[str, str]) -> Any:
    named = {"User-Agent": f"l1bsr-geo/{__version__}", **headers}
    opener = urllib.request.build_opener(_SameScheme)
    return opener.open(urllib.request.Request(url, headers=named), timeout=_TIMEOUT)

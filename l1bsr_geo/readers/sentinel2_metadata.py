"""Sentinel-2 xml: parsed safely, without namespaces, and asked one question at a time.

A file may say anything. What is asked for comes back finite and within bounds, or as one error.
"""

import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TypeVar
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from l1bsr_geo.errors import BadInputError

T = TypeVar("T")

BANDS = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12",
)  # fmt: skip
"""Band names by their ``bandId``. Source: sen2vm-core, enums/BandInfo.java."""

RESOLUTION = {b: 60 if b in ("B01", "B09", "B10") else 20 for b in BANDS} | dict.fromkeys(
    ("B02", "B03", "B04", "B08"), 10
)
"""Nominal pixel size of each band [m]."""

MAX_XML = 1 << 26
"""Bytes of an xml, at most: a datastrip has 3 MB for 25 s, so some 40 MB for the longest."""

_MAX_TAGS = 2_000_000  # each costs some 200 bytes of memory; a datastrip has 60 000
_YEARS = range(2000, 2101)
_PLATFORMS = {"Sentinel-2A": "S2A", "Sentinel-2B": "S2B", "Sentinel-2C": "S2C"}


def band_name(name: str) -> str:
    """The one spelling of a band: ``B2``, ``b02`` and ``2`` are ``B02``; ``b8a`` is ``B8A``.

    Raises:
        BadInputError: no Sentinel-2 band is called that.
    """
    core = name.strip().upper().removeprefix("B")
    candidate = "B" + core.rjust(2, "0")
    if candidate not in BANDS:
        raise BadInputError(f"{name!r} is no Sentinel-2 band; the bands are {', '.join(BANDS)}")
    return candidate


def parse_xml(text: bytes, name: str) -> Element:
    """The root of an xml file, every tag without its namespace.

    Args:
        text: the file's bytes.
        name: what to call the file in an error.

    Raises:
        BadInputError: empty, not xml, xml that tries to expand entities, or far too much of it.
    """
    if not text.strip():
        raise BadInputError(f"{name} is empty; an xml was expected: fetch the product again")
    if len(text) > MAX_XML or text.count(b"<") > _MAX_TAGS:
        raise BadInputError(
            f"{name} has {len(text)} bytes and {text.count(b'<')} tags; a metadata file has a few "
            "million bytes at most"
        )
    try:
        root: Element = defusedxml.ElementTree.fromstring(text, forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as error:
        # DefusedXmlException is a ValueError; LookupError is an encoding nobody knows
        kind = "forbidden xml" if isinstance(error, DefusedXmlException) else "not well-formed xml"
        raise BadInputError(f"{name} is {kind} ({error}); fetch the product again") from error
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    return root


def find_element(element: Element, path: str, name: str) -> Element:
    """The element at an ElementTree path.

    Raises:
        BadInputError: nothing is there.
    """
    found = element.find(path)
    if found is None:
        raise BadInputError(
            f"{name} has no {path.removeprefix('.//')}; a Sentinel-2 metadata file has one: "
            "download the product again"
        )
    return found


def find_text(element: Element, path: str, name: str) -> str:
    """The stripped text at an ElementTree path.

    Raises:
        BadInputError: nothing is there.
    """
    text = element.findtext(path)
    if text is None or not text.strip():
        raise BadInputError(f"{name} has no {path}; a Sentinel-2 metadata file has one")
    return text.strip()


def find_value(
    element: Element,
    path: str,
    name: str,
    convert: Callable[[str], T],
    expected: str = "a whole number",
) -> T:
    """The converted text at an ElementTree path.

    Raises:
        BadInputError: nothing is there, or it does not convert.
    """
    text = find_text(element, path, name)
    try:
        return convert(text)
    except ValueError as error:
        raise BadInputError(f"{name}: {path} is {text[:60]!r}, {expected} was expected") from error


def find_number(
    element: Element, path: str, name: str, low: float = -math.inf, high: float = math.inf
) -> float:
    """The finite number at an ElementTree path.

    Raises:
        BadInputError: nothing is there, it is no number, or not from ``low`` to ``high``.
    """
    return number(find_text(element, path, name), f"{name}: {path}", low, high)


def find_time(element: Element, path: str, name: str) -> datetime:
    """The time (UTC, or GPS time written alike) at an ElementTree path.

    Raises:
        BadInputError: nothing is there, or no time of this century.
    """
    return find_value(element, path, name, parse_time, "a time such as 2024-07-14T10:46:29.024Z")


def parse_time(text: str) -> datetime:
    """A time as metadata write it.

    Raises:
        ValueError: it is none, or of another century.
    """
    time = datetime.fromisoformat(text.strip().replace("Z", "")).replace(tzinfo=UTC)
    if time.year not in _YEARS:
        raise ValueError(text)
    return time


def band_of(element: Element) -> str | None:
    """The band that an element's ``bandId`` or ``band_id`` names, or None."""
    text = element.get("bandId", element.get("band_id", ""))
    return BANDS[int(text)] if text.isdecimal() and int(text) < len(BANDS) else None


def numbers_by_band(
    roots: Iterable[Element],
    tag: str,
    path: str = ".",
    low: float = -math.inf,
    high: float = math.inf,
) -> dict[str, float]:
    """Band to number, from the first document that has any.

    Args:
        roots: documents.
        tag: elements that carry a band's id.
        path: where below such an element the number is; "." for its own text.
        low: the least that it can be.
        high: the most.
    """
    for root in roots:
        found: dict[str, float] = {}
        for element in root.iter(tag):
            text = element.text if path == "." else element.findtext(path)
            band = band_of(element)
            if band is not None and text is not None:
                found.setdefault(band, number(text, f"{tag} of {band}", low, high))
        if found:
            return found
    return {}


def number(text: str, what: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number, or one line that says of what.

    Raises:
        BadInputError: it is none, or not from ``low`` to ``high``.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and low <= value <= high):
        bounds = "" if math.isinf(low) and math.isinf(high) else f" from {low:g} to {high:g}"
        raise BadInputError(f"{what} is {text.strip()[:60]!r}, a number{bounds} was expected")
    return value


def numbers(text: str, what: str, least: int = 1, most: int = 1) -> list[float]:
    """``least`` to ``most`` finite numbers, parted by white space.

    Raises:
        BadInputError: something else.
    """
    words = text.split()
    if not least <= len(words) <= most:
        count = f"{least}" if least == most else f"{least} to {most}"
        raise BadInputError(f"{what} has {len(words)} numbers, {count} were expected")
    return [number(word, what) for word in words]


def platform_of(spacecraft: str) -> str | None:
    """``Sentinel-2A`` is ``S2A``; None for another satellite."""
    return _PLATFORMS.get(spacecraft.strip())

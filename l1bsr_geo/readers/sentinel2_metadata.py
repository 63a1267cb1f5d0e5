"""Sentinel-2 xml: parsed safely, without namespaces, and asked one question at a time."""

from collections.abc import Callable, Iterable
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
        BadInputError: empty, not xml, or xml that tries to expand entities.
    """
    if not text.strip():
        raise BadInputError(f"{name} is empty; an xml was expected: fetch the product again")
    try:
        root: Element = defusedxml.ElementTree.fromstring(text)
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


def find_value(element: Element, path: str, name: str, convert: Callable[[str], T]) -> T:
    """The converted text at an ElementTree path.

    Raises:
        BadInputError: nothing is there, or it does not convert.
    """
    text = find_text(element, path, name)
    try:
        return convert(text)
    except ValueError as error:
        raise BadInputError(f"{name}: {path} is {text[:60]!r}, a number was expected") from error


def band_of(element: Element) -> str | None:
    """The band that an element's ``bandId`` or ``band_id`` names, or None."""
    text = element.get("bandId", element.get("band_id", ""))
    return BANDS[int(text)] if text.isdecimal() and int(text) < len(BANDS) else None


def numbers_by_band(roots: Iterable[Element], tag: str, path: str = ".") -> dict[str, float]:
    """Band to number, from the first document that has any.

    Args:
        roots: documents.
        tag: elements that carry a band's id.
        path: where below such an element the number is; "." for its own text.
    """
    for root in roots:
        found: dict[str, float] = {}
        for element in root.iter(tag):
            text = element.text if path == "." else element.findtext(path)
            band = band_of(element)
            if band is not None and text is not None:
                found.setdefault(band, number(text, f"{tag} of {band}"))
        if found:
            return found
    return {}


def number(text: str, what: str) -> float:
    """A number, or one line that says of what.

    Raises:
        BadInputError: it is none.
    """
    try:
        return float(text)
    except ValueError as error:
        raise BadInputError(f"{what} is {text[:60]!r}, a number was expected") from error


def platform_of(spacecraft: str) -> str | None:
    """``Sentinel-2A`` is ``S2A``; None for another satellite."""
    return _PLATFORMS.get(spacecraft.strip())

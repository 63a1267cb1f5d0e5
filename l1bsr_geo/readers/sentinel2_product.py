"""What is in a Sentinel-2 L1B product: its datastrip and granules, in a folder or a .zip.

Layouts (FORMATS A1): compact SAFE, the older ``S2B_OPER_PRD_MSIL1B_*.SAFE``, either inside a
.zip, and loose datastrip and granule folders. Inner names are the same in all of them.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from l1bsr_geo.errors import BadInputError, L1bsrGeoWarning, MissingInputError
from l1bsr_geo.readers.archive import list_members, read_member
from l1bsr_geo.readers.sentinel2_metadata import MAX_XML, find_text, find_value, parse_xml

_GRANULE = re.compile(
    r"(?P<platform>S2[A-Z])_\w{4}_MSI_L1B_GR_\w{4}_\d{8}T\d{6}_S\d{8}T\d{6}_D(?P<detector>\d\d)"
    r"(_N\d\d\.\d\d)?$"
)
_DATASTRIP = re.compile(r"S2[A-Z]_\w{4}_MSI_L1B_DS_\w{4}_\d{8}T\d{6}_S\d{8}T\d{6}(_N\d\d\.\d\d)?$")
_IMAGE = re.compile(r"_(B\d\d|B8A)\.(jp2|tif)$", re.IGNORECASE)
_GRID = re.compile(r"_GEO_L1B_GR_.*_(B\d\d|B8A)\.tif$", re.IGNORECASE)
_OTHER_LEVEL = re.compile(r"MSIL?_?(L?0|L?1A|L?1C|L?2A)(?=[_.])|(?:^|/)L(1C|2A)_T")
MAX_LINES = 2_000_000
"""Lines of a detector strip, at most: half an orbit has as many."""

_MAX_DEPTH = 8


@dataclass(frozen=True)
class Granule:
    """One detector's chunk of some 2304 lines.

    Attributes:
        detector: 1 to 12.
        position: its first line in the detector strip (10 m lines, 1-based).
        folder: path inside the product, as are the following.
        metadata: its xml.
        images: band name to image.
        geo_grids: band name to Sen2VM location grid.
        datastrip: identifier of the datastrip it belongs to.
    """

    detector: int
    position: int
    folder: str
    metadata: str
    images: Mapping[str, str] = field(default_factory=dict)
    geo_grids: Mapping[str, str] = field(default_factory=dict)
    datastrip: str = ""


@dataclass(frozen=True)
class Product:
    """A Sentinel-2 L1B product. Picklable: it holds names, not open files.

    Attributes:
        path: the product's folder, or the .zip it is in.
        prefix: folder of the product inside the .zip, "" or ending in "/".
        zipped: whether ``path`` is a .zip.
        platform: ``"S2A"``, ``"S2B"`` ...
        metadata_path: the root xml inside the product, or None.
        datastrip_path: the datastrip xml inside the product, or None.
        granules: by detector, then position.
    """

    path: Path
    platform: str
    granules: tuple[Granule, ...]
    metadata_path: str | None = None
    datastrip_path: str | None = None
    zipped: bool = False
    prefix: str = ""

    @property
    def detectors(self) -> tuple[int, ...]:
        """The detectors that have granules."""
        return tuple(sorted({g.detector for g in self.granules}))

    @property
    def name(self) -> str:
        """The product's name, without .SAFE or .zip."""
        name = PurePosixPath(self.prefix).name or self.path.name
        return re.sub(r"(\.SAFE|\.zip)+$", "", name, flags=re.IGNORECASE)

    def granules_of(self, detector: int) -> tuple[Granule, ...]:
        """The granules of a detector, along track.

        Raises:
            MissingInputError: the detector is not in the product.
        """
        found = tuple(g for g in self.granules if g.detector == detector)
        if not found:
            if not self.granules:
                raise MissingInputError(
                    f"{self.path} has no granules, only metadata; give the whole .SAFE folder"
                )
            there = ", ".join(str(d) for d in self.detectors)
            raise MissingInputError(
                f"{self.path} has no granule of detector {detector}, only of {there}; "
                "choose one of those"
            )
        return found

    def gdal_path(self, path: str) -> str:
        """What GDAL opens: the file, or the member of the .zip."""
        if self.zipped:
            # the braces let the archive have any name
            return f"/vsizip/{{{self.path}}}/{self.prefix}{path}"
        return str(self.path / path)

    def describe(self, path: str) -> str:
        """How to name a file of the product in a message."""
        return f"{self.path}/{self.prefix}{path}"

    def read_bytes(self, path: str) -> bytes:
        """A file of the product, whole.

        Raises:
            MissingInputError: it is not there.
            BadInputError: it cannot be read, or it is too large for what is read whole.
        """
        return _read_bytes(self.path, self.zipped, self.prefix + path)

    def read_text(self, path: str) -> str:
        """A file of the product as text."""
        return self.read_bytes(path).decode("utf-8", "replace")

    def read_xml(self, path: str) -> Element:
        """The root of an xml of the product, tags without namespaces.

        Raises:
            BadInputError: it is not xml.
        """
        return parse_xml(self.read_bytes(path), self.describe(path))


def open_product(path: str | os.PathLike[str] | Product) -> Product:
    """Find the parts of a Sentinel-2 L1B product.

    Args:
        path: its folder, a folder that holds its .SAFE, a .zip of it, or an xml inside it; a
            Product is returned as it is.

    Raises:
        MissingInputError: nothing is there, or no granule and no datastrip is.
        BadInputError: a product of another level, or one that contradicts itself.
    """
    if isinstance(path, Product):
        return path
    return _fill(*list_product(path))


def list_product(path: str | os.PathLike[str]) -> tuple[Product, list[str]]:
    """Look into a product of any level: a Product that knows no granules yet, and its files.

    Args:
        path: as in ``open_product``.

    Raises:
        MissingInputError: nothing is there.
        BadInputError: neither a folder, a .zip nor an .xml; or several products.
    """
    path = Path(path)
    if not path.exists():
        raise MissingInputError(f"{path} is not there; a Sentinel-2 product was expected")
    if path.is_file() and path.suffix.lower() == ".xml":
        path = _root_of_xml(path)
    zipped = path.is_file()
    names = list_members(path) if zipped else _names_in_folder(path)
    prefix, names = _descend_to_safe(path, names)
    if prefix and not zipped:
        path, prefix = path / prefix.rstrip("/"), ""
    shell = Product(path=path.absolute(), platform="", granules=(), zipped=zipped, prefix=prefix)
    return shell, names


def _fill(shell: Product, names: list[str]) -> Product:
    """The product with everything that its names tell."""
    folders: dict[str, list[str]] = {}
    for name in names:
        for parent in PurePosixPath(name).parents:
            if _GRANULE.match(parent.name) or _DATASTRIP.match(parent.name):
                folders.setdefault(parent.as_posix(), []).append(name)
                break
    granules = [
        _read_granule(shell, folder, members)
        for folder, members in sorted(folders.items())
        if _GRANULE.match(PurePosixPath(folder).name)
    ]
    strips = {
        folder: xml
        for folder, members in sorted(folders.items())
        if _DATASTRIP.match(PurePosixPath(folder).name)
        for xml in members
        if "_MTD_L1B_DS_" in PurePosixPath(xml).name and xml.lower().endswith(".xml")
    }
    if not granules and not strips:
        _refuse_other_levels(shell, names)
        raise MissingInputError(
            f"{shell.path} holds no granule or datastrip of Sentinel-2 L1B (folders named "
            "S2?_OPER_MSI_L1B_GR_* under GRANULE, S2?_OPER_MSI_L1B_DS_* under DATASTRIP); give "
            "the .SAFE folder or its .zip"
        )
    granules, strip = _choose_datastrip(shell, granules, strips)
    roots = [n for n in names if re.match(r"S2._\w{4}_MTD_SAFL1B_.*\.xml$|MTD_MSIL1B\.xml$", n)]
    anything = PurePosixPath(granules[0].folder if granules else next(iter(strips))).name
    return replace(
        shell,
        platform=anything[:3],
        granules=_without_doubles(granules),
        metadata_path=roots[0] if roots else None,
        datastrip_path=strip,
    )


def _read_granule(product: Product, folder: str, members: Iterable[str]) -> Granule:
    images, grids, metadata = {}, {}, None
    for member in members:
        inner = PurePosixPath(member).relative_to(folder)
        if inner.parts[0] == "IMG_DATA" and (match := _IMAGE.search(inner.name)):
            images[match[1].upper()] = member
        elif inner.parts[0] == "GEO_DATA" and (match := _GRID.search(inner.name)):
            grids[match[1].upper()] = member
        elif "_MTD_L1B_GR_" in inner.name and inner.suffix.lower() == ".xml":
            metadata = member
    name = product.describe(folder)
    match = _GRANULE.match(PurePosixPath(folder).name)
    assert match is not None
    if metadata is None:
        raise MissingInputError(
            f"{name} has no metadata (*_MTD_L1B_GR_*.xml), which says where along the strip the "
            "granule lies; fetch the product again, or take the granule folder away"
        )
    root = product.read_xml(metadata)
    if root.tag != "Level-1B_Granule_ID":
        raise BadInputError(
            f"{product.describe(metadata)} is a {root.tag}, a Level-1B_Granule_ID was expected"
        )
    xml = product.describe(metadata)
    position = find_value(root, "Geometric_Info/Granule_Position/POSITION", xml, int)
    if not 1 <= position <= MAX_LINES:
        raise BadInputError(f"{xml}: POSITION is {position}, 1 to {MAX_LINES} was expected")
    return Granule(
        detector=int(match["detector"]),
        position=position,
        folder=folder,
        metadata=metadata,
        images=images,
        geo_grids=grids,
        datastrip=find_text(root, "General_Info/DATASTRIP_ID", xml),
    )


def _choose_datastrip(
    product: Product, granules: list[Granule], strips: Mapping[str, str]
) -> tuple[list[Granule], str | None]:
    """The datastrip that the granules name, and only the granules that name it.

    POSITION counts from the start of a datastrip, so granules of two cannot be put together.
    """
    if not granules:
        return [], next(iter(strips.values()))
    named = Counter(g.datastrip for g in granules)
    chosen = named.most_common(1)[0][0]
    if len(named) > 1:
        left_out = len(granules) - named[chosen]
        warnings.warn(
            L1bsrGeoWarning(
                f"{product.path} holds granules of {len(named)} datastrips; the {named[chosen]} "
                f"of {chosen} are used and {left_out} others left out"
            ),
            stacklevel=4,
        )
    by_name = {PurePosixPath(folder).name: xml for folder, xml in strips.items()}
    return [g for g in granules if g.datastrip == chosen], by_name.get(chosen)


def _without_doubles(granules: Iterable[Granule]) -> tuple[Granule, ...]:
    """One granule to a place: of two, the one created last (its name sorts last)."""
    placed = {(g.detector, g.position): g for g in granules}
    return tuple(placed[key] for key in sorted(placed))


def _names_in_folder(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise BadInputError(f"{folder} is neither a folder, a .zip nor an .xml")
    names = []
    for parent, folders, files in os.walk(folder):
        depth = len(Path(parent).relative_to(folder).parts)
        if depth >= _MAX_DEPTH:
            folders.clear()
        folders.sort()
        names += [(Path(parent) / f).relative_to(folder).as_posix() for f in sorted(files)]
    return names


def _descend_to_safe(path: Path, names: list[str]) -> tuple[str, list[str]]:
    """The .SAFE folder that the names lie in, and the names inside it."""
    prefixes = sorted(
        {m[0] for n in names if (m := re.match(r"(?:[^/]+/)*?[^/]+\.SAFE/", n, re.IGNORECASE))}
    )
    if len(prefixes) > 1:
        raise BadInputError(
            f"{path} holds {len(prefixes)} products ({', '.join(prefixes[:3])} ...); give one"
        )
    if prefixes:
        return prefixes[0], [
            n.removeprefix(prefixes[0]) for n in names if n.startswith(prefixes[0])
        ]
    return "", names


def _refuse_other_levels(product: Product, names: list[str]) -> None:
    for name in [product.path.name, product.prefix, *names]:
        if match := _OTHER_LEVEL.search(name):
            level = (match[1] or match[2]).removeprefix("L")
            advice = "; use --sensor raster for it" if level in ("1C", "2A") else ""
            raise BadInputError(
                f"{product.path} is a Level-{level} product ({name.rstrip('/')}), Level-1B was "
                f"expected{advice}"
            )


def _root_of_xml(xml: Path) -> Path:
    xml = xml.absolute()
    for parent in xml.parents:
        if parent.name in ("GRANULE", "DATASTRIP"):
            return parent.parent
    parse_xml(_read_bytes(xml.parent, False, xml.name), str(xml))
    return xml.parent


def _read_bytes(path: Path, zipped: bool, member: str) -> bytes:
    if zipped:
        return read_member(path, member, MAX_XML)
    try:
        with (path / member).open("rb") as file:
            content = file.read(MAX_XML + 1)
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}/{member} is not there; fetch the product again") from error
    except OSError as error:
        raise BadInputError(f"{path}/{member} cannot be read ({error})") from error
    if len(content) > MAX_XML:
        raise BadInputError(
            f"{path}/{member} has more than {MAX_XML} bytes; a metadata file has a few million"
        )
    return content

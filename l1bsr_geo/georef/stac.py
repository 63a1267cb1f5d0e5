"""STAC items of written rasters, made of what the file and its tags say.

STAC 1.1 with the extensions projection, raster, eo, processing, file and, where a network restored
the file, machine learning models. Source: https://stacspec.org, https://stac-extensions.github.io.
"""

import json
import os
import re
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapely

from l1bsr_geo.errors import (
    BadOptionError,
    L1bsrGeoWarning,
    MissingInputError,
    OutputExistsError,
)
from l1bsr_geo.georef.stac_file import FileFacts, describe_file, describe_raster, say_asset
from l1bsr_geo.georef.stac_model import MLM, say_network
from l1bsr_geo.readers.skysat_frames import parse_frame

if TYPE_CHECKING:
    import pystac

_PLACE = "https://stac-extensions.github.io"
_PROJECTION = f"{_PLACE}/projection/v2.0.0/schema.json"
_RASTER = f"{_PLACE}/raster/v2.0.0/schema.json"
_EO = f"{_PLACE}/eo/v2.0.0/schema.json"
_PROCESSING = f"{_PLACE}/processing/v1.1.0/schema.json"
_FILE = f"{_PLACE}/file/v2.1.0/schema.json"

_PROVENANCE = re.compile(r"[a-z][a-z0-9_]*")
_TOLD_ELSEWHERE = ("software", "denoised_by", "processed", "time", "platform", "source")
_LONGEST = 1000  # characters of a tag


def import_pystac() -> Any:
    """pystac, which is an extra.

    Raises:
        MissingInputError: it is not installed.
    """
    try:
        import pystac
    except ImportError:
        raise MissingInputError(
            "STAC items need the package pystac; pip install 'l1bsr-geo[stac]'"
        ) from None
    return pystac


def make_item(
    path: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    time: datetime | None = None,
    companions: Mapping[str, str | os.PathLike[str]] | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> "pystac.Item":
    """The STAC item of a raster on disk, to lie beside it.

    Its geometry is the outline of the valid pixels on the ground (`find_footprint`), also in sensor
    geometry, at the height of the ground that the tags tell, or else the mean height of the RPC.

    Args:
        path: the raster; its name is the item's id.
        source: what the item is derived from: a path, or the address of its own item; what the
            tags name where None.
        time: of the acquisition. Where None, what the tags or the name of a SkySat frame say, else
            when the file was made, with a warning.
        companions: further files of the same result, such as layers, by what they are.
        weights: a file that may be the one that the tags name by its hash.

    Raises:
        MissingInputError: a file is not there; pystac is not installed.
        BadInputError: it is no raster, or its geometry leads nowhere.
    """
    stac = import_pystac()
    path = Path(path)
    told = describe_raster(path)
    ground = told.footprint
    when = time or _find_time(told)
    network, model = say_network(told.tags, None if weights is None else Path(weights))
    described = {"image": told} | {k: describe_file(Path(p)) for k, p in (companions or {}).items()}
    properties = _say_platform(told) | _say_processing(told) | dict(told.projection)
    properties |= {"bands": [_say_colours(band) for band in told.bands]} | network
    properties |= {f"l1bsr:{key}": value for key, value in _provenance(told).items()}
    item: pystac.Item = stac.Item(
        id=path.stem,
        geometry=None if ground is None else json.loads(shapely.to_geojson(ground.area)),
        bbox=None if ground is None else list(ground.bbox),
        datetime=when if when.tzinfo else when.replace(tzinfo=UTC),
        properties=properties,
    )
    for key, file in described.items():
        place = {"href": _relative(file.path, path.parent)}
        roles = ["data"] if key == "image" else ["metadata", key]
        item.assets[key] = stac.Asset.from_dict(say_asset(file) | place | {"roles": roles})
    if model:
        item.assets["model"] = stac.Asset.from_dict(model)
    item.stac_extensions = _name_extensions(_as_json(item))
    if link := _say_source(told, source):
        item.add_link(stac.Link(**link))
    return item


def item_path(path: str | os.PathLike[str]) -> Path:
    """Where the item of a raster is kept: beside it."""
    return Path(path).with_suffix(".json")


def write_item(
    item: "pystac.Item", path: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Write an item as JSON, whole or not at all.

    Args:
        item: of `make_item`.
        path: of the file; its folder is the raster's.
        overwrite: replace what is there.

    Raises:
        OutputExistsError: it is there and may not be replaced.
        MissingInputError: its folder is not there.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path}: exists already; add --overwrite to replace it")
    if not path.parent.is_dir():
        raise MissingInputError(f"{path}: the folder {path.parent} does not exist")
    text = json.dumps(_as_json(item), indent=2, allow_nan=False)
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text + "\n", "utf-8")
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    return path


def read_time(text: str) -> datetime:
    """A time as users write it, ISO 8601; UTC where it names no zone.

    Raises:
        BadOptionError: it is none.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise BadOptionError(
            f"--time {text}: expected a time such as 2024-07-14T10:46:27Z"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _say_colours(band: Mapping[str, Any]) -> dict[str, Any]:
    return {key: band[key] for key in band if key == "name" or key.startswith("eo:")}


def _find_time(told: FileFacts) -> datetime:
    """When the image was taken, as far as it is told."""
    frame = parse_frame(told.path)
    if said := _time_of(told.tags.get("time", "")):
        return said
    if frame is not None and frame.time is not None:
        return frame.time
    made = _time_of(told.tags.get("processed", ""))
    warnings.warn(
        f"{told.path} does not say when it was taken; its STAC item says when it was made; tell "
        "the time with l1bsr-geo stac --time",
        L1bsrGeoWarning,
        stacklevel=3,
    )
    return made or datetime.fromtimestamp(int(told.path.stat().st_mtime), UTC)


def _time_of(text: str) -> datetime | None:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _say_platform(told: FileFacts) -> dict[str, Any]:
    platform, frame = told.tags.get("platform", ""), parse_frame(told.path)
    if said := re.fullmatch(r"S2([A-Z])", platform):
        satellite = f"sentinel-2{said[1].lower()}"
        return {"platform": satellite, "constellation": "sentinel-2", "instruments": ["msi"]}
    if "camera" in told.tags or frame is not None:
        satellite = platform or (frame.satellite if frame else None) or ""
        constellation = {"constellation": "skysat"}
        return constellation | ({"platform": satellite.lower()} if satellite else {})
    return {"platform": platform.lower()} if platform else {}


def _say_processing(told: FileFacts) -> dict[str, Any]:
    """Software, level and lineage of files that this package wrote."""
    if told.version is None:
        return {}
    tags = told.tags
    said: dict[str, Any] = {"processing:software": {"l1bsr_geo": told.version}}
    if made := _time_of(tags.get("processed", "")):
        said["created"] = made.isoformat().replace("+00:00", "Z")
    level = _find_level(told)
    if level is not None:
        said["processing:level"] = level
    said["processing:lineage"] = _tell_lineage(tags)
    return said


def _find_level(told: FileFacts) -> str | None:
    """Of what came in sensor geometry; on a map it is level 1C."""
    frame = parse_frame(told.path)
    if "detector" in told.tags:
        level = "L1B"
    elif "camera" in told.tags:
        level = "L1A"
    elif frame is not None:
        level = frame.level
    else:
        return None
    on_map = "proj:transform" in told.projection
    return "L1C" if on_map else level


def _tell_lineage(tags: Mapping[str, str]) -> str:
    """How the file came to be, in words."""
    model, scale = tags.get("model", "none"), tags.get("scale", "1")
    restored = None if model == "none" else f"{model} x{scale}"
    if restored and tags.get("model_source"):
        restored += f" ({tags['model_source']})"
    refined = tags.get("refine_reference")
    shift = tags.get("refine_shift_m")
    steps = {
        "made of": tags.get("product") or tags.get("source"),
        "frames": tags.get("frames"),
        "bands registered by": tags.get("band_registration"),
        "restored by": restored,
        "denoised by": tags.get("denoise_method"),
        "drawn on terrain": tags.get("terrain"),
        "geolocation refined against": f"{refined} ({shift} m)" if refined and shift else refined,
    }
    told = "; ".join(f"{step} {what}" for step, what in steps.items() if what)
    return told or "written by l1bsr_geo"


def _provenance(told: FileFacts) -> dict[str, str]:
    """Every other tag of ours, so that a search finds it."""
    if told.version is None:
        return {}
    names = [n for n in told.tags if _PROVENANCE.fullmatch(n) and n not in _TOLD_ELSEWHERE]
    return {n: told.tags[n] for n in sorted(names) if len(told.tags[n]) <= _LONGEST}


def _say_source(told: FileFacts, given: str | os.PathLike[str] | None) -> dict[str, Any] | None:
    """The link to what the file is derived from."""
    name = told.tags.get("product") or told.tags.get("source")
    if given is None:
        target = told.tags.get("source") or name
        href = None if target is None else f"./{target}"
    elif isinstance(given, str) and re.match(r"[a-zA-Z][a-zA-Z0-9+.\-]+:", given):
        href = given
    else:
        href = _relative(Path(given), told.path.parent)
    if href is None:
        return None
    return {"rel": "derived_from", "target": href, "title": name or Path(href).name}


def _relative(path: Path, folder: Path) -> str:
    try:
        relative = Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive
        return path.absolute().as_uri()
    return relative if relative.startswith("../") else f"./{relative}"


def _as_json(item: "pystac.Item") -> dict[str, Any]:
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def _name_extensions(item: dict[str, Any]) -> list[str]:
    """Those whose fields are there."""
    parts = [item["properties"], *item["assets"].values()]
    bands = [band for part in parts for band in part.get("bands", ())]
    used = {key.partition(":")[0] for part in (*parts, *bands) for key in part if ":" in key}
    known = {
        "proj": _PROJECTION,
        "raster": _RASTER,
        "eo": _EO,
        "processing": _PROCESSING,
        "file": _FILE,
        "mlm": MLM,
    }
    return [uri for prefix, uri in known.items() if prefix in used]

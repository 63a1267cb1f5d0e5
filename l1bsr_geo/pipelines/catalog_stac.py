"""A data catalog as a static STAC 1.1 catalog, for those who read that.

Every entry is a collection with its licence and what is behind its addresses; what lies on the disk
and has a place on the ground is an item. Source: https://stacspec.org, extension file 2.1.0.
"""

import json
import mimetypes
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapely

import l1bsr_geo
from l1bsr_geo.errors import BadOptionError, OutputExistsError
from l1bsr_geo.georef.stac import import_pystac, make_item
from l1bsr_geo.georef.stac_file import describe_raster, multihash
from l1bsr_geo.models.stored import data_folder
from l1bsr_geo.pipelines.catalog_fetch import PathLike, find_local
from l1bsr_geo.readers.data_catalog import CatalogEntry, find_entry, read_entries
from l1bsr_geo.readers.inputs import is_product, read_input, recognise_sensor
from l1bsr_geo.readers.sentinel2_l1b import DEFAULT_BANDS
from l1bsr_geo.readers.sentinel2_l1c import level_of
from l1bsr_geo.readers.sentinel2_product import list_product, open_product
from l1bsr_geo.readers.sentinel2_zarr import eopf_detectors, is_eopf
from l1bsr_geo.readers.skysat import list_bursts, read_burst

if TYPE_CHECKING:
    import pystac

_FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
_SPDX = ("Apache-2.0", "MIT", "GPL-3.0")
_RASTERS = (".tif", ".tiff", ".jp2")
_WORLD = (-180.0, -90.0, 180.0, 90.0)


def write_stac_catalog(
    folder: PathLike,
    names: Sequence[str] | None = None,
    *,
    catalog: PathLike | None = None,
    overwrite: bool = False,
) -> Path:
    """Write entries of the data catalogs as a static, self-contained STAC catalog.

    Args:
        folder: for ``catalog.json`` and a folder to each entry; made where it is not there.
        names: of entries; all where None.
        catalog: a file, in place of the user's and the shipped one.
        overwrite: write into a folder that holds one already; other files in it stay.

    Returns:
        The file ``catalog.json``. Paths of data are relative where the folder is in the data
        folder, so that both move together.

    Raises:
        MissingInputError: pystac is not installed, or there is no such catalog.
        OutputExistsError: the folder holds something, and ``overwrite`` is not set.
        BadOptionError: there is no entry of a name; the folder is a file.
    """
    stac = import_pystac()
    folder = Path(folder).absolute()
    _check_folder(folder, overwrite)
    chosen = (
        list(read_entries(catalog).values())
        if names is None
        else [find_entry(name, catalog) for name in names]
    )
    root: pystac.Catalog = stac.Catalog(
        "l1bsr_geo",
        "Data of l1bsr_geo: public data, and those of its user",
        title=f"Data catalog of l1bsr_geo {l1bsr_geo.__version__}",
    )
    for entry in chosen:
        root.add_child(_make_collection(stac, entry))
    root.normalize_hrefs(str(folder))
    if folder.is_relative_to(data_folder()):
        root.make_all_asset_hrefs_relative()
    with tempfile.TemporaryDirectory() as made:
        root.save(stac.CatalogType.SELF_CONTAINED, dest_href=made)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(made, folder, dirs_exist_ok=True)
    return folder / "catalog.json"


def _check_folder(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise BadOptionError(f"{folder}: is a file; a folder was expected")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise OutputExistsError(f"{folder}: holds something already; add --overwrite")
        if not (folder / "catalog.json").is_file():
            raise OutputExistsError(f"{folder}: holds no STAC catalog to replace; choose another")


def _make_collection(stac: Any, entry: CatalogEntry) -> "pystac.Collection":
    told = entry.metadata
    items = list(_make_items(stac, entry))
    collection: pystac.Collection = stac.Collection(
        entry.name,
        str(told.get("notes") or told.get("category") or entry.name),
        extent=_extent(stac, items),
        license=entry.licence if entry.licence in _SPDX else "other",
        keywords=[str(told["category"])] if "category" in told else None,
    )
    if "source_author" in told:
        author = stac.Provider(str(told["source_author"]), roles=[stac.ProviderRole.PRODUCER])
        collection.providers = [author]
    collection.extra_fields |= {"l1bsr:licence": entry.licence, "l1bsr:driver": entry.driver}
    if "source_url" in told:
        for rel in ("about", "license"):
            collection.add_link(stac.Link(rel, str(told["source_url"]), title=entry.licence))
    if "paper_doi" in told:
        collection.add_link(stac.Link("cite-as", f"https://doi.org/{told['paper_doi']}"))
    for key, asset in _remote_assets(entry):
        collection.add_asset(key, stac.Asset.from_dict(asset))
    if any("file:checksum" in asset.extra_fields for asset in collection.assets.values()):
        collection.stac_extensions.append(_FILE)
    collection.add_items(items)
    return collection


def _extent(stac: Any, items: Sequence["pystac.Item"]) -> "pystac.Extent":
    """Of the items; the world and all times where there are none."""
    boxes = [item.bbox for item in items if item.bbox]
    times = [t for i in items for t in (i.datetime, *_span(i)) if t is not None]
    bounds = shapely.union_all([shapely.box(*box) for box in boxes]).bounds if boxes else _WORLD
    span = [min(times), max(times)] if times else [None, None]
    extent: pystac.Extent = stac.Extent(
        stac.SpatialExtent([list(bounds)]), stac.TemporalExtent([span])
    )
    return extent


def _span(item: "pystac.Item") -> tuple[datetime | None, datetime | None]:
    common = item.common_metadata
    return common.start_datetime, common.end_datetime


def _remote_assets(entry: CatalogEntry) -> Iterator[tuple[str, dict[str, Any]]]:
    fetch = entry.fetch
    if fetch is None:
        return
    if fetch.zenodo is not None:
        yield "record", {"href": fetch.zenodo, "type": "application/json", "roles": ["metadata"]}
    for file in fetch.files:
        asset = _say_asset(file.url, "data")
        if "sha256" in file.known:
            asset["file:checksum"] = multihash(file.known["sha256"])
        if "git_blob" in file.known:  # of no kind that multihash has
            asset["l1bsr:git_blob"] = file.known["git_blob"]
        yield str(file.path), asset


def _say_asset(href: str, role: str) -> dict[str, Any]:
    kind = mimetypes.guess_type(href)[0] or "application/octet-stream"
    return {"href": href, "type": kind, "roles": [role]}


def _make_items(stac: Any, entry: CatalogEntry) -> Iterator["pystac.Item"]:
    """What lies on the disk and has a place on the ground."""
    if entry.source.get("data_type") != "RasterDataset":
        return
    for path in find_local(entry):
        if recognise_sensor(path) == "skysat":
            yield from _burst_items(stac, path)
        elif is_product(path):
            yield from _product_items(stac, path)
        elif path.suffix.lower() in _RASTERS and describe_raster(path).footprint is not None:
            item = make_item(path)
            item.set_self_href(str(path.with_suffix(".json").absolute()))
            item.make_asset_hrefs_absolute()
            yield item


def _product_items(stac: Any, path: Path) -> Iterator["pystac.Item"]:
    """An item for each detector that has images; one for a product that is on a map."""
    if is_eopf(path) or level_of(list_product(path)[1]) is None:
        bands = _bands_by_detector(path)
    else:
        bands = {None: DEFAULT_BANDS}
    for detector, there in bands.items():
        if there:
            stack = read_input(path, detector=detector, bands=there)
            name = path.name.split(".")[0] + ("" if detector is None else f"_D{detector:02d}")
            told = stack.attrs
            when = datetime.fromisoformat(str(told["time"]).replace("Z", "+00:00"))
            area = stack.grids[stack.reference].footprint()
            facts = {"platform": f"sentinel-{told['platform'][1:].lower()}", "instruments": ["msi"]}
            yield _make_item(stac, name, area, (when, when), path, facts, stack.bands)


def _bands_by_detector(path: Path) -> dict[int | None, tuple[str, ...]]:
    """The bands that every granule of a detector has images of, of one resolution."""
    if is_eopf(path):
        return dict.fromkeys(eopf_detectors(path), DEFAULT_BANDS)
    product = open_product(path)
    found: dict[int | None, tuple[str, ...]] = {}
    for detector in product.detectors:
        images = [set(granule.images) for granule in product.granules_of(detector)]
        common = set.intersection(*images)
        found[detector] = tuple(b for b in DEFAULT_BANDS if b in common) or tuple(
            sorted(common)[:1]
        )
    return found


def _burst_items(stac: Any, path: Path) -> Iterator["pystac.Item"]:
    """An item for each burst that has a geometry and times."""
    for entry in list_bursts(path):
        if not entry.times:
            continue
        burst = read_burst(path, entry.camera or None, entry.frames[0], len(entry.frames))
        if burst.grids[0].model is not None:
            area = shapely.union_all([grid.footprint() for grid in burst.grids])
            name = f"{entry.satellite}_{entry.camera}_{entry.times[0]:%Y%m%dT%H%M%S}"
            times = (entry.times[0], entry.times[-1])
            facts = {"platform": entry.satellite}
            yield _make_item(stac, name, area, times, path, facts, (burst.band,))


def _make_item(
    stac: Any,
    name: str,
    area: shapely.Geometry,
    times: tuple[datetime, datetime],
    path: Path,
    facts: dict[str, Any],
    bands: Sequence[str],
) -> "pystac.Item":
    first, last = (t if t.tzinfo else t.replace(tzinfo=UTC) for t in times)
    area = shapely.set_precision(area, 1e-7)  # [degrees] a centimetre
    item: pystac.Item = stac.Item(
        name,
        json.loads(shapely.to_geojson(area)),
        list(area.bounds),
        first,
        facts,
        start_datetime=first if last > first else None,
        end_datetime=last if last > first else None,
    )
    kind = mimetypes.guess_type(path.name)[0]
    named = {"bands": [{"name": band} for band in bands]}
    asset = stac.Asset(str(path.absolute()), media_type=kind, roles=["data"], extra_fields=named)
    item.add_asset("data", asset)
    return item

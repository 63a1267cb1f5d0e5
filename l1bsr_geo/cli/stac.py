"""`l1bsr-geo stac`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from l1bsr_geo.cli.options import OverwriteOption
from l1bsr_geo.errors import BadOptionError, MissingInputError, OutputExistsError


def write_items(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Rasters, or folders of TIFF.")
    ],
    source: Annotated[
        str | None, typer.Option(help="What they are derived from: path, or address of its item.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Of the acquisition (ISO 8601), where files do not say it.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of one's own that restored them.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Describe rasters for a catalogue: a STAC item beside each, OUT.json beside OUT.tif."""
    from l1bsr_geo.georef.stac import item_path, make_item, read_time, write_item

    when = None if time is None else read_time(time)
    rasters = list_rasters(files)
    for raster in rasters:
        if item_path(raster) == raster:
            raise BadOptionError(f"{raster}: its STAC item has this name; give rasters")
        if item_path(raster).exists() and not overwrite:
            raise OutputExistsError(f"{item_path(raster)}: exists already; add --overwrite")
    for raster in rasters:
        item = make_item(raster, source=source, time=when, weights=weights)
        print(write_item(item, item_path(raster), overwrite=overwrite))


def list_rasters(files: Sequence[Path]) -> list[Path]:
    """Files as they are, folders as the TIFF in them.

    Raises:
        MissingInputError: something is not there, or a folder holds none.
    """
    found: list[Path] = []
    for file in files:
        if not file.exists():
            raise MissingInputError(f"{file}: there is no such file")
        inside = [p for p in sorted(file.glob("*")) if p.suffix.lower() in (".tif", ".tiff")]
        if file.is_dir() and not inside:
            raise MissingInputError(f"{file}: a folder without TIFF; name rasters")
        found += inside if file.is_dir() else [file]
    return list(dict.fromkeys(found))

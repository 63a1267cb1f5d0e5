"""The STAC item of a result, where it was asked for."""

from pathlib import Path

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.georef.cog import check_destination
from l1bsr_geo.georef.stac import import_pystac, item_path, make_item, write_item
from l1bsr_geo.pipelines.job import Job, PathLike

_COMPANIONS = ("layers", "uncertainty", "report")


def check_item(job: Job) -> None:
    """Whether the item can be written, before anything is computed.

    Raises:
        MissingInputError: pystac is not installed; the folder does not exist.
        OutputExistsError: there is one already.
        BadOptionError: it would be the output itself.
    """
    if job.stac:
        import_pystac()
        place = item_path(job.output)
        if place == Path(job.output):
            raise BadOptionError(f"{place}: its STAC item has this name; call the output .tif")
        check_destination(place, job.inputs, overwrite=job.overwrite)


def add_item(job: Job, written: Path, weights: PathLike | None = None) -> Path:
    """The item beside a result and its companions, if the job wants one.

    Args:
        job: what was asked.
        written: the result.
        weights: of what restored it, where the user gave a file.

    Returns:
        ``written``.
    """
    if job.stac:
        named = {name: getattr(job, name, None) for name in _COMPANIONS}
        there = {name: path for name, path in named.items() if path and Path(path).is_file()}
        item = make_item(written, source=job.source, companions=there, weights=weights)
        write_item(item, item_path(written), overwrite=job.overwrite)
    return written

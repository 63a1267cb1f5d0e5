"""STAC items of denoised frames, where they were asked for."""

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.georef.cog import check_destination
from l1bsr_geo.georef.stac import import_pystac, item_path, make_item, write_item
from l1bsr_geo.pipelines.denoise_output import Target


def check_frame_items(target: Target) -> None:
    """Whether the items of denoised frames can be written, before anything is computed.

    Raises:
        MissingInputError: pystac is not installed.
        OutputExistsError: there is one already.
        BadOptionError: the output is no TIFF.
    """
    if not target.job.stac:
        return
    import_pystac()
    if not target.rasters():
        raise BadOptionError("--stac: describes TIFF, and the output is none; leave it out")
    if not target.is_folder:  # what is in a folder was looked at
        for raster, source in target.rasters():
            sources = [] if source is None else [source]
            check_destination(item_path(raster), sources, overwrite=target.job.overwrite)


def add_frame_items(target: Target) -> None:
    """An item beside every TIFF of denoised frames, if the job wants them."""
    for raster, source in target.rasters() if target.job.stac else ():
        write_item(make_item(raster, source=source), item_path(raster), overwrite=True)

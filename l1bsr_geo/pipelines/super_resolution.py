"""The main job: whatever the input is, a sharper image of it in a COG."""

from pathlib import Path
from typing import Any

from l1bsr_geo.georef.cog import check_destination
from l1bsr_geo.models.registry import Device, Model, Precision
from l1bsr_geo.pipelines.bands import restore_bands
from l1bsr_geo.pipelines.job import Job, PathLike, Progress


def super_resolve(
    source: PathLike,
    output: PathLike,
    *,
    model: str = "geometric",
    weights: str | Path | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Super-resolve a Sentinel-2 L1B detector, or a raster of its bands, into a COG.

    Args:
        source: product or raster, as in `Job`.
        output: GeoTIFF to write.
        model: name in the registry.
        weights: file of weights, ours or a published checkpoint.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "fp32" or "bf16".
        tile: largest core of a tile [px].
        progress: called with blocks done and blocks in all.
        **options: what `Job` lists.

    Returns:
        The path written.

    Raises:
        L1bsrGeoError: what a user can cause and mend; nothing is left under ``output``.
    """
    job = Job(source=source, output=output, **options)
    check_destination(Path(output), [source], overwrite=job.overwrite)
    restorer = Model(model, weights=weights, device=device, precision=precision)
    return restore_bands(job, restorer, tile, progress)

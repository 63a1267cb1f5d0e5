"""The main job: whatever the input is, a sharper image of it in a COG."""

from pathlib import Path
from typing import Any

from l1bsr_geo.georef.cog import check_destination
from l1bsr_geo.models.registry import Device, Model, Precision
from l1bsr_geo.pipelines.bands import restore_bands
from l1bsr_geo.pipelines.bursts import restore_burst
from l1bsr_geo.pipelines.job import Job, PathLike, Progress
from l1bsr_geo.readers.inputs import recognise_sensor


def super_resolve(
    source: PathLike,
    output: PathLike,
    *,
    model: str | None = None,
    scale: int | None = None,
    weights: str | Path | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Super-resolve a Sentinel-2 L1B detector, a SkySat burst or a raster of bands into a COG.

    Args:
        source: product, burst or raster, as in `Job`.
        output: GeoTIFF to write.
        model: name in the registry; "geometric" for bands and "act" for bursts where None.
        scale: fine pixels to a pixel, per axis; the model's usual one where None.
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
    for path in (job.output, job.layers):
        if path is not None:
            check_destination(Path(path), [source], overwrite=job.overwrite)
    burst = recognise_sensor(Path(source), job.sensor) == "skysat"
    name = model or ("act" if burst else "geometric")
    restorer = Model(name, weights=weights, scale=scale, device=device, precision=precision)
    restore = restore_burst if burst else restore_bands
    return restore(job, restorer, tile, progress)

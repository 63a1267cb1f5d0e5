"""The main job: whatever the input is, a sharper image of it in a COG."""

import logging
from pathlib import Path
from typing import Any

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.georef.cog import check_destination
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.published import recognise
from l1bsr_geo.models.registry import MODELS, Device, Model, Precision
from l1bsr_geo.models.shipped import default_model
from l1bsr_geo.pipelines.bands import restore_bands
from l1bsr_geo.pipelines.bursts import restore_burst
from l1bsr_geo.pipelines.job import Job, PathLike, Progress
from l1bsr_geo.readers.inputs import read_input, recognise_sensor
from l1bsr_geo.readers.skysat_frames import read_frame_index
from l1bsr_geo.readers.skysat_runs import choose_frames, find_runs
from l1bsr_geo.tiling.cluster import connect

log = logging.getLogger(__name__)

_STEPS = 1.1  # ratio of the longest exposure time to the shortest from which a burst has several


def super_resolve(
    source: PathLike,
    output: PathLike,
    *,
    model: str | Model | Restorer | None = None,
    scale: int | None = None,
    weights: str | Path | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: int | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Super-resolve a Sentinel-2 L1B detector, a SkySat burst or a raster of bands into a COG.

    Args:
        source: product, burst or raster, as in `Job`.
        output: GeoTIFF to write.
        model: name in the registry, a `Model`, or a torch module with a ``spec`` (`ModelSpec`) that
            is called as a `Restorer`. Where None the one that the weights are of; without weights
            the learned one, if its weights come with the package: "l1bsr" for B02, B03, B04, B08
            of a detector, "dsa" for bursts of one exposure time; else "geometric" for bands and
            "act" for bursts.
        scale: fine pixels to a pixel, per axis; where None that of the weights, or the model's
            usual one.
        weights: file of weights, ours or a published checkpoint.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "fp32" or "bf16".
        tile: largest core of a tile [px].
        scheduler: address of a dask scheduler whose workers do the work.
        workers: start this many worker processes here to do it. Where neither is given, the dask
            client that the program has does it, if any, else the threads of this process.
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
    if model is None or isinstance(model, str):
        name = model or _choose_model(job, burst, scale, weights)
        restorer = Model(name, weights=weights, scale=scale, device=device, precision=precision)
    else:
        restorer = _take_model(model, scale, weights, device, precision)
    trained = f"weights {restorer.weights_sha256[:12]}" if restorer.weights_sha256 else "no weights"
    log.info("%s x%d restores (%s)", restorer.spec.name, restorer.spec.scale, trained)
    restore = restore_burst if burst else restore_bands
    with connect(scheduler, workers):
        return restore(job, restorer, tile, progress)


def _take_model(
    model: Model | Restorer,
    scale: int | None,
    weights: str | Path | None,
    device: Device,
    precision: Precision,
) -> Model:
    """The caller's own, which knows its scale and has its weights."""
    if scale is not None or weights is not None:
        raise BadOptionError(
            "a model was given with a scale or weights, but it has its own; leave them out"
        )
    if isinstance(model, Model):
        return model
    if not isinstance(model, Restorer):
        raise BadOptionError(
            f"model is a {type(model).__name__} without a spec; give a name, or a torch module "
            "whose spec (ModelSpec) says what it takes and gives"
        )
    return Model.from_restorer(model, device, precision)


def _choose_model(job: Job, burst: bool, scale: int | None, weights: str | Path | None) -> str:
    """The model where the user names none."""
    if weights is not None:
        return recognise(Path(weights))
    if burst:
        one, several = (default_model(kind, scale) for kind in ("burst", "exposures"))
        return several if several != one and _has_steps(job) else one
    learned = default_model("bands", scale)
    bands = MODELS[learned].spec.bands
    if bands is None:
        return learned
    if job.bands is not None and tuple(job.bands) != bands:
        why = f"{', '.join(job.bands)} were asked for"
    else:
        stack = read_input(
            job.source,
            sensor=job.sensor,
            detector=job.detector,
            bands=job.bands,
            geometry=job.geometry,
            gipp=job.gipp,
        )
        if stack.bands != bands:
            why = f"{job.source} has {', '.join(stack.bands)}"
        elif any(isinstance(grid.model, AffineModel) for grid in stack.grids.values()):
            why = f"{job.source} is on a map: it was resampled, and the network learnt what was not"
        else:
            return learned
    log.info("geometric restores instead of %s, which takes %s: %s", learned, ", ".join(bands), why)
    return "geometric"


def _has_steps(job: Job) -> bool:
    """Whether the table of frames tells several exposure times of those that will be read."""
    path = Path(job.source)
    run = choose_frames(find_runs(path), path, job.camera, job.start, max(job.frames, 1))
    folder = run[0].path.parent
    facts = read_frame_index(folder) or read_frame_index(folder.parent)
    told = [e for f in run if f.name in facts and (e := facts[f.name].exposure) is not None]
    return bool(told) and max(told) > _STEPS * min(told)

"""The main job: whatever the input is, a sharper image of it in a COG."""

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.georef.cog import check_destination
from l1bsr_geo.georef.stac import item_path
from l1bsr_geo.images.bands import BandStack
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.model_file import is_model_file
from l1bsr_geo.models.published import recognise
from l1bsr_geo.models.registry import MODELS, Device, Model, Precision
from l1bsr_geo.models.shipped import default_model
from l1bsr_geo.pipelines.bands import restore_bands
from l1bsr_geo.pipelines.bursts import restore_burst
from l1bsr_geo.pipelines.evaluating import add_report
from l1bsr_geo.pipelines.item import add_item, check_item
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
        model: name in the registry, a model file (.onnx, .pt2, or the .yaml spec of one; see
            `Model.from_file`), a `Model`, or a torch module with a ``spec`` (`ModelSpec`) that
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
    own = model if isinstance(model, str) and Path(model).is_file() else None
    _check_outputs(job, [*job.inputs, *(path for path in (weights, own) if path is not None)])
    burst = recognise_sensor(Path(source), job.sensor) == "skysat"
    if job.layers is not None and not burst and Path(source).exists():
        raise BadOptionError(
            f"--layers {job.layers}: counts the frames of a burst, and {source} is none; leave it "
            "out"
        )
    choose = partial(_choose_model, job, burst, scale)
    restorer = load_restorer(
        choose, model, scale=scale, weights=weights, device=device, precision=precision
    )
    restore = restore_burst if burst else restore_bands
    with connect(scheduler, workers):
        written = restore(job, restorer, tile, progress)
    add_report(job, written)
    return add_item(job, written, weights or own)


def _check_outputs(job: Job, inputs: Sequence[PathLike]) -> None:
    """All files can be written, each to a place of its own that nothing is read from."""
    check_item(job)
    options = {"--layers": job.layers, "--uncertainty": job.uncertainty, "--report": job.report}
    taken = {os.path.abspath(job.output)}
    if job.stac:
        taken.add(os.path.abspath(item_path(job.output)))
    check_destination(Path(job.output), inputs, overwrite=job.overwrite)
    for option, path in options.items():
        if path is None:
            continue
        if os.path.abspath(path) in taken:
            raise BadOptionError(f"{option} {path}: is another output, too; give another name")
        taken.add(os.path.abspath(path))
        kept = job.resume and option == "--uncertainty"  # it is written first; see there
        check_destination(Path(path), inputs, overwrite=job.overwrite or kept)


def load_restorer(
    choose: Callable[[], str],
    model: str | Model | Restorer | None = None,
    *,
    scale: int | None = None,
    weights: str | Path | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> Model:
    """What restores.

    Args:
        choose: names the model where neither ``model`` nor ``weights`` does.
        model: as of `super_resolve`, and so are the others.
        scale: fine pixels to a pixel.
        weights: file of weights.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "fp32" or "bf16".
    """
    if isinstance(model, str) and is_model_file(model):
        _refuse_more(scale, weights)
        restorer = Model.from_file(model, device, precision)
    elif model is None or isinstance(model, str):
        name = model or (choose() if weights is None else recognise(Path(weights)))
        restorer = Model(name, weights=weights, scale=scale, device=device, precision=precision)
    else:
        restorer = _take_model(model, scale, weights, device, precision)
    trained = f"weights {restorer.weights_sha256[:12]}" if restorer.weights_sha256 else "no weights"
    log.info("%s x%d restores (%s)", restorer.spec.name, restorer.spec.scale, trained)
    return restorer


def _take_model(
    model: Model | Restorer,
    scale: int | None,
    weights: str | Path | None,
    device: Device,
    precision: Precision,
) -> Model:
    """The caller's own."""
    _refuse_more(scale, weights)
    if isinstance(model, Model):
        return model
    if not isinstance(model, Restorer):
        raise BadOptionError(
            f"model is a {type(model).__name__} without a spec; give a name, or a torch module "
            "whose spec (ModelSpec) says what it takes and gives"
        )
    return Model.from_restorer(model, device, precision)


def _refuse_more(scale: int | None, weights: str | Path | None) -> None:
    """A model of one's own knows its scale and has its weights."""
    if scale is not None or weights is not None:
        raise BadOptionError(
            "a model was given with a scale or weights, but it has its own; leave them out"
        )


def _choose_model(job: Job, burst: bool, scale: int | None) -> str:
    """The model where the user names none."""
    if burst:
        return choose_for_burst(scale, lambda: _told_exposures(job))

    def read() -> BandStack:
        return read_input(
            job.source,
            sensor=job.sensor,
            detector=job.detector,
            bands=job.bands,
            geometry=job.geometry,
            gipp=job.gipp,
        )

    return choose_for_bands(scale, read, job)


def choose_for_bands(scale: int | None, read: Callable[[], BandStack], job: Job) -> str:
    """The learned model where it takes these bands as they are, else "geometric".

    Args:
        scale: fine pixels to a pixel; the usual one where None.
        read: gives the bands.
        job: may name bands, and says what the bands are of.
    """
    learned = default_model("bands", scale)
    bands = MODELS[learned].spec.bands
    if bands is None:
        return learned
    if job.bands is not None and tuple(job.bands) != bands:
        why = f"{', '.join(job.bands)} were asked for"
    else:
        stack = read()
        if stack.bands != bands:
            why = f"{job.source} has {', '.join(stack.bands)}"
        elif any(isinstance(grid.model, AffineModel) for grid in stack.grids.values()):
            why = f"{job.source} is on a map: it was resampled, and the network learnt what was not"
        else:
            return learned
    log.info("geometric restores instead of %s, which takes %s: %s", learned, ", ".join(bands), why)
    return "geometric"


def choose_for_burst(scale: int | None, exposures: Callable[[], Sequence[float]]) -> str:
    """The learned model, or the one for several exposure times.

    Args:
        scale: fine pixels to a pixel; the usual one where None.
        exposures: gives the exposure times that are known; asked only where it matters.
    """
    one, several = (default_model(kind, scale) for kind in ("burst", "exposures"))
    if several == one:
        return one
    told = exposures()
    return several if told and max(told) > _STEPS * min(told) else one


def _told_exposures(job: Job) -> list[float]:
    """Exposure times that the table of frames tells of those that will be read."""
    path = Path(job.source)
    run = choose_frames(find_runs(path), path, job.camera, job.start, max(job.frames, 1))
    folder = run[0].path.parent
    facts = read_frame_index(folder) or read_frame_index(folder.parent)
    return [e for f in run if f.name in facts and (e := facts[f.name].exposure) is not None]

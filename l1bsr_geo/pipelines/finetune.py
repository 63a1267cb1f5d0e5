"""Fine-tuning: what is to be super-resolved adapts the network that will do it."""

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

import l1bsr_geo
from l1bsr_geo.errors import BadOptionError, MissingInputError
from l1bsr_geo.georef.cog import check_destination
from l1bsr_geo.images.bursts import BurstScene
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.checkpoint import find_weights, read_provenance
from l1bsr_geo.models.entries import find_entry
from l1bsr_geo.models.published import recognise
from l1bsr_geo.models.stored import hash_file
from l1bsr_geo.pipelines.job import Job, PathLike
from l1bsr_geo.pipelines.own_scene import part_frames, part_product, read_frames
from l1bsr_geo.pipelines.super_resolution import choose_for_burst
from l1bsr_geo.readers.inputs import recognise_sensor
from l1bsr_geo.training.checkpoints import write_weights
from l1bsr_geo.training.finetune import Adaptation, ForetellsHeldBack, Loss, adapt
from l1bsr_geo.training.hdr_dsp import SHARPENING
from l1bsr_geo.training.methods import METHODS, make_objective
from l1bsr_geo.training.objective import Source
from l1bsr_geo.training.precision import Device
from l1bsr_geo.training.scene_bursts import BurstCrops, ForetellsFrame
from l1bsr_geo.training.schedule import Schedule
from l1bsr_geo.training.trainer import Progress

log = logging.getLogger(__name__)

_BURSTS, _PRODUCTS = ("dsa", "hdr-dsp"), ("l1bsr",)
_RATE = 2e-4  # a fifth of that of a training from the start
_SUPERVISED = ("supervised", "both", "joint", "warping", "smoothness")  # not of a known scene
_OUTDATED = ("score", "figures", "results", "git_blob")  # what is not true of changed weights


@dataclass(frozen=True)
class Finetuning:
    """What fine-tuning came to.

    Attributes:
        weights: the file written.
        model: that they are of.
        adaptation: whether they are what was learnt or the start, and by how much that gained.
    """

    weights: Path
    model: str
    adaptation: Adaptation


def finetune(
    source: PathLike,
    output: PathLike,
    *,
    model: str | None = None,
    weights: PathLike | None = None,
    scale: int | None = None,
    minutes: float | None = 5.0,
    iterations: int = 1000,
    device: Device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Finetuning:
    """Adapt a network to what it is to super-resolve, by what is known of it alone.

    A burst teaches by frames that are left out, a Sentinel-2 product where neighbouring detectors
    overlap. Some of that is held back, and tells when to stop. What was learnt is written only if
    it foretells other observations that were held back better than the start does, beyond chance;
    else the start is.

    Args:
        source: burst or L1B product, as in `Job`.
        output: weights to write (safetensors), for ``super_resolve(..., weights=output)``.
        model: dsa or hdr-dsp (bursts), l1bsr (products). Where None the one that the
            weights are of, else the learned one that restores such input.
        weights: to start from; those of ``Model(model)`` where None.
        scale: fine pixels to a pixel; that of the weights, or the model's usual one, where None.
        minutes: of training, at most; None for no limit.
        iterations: of training, at most.
        device: ``"auto"`` takes a GPU where there is one.
        seed: of everything random.
        progress: told after every iteration.
        **options: of `Job`: sensor, detector, geometry, gipp, camera, start, frames, reference,
            aoi, dem, geoid, height say what is read; overwrite.

    Raises:
        L1bsrGeoError: what a user can cause and mend; nothing is left under ``output``.
    """
    job = Job(source=source, output=output, **options)
    if not Path(source).exists():
        raise MissingInputError(f"{source} is not there; a burst or an L1B product was expected")
    check_destination(Path(output), [source], overwrite=job.overwrite)
    burst = recognise_sensor(Path(source), job.sensor) == "skysat"
    if model is None and weights is not None:
        model = recognise(Path(weights))
    if model is not None:
        _check_model(model, burst, source)
    scene = read_frames(job) if burst else None
    name = model or _choose_model(scene, scale)
    entry = find_entry(name)
    start = find_weights(
        name, None if weights is None else Path(weights), entry.weights, entry.unusual(scale)
    )
    network = entry.load(start, scale)
    log.info("%s x%d is fine-tuned from %s", name, network.spec.scale, start)
    facts = read_provenance(start, entry.weights)
    samples: Source
    samples, held_back = part_product(job) if scene is None else part_frames(job, scene)
    with tempfile.TemporaryDirectory() as folder:
        adaptation = adapt(
            cast("nn.Module", network),
            choose_objective(network, facts, samples),
            samples,
            held_back,
            choose_schedule(iterations, seed),
            Path(folder),
            device=device,
            minutes=minutes,
            progress=progress,
        )
    if adaptation.ended == "interrupted":
        raise KeyboardInterrupt
    facts = {"model": name, "scale": str(network.spec.scale), **facts}
    if adaptation.kept:
        facts = {key: value for key, value in facts.items() if key not in _OUTDATED}
    facts |= _describe(job, scene, adaptation) | {"start_sha256": hash_file(start)}
    write_weights(Path(output), cast("nn.Module", network), facts)
    return Finetuning(Path(output), name, adaptation)


def _check_model(name: str, burst: bool, source: PathLike) -> None:
    """Refuse what cannot be fine-tuned, or not on such input."""
    if not find_entry(name).takes_weights:
        raise BadOptionError(f"{name} is not trained: there is nothing to fine-tune")
    able = _BURSTS if burst else _PRODUCTS
    if name not in able:
        kind = "a burst" if burst else "no burst"
        raise BadOptionError(
            f"{name} cannot be fine-tuned on {source}, which is {kind}; {' and '.join(able)} can"
        )


def _choose_model(scene: BurstScene | None, scale: int | None) -> str:
    """The learned one that restores such input by default."""
    if scene is None:
        return "l1bsr"
    exposures = scene.burst.exposures
    chosen = choose_for_burst(scale, lambda: exposures)
    return chosen if chosen in _BURSTS else "dsa"


def choose_objective(
    network: Restorer, facts: Mapping[str, str], samples: Source
) -> ForetellsHeldBack:
    """What fine-tuning minimises and what decides over it.

    Args:
        network: that is adapted.
        facts: that its weights file says: with the recipe's objective, if it was self-supervised or
            can be.
        samples: that it is adapted on.
    """
    name = network.spec.name
    told = _read_objective(facts.get("recipe", ""))
    if name == "hdr-dsp" and told is None:
        told = {"sharpening": SHARPENING}  # of the published weights
    options = {key: value for key, value in (told or {}).items() if key not in _SUPERVISED}
    scored: Loss | None = None
    if isinstance(samples, BurstCrops):
        least, most = samples.frames
        if name == "dsa":
            options["held_out"] = max(min(options.get("held_out", 1), least // 5), 1)
            scored = ForetellsFrame()
        else:
            options["frames"] = [least - 1, most - 1]
            compare = options.get("compare", "detail")
            scored = ForetellsFrame(options.get("sharpening", 0.0), compare)
    scale = network.spec.scale if find_entry(name).scales else None
    learnt = make_objective(METHODS[name], options, scale, f"objective of {name}", Path())
    return ForetellsHeldBack(learnt, scored or learnt)


def _read_objective(recipe: str) -> dict[str, Any] | None:
    """Options of the objective in a recipe (JSON), or None where a file says none."""
    try:
        told = json.loads(recipe)
    except ValueError:
        return None
    options = told.get("objective", {}) if isinstance(told, dict) else None
    return options if isinstance(options, dict) else None


def choose_schedule(iterations: int = 1000, seed: int = 0) -> Schedule:
    """The numbers of fine-tuning, with its automatic stop."""
    return Schedule(
        iterations=iterations,
        batch=8,
        lr=_RATE,
        final_lr=_RATE,  # the average makes up for it, and the time may be up at any step
        warmup=min(20, iterations - 1),
        ema=0.98,
        seed=seed,
        validate_every=10,
        save_every=iterations,
        log_every=10,
        patience=5,
    )


def _describe(job: Job, scene: BurstScene | None, adaptation: Adaptation) -> dict[str, str]:
    """What a weights file says of its adaptation."""
    gain, read = adaptation.gain, [Path(job.source).name]
    if scene is not None:
        read.append(f"{len(scene.burst)} frames around {scene.burst.attrs['frames'][0]}")
    elif job.detector is not None:
        read.append(f"detector {job.detector}")
    if job.area is not None:
        read.append("within {:.4f}, {:.4f}, {:.4f}, {:.4f}".format(*job.area.bounds))
    return {
        "adapted_to": ", ".join(read),
        "adapted": "yes" if adaptation.kept else "no: the start unchanged",
        "adapted_iterations": str(adaptation.iteration if adaptation.kept else 0),
        "adapted_gain": f"{gain.mean if adaptation.kept else 0:.5g}",
        "adapted_by": f"l1bsr_geo {l1bsr_geo.__version__}",
        "adapted_trial": f"gain {gain.mean:.5g} with a standard error of {gain.error:.2g} over "
        f"{gain.places} places, {adaptation.iterations} iterations ({adaptation.ended})",
    }

"""Fine-tuning: what is to be super-resolved adapts the network that will do it."""

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

from torch import nn

import l1bsr_geo
from l1bsr_geo.errors import (
    BadInputError,
    BadOptionError,
    L1bsrGeoError,
    L1bsrGeoWarning,
    MissingInputError,
)
from l1bsr_geo.geometry.elevation import AnyElevation, ConstantElevation
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.georef.cog import check_destination
from l1bsr_geo.images.bands import BandScene
from l1bsr_geo.images.bursts import BurstScene
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.checkpoint import find_weights, hash_file, read_provenance
from l1bsr_geo.models.entries import find_entry
from l1bsr_geo.models.published import recognise
from l1bsr_geo.models.shipped import Kind, default_model
from l1bsr_geo.pipelines.job import Job, PathLike
from l1bsr_geo.pipelines.stages import find_window, read_terrain
from l1bsr_geo.readers.inputs import recognise_sensor
from l1bsr_geo.readers.sentinel2_l1b import read_detector_overlap
from l1bsr_geo.readers.sentinel2_product import Product, open_product
from l1bsr_geo.readers.sentinel2_zarr import eopf_detectors, is_eopf
from l1bsr_geo.readers.skysat import read_burst
from l1bsr_geo.registration.frames import align_frames
from l1bsr_geo.training.checkpoints import write_weights
from l1bsr_geo.training.finetune import Adaptation, ForetellsHeldBack, HeldBack, Loss, adapt
from l1bsr_geo.training.hdr_dsp import SHARPENING
from l1bsr_geo.training.methods import METHODS, make_objective
from l1bsr_geo.training.objective import Source
from l1bsr_geo.training.own_overlaps import Overlap, Stacks, register_overlap
from l1bsr_geo.training.precision import Device
from l1bsr_geo.training.scene_bursts import BurstCrops, ForetellsFrame, part_burst
from l1bsr_geo.training.scene_overlaps import part_overlaps
from l1bsr_geo.training.schedule import Schedule
from l1bsr_geo.training.trainer import Progress

Parted: TypeAlias = tuple[Source, HeldBack]
"""What is trained on, and what is held back from it."""

log = logging.getLogger(__name__)

_BURSTS, _PRODUCTS = ("dsa", "hdr-dsp"), ("l1bsr",)
_RATE = 2e-4  # small beside that of a training from the start
_STEPS = 1.1  # ratio of the longest exposure time to the shortest from which a burst has several
_MARGIN = 32  # [px] around an area: what restoring its border needs
_LINES = 4608  # of an overlap, at most: two granules teach what more would
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
    check_destination(Path(output), [source], overwrite=job.overwrite)
    burst = recognise_sensor(Path(source), job.sensor) == "skysat"
    if model is None and weights is not None:
        model = recognise(Path(weights))
    if model is not None:
        _check_model(model, burst, source)
    scene = _read_burst(job) if burst else None
    name = model or _choose_model(scene, scale)
    entry = find_entry(name)
    start = find_weights(
        name, None if weights is None else Path(weights), entry.weights, entry.unusual(scale)
    )
    network = entry.load(start, scale)
    facts = read_provenance(start, entry.weights)
    samples, held_back = _part_product(job) if scene is None else _part_burst(job, scene)
    with tempfile.TemporaryDirectory() as folder:
        adaptation = adapt(
            cast("nn.Module", network),
            _make_objective(network, facts, samples),
            samples,
            held_back,
            _make_schedule(iterations, seed),
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
    times = scene.burst.exposures
    kind: Kind = "exposures" if max(times) > _STEPS * min(times) else "burst"
    chosen = default_model(kind, scale)
    return chosen if chosen in _BURSTS else "dsa"


def _make_objective(
    network: Restorer, facts: Mapping[str, str], samples: Source
) -> ForetellsHeldBack:
    """The objective that the start was trained by, self-supervised, and what scores it."""
    name = network.spec.name
    told = _read_objective(facts.get("recipe", ""))
    if name == "hdr-dsp" and told is None:
        told = {"sharpening": SHARPENING}  # of the published weights
    options = {key: value for key, value in (told or {}).items() if key not in _SUPERVISED}
    scored: Loss | None = None
    if isinstance(samples, BurstCrops):
        least, most = samples.frames
        if name == "dsa":
            options["held_out"] = max(min(options.get("held_out", 1), least // 4), 1)
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


def _make_schedule(iterations: int, seed: int) -> Schedule:
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


def _read_burst(job: Job) -> BurstScene:
    """The frames that are to be restored, as far as they prove their place."""
    burst = read_burst(job.source, job.camera, job.start, job.frames, job.reference)
    if len(burst) == 1:
        return BurstScene(burst)
    flow = align_frames(burst, elevation=_read_terrain(job, burst.grids[0]))
    return BurstScene(burst.select(flow.kept), flow.select(flow.kept))


def _part_burst(job: Job, scene: BurstScene) -> Parted:
    area = find_window(job, scene.grid, _read_terrain(job, scene.grid), _MARGIN)
    return part_burst(scene, area)


def _part_product(job: Job) -> Parted:
    overlaps = []
    for name, stacks in _read_overlaps(job):
        first, other = Overlap.load(stacks, 1).views  # decoded once
        terrain = _read_terrain(job, first.grid)
        try:
            flow = register_overlap((first.stack, other.stack), terrain)
        except BadInputError as error:  # cloud or sea in one is no reason to refuse the others
            warnings.warn(f"{name} is left out: {error}", L1bsrGeoWarning, stacklevel=4)
            continue
        overlaps.append(((first.stack, other.stack), flow))
    if not overlaps:
        raise BadInputError(
            f"{job.source}: in none of its overlaps could all bands be matched, so there is "
            "nothing to learn from"
        )
    return part_overlaps(overlaps)


def _read_overlaps(job: Job) -> Iterator[tuple[str, Stacks]]:
    """What two neighbouring detectors see: of the area, and not more lines than are of use."""
    path = Path(job.source)
    if not path.exists():
        raise MissingInputError(f"{path} is not there; a burst or an L1B product was expected")
    eopf = is_eopf(path)
    if job.sensor == "raster" or not (eopf or path.is_dir() or path.suffix in (".zip", ".xml")):
        raise BadInputError(
            f"{path} is neither a burst nor an L1B product; a network learns from many frames, or "
            "from what two detectors see"
        )
    product: Product | Path = path if eopf else open_product(path)
    there = product.detectors if isinstance(product, Product) else eopf_detectors(path)
    pairs = [(d, d + 1) for d in sorted(there) if d + 1 in there]
    if job.detector is not None:
        pairs = [pair for pair in pairs if job.detector in pair]
    if not pairs:
        alone = f"detector {job.detector}" if job.detector else f"{path}"
        raise BadInputError(
            f"{alone} has no overlap with a neighbouring detector (there are "
            f"{', '.join(map(str, there))}); a network learns from what two detectors see"
        )
    missed: list[L1bsrGeoError] = []
    for left, right in pairs:
        overlap = read_detector_overlap(
            product, left, right, geometry=job.geometry, gipp=job.gipp, height=job.height
        )
        first = BandScene(overlap.left)
        try:
            area = find_window(job, first.grid, _read_terrain(job, first.grid), _MARGIN)
        except BadOptionError as error:  # of this overlap, but perhaps not of the next
            missed.append(error)
            continue
        top = area.row_off + max(area.height - _LINES, 0) // 2
        window = Window(0, top, first.grid.shape[1], min(area.height, _LINES))
        yield (
            f"detectors {left} and {right}",
            (overlap.left.crop(window), overlap.right.crop(window)),
        )
    if len(missed) == len(pairs):
        raise missed[0]


def _read_terrain(job: Job, grid: GeoGrid) -> AnyElevation:
    """As for the result, but no warning where it is assumed: images correct the motion."""
    return ConstantElevation(job.height) if job.dem is None else read_terrain(job, grid)


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

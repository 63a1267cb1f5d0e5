"""From a noisy video to restored frames, one method each; all see 8-bit-like values."""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from typing import Any, TypeAlias, cast

import safetensors.torch
from torch import nn

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.images.videos import Video
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.checkpoint import find_weights
from l1bsr_geo.models.entries import find_entry
from l1bsr_geo.models.identity import hash_restorer
from l1bsr_geo.models.registry import Model
from l1bsr_geo.models.stored import hash_file
from l1bsr_geo.pipelines.denoise_job import DenoiseJob
from l1bsr_geo.restoration.mosaic import MosaicOptions, load_jdd, restore_mosaics
from l1bsr_geo.restoration.noise_level import Noise
from l1bsr_geo.restoration.offline import OfflineOptions, adapt_offline
from l1bsr_geo.restoration.online import F2F_ONLINE, MF2F_ONLINE, restore_online
from l1bsr_geo.restoration.pairs import OwnPairs
from l1bsr_geo.restoration.sequence import Restored, map_noise, restore_video
from l1bsr_geo.training.checkpoints import CHECKPOINT
from l1bsr_geo.training.frame2frame import Frame2FrameObjective
from l1bsr_geo.training.mf2f import MF2FObjective
from l1bsr_geo.training.noise2noise import Noise2NoiseObjective
from l1bsr_geo.training.noise_levels import NoiseLevelTeacher
from l1bsr_geo.training.own_video import OwnVideo
from l1bsr_geo.training.schedule import Schedule
from l1bsr_geo.training.trainer import Trainer

Figures: TypeAlias = Mapping[str, float]
Learning: TypeAlias = Callable[[int, int, Figures], None]

log = logging.getLogger(__name__)

_NETWORKS = {
    "mf2f": "fastdvdnet",
    "fastdvdnet": "fastdvdnet",
    "f2f": "dncnn",
    "n2n": "dncnn",
    "dncnn": "dncnn",
    "m2m": "jdd",
}
_COLOURS = 3  # bands of the networks that are not "-pan"
_LARGE = 640 * 640  # pixels of a frame that is learnt from by crops
_ONLINE_CROP, _OFFLINE_CROP, _PAIR_CROP = 256, 192, 96  # [px]
_PAIR_STEPS = 500


@dataclass(frozen=True)
class Work:
    """What a method is given.

    Attributes:
        job: what was asked.
        video: scaled to what the network takes; white is its gain.
        shots: stretches between cuts.
        network: to begin with; a method may change it.
        start: says what its weights are.
        told: the noise that it is to be told, or None.
        folder: for what is learnt.
        first: the first frame that is not there from an earlier run.
        learning: told of the progress of learning, or None.
    """

    job: DenoiseJob
    video: Video
    shots: tuple[range, ...]
    network: Restorer
    start: str
    told: Noise | None
    folder: Path
    first: int = 0
    learning: Learning | None = None


def load_network(job: DenoiseJob, bands: int) -> tuple[Restorer, str]:
    """The network that a method begins with, and which weights it has.

    Three bands are restored together, any other number band by band by the network of one.

    Raises:
        MissingInputError: there are no weights.
        WeightsError: they are not the network's.
        BadOptionError: the user's network is none that can be used.
    """
    if job.network is not None:
        given: object = job.network
        if not isinstance(given, nn.Module) or not hasattr(given, "spec"):
            raise BadOptionError(
                f"network is a {type(given).__name__}; a torch module with a spec (ModelSpec) was "
                "expected"
            )
        return copy.deepcopy(job.network), hash_restorer(job.network) or "untrained"
    name = _NETWORKS[job.method]
    if name != "jdd" and bands != _COLOURS:
        name += "-pan"
    entry = find_entry(name)
    path = find_weights(
        name, None if job.weights is None else Path(job.weights), entry.weights, None
    )
    log.info("%s begins with %s from %s", job.method, name, path)
    if name == "jdd":
        return load_jdd(path, job.pattern), hash_file(path)
    return entry.load(path, None), hash_file(path)


def least_frames(job: DenoiseJob, network: Restorer) -> int:
    """How many frames a method needs."""
    if job.method in ("mf2f", "f2f"):
        return 2 * _choose_objective(job, network).reach + 1
    return 2 if job.method == "n2n" else max(network.spec.frames[0], 1)


def restore(work: Work) -> Iterator[Restored]:
    """All frames from ``work.first`` on, in order, [DN] of the scaled video.

    Raises:
        L1bsrGeoError: what a user can cause and mend.
    """
    job = work.job
    if job.method == "m2m":
        return _restore_mosaics(work)
    if job.method in ("mf2f", "f2f"):
        if job.mode != "offline":
            return _restore_online(work)
        _adapt_offline(work)
    elif job.method == "n2n":
        _adapt_to_pairs(work)
    return _apply(work)


def _apply(work: Work) -> Iterator[Restored]:
    """The network as it is, in chunks of time and tiles of space."""
    job = work.job
    model = Model.from_restorer(work.network, job.device, job.precision)
    noise = None if work.told is None else map_noise(work.told)
    return restore_video(
        model, work.video, shots=work.shots, noise=noise, tile=job.tile, start=work.first
    )


def _restore_online(work: Work) -> Iterator[Restored]:
    job, objective = work.job, _choose_objective(work.job, work.network)
    options = MF2F_ONLINE if job.method == "mf2f" else F2F_ONLINE
    options = replace(options, seed=job.seed, precision=job.precision)
    if job.iterations is not None:
        first = options.first_steps * job.iterations // options.steps
        options = replace(options, steps=job.iterations, first_steps=first)
    frames = restore_online(
        cast("nn.Module", work.network),
        objective,
        _own_video(work, objective, _ONLINE_CROP),
        work.folder,
        options,
        tile=job.tile,
        **_learning(work),
    )
    return ((t, frame) for t, frame in frames if t >= work.first)


def _adapt_offline(work: Work) -> None:
    job, objective = work.job, _choose_objective(work.job, work.network)
    options = OfflineOptions(seed=job.seed, precision=job.precision)
    if job.iterations is not None:
        taught = min(options.teacher_steps, job.iterations)
        options = replace(options, iterations=job.iterations, teacher_steps=taught)
    adapted = adapt_offline(
        cast("nn.Module", work.network),
        objective,
        _own_video(work, objective, _OFFLINE_CROP),
        work.folder,
        options,
        **_learning(work),
    )
    if adapted.ended == "interrupted":
        raise KeyboardInterrupt
    log.info("learnt in %d iterations (%s)", adapted.iterations, adapted.ended)


def _adapt_to_pairs(work: Work) -> None:
    """Noise2noise: frames of a scene that does not move foretell each other."""
    job = work.job
    steps = job.iterations or _PAIR_STEPS
    schedule = Schedule(
        iterations=steps,
        batch=4,
        lr=1e-4,
        final_lr=1e-5,
        ema=0.98,
        precision=job.precision,
        seed=job.seed,
        validate_every=steps,
        save_every=min(100, steps),
        log_every=min(20, steps),
    )
    trainer = Trainer(
        cast("nn.Module", work.network),
        Noise2NoiseObjective(gain=work.network.spec.gain),
        OwnPairs(work.video, work.shots, job.crop or _PAIR_CROP),
        [],
        schedule,
        work.folder,
        job.device,
        recipe=_recipe(work),
    )
    best = trainer.run(_can_resume(work), progress=work.learning)
    if trainer.ended == "interrupted":
        raise KeyboardInterrupt
    network = cast("nn.Module", work.network)
    network.load_state_dict(safetensors.torch.load_file(best))
    network.eval()


def _restore_mosaics(work: Work) -> Iterator[Restored]:
    job = work.job
    options = MosaicOptions(seed=job.seed)
    if job.iterations is not None:
        options = replace(options, iterations=job.iterations)
    if job.crop is not None:
        options = replace(options, size=job.crop)
    frames = restore_mosaics(
        work.video,
        job.pattern,
        network=work.network,
        peak=work.network.spec.gain,
        options=options,
        folder=work.folder,
        resume=_can_resume(work),
        device=job.device,
        progress=work.learning,
    )
    return ((t, frame) for t, frame in frames if t >= work.first)


def _choose_objective(job: DenoiseJob, network: Restorer) -> MF2FObjective:
    gain = network.spec.gain
    if job.method == "f2f":
        return Frame2FrameObjective(gain=gain)
    return MF2FObjective(gain=gain)


def _choose_teacher(work: Work) -> NoiseLevelTeacher | None:
    if not work.job.teacher:
        return None
    return NoiseLevelTeacher(cast("nn.Module", work.network), work.network.spec.gain)


def _learning(work: Work) -> dict[str, Any]:
    """What learning online and offline are both told."""
    return {
        "teacher": _choose_teacher(work),
        "device": work.job.device,
        "recipe": _recipe(work),
        "resume": _can_resume(work),
        "progress": work.learning,
    }


def _own_video(work: Work, objective: MF2FObjective, crop: int) -> OwnVideo:
    height, width = work.video.shape
    chosen = work.job.crop or (crop if height * width > _LARGE or crop == _OFFLINE_CROP else None)
    return OwnVideo(
        work.video,
        reach=objective.reach,
        targets=objective.targets,
        crop=None if chosen is None else min(chosen, height, width),
        shots=work.shots,
        noise=None if work.told is None else map_noise(work.told),
        full_scale=work.network.spec.gain,
        folder=work.folder / "motion",
    )


def _recipe(work: Work) -> dict[str, Any]:
    return {**work.job.say(), "start": work.start}


def _can_resume(work: Work) -> bool:
    """Whether an earlier run left what can be gone on with; else its folder is emptied."""
    there = any(work.folder.rglob(CHECKPOINT))
    if work.job.resume and there:
        return True
    rmtree(work.folder, ignore_errors=True)
    return False

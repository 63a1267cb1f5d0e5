"""Raw mosaics to colour frames, by a network that adapts itself to every burst of them.

Source: Ehret, Davy, Arias, Facciolo, Joint demosaicking and denoising by fine-tuning of bursts of
raw images, ICCV 2019.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from torch import nn

from l1bsr_geo.errors import BadInputError, BadOptionError, L1bsrGeoWarning
from l1bsr_geo.images.videos import ArrayVideo, ChosenFrames, Video
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.checkpoint import find_weights
from l1bsr_geo.models.entries import find_entry
from l1bsr_geo.models.jdd import JDD
from l1bsr_geo.models.registry import Model
from l1bsr_geo.ops.mosaic import Pattern
from l1bsr_geo.registration.mosaics import align_mosaics
from l1bsr_geo.restoration.sequence import Restored, ScaledVideo, restore_video
from l1bsr_geo.training.checkpoints import CHECKPOINT
from l1bsr_geo.training.finetune import Adaptation, ForetellsHeldBack, HeldBack, adapt
from l1bsr_geo.training.mosaic2mosaic import PEAK, Mosaic2MosaicObjective
from l1bsr_geo.training.own_mosaics import MosaicCrops, hold_back, part_frames
from l1bsr_geo.training.precision import Device
from l1bsr_geo.training.schedule import Precision, Schedule
from l1bsr_geo.training.trainer import Progress

F32 = npt.NDArray[np.float32]

LEAST_FRAMES = 3
"""Of a burst: two to learn from, one that is held back."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MosaicOptions:
    """Numbers of fine-tuning on a burst of mosaics.

    Attributes:
        burst: most frames that are adapted to together; longer videos are parted.
        iterations: of the training, at most.
        lr: learning rate.
        power: of the loss, 1 or 2.
        size: [px] of the crops.
        batch: crops to a step.
        compared: most frames that a crop is compared with.
        seed: of everything random.
        minutes: end the training of a burst after so many.
        precision: of the network while it learns.

    Raises:
        BadOptionError: a number that is impossible.
    """

    burst: int = 15
    iterations: int = 300
    lr: float = 1e-4
    power: Literal[1, 2] = 1
    size: int = 96
    batch: int = 4
    compared: int = 4
    seed: int = 0
    minutes: float | None = None
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        least = {"burst": LEAST_FRAMES, "iterations": 1, "size": 16, "batch": 1, "compared": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise BadOptionError(
                    f"{name}: found {getattr(self, name)}, allowed {bound} or more"
                )

    def schedule(self) -> Schedule:
        """The numbers of the loop."""
        return Schedule(
            iterations=self.iterations,
            batch=self.batch,
            lr=self.lr,
            final_lr=self.lr,  # the average makes up for it, and it may end at any step
            warmup=min(10, self.iterations - 1),
            ema=0.98,
            precision=self.precision,
            seed=self.seed,
            validate_every=20,
            save_every=50,
            log_every=20,
            patience=5,
        )


def restore_mosaics(
    video: Video | npt.NDArray[Any],
    pattern: Pattern = "rggb",
    *,
    peak: float = PEAK,
    weights: str | Path | None = None,
    network: Restorer | None = None,
    shots: Sequence[range] | None = None,
    options: MosaicOptions | None = None,
    folder: Path | None = None,
    resume: bool = False,
    start: int = 0,
    tile: int | None = None,
    device: Device = "auto",
    progress: Progress | None = None,
) -> Iterator[Restored]:
    """Restore a video of raw mosaics, burst by burst; what is learnt is carried to the next.

    A burst whose frames cannot be registered is restored all the same, without learning from it.

    Args:
        video: of one band; or an array (T, H, W).
        pattern: colours of the first two rows of every frame.
        peak: [DN] full scale, which the network is given as 255.
        weights: of ``jdd`` to start from; those that come with the package where None.
        network: to start from instead; changed in place.
        shots: what cuts part, which bursts do not cross; the whole video where None.
        options: numbers; the usual where None.
        folder: for checkpoints, one folder in it for each burst; needed to resume.
        resume: go on from the checkpoints there.
        start: the first frame that is wanted; those before it are learnt from, but not restored.
        tile: largest core of a tile [px]; chosen by the network's halo where None.
        device: ``"auto"`` takes a GPU where there is one.
        progress: told after every iteration.

    Yields:
        Number of the frame, and red, green and blue (3, H, W) [DN], NaN where there are no data.

    Raises:
        BadInputError: several bands.
        BadOptionError: nothing to resume from, or no full scale.
        KeyboardInterrupt: somebody asked to stop; a folder's checkpoints are there.
    """
    video = video if isinstance(video, Video) else ArrayVideo(video)
    options = options or MosaicOptions()
    _check(video, peak, folder, resume)
    network = load_jdd(weights, pattern) if network is None else network
    shots = [range(video.frames)] if shots is None else shots
    bursts = [
        range(shot.start + part.start, shot.start + part.stop)
        for shot in shots
        for part in part_frames(len(shot), options.burst)
    ]
    with ExitStack() as stack:
        place = Path(folder or stack.enter_context(tempfile.TemporaryDirectory()))
        for number, frames in enumerate(bursts):
            scaled = ScaledVideo(ChosenFrames(video, frames), PEAK / peak)
            mosaics = [scaled.read(t)[0] for t in range(len(frames))]
            try:
                samples = part_mosaics(mosaics, options)
            except BadInputError as error:
                warnings.warn(
                    f"frames {frames[0]} to {frames[-1]} are restored without learning from them: "
                    f"{error}",
                    L1bsrGeoWarning,
                    stacklevel=2,
                )
            else:
                where = place / f"burst-{number:03d}"
                again = resume and (where / CHECKPOINT).is_file()
                _adapt(network, samples, where, pattern, options, again, device, progress)
            if frames.stop > start:
                model = Model.from_restorer(network, device=device)
                first = max(start - frames.start, 0)
                for t, colours in restore_video(model, scaled, tile=tile, start=first):
                    yield frames[t], colours * np.float32(peak / PEAK)


def adapt_to_mosaics(
    network: Restorer,
    mosaics: Sequence[F32],
    folder: Path,
    pattern: Pattern = "rggb",
    options: MosaicOptions | None = None,
    *,
    resume: bool = False,
    device: Device = "auto",
    progress: Progress | None = None,
) -> Adaptation:
    """Fine-tune a network on a burst, by what its frames say of each other.

    One frame is held back: it is seen, but its own pixels are never learnt from; they tell when to
    stop and whether what was learnt is kept.

    Args:
        network: demosaicks, trained already; gets what was learnt, or stays as it is.
        mosaics: T frames (height, width) [DN], 255 at most or so, NaN where they have no data.
        folder: gets the files of the training.
        pattern: of all frames.
        options: numbers; the usual where None.
        resume: go on from the folder's checkpoint.
        device: ``"auto"`` takes a GPU where there is one.
        progress: told after every iteration.

    Raises:
        BadInputError: fewer than three frames could be registered, or there is too little to hold
            back.
        KeyboardInterrupt: somebody asked to stop; the folder's checkpoint is there.
    """
    options = options or MosaicOptions()
    samples = part_mosaics(mosaics, options)
    return _adapt(network, samples, folder, pattern, options, resume, device, progress)


def part_mosaics(
    mosaics: Sequence[F32], options: MosaicOptions | None = None
) -> tuple[MosaicCrops, HeldBack]:
    """What is learnt from a burst, and what is held back of it.

    Repeated frames are left out: a frame must not be its own target. So are frames that could not
    be registered.

    Args:
        mosaics: T frames (height, width) [DN].
        options: numbers; the usual where None.

    Raises:
        BadInputError: fewer than three frames are left, or there is too little to hold back.
    """
    options = options or MosaicOptions()
    own = [t for t, mosaic in enumerate(mosaics) if not _is_among(mosaic, mosaics[:t])]
    if len(own) < LEAST_FRAMES:
        raise BadInputError(
            f"{len(mosaics)} mosaics, of which {len(mosaics) - len(own)} repeat others; "
            f"{LEAST_FRAMES} different ones are needed"
        )
    flow = align_mosaics([mosaics[t] for t in own])
    for k, reason in flow.rejected.items():
        _log.info("mosaic %d is not learnt from: %s", own[k], reason)
    if len(flow.kept) < LEAST_FRAMES:
        reasons = "; ".join(f"mosaic {own[k]}: {why}" for k, why in flow.rejected.items())
        raise BadInputError(
            f"only {len(flow.kept)} of {len(own)} mosaics could be registered, {LEAST_FRAMES} are "
            f"needed ({reasons})"
        )
    kept = [mosaics[own[k]] for k in flow.kept]
    held = 3 * len(kept) // 4
    learnt = [t for t in range(len(kept)) if t != held]
    crops = MosaicCrops(kept, flow.select(flow.kept), learnt, options.size, options.compared)
    return crops, hold_back(crops, held)


def load_jdd(weights: str | Path | None = None, pattern: Pattern = "rggb") -> Restorer:
    """The network for a pattern.

    Args:
        weights: a file; those that come with the package where None.
        pattern: of the mosaics that it is given.

    Raises:
        MissingInputError: there are no weights.
        WeightsError: they are not this network's.
    """
    entry = find_entry("jdd")
    network = entry.load(find_weights("jdd", weights, entry.weights))
    cast("JDD", network).pattern = pattern
    return network


def _adapt(
    network: Restorer,
    samples: tuple[MosaicCrops, HeldBack],
    folder: Path,
    pattern: Pattern,
    options: MosaicOptions,
    resume: bool,
    device: Device,
    progress: Progress | None,
) -> Adaptation:
    objective = Mosaic2MosaicObjective(power=options.power, pattern=pattern, gain=network.spec.gain)
    adaptation = adapt(
        cast("nn.Module", network),
        ForetellsHeldBack(objective, replace(objective, occlusions=False)),
        *samples,
        options.schedule(),
        folder,
        device=device,
        resume=resume,
        minutes=options.minutes,
        progress=progress,
    )
    if adaptation.ended == "interrupted":
        raise KeyboardInterrupt
    return adaptation


def _is_among(mosaic: F32, others: Sequence[F32]) -> bool:
    return any(np.array_equal(mosaic, other, equal_nan=True) for other in others)


def _check(video: Video, peak: float, folder: Path | None, resume: bool) -> None:
    if len(video.bands) != 1:
        raise BadInputError(
            f"the video has {len(video.bands)} bands ({', '.join(video.bands)}); raw mosaics have "
            "one: choose another method for frames that have colours already"
        )
    if not peak > 0:
        raise BadOptionError(f"peak: found {peak:g}, allowed are values above 0")
    if resume and folder is None:
        raise BadOptionError("resume: found no folder of checkpoints; name the one of before")

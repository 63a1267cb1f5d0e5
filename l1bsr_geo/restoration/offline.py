"""Adapting a network to a noisy video as a whole, and then restoring it in one pass.

Some windows are held back. Their noise is independent of what the network sees, so what foretells
them better is nearer to the truth: they tell when to stop, and which weights are the best.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
from torch import nn

from l1bsr_geo.errors import MissingInputError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.models.registry import Model
from l1bsr_geo.restoration.sequence import Restored, restore_video
from l1bsr_geo.training.checkpoints import CHECKPOINT
from l1bsr_geo.training.finetune import thin
from l1bsr_geo.training.log import read_log
from l1bsr_geo.training.mf2f import MF2FObjective
from l1bsr_geo.training.noise_levels import BETAS, NoiseLevelTeacher, choose_teacher_schedule
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.own_video import OwnVideo
from l1bsr_geo.training.precision import Device
from l1bsr_geo.training.schedule import Precision, Schedule
from l1bsr_geo.training.trainer import Progress, Trainer

_ENOUGH = 12  # windows, for some to be held back
_SHARE = 5  # one window of so many is held back
_MOST = 8  # held back
_LARGER = 2  # what is held back is so much wider than a crop


@dataclass(frozen=True, kw_only=True)
class OfflineOptions:
    """Numbers of learning offline.

    Attributes:
        iterations: steps of the optimiser, at most.
        batch: samples to a step. Crops should be much wider than the network's halo: at 96 px, box
            noise, the end was 0.3 dB behind what whole frames teach online.
        lr: learning rate; for that of the paper, 1e-5, see ``online.MF2F_ONLINE``.
        final_lr: the last one, a share of ``lr``; a cosine leads there.
        ema: decay of the average of the weights, which is what restores.
        validate_every: steps between two looks at what is held back.
        patience: looks without gain after which learning ends.
        teacher_steps: of the teacher, before; all of the network's where None.
        teacher_lr: of the teacher's noise levels.
        seed: of everything random.
        precision: of the network while it learns.
    """

    iterations: int = 1000
    batch: int = 2
    lr: float = 2e-4
    final_lr: float = 0.1
    ema: float = 0.95
    validate_every: int = 50
    patience: int = 4
    teacher_steps: int = 60
    teacher_lr: float = 8e-3
    seed: int = 0
    precision: Precision = "auto"


@dataclass(frozen=True)
class Adapted:
    """What learning came to.

    Attributes:
        iteration: the one whose weights were kept; 0 are those of the start.
        iterations: that were done.
        ended: why: "done", "no gain", "minutes" or "interrupted".
        gain: by how much what is held back is foretold better, as a share of the start's loss;
            None where nothing is held back.
    """

    iteration: int
    iterations: int
    ended: str
    gain: float | None


def restore_offline(
    network: nn.Module,
    objective: MF2FObjective,
    source: OwnVideo,
    folder: Path,
    options: OfflineOptions | None = None,
    **others: Any,
) -> Iterator[Restored]:
    """Adapt a network to a video (`adapt_offline`), then restore all frames in order.

    Raises:
        L1bsrGeoError: as `adapt_offline`.
        KeyboardInterrupt: learning was interrupted; it can be resumed.
    """
    adapted = adapt_offline(network, objective, source, folder, options, **others)
    if adapted.ended == "interrupted":
        raise KeyboardInterrupt
    model = Model.from_restorer(cast("Restorer", network), others.get("device", "auto"))
    yield from restore_video(model, source.video, shots=source.shots, noise=source.noise)


def adapt_offline(
    network: nn.Module,
    objective: MF2FObjective,
    source: OwnVideo,
    folder: Path,
    options: OfflineOptions | None = None,
    *,
    teacher: NoiseLevelTeacher | None = None,
    device: Device = "auto",
    recipe: Mapping[str, Any] | None = None,
    resume: bool = False,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Adapted:
    """Let a network learn from a whole video.

    Args:
        network: trained already; gets what was learnt, the start where that is better.
        objective: `MF2FObjective` or `Frame2FrameObjective`.
        source: of the video.
        folder: of the training: log, checkpoints and weights.
        options: numbers.
        teacher: where given, learns first, and teaches what is hidden.
        device: ``"auto"`` takes a GPU where there is one.
        recipe: what must be alike when it is resumed: the video, the start.
        resume: go on from the folder's checkpoint.
        minutes: end after so many.
        progress: told after every iteration.

    Raises:
        L1bsrGeoError: as ``Trainer.run``.
    """
    options = options or OfflineOptions()
    told = {**(recipe or {}), "offline": asdict(options), "teacher": teacher is not None}
    learnt, held_back = part_windows(source, options.seed)
    if resume and not any((f / CHECKPOINT).is_file() for f in (folder, folder / "teacher")):
        raise MissingInputError(f"{folder}: no training to resume there; start it without resume")
    if teacher is not None:
        schedule = choose_teacher_schedule(
            options.teacher_steps,
            options.seed,
            options.teacher_lr,
            options.batch,
            options.precision,
        )
        guide = Trainer(
            teacher, objective, learnt, [], schedule, folder / "teacher", device, recipe=told,
            betas=BETAS,
        )  # fmt: skip
        guide.run(resume and (folder / "teacher" / CHECKPOINT).is_file(), minutes, progress)
        teacher.eval()
        if guide.ended != "done":
            return Adapted(0, 0, guide.ended, None)
        objective = replace(objective, teacher=teacher, teach_natural=True)
    schedule = choose_offline_schedule(options)
    pupil = Trainer(network, objective, learnt, held_back, schedule, folder, device, recipe=told)
    best = pupil.run(resume and (folder / CHECKPOINT).is_file(), minutes, progress)
    network.load_state_dict(safetensors.torch.load_file(best))
    network.eval()
    return _describe(pupil, folder)


def part_windows(source: OwnVideo, seed: int = 0) -> tuple[OwnVideo, list[Batch]]:
    """What is learnt from, and windows that are held back of it, evenly in time.

    Where there are few windows nothing is held back. Held back are crops at random places, larger
    than those that are learnt from.
    """
    if len(source.times) < _ENOUGH:
        return source, []
    held = thin(source.times[_SHARE // 2 :: _SHARE], _MOST)
    rng = np.random.default_rng([seed, 3])
    batches = [source.window(t, _place(source, rng)) for t in held]
    return source.at(t for t in source.times if t not in held), batches


def choose_offline_schedule(options: OfflineOptions) -> Schedule:
    """The numbers of a training offline."""
    return Schedule(
        iterations=options.iterations,
        batch=options.batch,
        lr=options.lr,
        final_lr=options.final_lr * options.lr,
        clip=None,
        ema=options.ema,
        precision=options.precision,
        seed=options.seed,
        validate_every=options.validate_every,
        save_every=options.validate_every,
        log_every=min(options.validate_every, 10),
        patience=options.patience,
    )


def _place(source: OwnVideo, rng: np.random.Generator) -> Window | None:
    if source.crop is None:
        return None
    height, width = (min(_LARGER * source.crop, n) for n in source.video.shape)
    top = int(rng.integers(source.video.shape[0] - height + 1))
    left = int(rng.integers(source.video.shape[1] - width + 1))
    return Window(left, top, width, height)


def _describe(trainer: Trainer, folder: Path) -> Adapted:
    state, gain = trainer.state, None
    if state.best is not None:
        start = read_log(folder)[0]["figures"]["score"]
        gain = (state.best - start) / abs(start)
    kept = state.best_iteration if state.best is not None else state.iteration
    return Adapted(kept, state.iteration, trainer.ended, gain)

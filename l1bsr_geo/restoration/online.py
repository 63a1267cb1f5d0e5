"""Adapting a network to a noisy video while it is restored, frame after frame.

Some frames come, the network makes a few steps on them, restores them and goes on to the next with
what it has learnt. A frame is looked at once; the delay is that of the stack.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.models.base import Restorer
from l1bsr_geo.restoration.sequence import F32, Restored
from l1bsr_geo.tiling.plan import TilePlan
from l1bsr_geo.training.mf2f import MF2FObjective
from l1bsr_geo.training.noise_levels import BETAS, NoiseLevelTeacher, choose_teacher_schedule
from l1bsr_geo.training.objective import Batch
from l1bsr_geo.training.own_video import OwnVideo
from l1bsr_geo.training.precision import Device
from l1bsr_geo.training.schedule import Precision, Schedule
from l1bsr_geo.training.trainer import Progress, Trainer


@dataclass(frozen=True, kw_only=True)
class OnlineOptions:
    """Numbers of learning online.

    Attributes:
        steps: of the optimiser on every group of frames.
        first_steps: on the first group, from which all others begin.
        group: frames that are learnt from together.
        batch: samples to a step, where the video is cropped; else the group.
        lr: learning rate.
        teacher_lr: of the teacher's noise levels.
        seed: of everything random.
        precision: of the network while it learns.

    Raises:
        BadOptionError: a number that is impossible.
    """

    steps: int = 20
    first_steps: int = 60
    group: int = 2
    batch: int = 2
    lr: float = 2e-4
    teacher_lr: float = 8e-3
    seed: int = 0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "first_steps", "group", "batch"):
            if getattr(self, name) < 1:
                raise BadOptionError(f"{name}: found {getattr(self, name)}, allowed 1 or more")


MF2F_ONLINE = OnlineOptions()
"""The paper's rate, 1e-5, is for its network of 2.5 million weights; one of a quarter of them, on
small frames, has learnt half as much with it, and the same between 1e-4 and 3e-4."""
F2F_ONLINE = OnlineOptions(first_steps=20, group=1, batch=1, lr=5e-5)
"""As published."""


@dataclass(frozen=True)
class Group:
    """Frames that are learnt from together in so many steps, and those that are restored then."""

    learnt: tuple[int, ...]
    restored: tuple[int, ...]
    steps: int


def restore_online(
    network: nn.Module,
    objective: MF2FObjective,
    source: OwnVideo,
    folder: Path,
    options: OnlineOptions = MF2F_ONLINE,
    *,
    teacher: NoiseLevelTeacher | None = None,
    device: Device = "auto",
    recipe: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    tile: int | None = None,
) -> Iterator[Restored]:
    """Restore a video in order, learning from it on the way.

    Frames at the ends of a shot, around which no window fits, are restored by the network as it is
    after the first or the last group of their shot. A group is checkpointed when the frame after it
    is asked for.

    Args:
        network: trained already; changed in place.
        objective: `MF2FObjective` or `Frame2FrameObjective`.
        source: of the video.
        folder: of the training: log, checkpoint, and the weights of the end.
        options: numbers.
        teacher: where given, learns from every group first, and teaches what is hidden.
        device: ``"auto"`` takes a GPU where there is one.
        recipe: what must be alike when it is resumed: the video, the start.
        resume: go on behind the last group that a run before was done with.
        progress: told after every group.
        tile: largest core of the tiles that frames are restored in [px].

    Yields:
        Every frame of every shot once, in order; those of groups that were done with come no more
        when it is resumed.

    Raises:
        L1bsrGeoError: as ``Trainer.run``.
    """
    groups = group_frames(source, options)
    total = sum(group.steps for group in groups)
    told = {**(recipe or {}), "online": asdict(options), "teacher": teacher is not None}
    learners = []
    if teacher is not None:  # first: what the network learns from a group is taught by one that has
        schedule = choose_teacher_schedule(
            total, options.seed, options.teacher_lr, options.batch, options.precision
        )
        rest = folder / "teacher", device, None, told, "", False, BETAS
        learners.append(Trainer(teacher, objective, source, [], schedule, *rest))
        objective = replace(objective, teacher=teacher)
    schedule = choose_online_schedule(options, total)
    pupil = Trainer(network, objective, source, [], schedule, folder, device, recipe=told)
    learners.append(pupil)
    for learner in learners:
        learner.begin(resume)
        if not resume:
            learner.save()
    done, before = 0, pupil.state.iteration
    for group in groups:
        done += group.steps
        if done < before or (group.learnt and done == before):
            continue
        samples = source.at(group.learnt)
        for learner in learners if group.learnt else []:
            if learner.state.iteration < done:  # a teacher may be one group ahead after a crash
                loss = learner.learn(samples, group.steps)
            if teacher is not None:
                teacher.eval()
        if group.learnt and progress is not None:
            progress(done, total, {"loss": loss})
        for t in group.restored:
            yield t, restore_frame(network, objective, source, t, tile)
        for learner in learners:
            learner.save()
    for learner in learners:
        learner.end()


def group_frames(source: OwnVideo, options: OnlineOptions) -> list[Group]:
    """The groups of a video in order; a shot that is too short for a window teaches nothing."""
    groups: list[Group] = []
    size, next_steps = options.group, options.first_steps
    for shot in source.shots:
        times = [t for t in source.times if t in shot]
        learnt = [tuple(times[k : k + size]) for k in range(0, len(times), size)] or [()]
        ends = [*(part[0] for part in learnt[1:]), shot.stop]
        starts = [shot.start, *ends[:-1]]
        # frames at the ends of the shot come with the nearest group
        for part, start, end in zip(learnt, starts, ends, strict=True):
            groups.append(Group(part, tuple(range(start, end)), next_steps if part else 0))
            next_steps = options.steps if part else next_steps
    return groups


def restore_frame(
    network: nn.Module,
    objective: MF2FObjective,
    source: OwnVideo,
    t: int,
    tile: int | None = None,
) -> F32:
    """One frame by the network as it is, from the natural stack: (C, H, W) [DN].

    Args:
        network: a restorer.
        objective: knows the stack.
        source: of the video.
        t: the frame.
        tile: largest core of a tile [px]; chosen by the network's halo where None.
    """
    device = next(network.parameters()).device
    frame = source.frame(t)
    restored: F32 = np.empty_like(frame)
    for part in TilePlan.for_model(cast("Restorer", network).spec, source.video.shape, size=tile):
        views = torch.from_numpy(source.stack(t, objective.natural, part.read))[None]
        batch = Batch(views, noise=source.map_noise(t, part.read)).to(device)
        with torch.no_grad():
            found = objective.restore(network.eval(), batch)[0].cpu().numpy()
        restored[:, *part.core.slices] = found[:, *part.crop.slices]
    restored[~np.isfinite(frame)] = np.nan
    return restored


def choose_online_schedule(options: OnlineOptions, total: int) -> Schedule:
    """The numbers of a training online, whose rate is constant."""
    total = max(total, 1)
    return Schedule(
        iterations=total,
        batch=options.batch,
        lr=options.lr,
        final_lr=options.lr,
        clip=None,
        ema=0,
        precision=options.precision,
        seed=options.seed,
        validate_every=total,
        save_every=total,
        log_every=options.steps,
    )

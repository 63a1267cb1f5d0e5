"""The one training loop, for every method.

Everything random is seeded by (seed, iteration): a training that was stopped and resumed gives the
weights and the log of one that was not. On a CPU that is so to the last bit; on a GPU some sums
have no fixed order.
"""

import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.training.averaging import AveragedNetwork
from l1bsr_geo.training.checkpoints import (
    CHECKPOINT,
    Learner,
    RunState,
    check_folder,
    write_weights,
)
from l1bsr_geo.training.log import RunLog
from l1bsr_geo.training.objective import (
    Batch,
    Figures,
    Objective,
    ScheduledObjective,
    Source,
)
from l1bsr_geo.training.precision import (
    Device,
    computing,
    name_hardware,
    pick_device,
    pick_precision,
)
from l1bsr_geo.training.prefetch import draw_ahead
from l1bsr_geo.training.schedule import Schedule

Progress: TypeAlias = Callable[[int, int, Figures], None]
"""Called with iterations done, iterations in all, and the newest "loss" and best "score"."""

_BETAS = (0.9, 0.999)

_log = logging.getLogger(__name__)


class Trainer:
    """Trains a network with one objective, in a folder.

    The folder gets ``best.safetensors`` (averaged weights of the best validation),
    ``last.safetensors``, ``checkpoint.pt`` and ``log.jsonl``.

    Args:
        network: trained in place.
        objective: the method.
        source: of training samples.
        validation: what is scored, batch by batch; where empty, the newest weights are the best.
        schedule: numbers.
        folder: of this training; made where missing.
        device: ``"auto"`` takes a GPU where there is one.
        facts: written into the weights files.
        recipe: what else, beside the schedule, must be alike when a training is resumed.
        part: name of the submodule whose weights are written; all where empty.
        tensorboard: log for TensorBoard, too.
        betas: of Adam.

    Attributes:
        state: where the training is: iteration, best score, seconds.
        ended: why the last ``run`` ended: "done", "no gain", "minutes" or "interrupted".
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        source: Source,
        validation: Sequence[Batch],
        schedule: Schedule,
        folder: Path,
        device: Device = "auto",
        facts: Mapping[str, str] | None = None,
        recipe: Mapping[str, Any] | None = None,
        part: str = "",
        tensorboard: bool = False,
        betas: tuple[float, float] = _BETAS,
    ) -> None:
        self.device = pick_device(device)
        self.precision = pick_precision(schedule.precision, self.device)
        if getattr(network, "full_precision", False):  # half the bits would be no sub-pixel
            self.precision = "fp32"
        self.state = RunState()
        self.ended = ""
        self._objective, self._source, self._validation = objective, source, validation
        self._schedule, self._folder = schedule, Path(folder)
        self._facts, self._part, self._tensorboard = dict(facts or {}), part, tensorboard
        fixed = {name: v for name, v in asdict(schedule).items() if name != "save_every"}
        self._recipe = {**(recipe or {}), "schedule": fixed}
        if betas != _BETAS:
            self._recipe["betas"] = list(betas)
        groups = schedule.groups(network)
        network.to(self.device).requires_grad_(False)
        for parameter in network.parameters():  # as convolutions like it best
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        for parameter in (p for group in groups.values() for p in group):
            parameter.requires_grad_(True)
        optimiser = torch.optim.Adam(
            [{"params": v, "factor": factor} for factor, v in groups.items()],
            lr=schedule.lr,
            betas=betas,
        )
        average = AveragedNetwork(network, schedule.ema)
        self._learner = Learner(network, average, optimiser, self.state)

    def run(
        self,
        resume: bool = False,
        minutes: float | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Train to the end of the schedule, or until it is stopped.

        Ctrl-C (SIGTERM too) ends after the iteration it meets, with a checkpoint; a second one
        ends at once.

        Args:
            resume: go on from the folder's checkpoint.
            minutes: end after so many, with a checkpoint.
            progress: told after every iteration.

        Returns:
            The best weights.

        Raises:
            OutputExistsError: the folder holds a training and ``resume`` was not asked for.
            MissingInputError: there is nothing to resume.
            BadOptionError: the folder's training has another recipe.
            BadInputError: the loss or its gradient is not finite.
        """
        self.begin(resume)
        total, state = self._schedule.iterations, self.state
        before, start = state.seconds, time.monotonic()
        newest: dict[str, float] = {}
        self.ended = "done"
        with (
            _asked_to_stop() as stop,
            torch.random.fork_rng(self._cuda_devices()),
            RunLog(self._folder, state.iteration, self._tensorboard) as log,
            closing(draw_ahead(self._draw, state.iteration + 1, total)) as batches,
            computing(self._learner.network, self.precision, self.device),
        ):
            if state.iteration == 0:
                self._validate(log)
            while state.iteration < total:
                if self._out_of_patience():
                    self.ended = "no gain"
                elif stop.is_set():
                    self.ended = "interrupted"
                elif minutes is not None and time.monotonic() - start >= 60 * minutes:
                    self.ended = "minutes"
                if self.ended != "done":
                    break
                newest["loss"] = self._step(next(batches))
                state.seconds = before + time.monotonic() - start
                self._after_step(log)
                state.seconds = before + time.monotonic() - start
                if state.iteration % self._schedule.save_every == 0:
                    self.save()
                if state.best is not None:
                    newest["score"] = state.best
                if progress is not None:
                    progress(state.iteration, total, newest)
        return self.end()

    def learn(self, samples: Batch | Source, steps: int) -> float:
        """Make steps on samples that are at hand: the online way, between `begin` and `end`.

        Weights, optimiser and iteration go on from call to call; the log is that of `run`, a
        checkpoint is the caller's to `save`. The rate is the schedule's, constant where its
        ``final_lr`` is ``lr``.

        Args:
            samples: for all the steps, or where those of each step are drawn from.
            steps: of the optimiser.

        Returns:
            The loss before the last step.

        Raises:
            BadOptionError: the schedule has not so many iterations left.
            BadInputError: the loss or its gradient is not finite.
        """
        state, total = self.state, self._schedule.iterations
        if not 1 <= steps <= total - state.iteration:
            raise BadOptionError(
                f"steps: found {steps} after iteration {state.iteration} of {total}, allowed 1 to "
                "those left; give the schedule more iterations"
            )
        before, start = state.seconds, time.monotonic()
        loss = math.nan
        with (
            torch.random.fork_rng(self._cuda_devices()),
            RunLog(self._folder, state.iteration, self._tensorboard) as log,
            computing(self._learner.network, self.precision, self.device),
        ):
            for _ in range(steps):
                if isinstance(samples, Batch):
                    batch = samples
                else:
                    batch = self._draw(state.iteration + 1, samples)
                loss = self._step(batch)
                state.seconds = before + time.monotonic() - start
                self._after_step(log)
        return loss

    def begin(self, resume: bool = False) -> None:
        """Open the folder, and go back to its checkpoint where resuming; `run` does so itself.

        Raises:
            L1bsrGeoError: as `run`.
        """
        hardware = f"{name_hardware(self.device)} {self.precision}"
        check_folder(self._folder, resume)
        if resume:
            self._learner.load(self._folder, self._recipe, self.device)
        self._folder.mkdir(parents=True, exist_ok=True)
        if hardware not in self.state.hardware.split(" then "):
            self.state.hardware = " then ".join(filter(None, [self.state.hardware, hardware]))

    def save(self) -> None:
        """Write a checkpoint."""
        self._learner.save(self._folder, self._recipe)

    def end(self) -> Path:
        """Write checkpoint and weights, and give the best; `run` does so itself."""
        self.save()
        self._write("last.safetensors", {})
        if not self._validation:
            self._write("best.safetensors", {})
        if self.ended == "interrupted":
            _log.warning(
                "interrupted after iteration %d; %s is saved, resume goes on from there",
                self.state.iteration,
                self._folder / CHECKPOINT,
            )
        return self._folder / "best.safetensors"

    def _draw(self, iteration: int, source: Source | None = None) -> Batch:
        rng = np.random.default_rng([self._schedule.seed, iteration])
        return (source or self._source).draw(rng, self._schedule.batch)

    def _step(self, batch: Batch) -> float:
        """One step of the optimiser; gives the loss."""
        schedule, state = self._schedule, self.state
        network, optimiser = self._learner.network.train(), self._learner.optimiser
        iteration = state.iteration + 1
        # 1 and 2 keep the streams of method and torch apart from the source's
        rng = np.random.default_rng([schedule.seed, iteration, 1])
        torch.manual_seed(int(np.random.default_rng([schedule.seed, iteration, 2]).integers(2**62)))
        optimiser.zero_grad()
        objective = self._objective
        if isinstance(objective, ScheduledObjective):
            objective = objective.at(state.iteration / schedule.iterations)
        loss, parts = objective.loss(network, batch.to(self.device), rng)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(
            (p for group in optimiser.param_groups for p in group["params"]),
            schedule.clip or math.inf,
        )
        numbers = torch.stack([loss.detach(), norm.to(loss)]).tolist()  # one wait for the device
        if not all(map(math.isfinite, numbers)):
            raise BadInputError(
                f"iteration {iteration}: the loss is {numbers[0]:g} and the norm of its gradient "
                f"{numbers[1]:g}; no step was made; look for pixels that are not finite, or train "
                "with a lower lr, with clip, or in fp32"
            )
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(iteration) * group["factor"]
        optimiser.step()
        self._learner.average.add(network, iteration)
        state.iteration = iteration
        named = {"loss": numbers[0], "gradient": numbers[1], "number": 1.0}
        named |= {f"parts.{name}": float(torch.as_tensor(v).detach()) for name, v in parts.items()}
        for name, value in named.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
        return float(numbers[0])

    def _after_step(self, log: RunLog) -> None:
        schedule, state = self._schedule, self.state
        iteration = state.iteration
        if iteration % schedule.log_every == 0 or iteration == schedule.iterations:
            number = state.sums.pop("number")
            means = {name: value / number for name, value in state.sums.items()}
            state.sums.clear()
            line: dict[str, Any] = {name: means[name] for name in ("loss", "gradient")}
            starts = "parts."
            line["parts"] = {k.removeprefix(starts): v for k, v in means.items() if starts in k}
            line |= {"lr": schedule.rate(iteration), "seconds": round(state.seconds, 3)}
            log.write(iteration, line)
        if iteration % schedule.validate_every == 0 or iteration == schedule.iterations:
            self._validate(log)

    def _validate(self, log: RunLog) -> None:
        state = self.state
        if not self._validation:
            self._write("best.safetensors", {})
            return
        figures = self._score()
        score = figures["score"]
        gained = math.isfinite(score) and (state.best is None or score > state.best)
        log.write(state.iteration, {"figures": figures, "seconds": round(state.seconds, 3)})
        if gained:
            state.best, state.best_iteration, state.since_gain = score, state.iteration, 0
        elif state.iteration:
            state.since_gain += 1
        if gained or not state.iteration:
            self._write("best.safetensors", figures)

    def _score(self) -> dict[str, float]:
        """Figures of the averaged weights, averaged over samples."""
        sums: dict[str, float] = {}
        count = 0
        with torch.inference_mode():
            for batch in self._validation:
                size = len(batch.views)
                count += size
                figures = self._objective.score(
                    self._learner.average.network, batch.to(self.device)
                )
                for name, value in figures.items():
                    sums[name] = sums.get(name, 0.0) + size * float(value)
        return {name: value / count for name, value in sums.items()}

    def _write(self, name: str, figures: Figures) -> None:
        state = self.state
        facts = {
            "iterations": str(state.iteration),
            "seconds": f"{state.seconds:.0f}",
            "hardware": state.hardware,
            "torch": torch.__version__,
            "seed": str(self._schedule.seed),
        }
        if figures:
            facts |= {"score": f"{figures['score']:.6g}", "figures": json.dumps(figures)}
        network = self._learner.average.network.get_submodule(self._part)
        write_weights(self._folder / name, network, self._facts | facts)

    def _out_of_patience(self) -> bool:
        patience = self._schedule.patience
        return patience is not None and self.state.since_gain >= patience

    def _cuda_devices(self) -> list[torch.device]:
        return [self.device] if self.device.type == "cuda" else []


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Whether a person or the system asked to stop; a second time raises at once."""
    stop = threading.Event()

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals reach the main thread only
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Fine-tuning to a scene that is to be restored: when to stop, and whether it was worth it.

There is no truth, but there are observations that are kept from the training. Their noise is
independent of all that the network sees, so what foretells them better is nearer to the truth. They
are parted in two: those of some places tell when to stop, those of other places decide, once, at
the end. The decision compares place by place with the start, so that neither the noise of the
observations nor what is difficult about a place counts, and what was chosen by chance is found out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from scipy import stats
from torch import Tensor, nn

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.training.objective import Batch, Example, Figures, Objective, Source
from l1bsr_geo.training.precision import Device, pick_device
from l1bsr_geo.training.schedule import Schedule
from l1bsr_geo.training.trainer import Progress, Trainer

F64 = npt.NDArray[np.float64]
T = TypeVar("T")

FEW_PLACES, MOST_PLACES = 16, 48
"""That are held back: where a scene is small they are made smaller so that there are as many as the
first, where it is large more than the last take longer and hardly say more."""

_ENOUGH = 4  # places to decide by, at least
_CHANCE = float(stats.norm.sf(2))  # that two standard errors are exceeded by chance


@dataclass(frozen=True)
class HeldBack:
    """Observations that are not trained on, of places that do not share pixels, on the CPU.

    Attributes:
        stop: tell when to stop.
        decide: tell whether what was learnt is kept.
    """

    stop: Sequence[Batch]
    decide: Sequence[Batch]

    @classmethod
    def of(cls, places: Sequence[Batch]) -> "HeldBack":
        """One place in three tells when to stop; they lie between the others.

        Args:
            places: in order.

        Raises:
            BadInputError: there are too few to decide.
        """
        decide = [place for k, place in enumerate(places) if k % 3 != 1]
        if len(decide) < _ENOUGH:
            raise BadInputError(
                f"only {len(places)} places without gaps can be held back, too few to judge by "
                "what is learnt; give a larger area, more lines or more frames of the same ground"
            )
        return cls(places[1::3], decide)


@dataclass(frozen=True)
class Gain:
    """By how much held-back observations are foretold better, as a share of the start's loss.

    Attributes:
        mean: over the places.
        error: standard error of the mean, by the differences between the places; infinite for one.
        places: how many.
    """

    mean: float
    error: float
    places: int

    @classmethod
    def of(cls, before: F64, after: F64) -> "Gain":
        """From the losses of each place, with the start and with what was learnt."""
        gained = (before - after) / before.mean()
        error = gained.std(ddof=1) / np.sqrt(len(gained)) if len(gained) > 1 else np.inf
        return cls(float(gained.mean()), float(error), len(gained))

    @property
    def significant(self) -> bool:
        """Beyond two standard errors, or as unlikely by chance where places are few (Student)."""
        if self.places < 2 or not self.mean > 0:
            return False
        return self.mean > float(stats.t.isf(_CHANCE, self.places - 1)) * self.error


@dataclass(frozen=True)
class Adaptation:
    """What fine-tuning came to.

    Attributes:
        kept: whether the network has what was learnt; else it has its start.
        gain: what was learnt, on places that chose nothing.
        iteration: the one whose weights were judged.
        iterations: that were done.
        ended: why: "done", "no gain", "minutes" or "interrupted".
    """

    kept: bool
    gain: Gain
    iteration: int
    iterations: int
    ended: str


class Loss(Protocol):
    """The part of an objective that scores what is held back."""

    def loss(
        self, network: nn.Module, batch: Batch, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """See `Objective`."""
        ...


@dataclass(frozen=True)
class ForetellsHeldBack:
    """An objective whose score is minus a loss on what was held back.

    Attributes:
        learnt: the method's: is minimised.
        scored: what decides, with the network as it will be used.
    """

    learnt: Objective
    scored: Loss

    def hold_out(self, batch: Batch, rng: np.random.Generator) -> Example:
        """As what is minimised."""
        return self.learnt.hold_out(batch, rng)

    def observe(self, restored: Tensor, example: Example) -> Tensor:
        """As what is minimised."""
        return self.learnt.observe(restored, example)

    def loss(
        self, network: nn.Module, batch: Batch, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """What is minimised."""
        return self.learnt.loss(network, batch, rng)

    def score(self, network: nn.Module, batch: Batch) -> Figures:
        """Minus the loss; what may be random about it is always the same."""
        with torch.inference_mode():
            loss, _ = self.scored.loss(network, batch, np.random.default_rng(0))
        return {"score": -float(loss)}


def thin(things: Sequence[T], most: int) -> list[T]:
    """Some of many things, evenly."""
    if len(things) <= most:
        return list(things)
    return [things[k] for k in np.linspace(0, len(things) - 1, most).round().astype(int)]


def adapt(
    network: nn.Module,
    objective: ForetellsHeldBack,
    source: Source,
    held_back: HeldBack,
    schedule: Schedule,
    folder: Path,
    *,
    device: Device = "auto",
    facts: Mapping[str, str] | None = None,
    resume: bool = False,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Adaptation:
    """Train a network on a scene until that gains nothing more, and keep it only where it gained.

    Args:
        network: trained already; gets what was learnt, or stays as it is. Comes back on the CPU.
        objective: the method's.
        source: of the scene, without what is held back.
        held_back: of the same scene.
        schedule: its ``patience`` is the automatic stop.
        folder: gets the files of the training; empty, unless it is resumed.
        device: ``"auto"`` takes a GPU where there is one.
        facts: for the weights files.
        resume: go on from the folder's checkpoint; the network is the start all the same.
        minutes: end after so many.
        progress: told after every iteration.

    Raises:
        L1bsrGeoError: see ``Trainer.run``.
    """
    there = pick_device(device)
    start = {name: v.detach().cpu().clone() for name, v in network.state_dict().items()}
    before = measure(network.to(there), objective, held_back.decide, there)
    trainer = Trainer(network, objective, source, held_back.stop, schedule, folder, device, facts)
    best = trainer.run(resume, minutes, progress)
    network.load_state_dict(safetensors.torch.load_file(best))
    network.eval().requires_grad_(False)
    gain = Gain.of(before, measure(network, objective, held_back.decide, there))
    network.cpu()
    if not gain.significant:
        network.load_state_dict(start)
    state = trainer.state
    return Adaptation(gain.significant, gain, state.best_iteration, state.iteration, trainer.ended)


def measure(
    network: nn.Module, objective: Objective, places: Sequence[Batch], device: torch.device
) -> F64:
    """What a network loses at each place, by its score."""
    network.eval()
    scores = [objective.score(network, place.to(device))["score"] for place in places]
    return -np.array(scores)

"""ACT's parameters, chosen on validation bursts, never on those that figures are reported for."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.models.act import ACT
from l1bsr_geo.training.burst_loss import COUNTS, score_frames
from l1bsr_geo.training.objective import Figures, Source

NOISES = (8.0, 12.0, 16.0, 24.0, 32.0, 40.0, 48.0)
"""[DN] to try: SkySat's noise is 13 DN, that of the simulated bursts 32 DN."""


@dataclass(frozen=True)
class Trial:
    """ACT with some parameters, and its figures."""

    act: ACT
    figures: Figures


@dataclass(frozen=True)
class Choice:
    """What was tried, and the best of it.

    Attributes:
        best: its score is the largest; of equal ones the first.
        trials: all, in the order of the options.
    """

    best: Trial
    trials: tuple[Trial, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON or YAML: parameters and figures of the best and of every trial."""
        return {
            "method": "act",
            **asdict(self.best.act),
            "figures": dict(self.best.figures),
            "trials": [{**asdict(t.act), **t.figures} for t in self.trials],
        }


def choose_act(
    source: Source,
    *,
    scale: int = 2,
    noises: Sequence[float] = NOISES,
    iterations: Sequence[int] = (60,),
    counts: Sequence[int] = COUNTS,
    bursts: int = 16,
    seed: int = 0,
) -> Choice:
    """Try all combinations on the same bursts; the best mean PSNR over ``counts`` is chosen.

    ``noise`` is what sets the regularisation of `ACT`: it goes with its power of 1.5.

    Args:
        source: validation bursts with truth, of at least ``max(counts)`` frames.
        scale: fine pixels to a pixel.
        noises: [DN] to try.
        iterations: of the conjugate gradient, to try.
        counts: numbers of frames; see ``score_restored``.
        bursts: how many.
        seed: of the bursts.

    Raises:
        BadOptionError: nothing to try.
        BadInputError: the bursts have no truth.
    """
    options = list(product(noises, iterations))
    if not options or bursts < 1:
        raise BadOptionError(
            f"{len(options)} parameters on {bursts} bursts; one of each at least is needed"
        )
    rng = np.random.default_rng(seed)
    batch = source.draw(rng, bursts)
    trials = []
    for noise, steps in options:
        act = ACT(scale, noise, steps)
        trials.append(Trial(act, score_frames(act, batch, counts)))
    return Choice(max(trials, key=lambda trial: trial.figures["score"]), tuple(trials))

"""Noise2Noise: learning to denoise from pairs of noisy looks at the same.

What a network gives is compared with a second look whose noise is its own. The distance decides
what is learnt of all that could be behind the first look: l2 the mean of the second looks (noise
of zero mean: Gaussian, Poisson, missing pixels with a mask), l1 their median (text over less than
half of the pixels), l0 their mode (impulses on most of them).

Source: Lehtinen et al., Noise2Noise: Learning image restoration without clean data, ICML 2018.
"""

import inspect
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from torch import Tensor, nn

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.training.burst_loss import psnr
from l1bsr_geo.training.normalisation import Statistics, check_statistics, freeze_statistics
from l1bsr_geo.training.objective import Batch, Example, Figures

Distance: TypeAlias = Literal["l1", "l2", "l0"]

_L0_FLOOR = 1e-8  # of the difference [units of the network], as in the paper


@dataclass(frozen=True)
class Noise2NoiseObjective:
    """A look is restored and compared with a second look, or with the truth.

    Attributes:
        supervised: compare with the truth instead.
        distance: l1, l2, or l0 annealed: ``(|d| + 1e-8) ** gamma`` with gamma from 2 to 0 over the
            training.
        gain: DN per unit of the network; l2 and l0 are of these units.
        peak: [DN] of the PSNR that is the score.
        statistics: of batch normalisation; ``"running"`` to end a training with.
        share: of the training that is done; the loop sets it.

    Raises:
        BadOptionError: a distance that there is not, or such statistics.
    """

    supervised: bool = False
    distance: Distance = "l2"
    gain: float = 255.0
    peak: float = 255.0
    statistics: Statistics = "batch"
    share: float = 0.0

    def __post_init__(self) -> None:
        if self.distance not in ("l1", "l2", "l0"):
            raise BadOptionError(f"distance: found {self.distance!r}, allowed l1, l2, l0")
        check_statistics(self.statistics)

    def at(self, share: float) -> "Noise2NoiseObjective":
        """See `ScheduledObjective`: only the l0 changes."""
        return replace(self, share=share)

    def hold_out(self, batch: Batch, rng: np.random.Generator) -> Example:
        """The second look, or the truth, is the target (B, C, H, W) [DN / gain].

        Raises:
            BadInputError: the samples have none.
        """
        target = batch.truth if self.supervised else batch.pair
        if target is None:
            raise BadInputError(
                "these samples have no truth, which supervised learning needs"
                if self.supervised
                else "these samples have no second look (pair), which noise2noise needs"
            )
        return Example(
            batch.views / self.gain,
            batch.flow,
            batch.exposures,
            target / self.gain,
            noise=None if batch.noise is None else batch.noise / self.gain,
            weights=None if self.supervised else batch.visible,
        )

    def observe(self, restored: Tensor, example: Example) -> Tensor:
        """The restored image itself: both looks share their grid."""
        return restored

    def loss(
        self, network: nn.Module, batch: Batch, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """Mean distance over the pixels that the second look shows; see `Objective`."""
        if self.statistics == "running":
            freeze_statistics(network)
        example = self.hold_out(batch, rng)
        restored = _restore(network, example.views, example.noise)
        difference = self.observe(restored, example) - example.target
        distance = self.measure(difference)
        if example.weights is None:
            return distance.mean(), {}
        weights = example.weights.expand_as(distance)
        return (weights * distance).sum() / weights.sum().clamp_min(1), {}

    def measure(self, difference: Tensor) -> Tensor:
        """The distance of each pixel, from its difference [DN / gain]."""
        if self.distance == "l1":
            return difference.abs()
        if self.distance == "l2":
            return difference.square()
        return (difference.abs() + _L0_FLOOR) ** (2 * (1 - self.share))

    def score(self, network: nn.Module, batch: Batch) -> Figures:
        """PSNR of the restored and of the noisy reference [dB]; the first is the score.

        Raises:
            BadInputError: the samples have no truth.
        """
        if batch.truth is None:
            raise BadInputError("a score needs samples with truth")
        noise = None if batch.noise is None else batch.noise / self.gain
        restored = _restore(network, batch.views / self.gain, noise) * self.gain
        noisy = batch.views[:, batch.views.shape[1] // 2]
        return {
            "score": float(psnr(restored, batch.truth, 0, self.peak).mean()),
            "psnr_noisy": float(psnr(noisy, batch.truth, 0, self.peak).mean()),
        }


def _restore(network: nn.Module, views: Tensor, noise: Tensor | None) -> Tensor:
    """What a network gives, which is told the noise where it asks for it."""
    told = {"noise": noise} if "noise" in inspect.signature(network.forward).parameters else {}
    return cast("Tensor", network(views, **told)).float()

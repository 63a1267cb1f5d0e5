"""What every method of learning is to the one loop: a source of samples, and an objective.

Learning from noisy images alone has one shape. ``hold_out`` parts what is known of some samples
into what the network may see and an observation that it may not; ``observe`` says what the held-out
view would have been of a restored image; the loss compares the two. The noise of the held-out view
is independent of what the network sees, so it cannot be learnt.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

Figures: TypeAlias = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples and all that is known of them.

    A burst is T frames of C = 1 band; an overlap of two Sentinel-2 detectors is T = 2 views of
    C = 4 bands; a video is T frames of C bands in order of time.

    Attributes:
        views: (B, T, C, H, W) [DN]; view 0 is the reference, of a video the middle one.
        flow: (B, T, C, 2, H, W) [px] to the reference view and band: pixel p of it reads view
            (t, c) at p + flow(p). None where it is not known.
        exposures: (B, T) as the product tells them; None where they are alike.
        truth: (B, C, scale * H, scale * W) [DN at exposure 1], on the restorer's fine grid; None
            where it is not known.
        noise: (B, 1, H, W) [DN] standard deviation of the noise that the network is told.
        pair: (B, C, H, W) [DN] a second look at the reference, with noise of its own.
        visible: (B, K, H, W) weights from 0 to 1 of the pixels of K held-out views, 1 where the
            restored image shows the same and both may be compared.
        occluded: (B, 1, H, W) weights of those that are in the frame but not visible.
    """

    views: Tensor
    flow: Tensor | None = None
    exposures: Tensor | None = None
    truth: Tensor | None = None
    noise: Tensor | None = None
    pair: Tensor | None = None
    visible: Tensor | None = None
    occluded: Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """The same on a device."""
        moved = {name: v.to(device) for name, v in vars(self).items() if v is not None}
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class Example:
    """What a network may see, and what it is compared with. The two share no pixel.

    Attributes:
        views: (B, T, C, H, W) [DN / gain].
        flow: (B, T, C, 2, H, W) [px] or None.
        exposures: (B, T) or None.
        target: what ``observe`` is compared with [DN / gain]; its shape is the method's.
        places: (..., 2, H, W) [px]: where in the restored image, counted in coarse pixels of the
            restorer's grid, each target pixel lies, as an offset from its own place; None where
            target and restored image share their grid.
        noise: (B, 1, H, W) [DN / gain] standard deviation that the network is told, or None.
        weights: how much each pixel of the target counts, shaped to go with it; None for alike.
    """

    views: Tensor
    flow: Tensor | None
    exposures: Tensor | None
    target: Tensor
    places: Tensor | None = None
    noise: Tensor | None = None
    weights: Tensor | None = None


class Source(Protocol):
    """Where samples come from. What is drawn depends on the generator's state alone."""

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Samples, on the CPU."""
        ...


class Objective(Protocol):
    """What a method learns from."""

    def hold_out(self, batch: Batch, rng: np.random.Generator) -> Example:
        """Part samples into what the network may see and what it may not."""
        ...

    def observe(self, restored: Tensor, example: Example) -> Tensor:
        """What the held-out view would be of a restored image, without noise."""
        ...

    def loss(
        self, network: nn.Module, batch: Batch, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """What is minimised, and its parts by name (floats or scalar tensors) for the log.

        Args:
            network: as the method built it; may run under autocast.
            batch: on the network's device.
            rng: of this iteration.
        """
        ...

    def score(self, network: nn.Module, batch: Batch) -> Figures:
        """Figures on held-out samples with truth; ``"score"`` decides (larger is better)."""
        ...


@runtime_checkable
class ScheduledObjective(Objective, Protocol):
    """An objective that changes in the course of a training."""

    def at(self, share: float) -> Objective:
        """What is minimised where this share of the schedule is done, from 0 to below 1."""
        ...

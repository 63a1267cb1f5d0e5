"""A network of several frames, unchanged, that is told how much noise there is at every grey level.

The 24 numbers of what it is told (8 levels of brightness for each of three frames) are learnt by
the loss of MF2F. So few cannot copy anything: what comes out is blurred where neighbours tell
nothing, but never wrong, and can teach a network that is tuned as a whole. They also are a first
guess of the noise.

Source: Dewil et al., WACV 2021 (arXiv 2004.06957), the teacher of eight sigmas.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from l1bsr_geo.training.schedule import Precision, Schedule

LEVELS = 8
ROLES = 3
BETAS = (0.2, 0.2)
"""Of Adam, for these few numbers."""


@dataclass(frozen=True)
class NoiseLevel:
    """The noise at a brightness [DN]; None where the video does not have this brightness."""

    brightness: float
    sigma: float | None


class NoiseLevelTeacher(nn.Module):
    """A network that restores with a map of noise of its own.

    Args:
        network: takes ``noise`` (B, 3, H, W), a map for each window of its first stage; copied,
            and not changed.
        gain: DN per unit of the network.
        sigma: of the noise at first [of gain].

    Attributes:
        levels: (3, 8) [of gain], of the first stage's windows before, around and after the
            reference, at brightnesses from 0 to ``gain``.
    """

    seen: Tensor

    def __init__(self, network: nn.Module, gain: float = 255.0, sigma: float = 25 / 255) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.levels = nn.Parameter(torch.full((ROLES, LEVELS), sigma))
        self.register_buffer("seen", torch.zeros(LEVELS, dtype=torch.bool))
        self._gain = gain

    def forward(
        self, views: Tensor, flow: Tensor | None = None, *, noise: Tensor | None = None
    ) -> Tensor:
        """Restore (B, 5, C, H, W) [DN / gain]; the noise that it is told is its own."""
        restored: Tensor = self.network(views, noise=self.map_noise(views))
        return restored

    def map_noise(self, views: Tensor) -> Tensor:
        """The noise that the network is told, (B, 3, H, W) [of gain], from noisy brightness."""
        grey = views[:, 1:-1].mean(2)  # the middles of the first stage's windows of three frames
        level = (grey.detach() * LEVELS).long().clamp(0, LEVELS - 1)
        if self.training:
            self.seen[level[:, 1].flatten()] = True
        role = torch.arange(ROLES, device=views.device)[:, None, None]
        return self.levels.abs()[role, level]  # the sign is free: no level can get stuck at zero

    def list_levels(self) -> list[NoiseLevel]:
        """The noise at every brightness, as the reference shows it."""
        sigma = self.levels[1].detach().abs().tolist()
        step = self._gain / LEVELS
        return [
            NoiseLevel((k + 0.5) * step, sigma[k] * self._gain if seen else None)
            for k, seen in enumerate(self.seen.tolist())
        ]


def choose_teacher_schedule(
    steps: int,
    seed: int = 0,
    lr: float = 8e-3,
    batch: int = 2,
    precision: Precision = "auto",
) -> Schedule:
    """The numbers of learning the levels."""
    return Schedule(
        iterations=steps,
        batch=batch,
        lr=lr,
        final_lr=lr,
        clip=None,
        ema=0,
        precision=precision,
        rates={"network": 0.0},
        seed=seed,
        validate_every=steps,
        save_every=steps,
    )

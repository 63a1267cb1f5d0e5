"""The running average of a network's weights."""

import copy

import torch
from torch import nn


class AveragedNetwork:
    """A copy of a network whose weights are an exponential running average of its own.

    The average has no bias at the start: it begins with the first weights, and looks back over no
    more than a tenth of the steps made so far until the decay allows no more anyway.

    Args:
        network: what is averaged; copied.
        decay: of the average, per step; 0 for the weights themselves.

    Attributes:
        network: the copy, in evaluation mode.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def add(self, network: nn.Module, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        share = max(1 - self._decay, 10 / (9 + step))
        pairs = zip(self.network.parameters(), network.parameters(), strict=True)
        for average, weight in pairs:
            average.lerp_(weight, share)
        for kept, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(buffer)

"""Statistics over the frames of a burst, kept while frames come one by one."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

PoolingKind: TypeAlias = Literal["avg", "max", "std"]


class Pooling:
    """Feature shift-and-pool: weighted average, maximum and standard deviation over frames.

    A frame that has nothing at a place counts there with zeros in the maximum and the deviation, as
    published. The deviation is the unbiased one, and zero for a single frame.

    Args:
        kinds: what ``result`` gives, in this order.
    """

    def __init__(self, kinds: Sequence[PoolingKind]) -> None:
        self._kinds = tuple(kinds)
        self._count = 0
        self._sum = self._weight = self._most = self._squares = torch.zeros(())

    def add(self, features: Tensor, weight: Tensor) -> None:
        """Count a frame in.

        Args:
            features: (B, C, H, W), splatted.
            weight: (B, 1, H, W), what ones would have become.
        """
        if not self._count:
            self._sum, self._weight, self._most = features, weight, features
            self._squares = torch.zeros_like(features) if "std" in self._kinds else features
        else:
            if "std" in self._kinds:
                # Welford's update: no difference of large sums
                away = features - self._sum / self._count
                share = self._count / (self._count + 1)
                self._squares = self._squares + away.square() * share
            if "max" in self._kinds:
                self._most = torch.maximum(self._most, features)
            self._sum = self._sum + features
            self._weight = self._weight + weight
        self._count += 1

    def result(self, many: float) -> Tensor:
        """The statistics and the weight, (B, C * kinds + 1, H, W).

        Args:
            many: the weight is divided by this.
        """
        weight = torch.where(self._weight == 0, 1, self._weight)
        pooled = [self._statistic(kind, weight) for kind in self._kinds]
        return torch.cat([*pooled, weight / many], 1)

    def _statistic(self, kind: PoolingKind, weight: Tensor) -> Tensor:
        if kind == "avg":
            return self._sum / weight
        return self._most if kind == "max" else self._deviation()

    def _deviation(self) -> Tensor:
        variance = self._squares / max(self._count - 1, 1)
        # the root has no slope at zero, where all frames agree
        positive = variance > 0
        return torch.where(positive, torch.where(positive, variance, 1).sqrt(), 0)

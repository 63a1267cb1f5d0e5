"""How long, how fast and how exactly a network is trained."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from torch import nn

from l1bsr_geo.errors import BadOptionError

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """All numbers of a training that are not the method's.

    Attributes:
        iterations: steps of the optimiser (Adam).
        batch: samples to a step.
        lr: largest learning rate.
        final_lr: the last one; a cosine leads there.
        warmup: iterations over which the rate grows linearly to ``lr``.
        clip: largest norm of the gradient of all weights; None for no limit.
        ema: decay of the running average of the weights, which is what is scored and written; 0
            for the weights themselves.
        rates: factor on the learning rate, by the start of a parameter's name; the longest start
            decides; 0 freezes.
        precision: of the network: "fp32", "bf16" (weights, losses and the average stay fp32), or
            "auto" for bf16 where the hardware multiplies it.
        seed: of everything random.
        validate_every: iterations between validations.
        save_every: iterations between checkpoints.
        log_every: iterations that a line of the log averages.
        patience: validations without gain after which training ends; None for no such end.

    Raises:
        BadOptionError: a value that is impossible.
    """

    iterations: int = 20_000
    batch: int = 16
    lr: float = 1e-4
    final_lr: float = 1e-6
    warmup: int = 0
    clip: float | None = 1.0
    ema: float = 0.999
    rates: Mapping[str, float] = field(default_factory=dict)
    precision: Precision = "auto"
    seed: int = 0
    validate_every: int = 500
    save_every: int = 500
    log_every: int = 50
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "validate_every", "save_every", "log_every"):
            self._check(name, getattr(self, name) >= 1, "1 or more")
        self._check("lr", self.lr > 0, "above 0")
        self._check("final_lr", 0 <= self.final_lr <= self.lr, f"from 0 to lr, {self.lr:g}")
        self._check("warmup", 0 <= self.warmup < self.iterations, "from 0 to below iterations")
        self._check("clip", self.clip is None or self.clip > 0, "above 0, or none")
        self._check("ema", 0 <= self.ema < 1, "from 0 to below 1")
        self._check("rates", all(v >= 0 for v in self.rates.values()), "0 or more each")
        self._check("precision", self.precision in ("auto", "fp32", "bf16"), "auto, fp32, bf16")
        self._check("seed", self.seed >= 0, "0 or more")
        self._check("patience", self.patience is None or self.patience >= 1, "1 or more, or none")

    def _check(self, name: str, right: bool, allowed: str) -> None:
        if not right:
            raise BadOptionError(f"schedule.{name}: found {getattr(self, name)}, allowed {allowed}")

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration, from 1 to ``iterations``."""
        if iteration <= self.warmup:
            return self.lr * iteration / (self.warmup + 1)
        span = max(self.iterations - self.warmup - 1, 1)
        fall = (1 + math.cos(math.pi * (iteration - self.warmup - 1) / span)) / 2
        return self.final_lr + (self.lr - self.final_lr) * fall

    def groups(self, network: nn.Module) -> dict[float, list[nn.Parameter]]:
        """Parameters that are trained, by their factor on the learning rate.

        Raises:
            BadOptionError: ``rates`` names a parameter that is not there, or freezes all.
        """
        unused = set(self.rates)
        found: dict[float, list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            starts = [start for start in self.rates if name.startswith(start)]
            unused -= set(starts)
            factor = self.rates[max(starts, key=len)] if starts else 1.0
            if factor > 0:
                found.setdefault(factor, []).append(parameter)
        if unused:
            parts = ", ".join(name for name, _ in network.named_children())
            raise BadOptionError(
                f"schedule.rates: found {sorted(unused)[0]!r}, with which no parameter's name "
                f"starts; its parts are {parts}"
            )
        if not found:
            raise BadOptionError("schedule.rates: all is frozen; leave something to train")
        return found

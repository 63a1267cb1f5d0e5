"""From the spread of an ensemble to the error of a result, as it was measured on known truth."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from torch import Tensor

_FILE = "calibrations.json"


@dataclass(frozen=True)
class Calibration:
    """``error^2 = (factor * spread)^2 + floor^2``.

    Attributes:
        factor: of the spread.
        floor: [DN] of error that no spread tells.
        measured: on what, and how many errors lie within one and two deviations there.
    """

    factor: float = 1.0
    floor: float = 0.0
    measured: str = ""

    def deviation(self, variance: Tensor, gain: float) -> Tensor:
        """The standard deviation of the error.

        Args:
            variance: of the members [(DN / gain)^2].
            gain: DN per unit.
        """
        return (self.factor**2 * variance + (self.floor / gain) ** 2).sqrt()

    def __str__(self) -> str:
        return f"sqrt(({self.factor:.3g} x spread)^2 + ({self.floor:.3g} DN)^2), {self.measured}"


def find_calibration(
    name: str, scale: int, weights_sha256: str | None, method: str
) -> Calibration | None:
    """What was measured of a model; None where nothing was.

    Args:
        name: of the model.
        scale: fine pixels to a pixel.
        weights_sha256: of its weights, None where it has none: others err otherwise.
        method: how the members of the ensemble differ.
    """
    wanted = name, scale, weights_sha256, method
    for entry in _read_all():
        if tuple(entry[key] for key in ("model", "scale", "weights_sha256", "method")) == wanted:
            return Calibration(entry["factor"], entry["floor"], entry["measured"])
    return None


@cache
def _read_all() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        resources.files("l1bsr_geo.models").joinpath(_FILE).read_text("utf-8")
    )
    return found

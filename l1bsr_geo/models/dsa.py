"""DSA: deep shift-and-add, the weighted average of splatted features, decoded."""

from typing import Any

from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.burst import MOST_FRAMES
from l1bsr_geo.models.burst_network import PUBLISHED, Base, BurstNetwork, Sizes


def make_spec(scale: int = 2, sizes: Sizes = PUBLISHED) -> ModelSpec:
    """DSA's spec; the halo holds motion, encoder, splat and decoder."""
    return ModelSpec(
        name="dsa",
        frames=(1, MOST_FRAMES),
        scale=scale,
        aligned="centre",
        halo=sizes.reach(scale),
        gain=FULL_SCALE,
        flow=True,
        exposures=True,
        source="Nguyen et al., Self-supervised multi-image super-resolution for push-frame "
        "satellite images, CVPRW EarthVision 2021",
    )


class DSA(BurstNetwork):
    """Deep shift-and-add with the blocks of HDR-DSP; no weights are published.

    Args:
        scale: fine pixels to a pixel, per axis.
        base: what bypasses the network; nothing does in the paper's.
        **sizes: see ``Sizes``; the paper's by default.
    """

    def __init__(self, scale: int = 2, base: Base = "none", **sizes: Any) -> None:
        chosen = Sizes(**sizes)
        super().__init__(make_spec(scale, chosen), ("avg",), base, noise_aware=False, sizes=chosen)

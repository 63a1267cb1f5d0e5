"""DSA: deep shift-and-add, the weighted average of splatted features, decoded."""

from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.burst import FULL_SCALE, MOST_FRAMES
from l1bsr_geo.models.burst_network import BurstNetwork


def make_spec(scale: int = 2) -> ModelSpec:
    """DSA's spec; the halo holds motion (4), encoder (10), splat (1), decoder (22 fine pixels)."""
    return ModelSpec(
        name="dsa",
        frames=(1, MOST_FRAMES),
        scale=scale,
        aligned="centre",
        halo=28,
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
    """

    def __init__(self, scale: int = 2) -> None:
        super().__init__(make_spec(scale), pooling=("avg",), base_detail=False, noise_aware=False)

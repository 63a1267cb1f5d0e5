"""HDR-DSP: multi-exposure bursts by feature shift-and-pool; and its motion estimator by itself."""

from typing import Any

from torch import Tensor, nn

from l1bsr_geo.geometry.skysat_figures import FULL_SCALE
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.burst import MOST_FRAMES, BurstViews
from l1bsr_geo.models.burst_network import PUBLISHED, BurstNetwork, FrameFlow, Sizes
from l1bsr_geo.ops.flow import invert_flow
from l1bsr_geo.ops.warp import warp

SOURCE = (
    "Nguyen et al., Self-supervised super-resolution for multi-exposure push-frame satellites, "
    "CVPR 2022 (arXiv 2205.02031)"
)


def make_spec(name: str = "hdr-dsp", scale: int = 2, sizes: Sizes = PUBLISHED) -> ModelSpec:
    """HDR-DSP's spec.

    The halo holds motion, base (4 more), encoder, splat and decoder, for a flow that is given.
    Where ``fnet`` estimates it, tiles need 64 px more, and agree only roughly.
    """
    return ModelSpec(
        name=name,
        frames=(1, MOST_FRAMES),
        scale=scale,
        aligned="centre",
        halo=sizes.reach(scale) + 4,
        gain=FULL_SCALE,
        flow=True,
        exposures=True,
        source=SOURCE,
    )


class HDRDSP(BurstNetwork):
    """The published network for several exposures: base and detail, noise-level-aware.

    Args:
        scale: fine pixels to a pixel, per axis; the published weights are for 2.
        name: of the weights.
        **sizes: see ``Sizes``; the published by default.
    """

    def __init__(self, scale: int = 2, name: str = "hdr-dsp", **sizes: Any) -> None:
        chosen = Sizes(**sizes)
        super().__init__(make_spec(name, scale, chosen), sizes=chosen)


class HDRDSPSingle(BurstNetwork):
    """The published variant for one exposure: frames are encoded whole.

    Args:
        scale: fine pixels to a pixel, per axis; the published weights are for 2.
    """

    def __init__(self, scale: int = 2) -> None:
        spec = make_spec("hdr-dsp-single", scale)
        super().__init__(spec, base="none", noise_aware=False)


class FrameRegistration(nn.Module):
    """FNet as a restorer: frames brought onto the first at their own resolution, and averaged."""

    full_precision = True
    spec = ModelSpec(
        name="fnet",
        frames=(1, MOST_FRAMES),
        scale=1,
        halo=80,
        gain=FULL_SCALE,
        exposures=True,
        multiple=8,
        source=SOURCE,
    )

    def __init__(self) -> None:
        super().__init__()
        self.network = FrameFlow()

    def forward(
        self, views: Tensor, flow: Tensor | None = None, *, exposures: Tensor | None = None
    ) -> Tensor:
        """Average the aligned frames by their exposures; see Restorer.

        Args:
            views: (B, T, C, H, W) [DN / gain].
            flow: not used: the network finds the motion.
            exposures: (B, T).

        Returns:
            (B, C, H, W) [DN / gain at the exposure of the first frame].
        """
        burst = BurstViews.of(views, None, exposures).without_empty()
        first = total = burst.pixels(0)
        for t in range(1, len(burst)):
            exposure = burst.exposure(t)
            radiance = burst.pixels(t) / exposure
            motion = self.network.estimate(radiance, first)
            total = total + exposure * warp(radiance, invert_flow(motion))
        mean = total / burst.ratios.sum(1)[:, None, None, None]
        return burst.join_bands(mean[:, 0])

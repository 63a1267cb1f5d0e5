"""CSR: the cross-spectral registration network of L1BSR, and bands brought onto the green with it.

The network sees each image as (x - mean) / std over the whole image; for tiles the moments are
taken once per scene (``scene_statistics``). Its pooling lives on a lattice of 16 px: tiles whose
reads start at multiples of 16 see the lattice of the whole image. Its receptive field is 121 px at
the widest of the lattice's places; with a halo of 128 px, tiles of a real crop meet to 0.02 DN.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.flownet import FlowNet
from l1bsr_geo.ops.warp import warp_reflected

SPEC = ModelSpec(
    name="csr-hourglass",
    bands=("B02", "B03", "B04", "B08"),
    scale=1,
    halo=128,
    multiple=16,
    scene_statistics=True,
    source="Nguyen et al., L1BSR, CVPRW EarthVision 2023 (arXiv 2304.06871)",
)


class CSR(FlowNet):
    """The flow between two contrast-normalised bands; parameter names as published."""

    def __init__(self) -> None:
        super().__init__((32, 64, 128, 256), (256, 256, 128, 64), reach=10.0)


class BandRegistration(nn.Module):
    """CSR as a restorer: bands at the input's resolution, on the grid of one of them.

    Args:
        spec: what the rest of the package must know.
        reference: the band that stays as it is.
    """

    full_precision = True

    def __init__(self, spec: ModelSpec = SPEC, reference: str = "B03") -> None:
        super().__init__()
        self.spec = spec
        self.reference = (spec.bands or ()).index(reference)
        self.network = CSR()

    def forward(
        self,
        views: Tensor,
        flow: Tensor | None = None,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Register; see Restorer.

        Args:
            views: (B, 1, C, H, W) [DN].
            flow: not used: the network finds the motion of the bands by itself.
            statistics: what ``scene_statistics`` gives; of each of these images where None.

        Returns:
            (B, C, H, W) [DN]: every band where the reference band has it.
        """
        image, motion = views[:, 0], self.flow(views, statistics)
        out = image.clone()
        for band in self._moving(image):
            out[:, [band]] = warp_reflected(image[:, [band]], motion[:, band])
        return out

    def flow(self, views: Tensor, statistics: Mapping[str, Tensor] | None = None) -> Tensor:
        """The motion of every band to the reference.

        Args:
            views: (B, 1, C, H, W) [DN].
            statistics: as for ``forward``.

        Returns:
            (B, C, 2, H, W) [px]: reference pixel p reads band c at p + flow(p); zero for the
            reference itself.
        """
        image = views[:, 0]
        seen = _normalise(image, _moments(image) if statistics is None else statistics)
        motion = image.new_zeros(*image.shape[:2], 2, *image.shape[2:])
        for band in self._moving(image):
            motion[:, band] = self.network(seen[:, [self.reference, band]])
        return motion

    def scene_statistics(self, views: Tensor) -> dict[str, Tensor]:
        """Mean of DN and of DN squared, (C,) each; unlike deviations they may be averaged."""
        return {name: v.mean(0) for name, v in _moments(views[:, 0]).items()}

    def _moving(self, image: Tensor) -> list[int]:
        return [band for band in range(image.shape[1]) if band != self.reference]


def _moments(image: Tensor) -> dict[str, Tensor]:
    """Per image and band, (B, C), in float64: the variance is a small difference of them."""
    pixels = image.double().flatten(2)
    mean = pixels.mean(2)
    # n - 1, as the published code's deviation has it
    variance = pixels.var(2, correction=1 if pixels.shape[2] > 1 else 0)
    return {"mean": mean, "square": variance + mean.square()}


def _normalise(image: Tensor, moments: Mapping[str, Tensor]) -> Tensor:
    mean, square = (moments[name].double()[..., None, None] for name in ("mean", "square"))
    deviation = (square - mean.square()).clamp_min(1e-12).sqrt()
    return ((image - mean) / deviation).to(image)

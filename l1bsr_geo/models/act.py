"""ACT with splines: a smooth image fitted to all samples of a burst, by conjugate gradient.

The image is a cubic spline with knots on the fine grid. Its coefficients c minimise

    sum_j w_j (u(x_j) - y_j)^2 + regularisation * ||Laplacian c||^2

over all samples y_j of all frames, where they are in the reference, x_j. Frames are added to the
normal equations one by one (``ops.spline_fit``): memory does not depend on their number.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.burst import MOST_FRAMES, MOTION, BurstViews, accumulate
from l1bsr_geo.ops.splat import fine_positions, read_at
from l1bsr_geo.ops.spline_fit import SplineFit

_THINNEST = 0.25  # samples to a fine pixel: fewer do not make a sample count more
_TAPS = 31  # of the sharpening filter


@dataclass(frozen=True)
class ACT:
    """Spline least squares on the irregular samples of a burst, with adaptive weights.

    A sample counts by its exposure, and less where there are many (one over the square root of
    their density).

    Attributes:
        scale: fine pixels to a pixel, per axis.
        noise: standard deviation of a sample's noise [DN at the reference's exposure], which sets
            the regularisation. SkySat's own noise model gives 13 DN in the middle of its range,
            where 24 DN costs 0.6 dB; in simulations at 32 DN it costs 0.2 dB (15 frames, x2).
        iterations: of the conjugate gradient, at most.
        sharpening: s of the filter 1 + s * f that is applied to the result, f in cycles per fine
            pixel; 13.1 undoes the blur kernel of HDR-DSP, 0 leaves the optics' blur in.
    """

    scale: int = 2
    noise: float = 24.0
    iterations: int = 30
    sharpening: float = 0.0

    @property
    def spec(self) -> ModelSpec:
        """What it takes and gives."""
        context = 12 + (_TAPS // 2 // self.scale + 1 if self.sharpening else 0)
        return ModelSpec(
            name="act",
            frames=(1, MOST_FRAMES),
            scale=self.scale,
            aligned="centre",
            halo=MOTION + context,
            flow=True,
            exposures=True,
            source="Anger et al., Fast and accurate multi-frame super-resolution of satellite "
            "images, ISPRS Annals 2020",
        )

    @property
    def regularisation(self) -> float:
        """Weight of the squared Laplacian, from the noise; matters more than anything.

        The best of a series at x2 was 0.002 at 13 DN and 0.008 at 32 DN. A finer grid has a smaller
        Laplacian and fewer samples.
        """
        return float(0.008 * (self.noise / 32) ** 1.5 * (self.scale / 2) ** 5)

    def __call__(
        self, views: Tensor, flow: Tensor | None = None, *, exposures: Tensor | None = None
    ) -> Tensor:
        """Restore; see Restorer.

        Args:
            views: (B, T, C, H, W) [DN].
            flow: (B, T, C, 2, H, W) [px].
            exposures: (B, T).

        Returns:
            (B, C, scale * H, scale * W) [DN at the exposure of the first frame].
        """
        burst = BurstViews.of(views, flow, exposures).without_empty()
        fine = self._fit(burst)
        if self.sharpening:
            fine = _sharpen(fine, self.sharpening)
        return burst.join_bands(fine)

    def _fit(self, burst: BurstViews) -> Tensor:
        """The images (N, scale * H, scale * W)."""
        _, density = accumulate(burst, self.scale)
        count, _, height, width = density.shape
        fits = [SplineFit(height, width, density) for _ in range(count)]
        for t in range(len(burst)):
            # the motion is worked out again, so that it need not be kept for all frames
            x, y = fine_positions(burst.motion(t), self.scale)
            exposure = burst.exposure(t)
            thinned = read_at(density, x, y).clamp_min(_THINNEST).sqrt()
            weights = burst.known(t) * exposure / thinned
            radiance = burst.pixels(t) / exposure
            for fit, *samples in zip(fits, radiance, x, y, weights, strict=True):
                fit.add(*(s.flatten() for s in samples))
        return torch.stack([fit.solve(self.regularisation, self.iterations) for fit in fits])


def _sharpen(image: Tensor, strength: float) -> Tensor:
    """The filter 1 + strength * |f| on (N, h, w), with a kernel short enough for tiles."""
    size, middle = 4 * _TAPS, _TAPS // 2
    f = torch.fft.fftfreq(size, dtype=torch.float64)
    response = 1 + strength * torch.hypot(f[:, None], f)
    kernel = torch.fft.fftshift(torch.fft.ifft2(response).real)
    around = slice(size // 2 - middle, size // 2 + middle + 1)
    window = torch.hann_window(_TAPS + 2, periodic=False, dtype=torch.float64)[1:-1]
    kernel = kernel[around, around] * window * window[:, None]
    kernel[middle, middle] += 1 - kernel.sum()  # constants stay
    padded = functional.pad(image[:, None], (middle,) * 4, mode="replicate")
    return functional.conv2d(padded, kernel.to(image)[None, None])[:, 0]

"""ACT with splines: a smooth image fitted to all samples of a burst, by conjugate gradient.

The image is a cubic spline with knots on the fine grid. Its coefficients c minimise

    sum_j w_j (u(x_j) - y_j)^2 + sum_k regularisation_k (Laplacian c)_k^2

over all samples y_j of all frames, where they are in the reference, x_j. Frames are added to the
normal equations one by one (``ops.spline_fit``): memory does not depend on their number.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.burst import (
    MOST_FRAMES,
    MOTION,
    BurstViews,
    accumulate,
    blur,
    enlarge_centred,
)
from l1bsr_geo.models.precision import in_full_precision
from l1bsr_geo.ops.splat import fine_positions, read_at
from l1bsr_geo.ops.spline_fit import SplineFit

_THINNEST = 0.25  # samples to a fine pixel: fewer do not make a sample count more
_TAPS = 31  # of the sharpening filter


@dataclass(frozen=True)
class ACT:
    """Spline least squares on the irregular samples of a burst, with adaptive weights.

    A sample counts by its exposure, and less where there are many (one over the square root of
    their density). The regularisation matters more than anything: it follows the ratio of noise to
    texture around each place.

    Attributes:
        scale: fine pixels to a pixel, per axis.
        noise: standard deviation of a sample's noise [DN at the reference's exposure]. SkySat's
            noise model gives 13 DN in the middle of its range, the simulated bursts have 32 DN;
            with 24 DN both lose up to 1.5 dB.
        iterations: of the conjugate gradient, at most.
        sharpening: s of the filter 1 + s * f that is applied to the result, f in cycles per fine
            pixel; 13.1 undoes the blur kernel of HDR-DSP, 0 leaves the optics' blur in.
    """

    scale: int = 2
    noise: float = 24.0
    iterations: int = 60
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

    @in_full_precision
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
        stiffness = self._regularisation(burst)[:, 0]
        return torch.stack(
            [fit.solve(s, self.iterations) for fit, s in zip(fits, stiffness, strict=True)]
        )

    def _regularisation(self, burst: BurstViews) -> Tensor:
        """Weight of the squared Laplacian, (N, 1, scale * H, scale * W).

        It goes with (noise variance / local energy of the frames' Laplacian) ^ 0.75. Exponent and
        factors were chosen on simulated bursts of photographs and made-up ground, of 5, 16 and 30
        frames with noise of 13 and 32 DN: no constant does better on any of them by more than
        0.1 dB. A finer grid has a smaller Laplacian and fewer samples.
        """
        energy = weight = torch.zeros(())
        for t in range(len(burst)):
            known = burst.known(t)
            here = blur(known * _laplacian(burst.pixels(t)).square(), sigma=3.0, radius=9)
            share = blur(known * burst.exposure(t).square(), sigma=3.0, radius=9)
            energy, weight = energy.to(here) + here, weight.to(here) + share
        # noise alone has 20 times its variance; less is no texture
        noise = self.noise**2
        relative = noise / (energy / weight).clamp_min(noise)
        factor = 0.4 * (self.scale / 2) ** 3.5
        return enlarge_centred(factor * relative**0.75, self.scale)


def _laplacian(image: Tensor) -> Tensor:
    p = functional.pad(image, (1, 1, 1, 1), mode="replicate")
    around = p[..., 1:-1, 2:] + p[..., 1:-1, :-2] + p[..., 2:, 1:-1] + p[..., :-2, 1:-1]
    return around - 4 * image


def _sharpen(image: Tensor, strength: float) -> Tensor:
    """The filter 1 + strength * |f| on (N, h, w), with a kernel short enough for tiles.

    Its gain is right to 2 % from 0.05 cycles per pixel on, and to 10 % below.
    """
    size, middle = 512, _TAPS // 2
    f = torch.fft.fftfreq(size, dtype=torch.float64)
    kernel = torch.fft.fftshift(torch.fft.ifft2(1 + strength * torch.hypot(f[:, None], f)).real)
    around = slice(size // 2 - middle, size // 2 + middle + 1)
    at = torch.arange(-middle, middle + 1, dtype=torch.float64)
    smooth = torch.exp(-0.5 * (6 * at / _TAPS).square())
    smooth = smooth[:, None] * smooth
    kernel = kernel[around, around]
    kernel = kernel + (1 - kernel.sum()) * smooth / smooth.sum()  # constants stay
    padded = functional.pad(image[:, None], (middle,) * 4, mode="replicate")
    return functional.conv2d(padded, kernel.to(image)[None, None])[:, 0]

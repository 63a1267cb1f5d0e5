"""Cross-spectral registration that a CPU can train: learnt features, matched, then least squares.

The hourglass of L1BSR must learn by itself what matching is, which takes a GPU. Here matching is
built in and only *what* is matched is learnt: two bands, whose local contrast is normalised, go
through one encoder. Its features begin with the orientation of edges, which vegetation, dark in red
and bright in near infrared, does not change. At half resolution all displacements are compared, by
votes of a wide neighbourhood, since motion between bands is smooth; Gauss-Newton steps
(Lucas-Kanade) at full resolution refine it.

The flow has one node every 4 px. Nothing is pooled over the image, so there are no statistics of
the scene, and tiles that start at multiples of 4 see what the whole image sees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.ops.sampling import upsample_flow
from l1bsr_geo.ops.warp import warp

CELL = 4
"""Distance of the nodes of the flow [px]."""

SPEC = ModelSpec(
    name="csr",
    bands=("B02", "B03", "B04", "B08"),
    scale=1,
    halo=320,
    multiple=CELL,
    source="compact form of CSR: Nguyen et al., L1BSR, CVPRW EarthVision 2023 (arXiv 2304.06871); "
    "Gauss-Newton steps after Lucas and Kanade, IJCAI 1981",
)

_WINDOW = 25  # [px] of the local contrast
_NOISE = 0.01  # contrast, relative to the local mean, below which there is nothing but noise
_MATCHED = 2  # [px] of the pixels whose displacements are all compared
_VOTERS = (6, 12, 20)  # [cells] radii of the neighbourhoods that choose a displacement
_NEIGHBOURS = (3, 6, 12)  # [cells] and that refine it
_COMMON = 0.1  # least share of their gradients that two bands are taken to have in common


@dataclass(frozen=True, eq=False)
class Trace:
    """How a flow was found.

    Attributes:
        flows: (B, 2, H, W) [px] after every step, the coarsest first.
        likelihood: (B, K, H / 4, W / 4), logarithms, of each displacement at the nodes of the flow.
        displacements: (K, 2) [px], (dx, dy): those that were compared.
    """

    flows: list[Tensor]
    likelihood: Tensor
    displacements: Tensor


class CompactCSR(nn.Module):
    """The flow between two bands.

    Args:
        widths: channels of the encoder at full, half and quarter resolution.
        features: channels that are compared, beside the two of orientation.
        reach: largest flow, per component [px].
        steps: Gauss-Newton steps.
    """

    def __init__(
        self,
        widths: Sequence[int] = (12, 24, 32),
        features: int = 8,
        reach: float = 12.0,
        steps: int = 3,
    ) -> None:
        super().__init__()
        self.reach = reach
        self.encoder = _Encoder(widths, features)
        self.match = _Match(int(-(-reach // _MATCHED)))
        self.refine = nn.ModuleList(_GaussNewton() for _ in range(steps))

    def forward(self, pair: Tensor) -> Tensor:
        """The flow of the second band to the first.

        Args:
            pair: (B, 2, H, W) [any unit that is proportional to radiance]: the band on the target
                grid, then the moving band.

        Returns:
            (B, 2, H, W) [px], (dx, dy): target pixel p reads the moving band at p + flow(p).
        """
        return self.trace(pair).flows[-1]

    def trace(self, pair: Tensor) -> Trace:
        """The flow with all that led to it; see ``forward``."""
        with torch.autocast(pair.device.type, enabled=False):  # eight bits are no sub-pixel
            return self._trace(pair.float())

    def _trace(self, pair: Tensor) -> Trace:
        height, width = pair.shape[-2:]
        padded = functional.pad(pair, (0, -width % CELL, 0, -height % CELL), mode="replicate")
        contrast = normalise_locally(padded)
        encoded = self.encoder(contrast.flatten(0, 1)[:, None])
        (target, fine_target), (moving, fine_moving) = (
            [level[k::2] for level in encoded] for k in range(2)
        )
        likelihood = self.match(target, moving)
        nodes = [self.match.mean(likelihood)]
        for step in self.refine:
            missing: Tensor = step(fine_target, fine_moving, nodes[-1])
            nodes.append((nodes[-1] + missing).clamp(-self.reach, self.reach))
        flows = [upsample_flow(v, CELL)[..., :height, :width] for v in nodes]
        return Trace(flows, likelihood, self.match.displacements)


def normalise_locally(image: Tensor) -> Tensor:
    """Local contrast: what differs from the local mean, over its local deviation.

    Args:
        image: (B, C, H, W) [any unit].

    Returns:
        The same shape, the same for an image in any unit; weak contrast (1 %) stays weak.
    """
    mean = _box(image)
    high = image - mean
    variance = _box(high.square()) + (_NOISE * mean).square()
    return high * variance.clamp_min(1e-20).rsqrt()


def orient(contrast: Tensor) -> Tensor:
    """Orientation of edges as a doubled angle, which a negative does not change.

    Args:
        contrast: (B, 1, H, W), as ``normalise_locally`` gives it.

    Returns:
        (B, 2, H, W): cosine and sine; shorter where edges are weaker than those around.
    """
    gx, gy = _gradients(contrast)
    energy = gx * gx + gy * gy
    length = energy + 0.25 * _box(energy) + 1e-4
    return torch.cat([gx * gx - gy * gy, 2 * gx * gy], 1) / length


def _box(image: Tensor) -> Tensor:
    half = _WINDOW // 2
    rows = functional.avg_pool2d(image, (_WINDOW, 1), 1, (half, 0), count_include_pad=False)
    return functional.avg_pool2d(rows, (1, _WINDOW), 1, (0, half), count_include_pad=False)


class _Encoder(nn.Module):
    """Features at half and full resolution: orientation, what is learnt, and their weight.

    What is learnt begins small, so that orientation finds its way from the first iteration on.
    """

    def __init__(self, widths: Sequence[int], features: int) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.fine = _Level(3, fine)
        self.middle = _Level(3 + fine, middle)
        self.coarse = _Level(3 + middle, coarse)
        self.join_middle = _convolution(middle + coarse, middle)
        self.join_fine = _convolution(fine + middle, fine)
        self.heads = nn.ModuleList(_convolution(n, features + 1) for n in (middle, fine))
        with torch.no_grad():
            for head in self.heads:
                cast("nn.Conv2d", head).weight *= 0.1

    def forward(self, contrast: Tensor) -> list[Tensor]:
        """Half and full, (B, features + 3, h, w) each, the weight last; contrast (B, 1, H, W)."""
        seen = torch.cat([contrast, orient(contrast)], 1)
        seen_middle = functional.avg_pool2d(seen, 2)
        seen_coarse = functional.avg_pool2d(seen_middle, 2)
        fine = self.fine(seen)
        middle = self.middle(torch.cat([seen_middle, functional.avg_pool2d(fine, 2)], 1))
        coarse = self.coarse(torch.cat([seen_coarse, functional.avg_pool2d(middle, 2)], 1))
        middle = self.join_middle(torch.cat([middle, _double(coarse)], 1))
        middle = functional.leaky_relu(middle, 0.2)
        fine = functional.leaky_relu(self.join_fine(torch.cat([fine, _double(middle)], 1)), 0.2)
        out = []
        for head, inner, own in zip(self.heads, (middle, fine), (seen_middle, seen), strict=True):
            learnt = head(inner)
            out.append(torch.cat([own[:, 1:], learnt[:, :-1], learnt[:, -1:].sigmoid()], 1))
        return out


class _Level(nn.Sequential):
    def __init__(self, channels: int, width: int) -> None:
        first, second = _convolution(channels, width), _convolution(width, width)
        super().__init__(first, nn.LeakyReLU(0.2), second, nn.LeakyReLU(0.2))


def _convolution(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1, padding_mode="replicate")


def _double(image: Tensor) -> Tensor:
    return functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)


class _Neighbourhood(nn.Module):
    """Averages over neighbourhoods of several radii [cells], mixed as it is learnt."""

    def __init__(self, radii: Sequence[int]) -> None:
        super().__init__()
        self.radii = tuple(radii)
        self.mix = nn.Parameter(torch.tensor([-3.0] * (len(radii) - 1) + [0.0]))

    def forward(self, cells: Tensor) -> Tensor:
        """(B, C, h, w), zero outside."""
        height, width = cells.shape[-2:]
        total = torch.zeros_like(cells)
        for radius, share in zip(self.radii, self.mix.softmax(0), strict=True):
            # as products of matrices: convolutions of single channels are slow to differentiate
            rows = _bells(height, radius, like=cells) @ cells
            total = total + share * (rows @ _bells(width, radius, like=cells))
        return total


def _bells(count: int, radius: int, *, like: Tensor) -> Tensor:
    """The matrix (count, count) that averages over cells nearer than the radius."""
    at = torch.arange(count, dtype=like.dtype, device=like.device)
    bell = (1 - ((at - at[:, None]) / radius).square()).clamp_min(0).square()
    return bell * (15 / 16 / radius)


class _Match(nn.Module):
    """All displacements by whole pixels of half resolution, compared."""

    displacements: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.sharpness = nn.Parameter(torch.tensor(1.2))
        self.neighbourhood = _Neighbourhood(_VOTERS)
        at = _MATCHED * torch.arange(-steps, steps + 1.0)
        grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(-1, 2)
        self.register_buffer("displacements", grid, persistent=False)

    def forward(self, target: Tensor, moving: Tensor) -> Tensor:
        """Logarithms of the likelihood of displacements, (B, K, h, w), at the nodes."""
        features = [v[:, :-1] * v[:, -1:] for v in (target, moving)]
        weights = [v[:, -1:] for v in (target, moving)]
        sums = [
            self.neighbourhood(
                functional.avg_pool2d(correlate(first, second, self.steps), CELL // _MATCHED)
            )
            for first, second in (features, weights)
        ]
        votes = sums[0] / (sums[1] + 1e-3)
        # a peak counts by how far it stands out, since unlike bands are never much alike
        deviation, mean = torch.std_mean(votes, 1, keepdim=True)
        standing_out: Tensor = (votes - mean) / (deviation + 1e-6)
        return (standing_out * self.sharpness.exp()).log_softmax(1)

    def mean(self, likelihood: Tensor) -> Tensor:
        """The flow (B, 2, h, w) [px]."""
        return torch.einsum("bkhw,kc->bchw", likelihood.exp(), self.displacements)


def correlate(first: Tensor, second: Tensor, steps: int) -> Tensor:
    """Products of two images at all displacements of the second, summed over channels.

    Args:
        first: (B, C, H, W).
        second: (B, C, H, W); zero outside.
        steps: largest displacement [px].

    Returns:
        (B, (2 steps + 1)^2, H, W): channel ``(dy + steps) * (2 steps + 1) + dx + steps`` is the
        first image times the second at p + (dx, dy).
    """
    return cast("Tensor", _Correlation.apply(first, second, steps))  # type: ignore[no-untyped-call]


class _Correlation(Function):
    """Written out, because autograd makes an image of zeros for every displacement."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, steps: int) -> Tensor:
        ctx.save_for_backward(first, second)
        ctx.steps = steps
        padded = functional.pad(second, (steps,) * 4)
        moved = (padded[place] for place in _places(first, steps))
        return torch.stack([(first * m).sum(1) for m in moved], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (first, second), steps = ctx.saved_tensors, ctx.steps
        padded = functional.pad(second, (steps,) * 4)
        to_first, to_padded = torch.zeros_like(first), torch.zeros_like(padded)
        for k, place in enumerate(_places(first, steps)):
            share = gradient[:, k, None]
            to_first.addcmul_(padded[place], share)
            to_padded[place].addcmul_(first, share)
        return to_first, functional.pad(to_padded, (-steps,) * 4), None


def _places(image: Tensor, steps: int) -> list[tuple[Any, ...]]:
    height, width = image.shape[-2:]
    at = range(2 * steps + 1)
    return [(..., slice(y, y + height), slice(x, x + width)) for y in at for x in at]


class _GaussNewton(nn.Module):
    """One Gauss-Newton step on the squared differences of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.damping = nn.Parameter(torch.tensor(-6.0))
        self.robust = nn.Parameter(torch.tensor(0.0))
        self.neighbourhood = _Neighbourhood(_NEIGHBOURS)

    def forward(self, target: Tensor, moving: Tensor, nodes: Tensor) -> Tensor:
        """What to add to the flow (B, 2, h, w) [px]."""
        moved, inside = _read(moving, upsample_flow(nodes, CELL))
        (tx, ty), (mx, my) = _gradients(target[:, :-1]), _gradients(moved[:, :-1])
        gx, gy = (tx + mx) / 2, (ty + my) / 2
        missing = target[:, :-1] - moved[:, :-1]
        weight = target[:, -1:] * moved[:, -1:] * inside
        weight = weight / (1 + missing.square().mean(1, True) * self.robust.exp())
        products = [gx * gx, gx * gy, gy * gy, gx * missing, gy * missing, tx * mx + ty * my]
        terms = torch.cat([p.sum(1, True) for p in products], 1) * weight
        terms = self.neighbourhood(functional.avg_pool2d(terms, CELL))
        xx, xy, yy, bx, by, alike = terms.unbind(1)
        # only what bands have in common moves with them: the rest would make the step too short
        common = (alike / (xx + yy + 1e-9)).clamp(_COMMON, 1)
        ridge = 0.01 * (xx + yy) + self.damping.exp()
        xx, yy = xx + ridge, yy + ridge
        step = torch.stack([yy * bx - xy * by, xx * by - xy * bx], 1)
        step = step / ((xx * yy - xy * xy) * common)[:, None]
        # the features are linear over about a pixel: a longer step is not to be believed
        length = (1 + step.square().sum(1, True)).sqrt()
        return torch.div(step, length)


def _gradients(image: Tensor) -> tuple[Tensor, Tensor]:
    wide = functional.pad(image, (1, 1, 1, 1), mode="replicate")
    return (
        (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2,
        (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2,
    )


def _read(image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """The image at p + flow(p), bilinear, and whether that is inside of it."""
    height, width = flow.shape[-2:]
    x = torch.arange(width, dtype=flow.dtype, device=flow.device) + 0.5 + flow[:, 0]
    y = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None] + 0.5 + flow[:, 1]
    inside = (x > 0) & (x < width) & (y > 0) & (y < height)
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], -1)
    read = functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
    return read, inside[:, None].to(read)


class CompactBandRegistration(nn.Module):
    """Compact CSR as a restorer: bands at the input's resolution, on the grid of B03.

    Args:
        widths: see ``CompactCSR``.
        features: see ``CompactCSR``.
        spec: what the rest of the package must know.
    """

    def __init__(
        self,
        widths: Sequence[int] = (12, 24, 32),
        features: int = 8,
        spec: ModelSpec = SPEC,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.reference = (spec.bands or ()).index("B03")
        self.network = CompactCSR(widths, features)

    def forward(self, views: Tensor, flow: Tensor | None = None) -> Tensor:
        """Register; see Restorer.

        Args:
            views: (B, 1, C, H, W) [DN].
            flow: not used: the network finds the motion of the bands by itself.

        Returns:
            (B, C, H, W) [DN]: every band where the reference band has it.
        """
        image, motion = views[:, 0], self.flow(views)
        moved = [warp(image[:, [c]], motion[:, c]) for c in range(image.shape[1])]
        moved[self.reference] = image[:, [self.reference]]
        return torch.cat(moved, 1)

    def flow(self, views: Tensor, statistics: Mapping[str, Tensor] | None = None) -> Tensor:
        """The motion of every band to the reference.

        Args:
            views: (B, 1, C, H, W) [DN].
            statistics: not used, contrast is normalised locally; as for the hourglass.

        Returns:
            (B, C, 2, H, W) [px]: reference pixel p reads band c at p + flow(p); zero for the
            reference itself.
        """
        image = views[:, 0]
        motion = image.new_zeros(*image.shape[:2], 2, *image.shape[2:])
        for band in range(image.shape[1]):
            if band != self.reference:
                motion[:, band] = self.network(image[:, [self.reference, band]])
        return motion

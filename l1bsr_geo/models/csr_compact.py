"""Cross-spectral registration that a CPU can train: learnt features, matched, then least squares.

The hourglass of L1BSR must learn by itself what matching is, which takes a GPU. Here matching is
built in and only *what* is matched is learnt: two bands, whose local contrast is normalised, go
through one encoder. Its features begin with the orientation of edges, which vegetation, dark in red
and bright in near infrared, does not change. At half resolution all displacements are compared, by
votes of a wide neighbourhood, since motion between bands is smooth; Gauss-Newton steps
(Lucas-Kanade) at full resolution refine it.

The flow has one node every 4 px. Nothing is pooled over the image, so there are no statistics of
the scene, and tiles that start at multiples of 8 see what the whole image sees.
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

_LATTICE = 2 * CELL  # [px] on which half resolution has whole cells

SPEC = ModelSpec(
    name="csr",
    bands=("B02", "B03", "B04", "B08"),
    scale=1,
    halo=416,
    multiple=_LATTICE,
    source="compact form of CSR: Nguyen et al., L1BSR, CVPRW EarthVision 2023 (arXiv 2304.06871); "
    "Gauss-Newton steps after Lucas and Kanade, IJCAI 1981",
)

_WINDOW = 25  # [px] of the local contrast
_NOISE = 0.01  # contrast, relative to the local mean, below which there is nothing but noise
_GIVEN = 4  # features of orientation: of the contrast, and of its finest part
_VOTERS = 20  # [cells] radius of the neighbourhood that chooses a displacement
_LIKE = 12  # [cells] and of the one that tells how much alike two bands are
_WIDE, _NEAR = 24, 8  # [cells] and of those that refine it, by an affine motion and by a shift
_AROUND = 4  # [cells of 4 px of a level] features have no mean over this radius


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
        features: channels that are compared, beside those of orientation.
        reach: largest flow, per component [px], a multiple of 2.
    """

    full_precision = True  # whatever the training's precision

    def __init__(
        self, widths: Sequence[int] = (12, 24, 32), features: int = 6, reach: int = 12
    ) -> None:
        super().__init__()
        self.reach = reach
        self.encoder = _Encoder(widths, features)
        self.match = _Match(reach)
        steps = [_AffineStep(features), _AffineStep(features), _ShiftStep(features)]
        self.refine = nn.ModuleList(steps)

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
        padded = functional.pad(
            pair, (0, -width % _LATTICE, 0, -height % _LATTICE), mode="replicate"
        )
        contrast = normalise_locally(padded)
        encoded = self.encoder(contrast.flatten(0, 1)[:, None])
        (half_target, target), (half_moving, moving) = (
            [level[k::2] for level in encoded] for k in range(2)
        )
        likelihood = self.match(target, moving, half_target, half_moving)
        nodes = [self.match.mean(likelihood)]
        for step in self.refine:
            missing: Tensor = step(target, moving, nodes[-1])
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


def _blur(image: Tensor) -> Tensor:
    """Binomial, 5 x 5: a standard deviation of 1 px."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=image.dtype, device=image.device) / 16
    wide = functional.pad(image, (2, 2, 2, 2), mode="replicate")
    return functional.conv2d(
        functional.conv2d(wide, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1)
    )


def _box(image: Tensor) -> Tensor:
    half = _WINDOW // 2
    rows = functional.avg_pool2d(image, (_WINDOW, 1), 1, (half, 0), count_include_pad=False)
    return functional.avg_pool2d(rows, (1, _WINDOW), 1, (0, half), count_include_pad=False)


class _Encoder(nn.Module):
    """Features at half and full resolution: orientation, what is learnt, and their weight."""

    def __init__(self, widths: Sequence[int], features: int) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.fine = _Level(5, fine)
        self.middle = _Level(5 + fine, middle)
        self.coarse = _Level(5 + middle, coarse)
        self.join_middle = _convolution(middle + coarse, middle)
        self.join_fine = _convolution(fine + middle, fine)
        self.heads = nn.ModuleList(_convolution(n, features + 1) for n in (middle, fine))

    def forward(self, contrast: Tensor) -> list[Tensor]:
        """Half and full, (B, features + 5, h, w) each, the weight last; contrast (B, 1, H, W)."""
        sharp = contrast - _blur(contrast)
        seen = torch.cat([contrast, orient(contrast), orient(sharp)], 1)
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
            features = torch.cat([own[:, 1:], learnt[:, :-1]], 1)
            out.append(torch.cat([_centred(features), learnt[:, -1:].sigmoid()], 1))
        return out


def _centred(image: Tensor) -> Tensor:
    """Less the mean around."""
    cells = functional.avg_pool2d(image, CELL)
    mean = _average(cells, _AROUND) / _average(torch.ones_like(cells[:1, :1]), _AROUND)
    return image - functional.interpolate(mean, size=image.shape[-2:], mode="bilinear")


class _Level(nn.Sequential):
    def __init__(self, channels: int, width: int) -> None:
        first, second = _convolution(channels, width), _convolution(width, width)
        super().__init__(first, nn.LeakyReLU(0.2), second, nn.LeakyReLU(0.2))


def _convolution(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1, padding_mode="replicate")


def _double(image: Tensor) -> Tensor:
    return functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)


def _average(cells: Tensor, radius: int, powers: tuple[int, int] = (0, 0)) -> Tensor:
    """Moments of (B, C, h, w) over neighbourhoods of a radius [cells]; zero outside.

    Args:
        cells: what is averaged.
        radius: where the weight, a bell, falls to zero.
        powers: of x and y from the middle [radii], that it is multiplied by before.
    """
    # as products of matrices: convolutions of single channels are slow to differentiate
    columns, rows = (
        _bells(cells.shape[axis], radius, power, like=cells)
        for axis, power in zip((-1, -2), powers, strict=True)
    )
    return rows @ cells @ columns.T


def _bells(count: int, radius: int, power: int, *, like: Tensor) -> Tensor:
    """The matrix (count, count) that averages over cells nearer than the radius."""
    at = torch.arange(count, dtype=like.dtype, device=like.device)
    away = (at - at[:, None]) / radius
    bell = (1 - away.square()).clamp_min(0).square()
    return bell * away**power * (15 / 16 / radius)


class _Match(nn.Module):
    """All displacements compared, pixel by pixel by orientation, by two px by what is learnt.

    The two are weighed by how far their peaks stand out, not by their size: unlike bands are never
    much alike, and a feature that serves like bands must not drown what unlike ones share.
    """

    displacements: Tensor

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.sharpness = nn.Parameter(torch.tensor([0.5, -2.0]))
        at = torch.arange(-reach, reach + 1.0)
        grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(-1, 2)
        self.register_buffer("displacements", grid, persistent=False)

    def forward(
        self, target: Tensor, moving: Tensor, half_target: Tensor, half_moving: Tensor
    ) -> Tensor:
        """Logarithms of the likelihood of displacements, (B, K, h, w), at the nodes."""
        edges = self._votes(target[:, 2:_GIVEN], moving[:, 2:_GIVEN], CELL, self.reach)
        learnt = self._votes(
            half_target[:, _GIVEN:-1], half_moving[:, _GIVEN:-1], CELL // 2, self.reach // 2
        )
        # between the displacements by two pixels
        (batch, _, height, width), steps = learnt.shape, self.reach + 1
        planes = learnt.movedim(1, -1).reshape(-1, 1, steps, steps)
        planes = functional.interpolate(
            planes, size=(2 * steps - 1,) * 2, mode="bilinear", align_corners=True
        )
        learnt = planes.view(batch, height, width, -1).movedim(-1, 1)
        weights = self.sharpness.exp()
        return (weights[0] * edges + weights[1] * learnt).log_softmax(1)

    def mean(self, likelihood: Tensor) -> Tensor:
        """The flow (B, 2, h, w) [px]: the centre of the highest peak, whatever else is likely."""
        best = self.displacements[likelihood.argmax(1)].movedim(-1, 1)
        apart = (best[:, None] - self.displacements[:, :, None, None]).abs().amax(2)
        peak = likelihood.masked_fill(apart > 1, -torch.inf).softmax(1)
        return torch.einsum("bkhw,kc->bchw", peak, self.displacements)

    def _votes(self, first: Tensor, second: Tensor, cell: int, steps: int) -> Tensor:
        """How far the likeness at each displacement stands out, (B, K, h, w)."""
        ones = torch.ones_like(first[:1, :1])
        likeness, area = (
            _average(correlate(*pair, steps, cell), _VOTERS)
            for pair in ((first, second), (ones, ones))
        )
        votes = likeness / (area + 1e-3)
        deviation, mean = torch.std_mean(votes, 1, keepdim=True)
        return torch.div(votes - mean, deviation + 1e-6)


def correlate(first: Tensor, second: Tensor, steps: int, cell: int = 1) -> Tensor:
    """Products of two images at all displacements of the second, over channels and cells.

    Args:
        first: (B, C, H, W).
        second: (B, C, H, W); zero outside.
        steps: largest displacement [px].
        cell: side of the cells that are averaged over [px].

    Returns:
        (B, (2 steps + 1)^2, H / cell, W / cell): channel ``(dy + steps) * (2 steps + 1) + dx +
        steps`` is of the first image times the second at p + (dx, dy), summed over channels.
    """
    out = _Correlation.apply(first, second, steps, cell)  # type: ignore[no-untyped-call]
    return cast("Tensor", out)


class _Correlation(Function):
    """Written out, because autograd makes an image of zeros for every displacement."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, steps: int, cell: int) -> Tensor:
        ctx.save_for_backward(first, second)
        ctx.steps, ctx.cell = steps, cell
        padded = functional.pad(second, (steps,) * 4)
        moved = (padded[place] for place in _places(first, steps))
        likeness = ((first * m).sum(1, keepdim=True) for m in moved)
        return torch.cat([functional.avg_pool2d(v, cell) for v in likeness], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (first, second), steps, cell = ctx.saved_tensors, ctx.steps, ctx.cell
        padded = functional.pad(second, (steps,) * 4)
        to_first, to_padded = torch.zeros_like(first), torch.zeros_like(padded)
        for k, place in enumerate(_places(first, steps)):
            share = gradient[:, k, None] / cell**2
            share = share.repeat_interleave(cell, 2).repeat_interleave(cell, 3)
            to_first.addcmul_(padded[place], share)
            to_padded[place].addcmul_(first, share)
        return to_first, functional.pad(to_padded, (-steps,) * 4), None, None


def _places(image: Tensor, steps: int) -> list[tuple[Any, ...]]:
    height, width = image.shape[-2:]
    at = range(2 * steps + 1)
    return [(..., slice(y, y + height), slice(x, x + width)) for y in at for x in at]


class _GaussNewton(nn.Module):
    """Least squares of the differences of the features, linear in the motion that is missing.

    Where two bands share little, most of a feature's gradient does not move with the other band,
    and most of the difference stays. So what the bands share, rho, is measured for every feature:
    it weighs by rho over the variance of its differences, and its normal equations count by rho.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([0.0] * _GIVEN + [-1.0] * features))

    def equations(self, target: Tensor, moving: Tensor, nodes: Tensor) -> Tensor:
        """Of every node by itself, (B, 5, h, w): xx, xy, yy of the matrix, and the right side."""
        moved, inside = _read(moving, upsample_flow(nodes, CELL))
        (tx, ty), (mx, my) = _gradients(target[:, :-1]), _gradients(moved[:, :-1])
        t, m, weight = target[:, :-1], moved[:, :-1], target[:, -1:] * moved[:, -1:] * inside
        products = [tx * tx, tx * ty, ty * ty, mx * mx, mx * my, my * my, tx * mx + ty * my]
        products += [
            t * t,
            t * m,
            m * m,
            tx * t,
            ty * t,
            tx * m,
            ty * m,
            mx * t,
            my * t,
            mx * m,
            my * m,
        ]
        sums = [functional.avg_pool2d(p * weight, CELL) for p in products]
        txx, txy, tyy, mxx, mxy, myy, shared, tt, tm, mm = sums[:10]
        txt, tyt, txm, tym, mxt, myt, mxm, mym = sums[10:]
        energy = _average((txx + tyy + mxx + myy) / 2, _LIKE) + 1e-6
        rho = (_average(shared, _LIKE) / energy).clamp(-1, 1)
        square = rho.square()
        apart = _average((1 + square) * (tt + mm) / 2 - 2 * rho * tm, _LIKE) + 1e-6
        share = self.gain.exp()[:, None, None] / apart / 2
        terms = [
            square * (txx + mxx),
            square * (txy + mxy),
            square * (tyy + myy),
            rho * (mxt - txm) + square * (txt - mxm),
            rho * (myt - tym) + square * (tyt - mym),
        ]
        return torch.stack([(v * share).sum(1) for v in terms], 1)


class _ShiftStep(_GaussNewton):
    """A shift of every node, of its near neighbourhood; little where that tells little."""

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.stiffness = nn.Parameter(torch.tensor(-3.0))

    def forward(self, target: Tensor, moving: Tensor, nodes: Tensor) -> Tensor:
        """What to add to the flow (B, 2, h, w) [px]."""
        xx, xy, yy, bx, by = _average(self.equations(target, moving, nodes), _NEAR).unbind(1)
        xx, yy = xx + self.stiffness.exp(), yy + self.stiffness.exp()
        step = torch.stack([yy * bx - xy * by, xx * by - xy * bx], 1)
        return _bounded(step / (xx * yy - xy * xy)[:, None])


class _AffineStep(_GaussNewton):
    """An affine motion about every node, of its wide neighbourhood."""

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.stiffness = nn.Parameter(torch.tensor([-10.0, -7.0]))

    def forward(self, target: Tensor, moving: Tensor, nodes: Tensor) -> Tensor:
        """What to add to the flow (B, 2, h, w) [px]."""
        terms = self.equations(target, moving, nodes)
        basis = ((0, 0), (1, 0), (0, 1))
        # moments of every term: (B, h, w, 5) each
        moments = {
            (i, j): _average(terms, _WIDE, (i, j)).movedim(1, -1)
            for i in range(3)
            for j in range(3 - i)
        }
        rows = [
            torch.stack([moments[i + k, j + m][..., :3] for k, m in basis], -1) for i, j in basis
        ]
        xx, xy, yy = torch.stack(rows, -2).unbind(-3)
        matrix = torch.cat([torch.cat([xx, xy], -1), torch.cat([xy, yy], -1)], -2)
        right = torch.stack([moments[power][..., 3:] for power in basis], -1).flatten(-2)
        level, slope = self.stiffness.exp()
        matrix = matrix + torch.stack([level, slope, slope, level, slope, slope]).diag()
        found = torch.linalg.solve(matrix, right)
        return _bounded(found[..., ::3].movedim(-1, 1))


def _bounded(step: Tensor) -> Tensor:
    # the features are linear over about a pixel: a longer step is not to be believed
    return torch.div(step, (1 + step.square().sum(1, keepdim=True)).sqrt())


def _gradients(image: Tensor) -> tuple[Tensor, Tensor]:
    wide = functional.pad(image, (1, 1, 1, 1), mode="replicate")
    return (
        (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2,
        (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2,
    )


def _read(image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """The image at p + flow(p), bicubic, and whether that is inside of it."""
    height, width = flow.shape[-2:]
    x = torch.arange(width, dtype=flow.dtype, device=flow.device) + 0.5 + flow[:, 0]
    y = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None] + 0.5 + flow[:, 1]
    inside = (x > 0) & (x < width) & (y > 0) & (y < height)
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], -1)
    read = functional.grid_sample(image, grid, "bicubic", "border", align_corners=False)
    return read, inside[:, None].to(read)


class CompactBandRegistration(nn.Module):
    """Compact CSR as a restorer: bands at the input's resolution, on the grid of B03.

    Args:
        widths: see ``CompactCSR``.
        features: see ``CompactCSR``.
        spec: what the rest of the package must know.
    """

    full_precision = True

    def __init__(
        self,
        widths: Sequence[int] = (12, 24, 32),
        features: int = 6,
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

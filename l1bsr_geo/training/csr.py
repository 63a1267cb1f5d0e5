"""Cross-spectral registration: from known shifts first, then from pairs of detectors alone.

A network that starts from nothing finds no registration by itself: the composed flows of the second
stage are satisfied by no motion at all. So it first learns the flows that a simulator knows
(``stage="known"``) and then what real pairs tell (``stage="anchor"``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.models.csr_compact import CELL, SPEC, CompactCSR, Trace
from l1bsr_geo.ops.flow import invert_flow, read_flow
from l1bsr_geo.ops.warp import warp
from l1bsr_geo.training.objective import Batch, Example, Figures

Stage: TypeAlias = Literal["known", "anchor"]
Image: TypeAlias = tuple[int, int]
"""View and band of an overlap."""

BANDS = SPEC.bands or ()

_FADING = 0.7  # weight of a step against the next, which is finer
_FAR = 0.5  # [px] errors beyond count by their logarithm
_WHOLE = 0.99  # of what a bilinear reading takes has data
_TINY = 1e-6  # [px^2] of a square root that must have a slope at zero


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of bands and how the second lies on the first.

    Attributes:
        images: (N, 2, H, W) [DN]: the band on the target grid, the moving band.
        flow: (N, 2, H, W) [px]: target pixel p reads the moving band at p + flow(p).
        known: (N, 1, H, W) bool: where the flow is known and ends inside the moving band.
    """

    images: Tensor
    flow: Tensor
    known: Tensor


@dataclass(frozen=True)
class CSRObjective:
    """What CSR learns from, the compact one and the hourglass.

    Nothing is hidden from the network: what it learns is a motion, which cannot copy a pixel.

    Attributes:
        stage: ``"known"``: the flows of a simulator between any two bands of either view.
            ``"anchor"``: anchor consistency, without truth: band i of one view, an anchor (any band
            of either view) and band i of the other view are joined by two flows, whose composition
            must bring band i onto itself.
        reach: largest motion shown in the known stage, per component [px].
        room: the views are cut by this much on each side [px], the moving band elsewhere than the
            target: that widens the range of motion in the known stage to ``reach``.
        border: of the target, is not compared [px].
        likelihood: weight of the likelihood of the true displacement, where a network compares
            many; known stage.
        smoothness: weight of the flows' total variation; anchor stage.

    Source: Nguyen et al., L1BSR, CVPRW EarthVision 2023 (arXiv 2304.06871), section 3.
    """

    stage: Stage = "known"
    reach: float = 10.0
    room: int = 8
    border: int = 6
    likelihood: float = 0.1
    smoothness: float = 0.01

    def __post_init__(self) -> None:
        if self.stage not in get_args(Stage):
            allowed = " or ".join(get_args(Stage))
            raise BadOptionError(f"stage: found {self.stage!r}, expected {allowed}")
        for name, value in (("reach", self.reach), ("room", self.room), ("border", self.border)):
            if value < 0:
                raise BadOptionError(f"{name}: found {value}, expected 0 or more")

    def hold_out(self, batch: Batch, rng: np.random.Generator) -> Example:
        """Draw what is registered, and what tells whether it is.

        Returns:
            Known: views (B, 2, 1, H, W) and, as target, their flow (B, 2, H, W) [px], NaN where it
            is not known. Anchor: views (B, 3, 1, H, W), which are band i of one view, the anchor
            and band i of the other view; target (B, 1, H, W), the contrast of the first.
        """
        _check(batch)
        count, bands = len(batch.views), batch.views.shape[2]
        if self.stage == "known":
            pairs = self.pairs(batch, *_draw_pairs(count, bands, rng), rng)
            target = pairs.flow.where(pairs.known, torch.nan)
            return Example(pairs.images[:, :, None], None, None, target)
        start, band = rng.integers(2, size=count), rng.integers(bands, size=count)
        view, anchor = rng.integers(2, size=count), rng.integers(bands, size=count)
        n, filled = np.arange(count), _without_gaps(batch.views)
        chosen = filled[n, start, band], filled[n, view, anchor], filled[n, 1 - start, band]
        views = torch.stack(chosen, 1)[:, :, None]
        return Example(views, None, None, contrast(views[:, 0]))

    def observe(self, restored: Tensor, example: Example) -> Tensor:
        """What a flow (B, 2, H, W) foretells: itself, or the first image, made of the last."""
        if self.stage == "known":
            return restored
        return warp(contrast(example.views[:, -1]), restored)

    def loss(
        self, network: nn.Module, batch: Batch, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """End-point error after every step, or difference within a band; see Objective.

        Args:
            network: ``CompactCSR`` or the hourglass ``CSR``: a pair of bands to their flow.
            batch: overlaps.
            rng: of this iteration.
        """
        example = self.hold_out(batch, rng)
        if self.stage == "known":
            return self._loss_of_known(network, example)
        first, anchor, last = example.views[:, :, 0].unbind(1)
        there = _trace(network, torch.stack([first, anchor], 1))[0][-1]
        back = _trace(network, torch.stack([anchor, last], 1))[0][-1]
        flow = there + read_flow(back, there)
        seen = _inside(there) & _inside(flow)
        differences = (self.observe(flow, example) - example.target).abs()
        photometric = _mean(self._inner(differences), self._inner(seen))
        variation = _variation(self._inner(there)) + _variation(self._inner(back))
        parts = {"photometric": photometric.detach(), "variation": variation.detach()}
        return photometric + self.smoothness * variation, parts

    @torch.no_grad()
    def score(self, network: nn.Module, batch: Batch) -> Figures:
        """Mean end-point errors [px] of all pairs of bands, in one view and across both.

        Returns:
            ``score``, ``x`` and ``y`` (mean absolute errors) and ``epe_B02_B03`` and so on, target
            band first; two of the same name are bands of two views.
        """
        _check(batch)
        rng = np.random.default_rng(0)  # of the cuts alone: the same every time
        figures: dict[str, float] = {}
        errors = []
        for name, target, moving in band_pairs(batch.views.shape[2]):
            count = len(batch.views)
            pairs = self.pairs(batch, [target] * count, [moving] * count, rng)
            flow = _trace(network, pairs.images)[0][-1]
            error, known = self._inner(flow - pairs.flow).abs(), self._inner(pairs.known)
            length = torch.linalg.vector_norm(error, dim=1, keepdim=True)
            found = [_mean(v, known) for v in (length, error[:, :1], error[:, 1:])]
            errors.append([float(v) for v in found])
            key = f"epe_{name}"
            figures.setdefault(key, 0.0)
            figures[key] += errors[-1][0] / (1 if target[1] == moving[1] else 2)
        epe, x, y = np.mean(errors, 0)
        return {"score": -float(epe), "x": float(x), "y": float(y), **figures}

    def pairs(
        self,
        batch: Batch,
        target: Sequence[Image],
        moving: Sequence[Image],
        rng: np.random.Generator,
    ) -> Pairs:
        """Cut pairs of images out of samples whose flow is known.

        Args:
            batch: B samples with their flow.
            target: view and band that stays, of each sample.
            moving: view and band that is registered, of each sample.
            rng: of where the moving band is cut.

        Raises:
            BadInputError: the flow is not known, or the views are too small.
        """
        if batch.flow is None:
            raise BadInputError("known shifts are wanted, but the samples have no flow")
        room, (height, width) = self.room, batch.views.shape[-2:]
        if min(height, width) < 4 * room + 2 * self.border:
            raise BadInputError(
                f"views of {height} x {width} px are too small to be cut by {room} px on each side"
            )
        n = np.arange(len(batch.views))
        (t, b), (s, c) = np.transpose(target), np.transpose(moving)
        back = invert_flow(batch.flow[n, t, b])
        flow = back + read_flow(batch.flow[n, s, c], back)
        there = batch.views.isfinite()
        views = _without_gaps(batch.views)
        still, images = views[n, t, b], views[n, s, c]
        reached = read_flow(there[n, s, c][:, None].to(flow), flow) > _WHOLE
        known = _inside(back) & there[n, t, b][:, None] & reached
        inner = slice(room, height - room), slice(room, width - room)
        means = flow.mean((2, 3)).cpu().numpy()
        wanted = rng.uniform(-self.reach, self.reach, means.shape)
        places = np.rint(np.clip(means - wanted, -room, room)).astype(int)
        cut = [
            image[room + dy : height - room + dy, room + dx : width - room + dx]
            for image, (dx, dy) in zip(images, places, strict=True)
        ]
        flow = flow[..., *inner] - torch.from_numpy(places).to(flow)[..., None, None]
        return Pairs(
            torch.stack([still[..., *inner], torch.stack(cut)], 1),
            flow,
            known[..., *inner] & _inside(flow),
        )

    def _loss_of_known(self, network: nn.Module, example: Example) -> tuple[Tensor, dict[str, Any]]:
        flows, trace = _trace(network, example.views[:, :, 0])
        known = example.target[:, :1].isfinite()
        truth, inner = example.target.nan_to_num(0), self._inner(known)
        total, parts = truth.new_zeros(()), {}
        for k, flow in enumerate(flows):
            missing = self._inner(flow - truth)
            length = (missing.square().sum(1, True) + _TINY).sqrt()
            # where a pair is lost, its error says nothing about the last tenth of a pixel of others
            error = _mean(_FAR * (1 + length / _FAR).log(), inner)
            total = total + _FADING ** (len(flows) - 1 - k) * error
            parts[f"epe_{k}"] = _mean(length, inner).detach()
        # apart, because a network may learn one and leave the other at zero
        parts |= {name: _mean(missing[:, [k]].abs(), inner).detach() for k, name in enumerate("xy")}
        if trace is not None:
            surprise = _mean(*_surprise(trace, truth, known))
            total = total + self.likelihood * surprise
            parts["surprise"] = surprise.detach()
        return total, parts

    def _inner(self, image: Tensor) -> Tensor:
        b = self.border
        return image[..., b : image.shape[-2] - b, b : image.shape[-1] - b]


def band_pairs(bands: int) -> list[tuple[str, Image, Image]]:
    """All pairs of bands to measure: name, target and moving image."""
    pairs = []
    for i in range(bands):
        for j in range(i, bands):
            name = f"{BANDS[i]}_{BANDS[j]}"
            pairs += [(name, (0, i), (t, j)) for t in range(2) if (t, j) != (0, i)]
    return pairs


def contrast(images: Tensor) -> Tensor:
    """Images (..., H, W) less their mean, over their deviation."""
    deviation, mean = torch.std_mean(images, (-2, -1), keepdim=True)
    return (images - mean) / deviation.clamp_min(1e-6)


def _draw_pairs(
    count: int, bands: int, rng: np.random.Generator
) -> tuple[list[Image], list[Image]]:
    """Two different images of each sample."""
    target = rng.integers(2 * bands, size=count)
    moving = (target + rng.integers(1, 2 * bands, size=count)) % (2 * bands)
    first, second = (
        [(int(k) // bands, int(k) % bands) for k in which] for which in (target, moving)
    )
    return first, second


def _trace(network: nn.Module, images: Tensor) -> tuple[list[Tensor], Trace | None]:
    """The flow after every step, the last one last; and what else is known of how it was found."""
    if isinstance(network, CompactCSR):
        trace = network.trace(images)
        return trace.flows, trace
    return [network(contrast(images))], None  # the hourglass wants images in this unit


def _surprise(trace: Trace, truth: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Minus the logarithm of the likelihood of the true displacement, and where it is known."""
    at = functional.avg_pool2d(truth, CELL)
    step = float(trace.displacements[1, 0] - trace.displacements[0, 0])
    apart = (at[:, None] - trace.displacements[:, :, None, None]).abs() / step
    # the truth lies between four of them
    share = (1 - apart).clamp_min(0).prod(2)
    height, width = share.shape[-2:]
    surprise = -(share * trace.likelihood[..., :height, :width]).sum(1, keepdim=True)
    return surprise, functional.avg_pool2d(known.float(), CELL) == 1


def _inside(flow: Tensor) -> Tensor:
    """Where p + flow(p) is within the image, (B, 1, H, W)."""
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device) + 0.5 + flow[:, :1]
    y = torch.arange(height, device=flow.device)[:, None] + 0.5 + flow[:, 1:]
    return (x > 0) & (x < width) & (y > 0) & (y < height)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp_min(1)


def _variation(flow: Tensor) -> Tensor:
    return (flow[..., 1:, :] - flow[..., :-1, :]).abs().mean() + (
        flow[..., 1:] - flow[..., :-1]
    ).abs().mean()


def _without_gaps(views: Tensor) -> Tensor:
    """Views (B, T, C, H, W) with the mean of its band where there are no data: no contrast."""
    return torch.where(views.isfinite(), views, views.nanmean((-2, -1), keepdim=True))


def _check(batch: Batch) -> None:
    views, bands = batch.views.shape[1:3]
    if views != 2 or bands > len(BANDS):
        raise BadInputError(
            f"registration is learnt from overlaps of two views of {', '.join(BANDS)}; got "
            f"{views} views of {bands} bands"
        )

"""How far a restorer can be trusted: how much its result varies when what it is given varies.

Two kinds of members. *Turned*: the same views mirrored and transposed, which changes nothing that
is true. *Left out*: a burst without one group of its frames (a grouped jackknife). The spread is
the standard deviation of the members, made that of the error by a ``Calibration`` where there is
one: a spread alone does not see what all members have in common.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn import functional

from l1bsr_geo.models.base import ModelSpec, Restorer, SceneRestorer
from l1bsr_geo.models.burst import BurstViews, blur
from l1bsr_geo.models.burst_network import BurstNetwork
from l1bsr_geo.models.calibration import Calibration
from l1bsr_geo.ops.turning import WAYS, turn, turn_back, turn_flow

Method: TypeAlias = Literal["turned", "left-out"]

MOST_GROUPS = 8
"""Members of a jackknife, at most: what the spread costs does not grow with the frames."""

LEAST_FRAMES = 3
"""Of a burst that a jackknife can be made of: the reference and two that are left out in turn."""

_SMOOTH = 0.75  # [px of the input] by which the variance is smoothed: few members tell it roughly
_REACH = 3  # [px of the input] of that


@dataclass(frozen=True)
class Ensemble:
    """What a spread is made of, and what is made of it.

    Attributes:
        method: how members differ.
        calibration: from spread to error; the spread itself where None.
    """

    method: Method
    calibration: Calibration | None = None

    def spec_of(self, spec: ModelSpec) -> ModelSpec:
        """The spec of a restorer's uncertainty.

        More context: smoothing needs it, and on a grid aligned at centres (``TurnedSpread``) what
        is mirrored looks farther to the one side. A jackknife needs frames to leave out.
        """
        halo, frames = spec.halo + _REACH, spec.frames
        if self.method == "left-out":
            least = next(n for n in itertools.count(LEAST_FRAMES) if can_leave_out(spec, n))
            frames = least, frames[1]
        elif spec.aligned == "centre":
            halo += 1
        return replace(spec, name=f"{spec.name} spread", halo=halo, frames=frames)

    def of(self, restorer: Restorer) -> "Spread":
        """A restorer whose result is the uncertainty of another's."""
        kind = TurnedSpread if self.method == "turned" else LeftOutSpread
        return kind(self.spec_of(restorer.spec), restorer, self.calibration or Calibration())


@dataclass(frozen=True)
class Spread(ABC):
    """A restorer whose result is the standard deviation of another's.

    Attributes:
        spec: its own.
        restorer: the other.
        calibration: applied to every variance.
    """

    spec: ModelSpec
    restorer: Restorer
    calibration: Calibration

    def __call__(
        self,
        views: Tensor,
        flow: Tensor | None = None,
        statistics: Mapping[str, Tensor] | None = None,
        *,
        exposures: Tensor | None = None,
    ) -> Tensor:
        """Standard deviation; see Restorer.

        Args:
            views: (B, T, C, H, W) [DN / gain].
            flow: (B, T, C, 2, H, W) [px].
            statistics: of the scene, where the restorer pools.
            exposures: (B, T), where the restorer takes them.

        Returns:
            (B, C, scale * H, scale * W) [DN / gain].
        """
        return self._deviation(*self._members(views, flow, statistics, exposures))

    @abstractmethod
    def _members(
        self,
        views: Tensor,
        flow: Tensor | None,
        statistics: Mapping[str, Tensor] | None,
        exposures: Tensor | None,
    ) -> tuple[Iterator[Tensor], float]:
        """Results of the other, each restored when it is asked for, and what ``_deviation`` wants.

        Args:
            views: as called with, and so are the others.
            flow: of views.
            statistics: of the scene.
            exposures: of frames.
        """

    def _deviation(self, members: Iterator[Tensor], factor: float) -> Tensor:
        """From members (B, C, h, w), one after the other, to the calibrated deviation.

        Args:
            members: at least two, restored as they are asked for.
            factor: of the sum of squared differences from the mean, which gives the variance.
        """
        mean = next(members).float()
        squares = torch.zeros_like(mean)
        for count, member in enumerate(members, 2):  # Welford: no difference of large numbers
            apart = member.float() - mean
            mean = mean + apart / count
            squares = squares + apart * (member - mean)
        spec = self.restorer.spec
        planes = (factor * squares).flatten(0, 1)[:, None]
        smooth = blur(planes, _SMOOTH * spec.scale, _REACH * spec.scale).view_as(squares)
        return self.calibration.deviation(smooth.clamp_min(0), spec.gain)


class TurnedSpread(Spread):
    """Over the eight ways to turn the views, or the four that do not transpose.

    Bands of a detector lie apart along its track. A restorer that is not told by how much knows
    that by itself, so its views are mirrored only. The result is a sample deviation (n - 1).

    Fine samples of ``aligned="centre"`` lie on the coarse ones, which makes the grid asymmetric:
    it goes on beyond the last coarse sample and not before the first. Views are therefore made
    larger by a lattice cell, repeated from the edge; what is turned ends on a coarse sample.
    """

    @property
    def ways(self) -> Sequence[int]:
        """As ``ops.turning`` counts them."""
        spec = self.restorer.spec
        return range(WAYS if spec.flow or spec.bands is None else WAYS // 2)

    def _members(
        self,
        views: Tensor,
        flow: Tensor | None,
        statistics: Mapping[str, Tensor] | None,
        exposures: Tensor | None,
    ) -> tuple[Iterator[Tensor], float]:
        height, width = (self.restorer.spec.scale * n for n in views.shape[-2:])
        views, flow = self._grow(views), None if flow is None else self._grow(flow)

        def members() -> Iterator[Tensor]:
            for way in self.ways:
                motion = None if flow is None else turn_flow(flow, way)
                more = _options(self.restorer, exposures, _of_way(statistics, way))
                fine = self.restorer(turn(views, way), motion, **more)
                yield turn_back(self._symmetric(fine), way)[..., :height, :width]

        return members(), 1 / (len(self.ways) - 1)

    def scene_statistics(self, views: Tensor) -> dict[str, Tensor]:
        """Those of every way; see SceneRestorer."""
        pooling = cast("SceneRestorer", self.restorer)
        views = self._grow(views)
        found = {way: pooling.scene_statistics(turn(views, way)) for way in self.ways}
        return {f"{way}/{name}": v for way, told in found.items() for name, v in told.items()}

    def _grow(self, maps: Tensor) -> Tensor:
        """Maps (..., H, W), larger to the right and below where the fine grid needs it."""
        spec = self.restorer.spec
        if spec.aligned == "corner":
            return maps
        planes = maps.flatten(0, -3)[:, None]
        more = (0, spec.multiple, 0, spec.multiple)
        grown = functional.pad(planes, more, mode="replicate")
        return grown.view(*maps.shape[:-2], *grown.shape[-2:])

    def _symmetric(self, fine: Tensor) -> Tensor:
        """The part of a result that lies on itself when it is mirrored."""
        spec = self.restorer.spec
        if spec.aligned == "corner":
            return fine
        height, width = (n - spec.scale + 1 for n in fine.shape[-2:])
        return fine[..., :height, :width]


class LeftOutSpread(Spread):
    """Over a burst without one group of its frames; the first, the reference, is always there."""

    def _members(
        self,
        views: Tensor,
        flow: Tensor | None,
        statistics: Mapping[str, Tensor] | None,
        exposures: Tensor | None,
    ) -> tuple[Iterator[Tensor], float]:
        frames = views.shape[1]
        groups = group_frames(frames)
        kept = [[t for t in range(frames) if t not in group] for group in groups]
        restore = self._sharing_frames(views, flow, exposures) or self._by_themselves(
            views, flow, statistics, exposures
        )
        return map(restore, kept), jackknife_factor(frames, groups)

    def _by_themselves(
        self,
        views: Tensor,
        flow: Tensor | None,
        statistics: Mapping[str, Tensor] | None,
        exposures: Tensor | None,
    ) -> Callable[[list[int]], Tensor]:
        def restore(kept: list[int]) -> Tensor:
            seen = None if exposures is None else exposures[:, kept]
            motion = None if flow is None else flow[:, kept]
            more = _options(self.restorer, seen, statistics)
            return self.restorer(views[:, kept], motion, **more)

        return restore

    def _sharing_frames(
        self, views: Tensor, flow: Tensor | None, exposures: Tensor | None
    ) -> Callable[[list[int]], Tensor] | None:
        """Frames are encoded once for all members, where the restorer does that."""
        network = self.restorer
        if not isinstance(network, BurstNetwork):
            return None
        burst = BurstViews.of(views, flow, exposures)
        encoded = network.encode_frames(views, exposures)

        def restore(kept: list[int]) -> Tensor:
            motion = None if burst.flow is None else burst.flow[:, kept]
            return burst.join_bands(network.fuse_frames([encoded[t] for t in kept], motion))

        return restore


def can_leave_out(spec: ModelSpec, frames: int) -> bool:
    """Whether a jackknife of a restorer can be made of so many frames."""
    if frames < LEAST_FRAMES:
        return False
    return frames - max(map(len, group_frames(frames))) >= spec.frames[0]


def group_frames(frames: int) -> list[list[int]]:
    """The frames that are left out together: all but the first, in turn, in at most 8 groups."""
    count = min(MOST_GROUPS, frames - 1)
    return [list(range(first, frames, count)) for first in range(1, count + 1)]


def jackknife_factor(frames: int, groups: Sequence[Sequence[int]]) -> float:
    """From the sum of squared differences of members to the variance of the whole.

    For single frames with none kept it is the jackknife's (n - 1) / n. In general it makes the
    estimate right for what averages n frames of equal, independent noise: of variance 1 / n, while
    member k, which averages those that are not in group k, differs from the members' mean by fixed
    weights of the frames, whose squares add up to what the sum is expected to be. So the noise of
    the reference counts, although it is never left out.

    Args:
        frames: n.
        groups: frames left out by each member.
    """
    seen = torch.ones(len(groups), frames, dtype=torch.float64)
    for k, group in enumerate(groups):
        seen[k, list(group)] = 0
    weights = seen / seen.sum(1, keepdim=True)
    return 1 / (frames * float((weights - weights.mean(0)).square().sum()))


def _options(
    restorer: Restorer, exposures: Tensor | None, statistics: Mapping[str, Tensor] | None
) -> dict[str, Any]:
    """What a restorer takes beside views and flow."""
    if statistics:
        return {"statistics": statistics}
    return {"exposures": exposures} if restorer.spec.exposures else {}


def _of_way(statistics: Mapping[str, Tensor] | None, way: int) -> dict[str, Tensor]:
    at = f"{way}/"
    return {k[len(at) :]: v for k, v in (statistics or {}).items() if k.startswith(at)}
